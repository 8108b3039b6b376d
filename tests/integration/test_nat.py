"""Peers behind routers that translate addresses reach one another, in a small internet of network namespaces."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_generate import greedy_by_transformers
from tests.node.natlab import Machine, lab, why_not
from tests.swarms import node, p2pos

LISTEN = "/ip4/0.0.0.0/tcp/4001"
PROMPT = [17, 101, 5, 88, 240, 33, 9, 150, 77, 12]
HOMES = ("plain1", "plain2", "strict1", "strict2")
"""Machines each behind a router of its own: two that keep ports as they are, two that give every connection another."""
PATIENCE_S = 150.0
"""Seconds for what takes five on a machine that does nothing else."""

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "there can be a lab")


class Process:
    """A `reach_node` on a machine of the lab. What it logs shows where a test fails."""

    def __init__(self, machine: Machine, listen: str = LISTEN) -> None:
        self.process = subprocess.Popen(
            machine.command(sys.executable, "-m", "tests.node.reach_node", listen),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.peer = ""
        self.first: list[str] = []

    def begun(self) -> "Process":
        """Wait until it says who it is."""
        hello = self._answer()
        self.peer, self.first = hello["peer"], hello["addresses"]
        return self

    def do(self, what: str, **arguments: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process has ended"
        return dict(json.loads(line))

    @property
    def state(self) -> dict[str, Any]:
        return self.do("state")

    def ways(self, other: "Process") -> list[str]:
        return list(self.state["peers"].get(other.peer, []))

    def end(self) -> None:
        self.process.kill()
        self.process.wait(30)


def until(fact: Callable[[], Any], what: str) -> None:
    """Wait for a fact of real processes."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not fact():
        assert time.monotonic() < deadline_s, f"it never came about that {what}"
        time.sleep(0.1)


@contextmanager
def processes(machines: dict[str, Machine], *names: str) -> Iterator[dict[str, Process]]:
    """A process on each of these machines, all of which know the relays."""
    with ExitStack() as stack:
        made = {}
        for name in names:
            made[name] = Process(machines[name])
            stack.callback(made[name].end)
        for each in made.values():
            each.begun()
        for name in names:
            for relay in ("relay1", "relay2"):
                if name != relay:
                    answer = made[name].do("connect", peer=made[relay].peer, addresses=made[relay].first)
                    assert "error" not in answer, answer
        yield made


@pytest.fixture(scope="module")
def machines() -> Iterator[dict[str, Machine]]:
    homes = [{"symmetric": name.startswith("strict"), "machines": [name]} for name in HOMES]
    with lab({"public": ["relay1", "relay2"], "homes": homes}) as made:
        yield made


@pytest.fixture(scope="module")
def nodes(machines: dict[str, Machine]) -> Iterator[dict[str, Process]]:
    with processes(machines, "relay1", "relay2", *HOMES) as made:
        for name in HOMES:
            until(lambda name=name: len(made[name].state["relays"]) == 2, f"{name} has two places")
        yield made


def test_who_can_be_dialled(nodes: dict[str, Process]) -> None:
    """A node learns whether others can dial it: public ones relay, those behind routers have places at relays."""
    for name in ("relay1", "relay2"):
        until(lambda name=name: nodes[name].state["verdict"] == "public", f"{name} knows that it can be dialled")
        assert nodes[name].state["offering"]
        assert nodes[name].state["reservations"] == len(HOMES)
    for name in HOMES:
        state = nodes[name].state
        assert state["verdict"] == "private"
        assert not state["offering"]
        through = [address for address in state["addresses"] if "/p2p-circuit/" in address]
        assert {address.split("/")[6] for address in through} == {nodes["relay1"].peer, nodes["relay2"].peer}


def test_every_pair_reaches_one_another(nodes: dict[str, Process]) -> None:
    """Each of four nodes behind four routers dials each other one at its announced addresses, and is answered."""
    reached = {}
    for one, other in permutations(HOMES, 2):
        answer = nodes[one].do("connect", peer=nodes[other].peer, addresses=nodes[other].state["addresses"])
        assert "error" not in answer, answer
        reached[one, other] = nodes[one].do("echo", peer=nodes[other].peer, bytes=300_000).get("bytes")
    assert reached == dict.fromkeys(permutations(HOMES, 2), 300_000)


