import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
import trio.testing

from p2pos.content.bucket import Bucket
from p2pos.content.chunks import CHUNK
from p2pos.errors import UserError
from p2pos.node.content_service import MAX_REQUEST, ContentService
from p2pos.node.fetcher import ATTEMPTS, Fetched, Fetcher
from p2pos.node.goods import Weights
from p2pos.node.host import Host, open_host
from p2pos.node.identity import Identity
from p2pos.node.streams import FrameStream
from p2pos.shard import shelf
from p2pos.shard.shelf import Shelf
from p2pos.types import PeerId
from p2pos.wire.messages import CONTENT_PROTOCOL, Chunk, Have, Want, WantChunk, WantHave, WireMessage
from tests import shelves
from tests.node.memory import MemoryHost

Serve = Callable[[FrameStream], Awaitable[None]]


@pytest.fixture
def source(tmp_path: Path) -> Shelf:
    """A checkpoint with all its weights."""
    return shelves.full(shelves.write(tmp_path / "source"))


def fetch(
    target: Shelf,
    handlers: Sequence[Serve],
    wanted: Sequence[int] | None = None,
    *,
    download: Bucket | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
    patience_s: float = 20.0,
) -> tuple[Fetched, list[PeerId]]:
    """Fetch from a real host per handler. Returns what came and the hosts' ids, in their order."""

    async def main() -> tuple[Fetched, list[PeerId]]:
        async with AsyncExitStack() as stack:
            hosts: list[Host] = []
            for handler in handlers:
                host = await stack.enter_async_context(open_host(Identity.new(), ["/ip4/127.0.0.1/tcp/0"]))
                host.serve(CONTENT_PROTOCOL, handler, max_frame=MAX_REQUEST)
                hosts.append(host)
            me = await stack.enter_async_context(open_host(Identity.new()))
            sources = {host.peer: host.addresses for host in hosts}
            fetcher = Fetcher(
                me, Weights(target), lambda: sources, download=download, patience_s=patience_s, on_bytes=on_bytes
            )
            with trio.fail_after(60):
                done = await fetcher.run(range(target.chunks.total) if wanted is None else wanted)
            return done, [host.peer for host in hosts]

    return trio.run(main)


