"""How a model comes by its id: who is asked, who is believed, and what happens where nobody has it."""

import shutil
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from msgspec import structs

from p2pos.content.bucket import Bucket
from p2pos.errors import P2posError, PeerError, UnavailableError, UserError
from p2pos.node import weights
from p2pos.node.content_service import ContentService
from p2pos.node.discovery import Discovery
from p2pos.node.host import open_host
from p2pos.node.identity import Identity
from p2pos.node.weights import Swarm
from p2pos.shard import hub, manifest, shelf
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.manifest import Manifest
from p2pos.shard.shelf import Shelf
from p2pos.types import Cid, ModelId
from p2pos.wire.messages import CONTENT_PROTOCOL, Announcement
from tests import hubs, shelves
from tests.node.stock import LOOPBACK
from tests.node.test_table import announcement
from tests.shard import test_hub

PROGRESS = lambda *_: lambda _: None  # noqa: E731 - shows nothing


@pytest.fixture
def source(tmp_path: Path) -> Shelf:
    """A checkpoint with all its weights."""
    return shelves.full(shelves.write(tmp_path / "source"))


def files(source: Shelf) -> dict[Cid, Path | bytes]:
    """What a node that serves it serves besides the weights."""
    config = source.checkpoint.directory / "config.json"
    return {Cid(source.model): source.manifest.to_bytes(), source.manifest.files["config.json"]: config}


def join(
    model: ModelId, services: Sequence[ContentService], cache: Path, *, name: str = "lantern", fill: bool = False
) -> Path:
    """Locate a model in a swarm of real hosts that serve so, and fetch its weights. Returns its directory."""

    async def main() -> Path:
        async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
            bootstrap: list[str] = []
            for number, service in enumerate(services):
                identity = Identity(bytes([number + 1]) * 32)
                host = await stack.enter_async_context(open_host(identity, LOOPBACK))
                host.serve(CONTENT_PROTOCOL, service.serve)
                discovery = Discovery(host, identity)

                def describe(
                    sequence: int, expires: int, identity: Identity = identity, where: Sequence[str] = host.addresses
                ) -> Announcement:
                    said = announcement(identity, sequence, expires=expires, addresses=list(where))
                    return structs.replace(said, model=model, model_name=name)

                await nursery.start(discovery.run, bootstrap[:1])
                await discovery.announce(describe)
                bootstrap.append(host.addresses[0])
            directory = await weights.locate(model, bootstrap, cache, offline=False)
            if fill:
                me = await stack.enter_async_context(open_host(Identity.new()))
                await me.connect_to(bootstrap[0])
                found = Checkpoint.open(directory)
                swarm = Swarm(me, discovery.known)
                target = Shelf(found, manifest.make(found))
                await weights.fill(swarm, target, found.tensors.values(), cache=cache, offline=False, progress=PROGRESS)
            nursery.cancel_scope.cancel()
        return directory

    try:
        return trio.run(main)
    except BaseExceptionGroup as group:
        raise leaf(group) from None


def leaf(group: BaseExceptionGroup) -> BaseException:
    """The one error in groups of one."""
    (inner,) = group.exceptions
    return leaf(inner) if isinstance(inner, BaseExceptionGroup) else inner


def test_a_model_comes_by_its_id(tmp_path: Path, source: Shelf) -> None:
    """Manifest, config and weights from a peer; and the second time from the disk, with nobody to ask."""
    cache = tmp_path / "cache"
    directory = join(source.model, [ContentService(files(source), source)], cache, fill=True)
    assert directory == shelf.home(cache, source.model)
    found = Checkpoint.open(directory)
    assert found.name == "lantern"
    assert shelves.contents(Shelf(found, manifest.make(found))) == shelves.contents(source)
    assert trio.run(lambda: weights.locate(source.model, [], cache, offline=True)) == directory


def spoilt(source: Shelf, what: str) -> ContentService:
    """A node that lies about a model in one way."""
    if what == "digests":
        other = Shelf(source.checkpoint, source.manifest)
        other.leaves.blob = bytes(len(other.leaves.blob))
        return ContentService(files(source), other)
    spoils = {
        "manifest": {Cid(source.model): b"{}"},
        "config": {source.manifest.files["config.json"]: b"{}"},
    }
    return ContentService(files(source) | spoils[what], source)


@pytest.mark.parametrize("what", ["manifest", "config", "digests"])
def test_a_liar_is_passed_over(tmp_path: Path, source: Shelf, what: str) -> None:
    """Of two nodes one lies: the model is laid out from the other. Alone, it is named, and nothing is laid out."""
    cache = tmp_path / "cache"
    with pytest.raises(PeerError):
        join(source.model, [spoilt(source, what)], cache)
    assert not shelf.is_here(cache, source.model)
    honest = shelves.full(source.checkpoint.directory)
    services = [spoilt(source, what), ContentService(files(honest), honest)]
    assert join(source.model, services, cache) == shelf.home(cache, source.model)


