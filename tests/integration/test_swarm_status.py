"""`p2pos swarm status` against real nodes."""

import json
import os
import pty
import select
import signal
import socket
import time
from pathlib import Path

from tests.swarms import P2POS, Node, p2pos


def test_it_is_drawn_without_colour_where_nobody_looks(nodes: list[Node], tmp_path: Path) -> None:
    """Into a pipe: bars, replicas and the route, and no escape character."""
    text = p2pos("swarm", "status", "--bootstrap", nodes[1].address, home=tmp_path, COLUMNS="60").stdout
    assert "whole, through 2 nodes" in text
    assert "  replicas  1───────────────────────\n" in text
    assert f"● …{nodes[0].ready['peer'][-8:]} ████████████············     0:3" in text
    assert "\x1b" not in text


def test_its_json_knows_every_node(nodes: list[Node], tmp_path: Path) -> None:
    """Both, reached from here, and the model as a whole."""
    seen = json.loads(p2pos("swarm", "status", "--json", "--bootstrap", nodes[0].address, home=tmp_path).stdout)
    assert {node["peer"] for node in seen["nodes"]} == {node.ready["peer"] for node in nodes}
    assert all(node["round_trip_ms"] > 0 for node in seen["nodes"])
    (model,) = seen["models"]
    assert (model["stages"], model["gaps"], model["nodes"]) == (2, [], 2)
    assert model["replicas"] == [{"layers": "0:6", "nodes": 1}]


def test_it_stays_until_interrupted(nodes: list[Node], tmp_path: Path) -> None:
    """With --watch on a terminal the picture is drawn over itself, and Ctrl-C ends it with 130 and the cursor shown."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS="80", LINES="24")
        os.execv(
            P2POS[0],
            [*P2POS, "--home", str(tmp_path), "swarm", "status", "--watch", "0.5", "--bootstrap", nodes[0].address],
        )
    seen, deadline_s = b"", time.monotonic() + 60
    interrupted = False
    while True:
        assert time.monotonic() < deadline_s, seen.decode()
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            data = os.read(terminal, 1 << 16)
        except OSError:  # how Linux says that nobody is at the other end any more
            break
        if not data:
            break
        seen += data
        if not interrupted and seen.count(b"until Ctrl-C") >= 3:
            os.kill(child, signal.SIGINT)
            interrupted = True
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    text = seen.decode()
    assert "\x1b[2K\x1b[1A" in text  # up a line, over what was there
    assert "█" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor, hidden and shown
    assert "Traceback" not in text


def test_a_swarm_where_nobody_answers_is_one_line(tmp_path: Path, nodes: list[Node]) -> None:
    """And ends 3."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{nodes[0].ready['peer']}"
    done = p2pos("swarm", "status", "--bootstrap", address, home=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"p2pos: nobody answers at {address}: is that node running, and is this its peer id?\n"
