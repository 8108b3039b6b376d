"""`make demo` from start to end, with the model that ships with the package."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from p2pos.devnet.home import Home, is_free

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    """Where it ran, what it printed, and its summary."""
    where = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo.py")],
        cwd=where,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return where, done.stdout, json.loads((where / "demo-summary.json").read_text())


def test_text_comes_through_three_processes(demo: tuple[Path, str, dict[str, Any]]) -> None:
    """The model's layers are in three processes, and the text passed through each."""
    _, printed, summary = demo
    network, speech = summary["steps"][:2]
    assert len(set(network["pids"].values())) == 6
    assert len(set(network["layers"].values())) == 3
    assert len({stage["peer"] for stage in speech["route"]}) == 3
    assert speech["tokens"] > 0
    assert speech["tokens_per_s"] > 0
    assert speech["text"].strip().splitlines()[0] in printed


def test_an_item_changed_hands_once(demo: tuple[Path, str, dict[str, Any]]) -> None:
    """Balances before and after are those of one transfer, and each cheat has a message of its own."""
    _, printed, summary = demo
    given, cheats = summary["steps"][3:5]
    assert given["balances_before"] == {"alice": 3, "bob": 0}
    assert given["balances_after"] == cheats["balances"] == {"alice": 1, "bob": 2}
    assert re.fullmatch(r"0x[0-9a-f]{64}", given["transaction"])
    assert cheats["replayed"] != cheats["tampered"]
    assert cheats["replayed"] in printed
    assert cheats["tampered"] in printed


def test_a_sentence_outlives_a_node(demo: tuple[Path, str, dict[str, Any]]) -> None:
    """A node with the first layers is killed while it writes, and the text is that of an unhurt network."""
    _, _, summary = demo
    survival = summary["steps"][5]
    assert survival["killed"] in {"node-1", "node-4"}
    assert len(survival["text"]) > 200


def test_nothing_stays(demo: tuple[Path, str, dict[str, Any]]) -> None:
    """All is ok, every step took its time, and no process or port is left."""
    where, _, summary = demo
    assert summary["ok"] is True
    assert all(step["seconds"] > 0 for step in summary["steps"])
    assert summary["steps"][-1]["processes_left"] == []
    record = Home(where / ".p2pos" / "demo" / "devnet").read()
    assert (record.supervisor, record.processes) == (None, {})
    assert all(is_free(port) for port in record.ports.values())
