"""The embedded chain as a process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from p2pos import config
from p2pos.devnet.home import Alive, Home, Record, outlive
from p2pos.devnet.tools import find_anvil
from p2pos.ledger.rpc import Rpc

RICH, POOR = "0x" + "11" * 20, "0x" + "22" * 20
WITHOUT_TRANSACTIONS = (False,)


class Chain:
    """A running chain process."""

    def __init__(self, directory: Path, port: int) -> None:
        binary = find_anvil(config.load(home=directory))
        state = directory / "chain" / "state.json"
        arguments = ["--binary", str(binary), "--state", str(state), "--port", str(port), "--leash"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "p2pos.devnet.anvil", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.family: list[Alive] = []
        line = self.process.stdout.readline()
        if line:
            self.ready = json.loads(line)
            self.rpc = Rpc(self.ready["rpc_url"])
            me = psutil.Process(self.process.pid)
            self.family = [Alive(each.pid, each.create_time()) for each in (me, *me.children(recursive=True))]

    def block(self, number: str) -> dict:
        return self.rpc.call("eth_getBlockByNumber", number, *WITHOUT_TRANSACTIONS)

    def pay(self) -> str:
        """Send one wei from RICH to POOR and wait until it is in a block."""
        self.rpc.call("anvil_setBalance", RICH, hex(10**18))
        self.rpc.call("anvil_impersonateAccount", RICH)
        before = self.rpc.call("eth_blockNumber")
        sent = self.rpc.call("eth_sendTransaction", {"from": RICH, "to": POOR, "value": "0x1"})
        while self.rpc.call("eth_blockNumber") == before:
            pass
        return sent

    def left(self) -> list[Alive]:
        """Of anvil and its owner, who is still there after 10 s."""
        return outlive(self.family, 10)


@pytest.fixture
def port(tmp_path: Path) -> int:
    return Home(tmp_path).port(Record(), "chain", set())


@contextmanager
def running(directory: Path, port: int) -> Iterator[Chain]:
    chain = Chain(directory, port)
    try:
        yield chain
    finally:
        chain.process.kill()
        chain.process.wait()
        for pipe in (chain.process.stdin, chain.process.stdout, chain.process.stderr):
            pipe.close()
        assert chain.left() == []


def test_a_sigkilled_chain_resumes(tmp_path: Path, port: int) -> None:
    """After SIGKILL, twice, the chain goes on: genesis, blocks, receipts, balances, and time."""
    state = tmp_path / "chain" / "state.json"
    with running(tmp_path, port) as chain:
        sent = chain.pay()
        seen = state.stat().st_mtime_ns if state.exists() else 0
        while not state.exists() or state.stat().st_mtime_ns == seen:  # it saves by itself, a second later at most
            pass
        genesis, head = chain.block("0x0"), chain.block("latest")
    for _ in range(2):
        with running(tmp_path, port) as chain:
            assert chain.block("0x0") == genesis
            assert chain.block(head["number"]) == head
            assert chain.rpc.call("eth_getTransactionReceipt", sent)["status"] == "0x1"
            assert chain.rpc.call("eth_getBalance", POOR, "latest") == "0x1"
            chain.rpc.call("evm_mine")
            assert int(chain.block("latest")["timestamp"], 16) >= int(head["timestamp"], 16)
            os.kill(chain.process.pid, signal.SIGKILL)
            chain.process.wait()


def test_an_orderly_end_loses_nothing(tmp_path: Path, port: int) -> None:
    """At the end of its leash it saves, and ends anvil; what was mined a moment before is there again."""
    with running(tmp_path, port) as chain:
        chain.pay()
        chain.rpc.call("anvil_setBalance", POOR, "0x7")  # in no block
        chain.process.stdin.close()
        assert chain.process.wait(20) == 0
        assert chain.left() == []
    with running(tmp_path, port) as chain:
        assert chain.rpc.call("eth_getBalance", POOR, "latest") == "0x7"
        chain.process.terminate()
        assert chain.process.wait(20) == 0


def test_a_port_in_use(tmp_path: Path, port: int) -> None:
    """A second chain on one port is refused in one line, and never speaks for the first."""
    with running(tmp_path / "a", port), running(tmp_path / "b", port) as second:
        assert second.process.wait(20) == 2
        assert f"port {port} can't be used" in second.process.stderr.read()


def test_a_damaged_state(tmp_path: Path, port: int) -> None:
    """A state file that is no chain is one line that says what removing it means, and stays as it is."""
    state = tmp_path / "chain" / "state.json"
    state.parent.mkdir()
    state.write_text("{")
    with running(tmp_path, port) as chain:
        assert chain.process.wait(20) == 2
        assert "is damaged" in chain.process.stderr.read()
    assert state.read_text() == "{"


def test_anvil_killed(tmp_path: Path, port: int) -> None:
    """When anvil dies, so does its owner, and says so."""
    with running(tmp_path, port) as chain:
        os.kill(chain.family[1].pid, signal.SIGKILL)
        assert chain.process.wait(20) == 3
        assert "anvil ended with exit code -9" in chain.process.stderr.read()