def test_a_strangers_tokenizer_is_tried_first(tmp_path: Path) -> None:
    """One that can't be read is the peer's fault, and isn't written to the disk."""
    directory = shelves.write(tmp_path / "source")
    (directory / "tokenizer.json").write_text("{}")
    source = shelves.full(directory)
    blocks = files(source) | {source.manifest.files["tokenizer.json"]: b"{}"}
    with pytest.raises(PeerError, match="tokenizer can't be used"):
        join(source.model, [ContentService(blocks, source)], tmp_path / "cache")
    assert not shelf.is_here(tmp_path / "cache", source.model)


def test_nobody_serves_it(tmp_path: Path, source: Shelf) -> None:
    """A swarm of other models, and nobody to ask at all."""
    other = ModelId(source.manifest.files["config.json"])
    with pytest.raises(UnavailableError, match="nobody gave|has no block"):
        join(other, [ContentService({})], tmp_path / "cache")
    with pytest.raises(UserError, match="is not here: give --bootstrap"):
        trio.run(lambda: weights.locate(other, [], tmp_path / "cache", offline=False))
    with pytest.raises(UserError, match="is not here: p2pos model fetch .*, while online"):
        trio.run(lambda: weights.locate(other, ["/ip4/127.0.0.1/tcp/1"], tmp_path / "cache", offline=True))


def test_a_pinned_directory_is_used_as_it_is(tmp_path: Path, source: Shelf) -> None:
    """The id of a model that was pinned here is that directory, until it changes."""
    cache = tmp_path / "cache"
    manifest.keep(source.checkpoint, source.manifest, cache)
    assert weights.here(source.model, cache) == source.checkpoint.directory.resolve()
    shutil.rmtree(source.checkpoint.directory)
    assert weights.here(source.model, cache) is None


def test_a_side_file_that_changed_is_found_out(tmp_path: Path, source: Shelf) -> None:
    """What lies in the cache is compared with the manifest before it is used."""
    target = shelves.empty(tmp_path / "cache", source)
    (target.checkpoint.directory / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged: remove it and"):
        weights.here(source.model, tmp_path / "cache")


@pytest.fixture
def served(source: Shelf, monkeypatch: pytest.MonkeyPatch):
    """A hub that has it as `org/lantern`, which this process asks."""
    with hubs.serve(lantern=source.checkpoint.directory) as running:
        test_hub.point_at(running.url, monkeypatch)
        yield running


def test_what_no_peer_has_comes_from_the_hub(tmp_path: Path, source: Shelf, served: hubs.Hub) -> None:
    """A peer with a part gives that part, the hub the rest; the weights are right."""
    half = shelves.empty(tmp_path / "half", source)
    for chunk in source.chunks.of("a"):
        half.write(chunk, source.read(chunk) or b"")
    service, cache = ContentService(files(source), half), tmp_path / "cache"
    found = Checkpoint.open(join(source.model, [service], cache, name="org/lantern", fill=True))
    assert shelves.contents(Shelf(found, manifest.make(found))) == shelves.contents(source)
    assert service.sent_bytes == shelves.SIZES["a"]
    assert served.weight_bytes < source.checkpoint.total_bytes - service.sent_bytes + 4096


def test_a_model_named_by_a_hub_comes_from_there(tmp_path: Path, source: Shelf, served: hubs.Hub) -> None:
    """Its id follows from the hub's digests: the peer's word for where it is there is checked by the id."""
    there = manifest.make(Checkpoint.open(hub.resolve(hub.HubId("org/lantern"), tmp_path / "theirs", offline=False)))
    service, cache = ContentService({Cid(there.model_id): there.to_bytes()}), tmp_path / "cache"
    directory = join(there.model_id, [service], cache, name="org/lantern")
    assert manifest.make(Checkpoint.open(directory)).model_id == there.model_id
    with pytest.raises(P2posError, match="another model|no model"):
        join(there.model_id, [service], tmp_path / "other", name="org/else")


def test_a_thread_keeps_to_a_cap() -> None:
    """`paced` says at once when it is told to stop, and waits where the cap says so."""
    stop, came = threading.Event(), list[int]()
    stop.set()
    add = weights.paced(came.append, 1.0, stop)
    add(1000)
    add(1000)
    assert came == [1000, 1000]
    bucket = Bucket(1.0)
    bucket.take(1000, 0.0)
    assert bucket.free_s(0.0) > 900


def test_a_manifest_without_leaves_has_no_shelf(source: Shelf) -> None:
    """Whoever has no digests of the chunks passes none on."""
    bare = Manifest(source.manifest.files, source.manifest.tensors)
    with pytest.raises(UserError, match="has no digests of its chunks"):
        Shelf(source.checkpoint, bare)
