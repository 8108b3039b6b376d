import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import trio
from msgspec import structs

from p2pos.node.discovery import Discovery
from p2pos.node.host import open_host
from p2pos.node.identity import Identity
from p2pos.shard import manifest, shelf
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.shelf import Shelf
from p2pos.wire.messages import CONTENT_PROTOCOL, Announcement
from tests import checkpoints, shelves, swarms
from tests.node.stock import LOOPBACK
from tests.node.test_fetcher import Liar
from tests.node.test_table import announcement
from tests.swarms import Node

PROMPT = [5, 17, 42, 99, 3, 8]
LAYERS = 8
MIB = 1 << 20


@dataclass
class Serving:
    """Two nodes that have the whole model on their disks and serve its first half."""

    model: Path
    whole: Shelf
    nodes: list[Node]

    @property
    def bootstrap(self) -> tuple[str, str]:
        return "--bootstrap", self.nodes[0].address


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A model of some 120 MB, and its two nodes, each with a cache of its own."""
    home = tmp_path_factory.mktemp("weights")
    shape = {"hidden_size": 512, "intermediate_size": 4096, "num_hidden_layers": LAYERS, "vocab_size": 8192}
    model = checkpoints.save(home / "model", "llama", dtype=torch.bfloat16, **shape)
    whole = shelves.full(model)
    manifest.keep(whole.checkpoint, whole.manifest, home / "cache")
    arguments = ("--layers", f"0:{LAYERS // 2}", "--dtype", "f32")
    with (
        swarms.node(home / "n0", model, *arguments) as first,
        swarms.node(home / "n1", model, *arguments, "--bootstrap", first.address) as second,
    ):
        yield Serving(model, whole, [first, second])


def served(node: Node) -> int:
    """Bytes of content that a node has given to peers."""
    with urllib.request.urlopen(f"{node.ready['api']}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("p2pos_content_served_bytes"))))


def command(serving: Serving, home: Path, *more: str) -> list[str]:
    """`p2pos model fetch` of the served model."""
    fetch = ("model", "fetch", serving.whole.model, *serving.bootstrap, "--json")
    return [*swarms.P2POS, "--home", str(home), *fetch, *more]


def fetch(serving: Serving, cache: Path, *more: str) -> tuple[dict, int]:
    """Run it to its end. Returns its answer, and the most memory that it had, in bytes."""
    process = subprocess.Popen(
        command(serving, cache / "home", *more),
        env={**os.environ, "P2POS_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process.stdout as out:  # type: ignore[union-attr]  # it was asked for
        answer = out.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return json.loads(answer), usage.ru_maxrss * 1024


def ledger(cache: Path, serving: Serving) -> Path:
    return shelf.home(cache, serving.whole.model) / "p2pos-chunks"


def came(cache: Path, serving: Serving) -> int:
    """Bytes of the chunks that a ledger names."""
    lines = ledger(cache, serving).read_text().splitlines()
    return sum(serving.whole.chunks.size(chunk) for chunk in {int(line) for line in lines})


def expected(model: Path, count: int) -> Sequence[int]:
    text = checkpoints.whole(model).generate(
        torch.tensor([PROMPT]), max_new_tokens=count, do_sample=False, eos_token_id=None
    )
    return text[0, len(PROMPT) :].tolist()


def test_a_node_without_the_model_joins_by_its_id(tmp_path: Path, serving: Serving) -> None:
    """It gets its span, and no more, from both peers; the text over it is the whole model's; it needs them once."""
    before = [served(node) for node in serving.nodes]
    span = ("--layers", f"{LAYERS // 2}:{LAYERS}", "--dtype", "f32", *serving.bootstrap)
    with swarms.node(tmp_path / "n", serving.whole.model, *span) as joined:
        status = joined.status()
        assert status["model"] == serving.whole.model
        assert status["model_name"] == serving.model.name
        prompt = " ".join(map(str, PROMPT))
        wish = ("--ids", prompt, "--max-tokens", "8", "--json")
        done = swarms.p2pos("generate", *wish, *serving.bootstrap, home=tmp_path / "client")
        given = [served(node) - earlier for node, earlier in zip(serving.nodes, before, strict=True)]
    answer = json.loads(done.stdout)
    assert answer["token_ids"] == expected(serving.model, 8)
    assert joined.ready["peer"] in {stage["peer"] for stage in answer["route"]}
    assert all(nbytes > 0 for nbytes in given)
    here = shelf.home(tmp_path / "cache", serving.whole.model) / "model.safetensors"
    held = here.stat().st_blocks * 512
    assert status["weight_bytes"] <= held < status["weight_bytes"] + 4 * MIB < serving.whole.checkpoint.total_bytes
    offline = ("--layers", f"{LAYERS - 1}:{LAYERS}", "--dtype", "f32", "--offline")
    with swarms.node(tmp_path / "n", serving.whole.model, *offline) as again:
        assert again.status()["model"] == serving.whole.model


