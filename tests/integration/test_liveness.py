"""Six nodes in processes of their own: who leaves is gone from everyone's view in time."""

import signal
import time
from pathlib import Path

from tests import swarms

GOODBYE_S = 2.0
"""Seconds until a node that said goodbye is gone from every view."""
SILENCE_S = 15.0
"""Seconds until one that was killed is."""
SLACK_S = 1.0
"""Seconds that asking all of them takes at most."""


def views(nodes: list[swarms.Node]) -> list[int]:
    return [node.status()["known_nodes"] for node in nodes]


def seconds_until(nodes: list[swarms.Node], known: int, *, deadline_s: float) -> float:
    """How long it takes until each of these nodes knows so many, itself included."""
    began_s = time.monotonic()
    while views(nodes) != [known] * len(nodes):
        assert time.monotonic() - began_s < deadline_s, f"{views(nodes)}, not {known} each"
    return time.monotonic() - began_s


def test_who_leaves_is_gone(tmp_path: Path, checkpoint_of) -> None:
    """Everyone forgets a node that said goodbye within 2 s, and one that was killed or hangs within 15 s."""
    with swarms.swarm(tmp_path, checkpoint_of("llama"), ["0:1", "1:2", "2:3", "3:4", "4:5", "5:6"]) as nodes:
        seconds_until(nodes, 6, deadline_s=30)
        nodes[5].process.send_signal(signal.SIGTERM)
        assert seconds_until(nodes[:5], 5, deadline_s=30) < GOODBYE_S + SLACK_S
        nodes[4].stop(signal.SIGKILL)
        assert seconds_until(nodes[:4], 4, deadline_s=30) < SILENCE_S + SLACK_S
        nodes[3].process.send_signal(signal.SIGSTOP)
        assert seconds_until(nodes[:3], 3, deadline_s=30) < SILENCE_S + SLACK_S
        nodes[3].process.send_signal(signal.SIGCONT)
        seconds_until(nodes[:4], 4, deadline_s=30)