def test_punched_where_ports_are_kept(nodes: dict[str, Process]) -> None:
    """Two nodes whose routers keep ports come to be connected directly; behind strict routers the relay stays."""
    one, other = nodes["plain1"], nodes["plain2"]
    one.do("connect", peer=other.peer, addresses=other.state["addresses"])
    until(lambda: "direct" in one.ways(other) and "direct" in other.ways(one), "they are connected directly")
    strict = nodes["strict1"], nodes["strict2"]
    assert set(strict[0].ways(strict[1])) == {"relayed"}
    assert one.do("echo", peer=other.peer, bytes=1000) == {"bytes": 1000}


def test_links_move_over(machines: dict[str, Machine], nodes: dict[str, Process]) -> None:
    """A long-lived link that began on the relay goes on directly: every frame arrives, once, in order."""
    one = nodes["plain1"]
    fresh = Process(machines["plain2"], "/ip4/0.0.0.0/tcp/4002")
    try:
        fresh.begun()
        fresh.do("connect", peer=nodes["relay1"].peer, addresses=nodes["relay1"].first)
        until(lambda: fresh.state["relays"], "it has a place")
        addresses, number = fresh.state["addresses"], 0
        while number < 20 or "direct" not in one.ways(fresh):
            one.do("post", peer=fresh.peer, addresses=addresses, number=number)
            number += 1
            assert number < 5000
            time.sleep(0.02)
        for _ in range(20):
            one.do("post", peer=fresh.peer, number=number)
            number += 1
        until(lambda: len(one.state["back"]) == number, "all came back")
        assert one.state["back"] == list(range(number))
        assert fresh.peer not in one.state["lost"]
    finally:
        fresh.end()


def test_a_relay_dies(nodes: dict[str, Process]) -> None:
    """When a relay dies its address is announced no more, and the node is reached through the other one."""
    one, other, gone = nodes["strict1"], nodes["strict2"], nodes["relay2"].peer
    nodes["relay2"].end()
    for each in (one, other):
        until(lambda each=each: gone not in str(each.state["addresses"]), "it has given up the dead relay")
        assert each.state["relays"] == [nodes["relay1"].peer]
    until(
        lambda: "error" not in one.do("connect", peer=other.peer, addresses=other.state["addresses"]),
        "it is reached through the other relay",
    )
    assert one.do("echo", peer=other.peer, bytes=1000) == {"bytes": 1000}


def test_a_model_behind_a_router(tmp_path: Path, machines: dict[str, Machine], checkpoint_of) -> None:
    """A node behind a strict router serves layers to a client behind another, which gets transformers' text."""
    model = checkpoint_of("llama")
    arguments = ("--listen", "/ip4/0.0.0.0/tcp/4101", "--dtype", "f32")
    with (
        node(tmp_path / "n0", model, "--layers", "0:3", *arguments, prefix=machines["relay1"].prefix) as first,
        node(
            tmp_path / "n1",
            model,
            "--layers",
            "3:6",
            "--bootstrap",
            first.address,
            *arguments,
            prefix=machines["strict1"].prefix,
        ) as second,
    ):
        until(lambda: "can be dialled elsewhere now" in second.log.read_text(), "it has a place at the relay")
        ids = " ".join(map(str, PROMPT))
        asked = ("generate", ids, "--ids", "--max-tokens", "16", "--json", "--bootstrap", first.address)
        answers = []

        def answered() -> bool:
            done = p2pos(*asked, home=tmp_path / "c", check=False, prefix=machines["strict2"].prefix)
            answers.append(done.stdout or done.stderr)
            return done.returncode == 0

        until(answered, f"there is an answer: {answers[-1:]}")
        answer = json.loads(answers[-1])
        assert [stage["layers"] for stage in answer["route"]] == ["0:3", "3:6"]
        assert "joined two peers" in first.log.read_text()
        assert "joined through a relay" in second.log.read_text()
    assert answer["token_ids"] == greedy_by_transformers(model, PROMPT, 16)