def test_a_killed_fetch_goes_on_where_it_was(tmp_path: Path, serving: Serving) -> None:
    """After kill -9 in mid-fetch the chunks that came are not asked for again, and the weights are right."""
    cache = tmp_path / "cache"
    process = subprocess.Popen(
        command(serving, tmp_path / "home", "--download-limit", "24"),
        env={**os.environ, "P2POS_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
    )
    try:
        for _ in range(1200):
            if ledger(cache, serving).exists() and came(cache, serving) > 16 * MIB:
                break
            with pytest.raises(subprocess.TimeoutExpired):  # it doesn't end: the cap keeps it at work for seconds
                process.wait(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    kept, total = came(cache, serving), serving.whole.checkpoint.total_bytes
    assert 16 * MIB < kept < total
    answer, _ = fetch(serving, cache)
    assert answer["fetched_bytes"] == total - kept
    found = Shelf(Checkpoint.open(Path(answer["directory"])), serving.whole.manifest)
    assert shelves.contents(found) == shelves.contents(serving.whole)
    listed = json.loads(swarms.p2pos("model", "list", "--json", home=tmp_path / "home").stdout)
    assert [(each["model"], each["lacking_bytes"]) for each in listed] == [(serving.whole.model, 0)]


def test_a_liar_among_them_is_dropped(tmp_path: Path, serving: Serving) -> None:
    """A third peer that serves every chunk with one bit flipped is named in the log, and the weights are right."""
    cache, identity = tmp_path / "cache", Identity.new()

    async def main() -> subprocess.CompletedProcess[bytes]:
        async with trio.open_nursery() as nursery, open_host(identity, LOOPBACK) as host:
            host.serve(CONTENT_PROTOCOL, Liar({}, serving.whole).serve)
            discovery = Discovery(host, identity)
            await nursery.start(discovery.run, serving.bootstrap[1:])

            def describe(sequence: int, expires: int) -> Announcement:
                said = announcement(identity, sequence, expires=expires, addresses=list(host.addresses))
                return structs.replace(said, model=serving.whole.model)

            await discovery.announce(describe)
            done = await trio.run_process(
                command(serving, tmp_path / "home", "--download-limit", "32"),
                env={**os.environ, "P2POS_CACHE": str(cache)},
                capture_stdout=True,
                capture_stderr=True,
            )
            nursery.cancel_scope.cancel()
        return done

    done = trio.run(main)
    answer = json.loads(done.stdout)
    assert answer["fetched_bytes"] == serving.whole.checkpoint.total_bytes
    dropped = [line for line in done.stderr.decode().splitlines() if "dropped a peer" in line]
    assert len(dropped) == 1
    assert identity.peer in dropped[0]
    found = Shelf(Checkpoint.open(Path(answer["directory"])), serving.whole.manifest)
    assert shelves.contents(found) == shelves.contents(serving.whole)


def test_neither_end_holds_the_weights_in_memory(tmp_path: Path, serving: Serving) -> None:
    """A fetch of everything takes little more memory than one of nothing, and the nodes that serve it grow little."""
    total = serving.whole.checkpoint.total_bytes
    before = [node.status()["resident_bytes"] for node in serving.nodes]
    answer, most = fetch(serving, tmp_path / "cache")
    assert answer["fetched_bytes"] == total
    after = [node.status()["resident_bytes"] for node in serving.nodes]
    again, least = fetch(serving, tmp_path / "cache")
    assert again["fetched_bytes"] == 0
    assert most - least < 48 * MIB < total // 2
    assert all(later - earlier < 32 * MIB for earlier, later in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("node", "run", "--model", "{id}"), 2, "is not here: give --bootstrap, to get it from peers"),
        (("model", "fetch", "{other}", "--bootstrap", "{address}"), 3, "nobody serves the model {other}"),
    ],
    ids=range(2),
)
def test_a_model_that_cannot_be_had_is_one_line(
    tmp_path: Path, serving: Serving, arguments: tuple[str, ...], code: int, line: str
) -> None:
    """Nobody to ask, nobody who has it: what was wrong, and what to do."""
    words = {
        "id": serving.whole.model,
        "other": serving.whole.manifest.files["config.json"],
        "address": serving.nodes[0].address,
    }
    home = tmp_path / "h" / "home"
    done = swarms.p2pos(*(each.format(**words) for each in arguments), home=home, check=False)
    assert done.returncode == code, done.stderr
    assert line.format(**words) in done.stderr
    assert done.stderr.count("\n") == 1
