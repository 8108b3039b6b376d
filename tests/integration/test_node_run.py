"""`p2pos node run` as an operator meets it: good order, and one clear line for each mistake."""

import json
import os
import signal
import socket
import stat
import urllib.request
from pathlib import Path

import pytest

from tests import checkpoints
from tests.swarms import node, p2pos, swarm


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, checkpoint_of):
    """A node that serves the middle third of a random Llama."""
    with node(tmp_path_factory.mktemp("node") / "n", checkpoint_of("llama"), "--layers", "2:4") as running:
        yield running


def refused(home: Path, *arguments: str, code: int = 2, **environment: str) -> str:
    """Run a node that can't start; its one line."""
    done = p2pos("node", "run", *arguments, home=home, check=False, **environment)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("p2pos: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_the_ready_line_says_where_it_is(one) -> None:
    """One JSON line on standard output has the peer id, dialable addresses and the HTTP interface."""
    assert one.ready["ready"] is True
    assert one.address.startswith("/ip4/127.0.0.1/tcp/")
    assert one.address.endswith(f"/p2p/{one.ready['peer']}")
    with urllib.request.urlopen(f"{one.ready['api']}/healthz") as answer:
        assert answer.read() == b"ok\n"


def test_status_says_what_was_read(one) -> None:
    """The weights read from disk are the span's and no more; memory is given beside it."""
    status = one.status()
    assert status["layers"] == "2:4"
    assert status["weight_bytes"] == status["span_bytes"] > 0
    assert status["resident_bytes"] > status["span_bytes"]


def test_metrics_are_prometheus(one) -> None:
    """/metrics can be scraped; what it says under load is in `test_metrics`."""
    with urllib.request.urlopen(f"{one.ready['api']}/metrics") as answer:
        text = answer.read().decode()
    assert "# TYPE p2pos_stage_rows_total counter" in text
    assert "p2pos_known_nodes 1.0" in text


def test_the_identity_is_private_and_lasts(tmp_path: Path, checkpoint_of) -> None:
    """The key file has mode 0600, and a node that starts again is the same peer."""
    peers = []
    for _ in range(2):
        with node(tmp_path / "n", checkpoint_of("llama"), "--layers", "0:1") as running:
            peers.append(running.ready["peer"])
            assert running.stop() == 0
    assert peers[0] == peers[1]
    assert stat.S_IMODE((tmp_path / "n" / "identity.key").stat().st_mode) == 0o600


def test_sigterm_leaves_in_good_order(tmp_path: Path, checkpoint_of) -> None:
    """A node that is told to leave says goodbye: the others drop it at once, and it ends 0."""
    with swarm(tmp_path, checkpoint_of("llama"), ["0:3", "3:6"]) as (first, second):
        assert any(first.status()["known_nodes"] == 2 for _ in range(500))
        assert second.stop(signal.SIGTERM) == 0
        assert first.status()["known_nodes"] == 1
        assert first.stop(signal.SIGINT) == 0


def test_auto_takes_what_nobody_serves(tmp_path: Path, checkpoint_of) -> None:
    """A node that joins with --layers auto fills the gap."""
    with swarm(tmp_path, checkpoint_of("llama"), ["0:2", "auto"]) as (_, second):
        assert second.status()["layers"] == "2:6"


def test_log_lines_are_json(one) -> None:
    """With --log-json every line of the log is an object with a level and an event."""
    lines = [json.loads(line) for line in one.log.read_text().splitlines()]
    assert {"level", "event", "timestamp"} <= set(lines[0])
    assert "serving" in [line["event"] for line in lines]


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    """A directory that isn't there."""
    assert "there is no model directory at /nowhere" in refused(tmp_path, "--model", "/nowhere")


def test_a_truncated_model_is_named(tmp_path: Path) -> None:
    """A weights file that was cut off, and nothing is left half-written."""
    file = checkpoints.save(tmp_path / "m", "llama") / "model.safetensors"
    os.truncate(file, file.stat().st_size - 1)
    assert "truncated" in refused(tmp_path / "h", "--model", str(tmp_path / "m"))
    assert not (tmp_path / "h").exists()


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "is not a causal language model"),
        ({"model_type": "rwkv", "architectures": ["RwkvForCausalLM"]}, "keeps its state in a list of its own"),
    ],
    ids=["not causal", "not cut"],
)
def test_a_model_that_cannot_be_cut_is_refused(tmp_path: Path, checkpoint_of, config: dict, line: str) -> None:
    """An encoder, or a type whose stages would not answer as the whole model does."""
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    (tmp_path / "m" / "model.safetensors").write_bytes((checkpoint_of("llama") / "model.safetensors").read_bytes())
    assert line in refused(tmp_path / "h", "--model", str(tmp_path / "m"))
    assert not (tmp_path / "h").exists()


@pytest.mark.parametrize(
    ("layers", "line"),
    [("4:9", "layers 4:9 are outside the model, which has layers 0:6"), ("3:3", "0 ≤ start < end"), ("x", "write A:B")],
)
def test_a_span_that_is_none_is_refused(tmp_path: Path, checkpoint_of, layers: str, line: str) -> None:
    """A span outside the model, empty, or not a span at all."""
    assert line in refused(tmp_path / "h", "--model", str(checkpoint_of("llama")), "--layers", layers)


def test_a_port_in_use_is_named(tmp_path: Path, checkpoint_of) -> None:
    """Both ports, the peer's and the HTTP interface's, with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        model = ("--model", str(checkpoint_of("llama")))
        line = refused(tmp_path / "a", *model, "--listen", f"/ip4/127.0.0.1/tcp/{port}")
        assert "choose another with --listen" in line
        line = refused(tmp_path / "b", *model, "--api", f"127.0.0.1:{port}")
        assert f"port {port} on 127.0.0.1 is in use: choose another with --api" in line


def test_an_api_beyond_loopback_is_refused(tmp_path: Path, checkpoint_of) -> None:
    """Without a token the HTTP interface stays on this machine."""
    line = refused(tmp_path, "--model", str(checkpoint_of("llama")), "--api", "0.0.0.0:0")
    assert "is not a loopback address, and there is no token" in line


def test_a_home_in_use_is_refused(tmp_path: Path, checkpoint_of, one) -> None:
    """Two nodes don't share a home, and so an identity."""
    home = one.log.parent
    assert f"a node already runs in {home}" in refused(home, "--model", str(checkpoint_of("llama")))


def test_a_bootstrap_peer_that_does_not_answer_ends_3(tmp_path: Path, checkpoint_of, one) -> None:
    """Nobody listens there: not reachable."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    address = f"/ip4/127.0.0.1/tcp/{port}/p2p/{one.ready['peer']}"
    line = refused(tmp_path, "--model", str(checkpoint_of("llama")), "--bootstrap", address, code=3)
    assert address in line


def test_a_bootstrap_address_that_is_none_is_refused(tmp_path: Path, checkpoint_of) -> None:
    """Text that is no multiaddress with a peer id is the user's mistake."""
    refused(tmp_path, "--model", str(checkpoint_of("llama")), "--bootstrap", "nonsense")


def test_a_key_that_others_can_read_is_refused(tmp_path: Path, checkpoint_of) -> None:
    """An identity file with loose permissions is not used."""
    with node(tmp_path / "n", checkpoint_of("llama"), "--layers", "0:1") as running:
        running.stop()
    key = tmp_path / "n" / "identity.key"
    key.chmod(0o644)
    assert str(key) in refused(tmp_path / "n", "--model", str(checkpoint_of("llama")))
