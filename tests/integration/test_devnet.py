"""`p2pos devnet` as a person uses it: real chain, relayer and nodes, in real processes."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from p2pos import config
from p2pos.devnet.home import Alive, Home, Record, is_free, outlive
from p2pos.devnet.tools import find_anvil
from p2pos.ledger.chain import set_native_balance
from tests.swarms import p2pos

GONE_S = 20.0
"""In which everything is gone after a SIGKILL of the supervisor, on a busy machine; a node leaves in 2 s."""


@pytest.fixture(scope="module")
def model(checkpoint_of: Callable[[str], Path]) -> Path:
    """Six layers of random weights."""
    return checkpoint_of("llama")


def devnet(*arguments: str, home: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return p2pos("devnet", *arguments, home=home, check=check)


@contextmanager
def up(home: Path, model: Path, *arguments: str) -> Iterator[Record]:
    """A devnet that is up, in the background."""
    devnet("up", "--detach", "--model", str(model), *arguments, home=home)
    try:
        yield Home(home).read()
    finally:
        devnet("down", home=home)


def status(home: Path) -> dict:
    return json.loads(devnet("status", "--json", home=home).stdout)


def row(home: Path, name: str) -> dict:
    return next(row for row in status(home)["processes"] if row["name"] == name)


def family(record: Record) -> list[Alive]:
    """The supervisor, its processes, and theirs."""
    found = [record.supervisor, *record.processes.values()]
    for alive in list(found):
        children = psutil.Process(alive.pid).children(recursive=True)
        found += [Alive(child.pid, child.create_time()) for child in children]
    return list(dict.fromkeys(found))


def nothing_is_left(home: Path, family: list[Alive], ports: dict[str, int]) -> None:
    """No process, no port, no lock."""
    assert outlive(family, GONE_S) == []
    assert [name for name, port in ports.items() if not is_free(port)] == []
    with Home(home).locked():
        pass


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Path]:
    """The home of a devnet of three nodes."""
    home = tmp_path_factory.mktemp("three") / "net"
    with up(home, model):
        yield home


def test_status_tells_what_runs(three: Path) -> None:
    """Every process is ready; the three nodes share six layers evenly and none holds all weights."""
    seen = status(three)
    rows = {each["name"]: each for each in seen["processes"]}
    assert list(rows) == ["chain", "relayer", "node-1", "node-2", "node-3"]
    assert {each["state"] for each in rows.values()} == {"ready"}
    assert [rows[f"node-{k}"]["layers"] for k in (1, 2, 3)] == ["0:2", "2:4", "4:6"]
    assert len({rows[f"node-{k}"]["peer"] for k in (1, 2, 3)}) == 3
    assert all(each["memory_bytes"] > 1 << 20 for each in rows.values())
    assert all(rows[f"node-{k}"]["facts"]["known_nodes"] >= 2 for k in (1, 2, 3))
    assert seen["block"] >= 1
    table = devnet("status", home=three).stdout
    assert "node-2" in table
    assert seen["contract"] in table


def test_other_commands_find_the_devnet(three: Path) -> None:
    """With the same --home, every other command needs no further setting."""
    answer = json.loads(p2pos("asset", "list", "--json", home=three).stdout)
    assert {holding["wallet"] for holding in answer["holdings"]} == {"alice", "bob", "operator"}
    generated = p2pos("generate", "--ids", "3 4 5", "--max-tokens", "5", "--json", home=three).stdout
    answer = json.loads(generated)
    assert len(answer["token_ids"]) == 5
    assert [stage["layers"] for stage in answer["route"]] == ["0:2", "2:4", "4:6"]


def test_secrets_are_private(three: Path) -> None:
    """What opens wallets or moves the devnet can't be read by others."""
    for name in ("passphrase", "devnet.json", "wallets/alice.json", "nodes/node-1/identity.key"):
        assert stat.S_IMODE((three / name).stat().st_mode) == 0o600, name


def test_kill_and_start_a_node(three: Path) -> None:
    """A killed node is shown as dead, stays dead, and comes back as the same peer that the others know."""
    before = row(three, "node-2")
    devnet("kill", "node-2", home=three)
    dead = row(three, "node-2")
    assert (dead["state"], dead["exit"], dead["pid"]) == ("dead", "SIGKILL", None)
    again = devnet("kill", "node-2", home=three, check=False)
    assert (again.returncode, "devnet start node-2" in again.stderr) == (2, True)
    devnet("start", "node-2", home=three)
    after = row(three, "node-2")
    assert (after["state"], after["peer"], after["url"]) == ("ready", before["peer"], before["url"])
    assert after["pid"] != before["pid"]
    assert after["facts"]["known_nodes"] >= 2
    running = devnet("start", "node-2", home=three, check=False)
    assert (running.returncode, "runs already" in running.stderr) == (2, True)


def test_a_killed_chain_comes_back(three: Path) -> None:
    """SIGKILL of the chain takes anvil along; started again, it goes on, and the relayer with it."""
    height = status(three)["block"]
    chain = family(Home(three).read())
    devnet("kill", "chain", home=three)
    assert status(three)["block"] is None
    assert row(three, "chain")["state"] == "dead"
    assert len(outlive(chain, 0.0)) == len(chain) - 2  # the chain's process and its anvil
    devnet("start", "chain", home=three)
    assert status(three)["block"] >= height - 1  # what was mined in the last second may be gone, and is empty
    p2pos("asset", "class", "new", "Key", "--wallet", "operator", "--yes", home=three)
    p2pos("asset", "mint", "Key", "--to", "alice", "--wallet", "operator", "--yes", home=three)
    p2pos("asset", "send", "Key", "--to", "bob", "--wallet", "alice", "--yes", home=three)
    assert "Key" in p2pos("asset", "list", "bob", home=three).stdout


