import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from p2pos.shard.checkpoint import Checkpoint
from tests import checkpoints, hubs, swarms

PROMPT = [5, 17, 42, 99, 3, 8]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose download can be killed in the middle."""
    return checkpoints.save(tmp_path_factory.mktemp("hub") / "large", "llama", hidden_size=128, intermediate_size=256)


def test_nodes_of_a_hub_model_write_what_transformers_writes(tmp_path: Path, large: Path) -> None:
    """Two nodes, each with a cache of its own that gets its span's bytes alone; later one starts without the hub."""
    expected = checkpoints.whole(large).generate(
        torch.tensor([PROMPT]), max_new_tokens=8, do_sample=False, eos_token_id=None
    )[0, len(PROMPT) :]
    with hubs.serve(large=large) as hub:
        environment = hub.environment()
        with swarms.node(tmp_path / "a" / "n", "org/large", "--layers", "0:3", environment=environment) as first:
            join = ("--layers", "3:6", "--bootstrap", first.address)
            with swarms.node(tmp_path / "b" / "n", "org/large", *join, environment=environment) as second:
                statuses = [node.status() for node in (first, second)]
                prompt = " ".join(map(str, PROMPT))
                wish = ("--model", "org/large@v1", "--ids", prompt, "--max-tokens", "8", "--json")
                done = swarms.p2pos(
                    *("generate", *wish, "--bootstrap", first.address), home=tmp_path / "c" / "home", **environment
                )
        assert json.loads(done.stdout)["token_ids"] == expected.tolist()
        assert statuses[0]["model"] == statuses[1]["model"]
        assert {status["model_name"] for status in statuses} == {"org/large"}
        spans = sum(status["weight_bytes"] for status in statuses)
        assert spans <= hub.weight_bytes <= 1.05 * spans
        hub.forget()
        offline = ("--layers", "1:3", "--offline")
        with swarms.node(tmp_path / "a" / "n", "org/large", *offline, environment=environment) as again:
            assert again.status()["model"] == statuses[0]["model"]
        assert hub.requests == []


def test_a_killed_download_goes_on_where_it_was(tmp_path: Path, large: Path) -> None:
    """After kill -9 in mid-download, what had come is not asked for again, and the whole is what the hub has."""
    home = tmp_path / "home"
    arguments = ("--home", str(home), "model", "fetch", "org/large", "--json")
    with hubs.serve(large=large) as hub:
        environment = {**os.environ, "P2POS_CACHE": str(tmp_path / "cache"), **hub.environment()}
        hub.hold_after = (large / "model.safetensors").stat().st_size // 2
        process = subprocess.Popen([*swarms.P2POS, *arguments], env=environment, stdout=subprocess.DEVNULL)
        try:
            assert hub.held.wait(60)
            ledger = when_it_has_lines(tmp_path / "cache", process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        kept = sum(int(end) - int(begin) for _, begin, end, _ in map(str.split, ledger.read_text().splitlines()))
        hub.forget()
        hub.hold_after = None
        hub.let_go.set()
        done = swarms.p2pos(*arguments[2:], home=home, **hub.environment())
        total = Checkpoint.open(large).total_bytes
        assert 0 < kept < total
        assert json.loads(done.stdout)["fetched_bytes"] == hub.weight_bytes == total - kept
    assert (ledger.parent / "model.safetensors").read_bytes() == (large / "model.safetensors").read_bytes()


def when_it_has_lines(cache: Path, process: subprocess.Popen[bytes]) -> Path:
    """The ledger, once the process, which is still at work, has written to it what came before the hub stopped."""
    for _ in range(600):
        found = [path for path in cache.rglob("p2pos-ledger") if path.stat().st_size]
        if found:
            return found[0]
        with pytest.raises(subprocess.TimeoutExpired):  # it doesn't end: the hub keeps it waiting
            process.wait(0.05)
    raise AssertionError("nothing came")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("model", "fetch", "org/none"), 2, "p2pos: there is no model org/none on"),
        (("node", "run", "--model", "org/large", "--offline"), 2, "p2pos: org/large is not here: p2pos model fetch"),
    ],
    ids=range(2),
)
def test_what_cannot_be_had_is_one_line(
    tmp_path: Path, large: Path, arguments: tuple[str, ...], code: int, line: str
) -> None:
    """A command that names a model that can't be had ends in one line and an exit code, with the token in neither."""
    with hubs.serve(large=large) as hub:
        done = swarms.p2pos(*arguments, home=tmp_path / "home", check=False, **hub.environment())
    assert done.returncode == code
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert "hf_none" not in done.stderr


def test_a_hub_that_is_gone_ends_3(tmp_path: Path) -> None:
    """A hub that can't be reached is said to be so, with exit code 3."""
    with hubs.serve() as hub:
        gone = hub.environment()
    done = swarms.p2pos("model", "fetch", "org/large", home=tmp_path / "home", check=False, **gone)
    assert done.returncode == 3
    assert done.stderr.startswith("p2pos: the hub at 127.0.0.1:")
    assert done.stderr.count("\n") == 1


def test_ctrl_c_does_not_wait_for_a_silent_hub(tmp_path: Path, large: Path) -> None:
    """While the headers stall, an interrupt ends the command long before the hub would be given up."""
    with hubs.serve(large=large) as hub:
        hub.hold_after = 0
        environment = {**os.environ, "P2POS_CACHE": str(tmp_path / "cache"), **hub.environment()}
        arguments = ("--home", str(tmp_path / "home"), "model", "fetch", "org/large")
        process = subprocess.Popen([*swarms.P2POS, *arguments], env=environment, stderr=subprocess.PIPE)
        try:
            assert hub.held.wait(60)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=25)  # seconds; a read is given up after 30
        finally:
            process.kill()
            process.wait(30)
    assert process.returncode == 130
    assert b"Traceback" not in errors
