"""Keys, phrases and passphrases are seen where they must be, and nowhere else: real processes, watched from outside."""

import itertools
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from eth_account import Account
from eth_hash.auto import keccak

from p2pos.ledger import mnemonic
from tests.cli.homes import Home
from tests.cli.terminals import Terminal
from tests.ledger.chains import ALICE, BOB

KEY = keccak(b"a sentinel").hex()
SECRET = "sentinel passphrase"
PHRASE = mnemonic.new_phrase()


@pytest.fixture
def home(tmp_path, capsys) -> Home:
    made = Home(tmp_path / "home", capsys)
    made.passphrase.write_text(SECRET + "\n")
    return made


def private(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


def watched(home: Home, *arguments: str) -> tuple[int, str]:
    """Run a command with the loudest log. Returns its exit code, and all that it said and was called with."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "p2pos", "--home", str(home.path), "--log-level", "debug"),
            *arguments,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONFAULTHANDLER": "1"},
    )
    seen: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        """What other users of the machine can list, for as long as it runs."""
        while not over.wait(0.01):
            for name in ("cmdline", "environ"):
                try:
                    seen.add(Path(f"/proc/{process.pid}/{name}").read_text(errors="replace"))
                except OSError:
                    return

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed, _ = process.communicate()
    over.set()
    watcher.join()
    return process.returncode, printed + "".join(seen)


def left_in_clear(home: Home) -> str:
    """All that the home's files hold, but for the passphrase's own."""
    files = [path for path in home.path.rglob("*") if path.is_file() and path != home.passphrase]
    return "".join(path.read_bytes().decode(errors="replace") for path in files)


def holds_secrets(text: str) -> list[str]:
    words = PHRASE.split()
    pairs = [" ".join(words[at : at + 2]) for at in range(len(words) - 1)]
    return [secret for secret in (KEY, KEY.upper(), SECRET, *pairs, str(list(bytes.fromhex(KEY)))) if secret in text]


def test_commands_that_take_secrets(home, tmp_path):
    """Importing a key and a phrase, failing to, and signing show none of it: not printed, logged, listed or left."""
    key, phrase = private(tmp_path / "key", KEY), private(tmp_path / "phrase", PHRASE)
    wrong = private(tmp_path / "wrong", PHRASE.rpartition(" ")[0])
    shut = ("--passphrase-file", str(home.passphrase))
    for arguments, code in (
        (("wallet", "import", "one", key, *shut), 0),
        (("wallet", "import", "two", phrase, "--mnemonic", "--json", *shut), 0),
        (("wallet", "import", "three", wrong, "--mnemonic", *shut), 2),
    ):
        found, text = watched(home, *arguments)
        assert found == code, text
        assert holds_secrets(text) == []
    assert holds_secrets(left_in_clear(home)) == []
    made = json.loads((home.path / "wallets" / "two.json").read_text())
    assert Account.from_key(mnemonic.key(PHRASE)).address.lower() == "0x" + made["address"]


def test_a_new_phrase_is_shown_once(home, tmp_path):
    """A new phrase appears on the terminal, on a screen that is cleared; not in the output, the errors or a file."""
    errors = os.open(tmp_path / "errors", os.O_RDWR | os.O_CREAT)
    arguments = ["--home", str(home.path), "--log-level", "debug", "wallet", "new", "alice", "--mnemonic", "--json"]
    with Terminal([*arguments, "--passphrase-file", str(home.passphrase)], error=errors) as terminal:
        terminal.until("\x1b[?1049h")
        page = terminal.until("Press Enter when you have them: ")
        words = re.findall(r"\d+\. ([a-z]+)", page)
        terminal.enter("")
        terminal.until("\x1b[?1049l")
        for _ in range(3):
            terminal.until("Word ")
            place = int(terminal.until(": "))
            terminal.enter(words[place - 1])
        assert terminal.end() == 0
        after = terminal.shown.partition("\x1b[?1049l")[2]
    os.close(errors)
    phrase = " ".join(words)
    assert mnemonic.checked(phrase) == phrase
    shown = json.loads(re.search(r"\{.*\}", after)[0])
    assert shown["address"] == Account.from_key(mnemonic.key(phrase)).address
    elsewhere = after + (tmp_path / "errors").read_text() + left_in_clear(home)
    assert not any(f"{one} {other}" in elsewhere for one, other in itertools.pairwise(words))


def test_a_new_phrase_that_was_not_written_down(home):
    """Who can't type the words back gets no wallet."""
    arguments = ["--home", str(home.path), "wallet", "new", "alice", "--mnemonic"]
    with Terminal([*arguments, "--passphrase-file", str(home.passphrase)]) as terminal:
        terminal.until("Press Enter when you have them: ")
        terminal.enter("")
        for _ in range(3):
            terminal.until("Word ")
            terminal.enter("zzz")
        assert terminal.end() == 2
        assert "was wrong 3 times: no wallet was made" in terminal.shown
    assert not (home.path / "wallets").exists()


def test_a_phrase_is_not_shown_without_a_terminal(home):
    """Where there is no terminal a new phrase is refused, not printed."""
    process = subprocess.run(
        [
            *("setsid", sys.executable, "-m", "p2pos", "--home", str(home.path), "wallet", "new", "alice"),
            *("--mnemonic", "--passphrase-file", str(home.passphrase)),
        ],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert process.returncode == 2
    assert "shown on a terminal alone" in process.stderr
    assert process.stdout == ""


def test_what_is_typed_is_not_echoed(home):
    """A phrase and passphrases are typed without being shown, and an answer other than yes signs nothing."""
    home.wallet("carol")
    with Terminal(["--home", str(home.path), "wallet", "import", "alice", "--mnemonic"]) as terminal:
        terminal.until("Recovery phrase: ")
        terminal.enter(PHRASE)
        for _ in range(2):
            terminal.until("wallet alice: ") if _ == 0 else terminal.until("confirmation: ")
            terminal.enter(SECRET)
        assert terminal.end() == 0
        assert holds_secrets(terminal.shown) == []
    home.configure(chain_id=31337, contract=BOB.address)
    sign = ["asset", "sign", "transfer", "0x" + "07" * 32, "--to", ALICE.address, "--wallet", "alice", "--out", "-"]
    with Terminal(["--home", str(home.path), *sign]) as terminal:
        terminal.until(f"gives {ALICE.address} 1 × item 0x707")
        terminal.until("Sign this? [y/N]: ")
        terminal.enter("n")
        assert terminal.end() == 130
    with Terminal(["--home", str(home.path), *sign]) as terminal:
        terminal.until("Sign this? [y/N]: ")
        terminal.enter("y")
        terminal.until("Passphrase of wallet alice: ")
        terminal.enter(SECRET)
        terminal.until('"signature')
        assert terminal.end() == 0
        assert holds_secrets(terminal.shown) == []


def test_removing_asks_for_the_address(home):
    """On a terminal a wallet is removed by who types its address, and by nobody else."""
    home.wallet("alice")
    for typed, code in ((BOB.address, 2), (ALICE.address, 0)):
        with Terminal(["--home", str(home.path), "wallet", "remove", "alice"]) as terminal:
            terminal.until(f"type its address {ALICE.address}: ")
            terminal.enter(typed)
            assert terminal.end() == code