def test_logs(three: Path) -> None:
    """Each process has a log; an unknown name is told which there are."""
    assert "serving" in devnet("logs", "node-1", home=three).stdout
    unknown = devnet("logs", "node-9", home=three, check=False)
    assert unknown.returncode == 2
    assert "chain, node-1" in unknown.stderr


def test_unknown_names_and_a_second_up(three: Path, model: Path) -> None:
    """One clear line and exit code 2 for a name that isn't there, and for a home that is in use."""
    unknown = devnet("kill", "node-9", home=three, check=False)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "it has chain, relayer, node-1" in unknown.stderr
    for detach in ((), ("--detach",)):
        second = devnet("up", "--model", str(model), *detach, home=three, check=False)
        assert (second.returncode, second.stderr.count("\n")) == (2, 1)
        assert "already runs" in second.stderr
    assert row(three, "node-1")["state"] == "ready"


def test_down_leaves_nothing_and_up_resumes(tmp_path: Path, model: Path) -> None:
    """After `down` no process, port or lock is left; `up` finds chain, contract, wallets, items and peers again."""
    home = tmp_path / "net"
    with up(home, model, "--nodes", "1") as record:
        p2pos("asset", "class", "new", "Key", "--wallet", "operator", "--yes", home=home)
        p2pos("asset", "mint", "Key", "--to", "alice", "--wallet", "operator", "--yes", home=home)
        before, held = status(home), p2pos("asset", "list", "--json", home=home).stdout
        alive, ports = family(record), dict(record.ports)
    nothing_is_left(home, alive, ports)
    assert devnet("down", home=home).stdout.startswith("no devnet runs")
    with up(home, model, "--nodes", "1") as record:
        after = status(home)
        assert record.ports == ports
        assert (after["contract"], after["rpc_url"]) == (before["contract"], before["rpc_url"])
        assert after["block"] >= before["block"]
        assert row(home, "node-1")["peer"] == before["processes"][2]["peer"]
        items = [
            holding["items"] for holding in json.loads(p2pos("asset", "list", "--json", home=home).stdout)["holdings"]
        ]
        assert items == [holding["items"] for holding in json.loads(held)["holdings"]]


def test_a_sigkilled_supervisor_leaves_nothing(tmp_path: Path, model: Path) -> None:
    """The children notice, at work or while they start; and the next `up` works over what is left on disk."""
    home = tmp_path / "net"
    devnet("up", "--detach", "--model", str(model), "--nodes", "1", home=home)
    record = Home(home).read()
    alive, contract = family(record), status(home)["contract"]
    os.kill(record.supervisor.pid, signal.SIGKILL)
    nothing_is_left(home, alive, record.ports)
    assert devnet("status", home=home, check=False).returncode == 2
    with started_in_foreground(home, model) as process:
        wait_for(process, "relayer", "starting")  # node-1 is importing torch now
        record = Home(home).read()
        alive = family(record)
        assert {"chain", "node-1"} <= set(record.processes)
        process.kill()
    nothing_is_left(home, alive, record.ports)
    with up(home, model, "--nodes", "1"):
        assert status(home)["contract"] == contract


@contextmanager
def started_in_foreground(home: Path, model: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`devnet up` in the foreground, from its first moment on."""
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "p2pos",
            "devnet",
            "up",
            "--home",
            str(home),
            "--model",
            str(model),
            "--nodes",
            "1",
            *arguments,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], name: str, what: str) -> str:
    """Read its progress up to a line about this process."""
    for line in process.stderr:
        if line.startswith(name) and what in line:
            return line
    raise AssertionError(f"it ended without saying that {name} is {what}")


def test_ctrl_c_ends_in_order(tmp_path: Path, model: Path) -> None:
    """Ctrl-C while it starts, and while it runs, takes everything down and exits 130."""
    home = tmp_path / "net"
    for moment in (("contract", "0x"), ("node-1", "ready")):
        with started_in_foreground(home, model) as process:
            wait_for(process, *moment)
            record = Home(home).read()
            alive = family(record)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            assert process.wait(60) == 130
        nothing_is_left(home, alive, record.ports)


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[str]:
    """The URL of an anvil with another chain id that the devnet did not start."""
    port = Home(tmp_path).port(Record(), "foreign", set())
    anvil = find_anvil(config.load(home=tmp_path))
    arguments = ["--port", str(port), "--chain-id", "84532", "--block-time", "1", "--accounts", "0"]
    with subprocess.Popen([anvil, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert any("Listening on" in line for line in process.stdout)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def test_a_chain_that_is_already_there(tmp_path: Path, model: Path, foreign: str) -> None:
    """With --rpc-url the devnet uses that chain, says whom to fund where there is no coin, and leaves it running."""
    home = tmp_path / "net"
    poor = devnet("up", "--detach", "--model", str(model), "--nodes", "1", "--rpc-url", foreign, home=home, check=False)
    assert poor.returncode == 2
    operator = re.search(r"the operator (0x\w{40}) has no coin on chain 84532", poor.stderr)[1]
    set_native_balance(foreign, operator, 10**18)
    with up(home, model, "--nodes", "1", "--rpc-url", foreign):
        seen = status(home)
        assert [each["name"] for each in seen["processes"]] == ["relayer", "node-1"]
        assert (seen["chain_id"], seen["rpc_url"]) == (84532, foreign)
        p2pos("asset", "class", "new", "Key", "--wallet", "operator", "--yes", home=home)
        p2pos("asset", "mint", "Key", "--to", "alice", "--wallet", "operator", "--yes", home=home)
        p2pos("asset", "send", "Key", "--to", "bob", "--wallet", "alice", "--yes", home=home)
        assert "Key" in p2pos("asset", "list", "bob", home=home).stdout
