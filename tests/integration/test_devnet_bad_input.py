"""What a person can get wrong with `p2pos devnet`: one line, the right exit code, nothing left running."""

from collections.abc import Callable
from pathlib import Path

import pytest

from p2pos.devnet.home import Home
from tests.swarms import p2pos


def fails(home: Path, code: int, *arguments: str) -> str:
    """Run a devnet command that must fail, in the foreground and detached alike, and return its last line."""
    done = p2pos("devnet", *arguments, home=home, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert Home(home).read().processes == {}
    return done.stderr.rstrip("\n").splitlines()[-1]


@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_a_model_that_is_not_there(tmp_path: Path, detach: tuple[str, ...]) -> None:
    """A model directory that is missing is said before anything starts."""
    says = fails(tmp_path, 2, "up", "--model", str(tmp_path / "none"), *detach)
    assert "no model directory" in says


def test_more_nodes_than_layers(tmp_path: Path, checkpoint_of: Callable[[str], Path]) -> None:
    """Seven nodes can't share six layers."""
    model = str(checkpoint_of("llama"))
    assert "--nodes 6 or fewer" in fails(tmp_path, 2, "up", "--model", model, "--nodes", "7")
    assert "1 to 32 nodes" in fails(tmp_path, 2, "up", "--model", model, "--nodes", "0")


def test_a_chain_that_does_not_answer(tmp_path: Path, checkpoint_of: Callable[[str], Path]) -> None:
    """An RPC URL where nobody answers is exit code 3, and the node that was starting is gone."""
    model = str(checkpoint_of("llama"))
    says = fails(tmp_path, 3, "up", "--model", model, "--nodes", "1", "--rpc-url", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 can't be reached" in says


def test_a_node_that_does_not_start(tmp_path: Path, checkpoint_of: Callable[[str], Path]) -> None:
    """A node's own refusal is quoted from its log, with the log's place and the node's exit code."""
    model = checkpoint_of("llama")
    key = tmp_path / "net" / "nodes" / "node-1" / "identity.key"
    key.parent.mkdir(parents=True)
    key.write_bytes(b"x")
    key.chmod(0o644)
    says = fails(tmp_path / "net", 2, "up", "--detach", "--model", str(model), "--nodes", "1")
    assert "node-1 ended at its start with exit code 2" in says
    assert "can be used by others" in says
    assert "logs/node-1.log" in says


def test_nothing_runs(tmp_path: Path) -> None:
    """Without a devnet, `status`, `kill` and `start` say how to start one; `down` has nothing to do."""
    for arguments in (("status",), ("kill", "chain"), ("start", "chain")):
        assert "p2pos devnet up" in fails(tmp_path, 2, *arguments)
    assert p2pos("devnet", "down", home=tmp_path).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be(tmp_path: Path, checkpoint_of: Callable[[str], Path]) -> None:
    """A home under a file, or with settings of somebody's own, is refused and left as it is."""
    model = str(checkpoint_of("llama"))
    (tmp_path / "file").touch()
    done = p2pos("devnet", "up", "--model", model, "--detach", home=tmp_path / "file" / "net", check=False)
    assert (done.returncode, "--home" in done.stderr) == (2, True)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "p2pos.toml").write_text('rpc_url = "https://mine"\n')
    assert "was not written by the devnet" in fails(mine, 2, "up", "--model", model, "--nodes", "1")
    assert (mine / "p2pos.toml").read_text() == 'rpc_url = "https://mine"\n'