def drops(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of the log, wherever it goes, that name a peer that was dropped."""
    logged = capsys.readouterr()
    return [line for line in (logged.out + logged.err).splitlines() if "dropped a peer" in line]


class Liar(ContentService):
    """Serves each chunk with one bit flipped."""

    async def _answer(self, message: WireMessage, peer: PeerId) -> tuple[WireMessage, bytes]:
        answer, payload = await super()._answer(message, peer)
        if isinstance(answer, Chunk):
            payload = bytes([payload[0] ^ 1]) + payload[1:]
        return answer, payload


def test_all_chunks_come_from_several_peers(tmp_path: Path, source: Shelf) -> None:
    """Two peers each give a part, every chunk once but for the last few, and the tensors are the same."""
    target = shelves.empty(tmp_path / "cache", source)
    seen: list[int] = []
    services = [ContentService({}, source), ContentService({}, source)]
    done, peers = fetch(target, [each.serve for each in services], on_bytes=seen.append)
    assert done.lacking == ()
    assert set(done.nbytes) == set(peers)
    assert sum(done.nbytes.values()) == sum(seen) == source.checkpoint.total_bytes
    assert shelves.contents(target) == shelves.contents(source)


def test_what_is_here_is_not_fetched_again(tmp_path: Path, source: Shelf) -> None:
    """Only what lacks is asked for: the bytes that leave the peer are those."""
    target = shelves.empty(tmp_path / "cache", source)
    target.write(0, source.read(0) or b"")
    service = ContentService({}, source)
    fetch(target, [service.serve], target.lacking(target.checkpoint.tensors.values()))
    assert service.sent_bytes == source.checkpoint.total_bytes - CHUNK
    assert shelves.contents(target) == shelves.contents(source)


def test_a_peer_that_has_a_part_gives_that_part(tmp_path: Path, source: Shelf) -> None:
    """Who came by a span itself passes it on; the rest comes from another."""
    half, rest = (shelves.empty(tmp_path / name, source) for name in ("half", "rest"))
    part = set(source.chunks.of("a"))
    for chunk in range(source.chunks.total):
        (half if chunk in part else rest).write(chunk, source.read(chunk) or b"")
    target = shelves.empty(tmp_path / "cache", source)
    done, peers = fetch(target, [ContentService({}, half).serve, ContentService({}, rest).serve])
    assert done.lacking == ()
    assert done.nbytes[peers[0]] == shelves.SIZES["a"]
    assert shelves.contents(target) == shelves.contents(source)


def test_a_liar_is_dropped_and_named(tmp_path: Path, source: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    """A host that serves flipped bytes: the log has its peer id, none of its bytes are kept, and all is right."""
    target = shelves.empty(tmp_path / "cache", source)
    done, peers = fetch(target, [Liar({}, source).serve, ContentService({}, source).serve])
    assert done.lacking == ()
    assert peers[0] not in done.nbytes
    assert shelves.contents(target) == shelves.contents(source)
    dropped = drops(capsys)
    assert len(dropped) == 1
    assert peers[0] in dropped[0]
    assert "sent wrong bytes" in dropped[0]


def test_a_liar_alone_gives_nothing(tmp_path: Path, source: Shelf) -> None:
    """Where nobody else has the weights, what lacks is said to lack; nothing of the liar's counts as here."""
    target = shelves.empty(tmp_path / "cache", source)
    done, _ = fetch(target, [Liar({}, source).serve], patience_s=0.1)
    assert len(done.lacking) == source.chunks.total
    assert not any(target.have())


def promise(source: Shelf, seen: list[WireMessage]) -> Serve:
    """A handler that claims to have all and gives nothing."""

    async def handle(stream: FrameStream) -> None:
        while (frame := await stream.receive()) is not None:
            seen.append(frame.message)
            if isinstance(frame.message, WantHave):
                await stream.send(Have(source.model, True), source.have())
            elif isinstance(frame.message, WantChunk):
                await stream.send(Chunk(source.model, frame.message.chunk, False))

    return handle


def silence(source: Shelf, seen: list[WireMessage]) -> Serve:
    """A handler that claims to have all and says nothing more."""

    async def handle(stream: FrameStream) -> None:
        while (frame := await stream.receive()) is not None:
            seen.append(frame.message)
            if isinstance(frame.message, WantHave):
                await stream.send(Have(source.model, True), source.have())

    return handle


@pytest.mark.parametrize("kind", [promise, silence])
def test_who_gives_nothing_does_not_keep_a_fetch_alive(tmp_path: Path, source: Shelf, kind) -> None:
    """A peer that claims to have all, and then has nothing or is silent, is asked anew so often and no more."""
    target, seen = shelves.empty(tmp_path / "cache", source), list[WireMessage]()

    async def main() -> Fetched:
        async with trio.open_nursery() as nursery:
            net: dict[str, MemoryHost] = {}
            MemoryHost("them", net, nursery).serve(CONTENT_PROTOCOL, kind(source, seen))
            sources = {PeerId("them"): ["/ip4/127.0.0.1/tcp/1"]}
            fetcher = Fetcher(MemoryHost("me", net, nursery), Weights(target), lambda: sources)
            done = await fetcher.run(range(target.chunks.total))
            nursery.cancel_scope.cancel()
        return done

    done = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert len(done.lacking) == source.chunks.total
    assert 1 < len([each for each in seen if isinstance(each, WantHave)]) <= ATTEMPTS
    assert len(seen) <= ATTEMPTS * (1 + source.chunks.total)


async def chatter(stream: FrameStream) -> None:
    """Answers nothing that was asked."""
    await stream.receive()
    await stream.send(Want("something"))


def unasked(source: Shelf) -> Serve:
    """A handler that gives a right chunk which nobody asked for."""

    async def handle(stream: FrameStream) -> None:
        while (frame := await stream.receive()) is not None:
            if isinstance(frame.message, WantHave):
                await stream.send(Have(source.model, True), source.have())
            elif isinstance(frame.message, WantChunk):
                other = (frame.message.chunk + 1) % 2
                await stream.send(Chunk(source.model, other, True), source.read(other) or b"")

    return handle


def huge(source: Shelf) -> Serve:
    """A handler that answers with a frame beyond all bounds."""

    async def handle(stream: FrameStream) -> None:
        await stream.receive()
        await stream.send(Have(source.model, True), bytes(8 << 20))

    return handle


@pytest.mark.parametrize("kind", ["chatter", "unasked", "huge"])
def test_nonsense_ends_a_peers_part_and_nothing_else(
    tmp_path: Path, source: Shelf, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A peer that breaks the protocol is dropped and named; the others' chunks come."""
    target = shelves.empty(tmp_path / "cache", source)
    bad = {"chatter": chatter, "unasked": unasked(source), "huge": huge(source)}[kind]
    wanted = list(source.chunks.of("a"))[:1] if kind == "unasked" else None
    _, peers = fetch(target, [bad], wanted, patience_s=0.1)
    dropped = drops(capsys)
    assert len(dropped) == 1
    assert peers[0] in dropped[0]
    done, _ = fetch(target, [bad, ContentService({}, source).serve])
    assert done.lacking == ()
    assert shelves.contents(target) == shelves.contents(source)


def test_a_download_cap_holds(tmp_path: Path, source: Shelf) -> None:
    """At no time have more bytes come than the cap allows for the time that passed, a burst and a chunk beside."""
    target, rate = shelves.empty(tmp_path / "cache", source), 16 << 20
    began: list[float] = []
    came: list[tuple[float, int]] = []

    def on_bytes(nbytes: int) -> None:
        came.append((trio.current_time(), nbytes))

    async def serve(stream: FrameStream) -> None:
        began.append(trio.current_time())
        await service.serve(stream)

    service = ContentService({}, source)
    fetch(target, [serve], download=Bucket(rate), on_bytes=on_bytes)
    total = 0
    for at_s, nbytes in came:
        total += nbytes
        assert total <= rate * (at_s - began[0]) + rate / 4 + 2 * CHUNK
    assert total == source.checkpoint.total_bytes


def test_an_upload_cap_holds(tmp_path: Path, source: Shelf) -> None:
    """What a node gives to two at once stays under its cap."""
    rate = 32 << 20
    service = ContentService({}, source, Bucket(rate))
    began: list[float] = []

    async def serve(stream: FrameStream) -> None:
        began.append(trio.current_time())
        await service.serve(stream)

    came: list[tuple[float, int]] = []
    target = shelves.empty(tmp_path / "cache", source)
    fetch(target, [serve], on_bytes=lambda nbytes: came.append((trio.current_time(), nbytes)))
    total = 0
    for at_s, nbytes in came:
        total += nbytes
        assert total <= rate * (at_s - began[0]) + rate / 4 + CHUNK
    assert service.sent_bytes == total == source.checkpoint.total_bytes


def test_a_disk_that_will_not_have_it_ends_the_fetch(tmp_path: Path, source: Shelf) -> None:
    """The weight file is gone while chunks come: one line that names the directory."""
    target = shelves.empty(tmp_path / "cache", source)
    (target.checkpoint.directory / "model.safetensors").unlink()
    with pytest.raises(UserError, match="can't be used"):
        fetch(target, [ContentService({}, source).serve])


def test_a_node_without_weights_gives_way_to_one_with(tmp_path: Path, source: Shelf) -> None:
    """A node of the same model that has nothing to pass on, or has never heard of it, does no harm."""
    target = shelves.empty(tmp_path / "cache", source)
    empty = shelves.empty(tmp_path / "other", source)
    handlers = [ContentService({}).serve, ContentService({}, empty).serve, ContentService({}, source).serve]
    done, peers = fetch(target, handlers)
    assert done.lacking == ()
    assert list(done.nbytes) == [peers[2]]


def test_the_directory_is_what_transformers_reads(tmp_path: Path, source: Shelf) -> None:
    """The weight file that was filled is a safetensors file like any other."""
    from safetensors import safe_open

    target = shelves.empty(tmp_path / "cache", source)
    fetch(target, [ContentService({}, source).serve])
    file = shelf.home(tmp_path / "cache", source.model) / "model.safetensors"
    expected = shelves.contents(source)
    with safe_open(file, "np") as opened:
        assert {name: opened.get_tensor(name).tobytes() for name in opened.keys()} == expected  # noqa: SIM118
    assert json.loads((file.parent / "config.json").read_text()) == {"model_type": "llama"}
