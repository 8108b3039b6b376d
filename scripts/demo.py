"""`make demo`: a network of real processes speaks, an item changes hands by a signature, a node dies in mid-sentence.

Every step is a `p2pos` command as a person would type it, run as a process of its own. Facts and refusals are checked;
what happened is written to demo-summary.json in the current directory. Exits 0 where all is as it should be.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

PROMPT = "The traveller lifted the bronze lantern and"
MAX_TOKENS = 48
LONG_TOKENS = 400
"""At most, of the text in which a node is killed."""
HEARD = 60
"""Characters of that text after which it is."""
MINTED, GIVEN = 3, 2
ITEM = "Bronze lantern"
SUMMARY = Path("demo-summary.json")
COMMAND_S = 300.0
"""Of one command; `devnet up` on a busy machine takes half a minute."""
REFUSED = 2
INTERRUPTED = 130


class DemoError(Exception):
    """Something was not as it should be."""


class Demo:
    """The steps, in order, and what they found."""

    def __init__(self, base: Path, model: str) -> None:
        self.base = base
        self.home = base / "devnet"
        self.alice_home = base / "alice"
        self.model = ["--model", model] if model else []
        self.console = Console(highlight=False)
        self.steps: list[dict[str, Any]] = []
        self.began_s = time.monotonic()

    # ---- how a step runs and shows

    def step(self, title: str) -> dict[str, Any]:
        """Begin a step; its facts go into the dictionary that is returned."""
        now_s = time.monotonic()
        if self.steps:
            self.steps[-1]["seconds"] = round(now_s - self.steps[-1].pop("began_s"), 2)
        self.console.print()
        self.console.print(Rule(Text(title, style="bold"), align="left", style="dim"))
        self.steps.append({"step": title, "commands": [], "began_s": now_s})
        return self.steps[-1]

    def show_command(self, arguments: Sequence[str]) -> None:
        """The command line, as a person would type it."""
        quoted = [f'"{each}"' if " " in each else each for each in arguments]
        line = " ".join(("p2pos", *quoted))
        self.steps[-1]["commands"].append(line)
        self.console.print(Text(f"$ {line}", style="cyan"), soft_wrap=True)

    def live(self, *arguments: str, opening: str = "") -> str:
        """Run a command and show what it prints as it comes, after `opening`. Raises DemoError where it fails."""
        self.show_command(arguments)
        self.console.print(Text(opening, style="bold"), end="", soft_wrap=True)
        with subprocess.Popen(
            command(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(),
        ) as process:
            printed = b""
            while process.stdout is not None and (chunk := os.read(process.stdout.fileno(), 4096)):
                printed += chunk
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
        if process.returncode != 0:
            raise DemoError(f"{arguments[0]} ended with exit code {process.returncode}")
        return printed.decode()

    def facts(self, *arguments: str, shown: bool = True) -> Any:
        """Run a command with --json and return what it prints. Raises DemoError where it fails."""
        if shown:
            self.show_command(arguments)
        done = run([*arguments, "--json"])
        if done.returncode != 0:
            raise DemoError(f"{' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return json.loads(done.stdout)

    def refusal(self, *arguments: str) -> str:
        """Run a command that must be refused, and return its one line. Raises DemoError where it is not."""
        self.show_command(arguments)
        done = run(arguments)
        message = done.stderr.strip()
        if done.returncode != REFUSED or not message:
            raise DemoError(f"{' '.join(arguments)} ended with exit code {done.returncode}, and should be refused")
        self.console.print(Text(message, style="yellow"), soft_wrap=True)
        return message

    def say(self, text: str) -> None:
        """A line of our own."""
        self.console.print(Text(text, style="green"), soft_wrap=True)

    # ---- the steps

    def up(self) -> None:
        """A chain, a relayer and four nodes, of which the last holds the first one's layers once more."""
        facts = self.step("Six processes form a network")
        shape = ("--nodes", "4", "--stages", "3")
        self.live("devnet", "up", "--detach", *shape, "--home", str(self.home), *self.model)
        self.live("devnet", "status", "--home", str(self.home))
        self.live("swarm", "status", "--home", str(self.home))
        status = self.facts("devnet", "status", "--home", str(self.home), shown=False)
        rows = status["processes"]
        facts["pids"] = {row["name"]: row["pid"] for row in rows}
        facts["layers"] = {row["name"]: row["layers"] for row in rows if row["layers"]}
        self.urls = {row["name"]: row["url"] for row in rows if (row["layers"] or "").startswith("0:")}
        facts["chain_id"], facts["contract"] = status["chain_id"], status["contract"]
        if len(set(facts["pids"].values())) != len(rows) or any(row["state"] != "ready" for row in rows):
            raise DemoError("not every process is ready")
        nodes = [row for row in rows if row["layers"]]
        if any(not row["facts"] for row in nodes):
            raise DemoError("a node does not answer")
        if any(row["layers"] == f"0:{row['facts']['model_layers']}" for row in nodes):
            raise DemoError("a node holds the whole model")
        facts["weight_bytes"] = {row["name"]: row["weight_bytes"] for row in nodes}

    def speak(self) -> None:
        """A prompt becomes text through a transformer that no single process holds."""
        facts = self.step("A sentence through three of them, none of which holds the model")
        arguments = ["generate", PROMPT, "--max-tokens", str(MAX_TOKENS), "--home", str(self.home)]
        streamed = self.live(*arguments, opening=PROMPT).rstrip("\n")
        answer = self.facts(*arguments, shown=False)
        facts.update(text=answer["text"], tokens=len(answer["token_ids"]), tokens_per_s=answer["tok_s"])
        facts.update(first_token_ms=answer["ttft_ms"], route=answer["route"])
        if answer["text"].strip() != streamed.strip() or not answer["token_ids"]:
            raise DemoError(f"greedy text should be the same twice: {streamed!r}, {answer['text']!r}")
        if len({stage["peer"] for stage in answer["route"]}) < 3:
            raise DemoError("the text did not go through three processes")
        self.say(
            f"{facts['tokens']} tokens, {facts['tokens_per_s']} a second, through {len(answer['route'])} processes"
        )

    def mint(self) -> None:
        """Items of a new class, in alice's wallet."""
        facts = self.step("Items on the chain, in alice's wallet")
        home = ("--yes", "--home", str(self.home))
        made = self.facts("asset", "class", "new", ITEM, "--wallet", "operator", "--cap", "10", *home)
        self.class_id = str(made["id"])
        self.live("asset", "mint", ITEM, "--to", "alice", "--amount", str(MINTED), "--wallet", "operator", *home)
        facts["class"], facts["balances"] = self.class_id, self.balances()
        self.expect(facts["balances"], alice=MINTED, bob=0)

    def give(self) -> None:
        """Alice signs on a machine that knows no chain; the relayer submits."""
        facts = self.step("Alice signs off line; the relayer submits")
        self.intent = self.base / "transfer.json"
        status = self.steps[0]
        (self.alice_home / "wallets").mkdir(parents=True)
        shutil.copy2(self.home / "wallets" / "alice.json", self.alice_home / "wallets" / "alice.json")
        self.say(f"alice's machine has her keystore and nothing else: {self.alice_home}")
        self.live(
            *("asset", "sign", "transfer", self.class_id, "--to", self.addresses["bob"], "--amount", str(GIVEN)),
            *("--wallet", "alice", "--out", str(self.intent), "--yes", "--home", str(self.alice_home)),
            *("--chain-id", str(status["chain_id"]), "--contract", str(status["contract"])),
            *("--passphrase-file", str(self.home / "passphrase")),
        )
        facts["balances_before"] = self.steps[-2]["balances"]
        settled = self.facts("asset", "submit", str(self.intent), "--home", str(self.home))
        facts["transaction"], facts["block"] = settled["transaction"], settled["block"]
        self.say(f"in block {settled['block']}, transaction {settled['transaction']}")
        self.live("asset", "list", "--home", str(self.home))
        facts["balances_after"] = self.balances()
        self.expect(facts["balances_after"], alice=MINTED - GIVEN, bob=GIVEN)

    def cheat(self) -> None:
        """The same signature again, and the same signature under another amount."""
        facts = self.step("Replayed and tampered intents are refused")
        home = ("--home", str(self.home))
        facts["replayed"] = self.refusal("asset", "submit", str(self.intent), *home)
        tampered = self.base / "tampered.json"
        intent = json.loads(self.intent.read_text())
        intent["message"]["amount"] = str(int(intent["message"]["amount"]) - 1)
        tampered.write_text(json.dumps(intent))
        facts["tampered"] = self.refusal("asset", "submit", str(tampered), *home)
        facts["balances"] = self.balances()
        self.expect(facts["balances"], alice=MINTED - GIVEN, bob=GIVEN)

    def survive(self) -> None:
        """The node that holds the first layers is killed while it writes; its twin takes its place."""
        facts = self.step("A node is killed in mid-sentence, and the sentence goes on")
        arguments = ["generate", PROMPT, "--max-tokens", str(LONG_TOKENS), "--home", str(self.home)]
        whole = self.facts(*arguments, shown=False)["text"]
        self.show_command(arguments)
        self.console.print(Text(PROMPT, style="bold"), end="", soft_wrap=True)
        process = subprocess.Popen(
            command(arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment(), bufsize=0
        )
        heard, victim = b"", ""
        with process:
            while process.stdout is not None and (piece := process.stdout.read(4096)):
                heard += piece
                self.console.print(Text(piece.decode(errors="replace")), end="", soft_wrap=True)
                if not victim and len(heard) >= HEARD:
                    victim = facts["killed"] = self.writing()
                    os.kill(self.steps[0]["pids"][victim], signal.SIGKILL)
                    self.console.print(Text(f" ⟨kill -9 {victim}⟩", style="bold red"), end="", soft_wrap=True)
        self.console.print()
        if process.returncode or heard.decode().strip() != whole.strip():
            raise DemoError(f"the text should be the same as without the loss of {victim}: {heard.decode()!r}")
        facts["text"] = whole
        self.say(f"{victim} was killed in mid-sentence, and the text is the same, letter for letter")

    def writing(self) -> str:
        """Of the two nodes with the first layers, the one that a text passes through now. Raises DemoError."""
        for name, url in self.urls.items():
            if httpx.get(f"{url}/status", timeout=COMMAND_S).json()["sessions"]:
                return str(name)
        raise DemoError("no text is being written; it was too short to see a node fail")

    def down(self) -> None:
        """Nothing stays."""
        facts = self.step("Everything goes down, and nothing stays")
        self.live("devnet", "down", "--home", str(self.home))
        left = [pid for pid in self.steps[0].get("pids", {}).values() if is_alive(pid)]
        facts["processes_left"] = left
        if left:
            raise DemoError(f"processes are left: {left}")

    def balances(self) -> dict[str, int]:
        """Of the item, by wallet, from the chain."""
        answer = self.facts("asset", "list", "--home", str(self.home), shown=False)
        found = dict.fromkeys(("alice", "bob"), 0)
        self.addresses = {holding["wallet"]: str(holding["owner"]) for holding in answer["holdings"]}
        for holding in answer["holdings"]:
            for item in holding["items"]:
                if item["id"] == self.class_id and holding["wallet"] in found:
                    found[holding["wallet"]] += int(item["amount"])
        return found

    def expect(self, balances: dict[str, int], **wanted: int) -> None:
        """Raises DemoError where the balances are others."""
        if balances != wanted:
            raise DemoError(f"balances are {balances} and should be {wanted}")
        self.say("balances on chain: " + ", ".join(f"{name} {amount}" for name, amount in balances.items()))

    def run(self) -> None:
        """All steps. Raises DemoError; the devnet goes down in any case."""
        run(["devnet", "down", "--home", str(self.home)])  # of an earlier demo that was killed
        shutil.rmtree(self.base, ignore_errors=True)
        self.base.mkdir(parents=True)
        try:
            for each in (self.up, self.speak, self.mint, self.give, self.cheat, self.survive):
                each()
        except BaseException:
            run(["devnet", "down", "--home", str(self.home)])
            raise
        self.down()

    def summary(self, failed: str) -> dict[str, Any]:
        """What happened."""
        now_s = time.monotonic()
        if self.steps and "began_s" in self.steps[-1]:
            self.steps[-1]["seconds"] = round(now_s - self.steps[-1].pop("began_s"), 2)
        outcome: dict[str, Any] = {"ok": not failed, "seconds": round(now_s - self.began_s, 2)}
        if failed:
            outcome["failed"] = failed
        return {**outcome, "prompt": PROMPT, "steps": self.steps}


def command(arguments: Sequence[str]) -> list[str]:
    """The process behind a command line."""
    return [sys.executable, "-m", "p2pos", *arguments]


def environment() -> dict[str, str]:
    """Without the person's own settings, which could point elsewhere; the cache of models and tools is welcome."""
    return {name: value for name, value in os.environ.items() if not name.startswith("P2POS_") or name == "P2POS_CACHE"}


def run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it prints."""
    return subprocess.run(
        command(arguments),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        env=environment(),
    )


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and not only its zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def main() -> int:
    """Run the demo, write the summary, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(".p2pos/demo"), help="wiped at the start")
    parser.add_argument("--model", default="", help="a model directory; default: the one that ships with p2pos")
    arguments = parser.parse_args()
    demo = Demo(arguments.home, arguments.model)
    failed, code = "", 0
    try:
        demo.run()
    except DemoError as exc:
        failed, code = str(exc), 1
    except subprocess.TimeoutExpired as exc:
        failed, code = f"{' '.join(exc.cmd)} took longer than {COMMAND_S:.0f} s", 1
    except KeyboardInterrupt:
        failed, code = "interrupted", INTERRUPTED
    summary = demo.summary(failed)
    SUMMARY.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    demo.console.print()
    demo.console.print(Rule(align="left", style="dim"))
    demo.console.print_json(json.dumps(summary, ensure_ascii=False))
    if failed:
        demo.console.print(Text(f"demo: {failed}", style="bold red"), soft_wrap=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
