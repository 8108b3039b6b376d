from pathlib import Path

import pytest
import trio

from p2pos.content import cid
from p2pos.content.store import Store
from p2pos.errors import PeerError, UnavailableError
from p2pos.node.content_service import MAX_STREAMS_PER_PEER, ContentService, fetch
from p2pos.node.host import Host, open_host
from p2pos.node.identity import Identity
from p2pos.node.streams import FrameStream
from p2pos.wire.messages import CONTENT_PROTOCOL, Ack, Block, Want

BODY = b"lantern" * 100_000
NAME = cid.of(BODY)


def between_two_hosts(handler, act) -> None:
    """Serve `handler` on one host and run `act(host, peer)` on another that is connected to it."""

    async def main() -> None:
        async with open_host(Identity.new(), ["/ip4/127.0.0.1/tcp/0"]) as server, open_host(Identity.new()) as client:
            server.serve(CONTENT_PROTOCOL, handler)
            await client.connect(server.peer, server.addresses)
            await act(client, server.peer)

    trio.run(main)


def test_a_block_comes_whole(tmp_path: Path) -> None:
    """Bytes in memory and in a file are served alike, several over one stream."""
    (tmp_path / "b").write_bytes(b"other")
    other = cid.of(b"other")

    async def act(host: Host, peer) -> None:
        assert await fetch(host, peer, [NAME, other]) == {NAME: BODY, other: b"other"}

    between_two_hosts(ContentService({NAME: BODY, other: tmp_path / "b"}).serve, act)


def test_a_block_that_is_not_there_is_said_to_be_missing() -> None:
    """The node answers that it hasn't got it; that is nobody's lie."""

    async def act(host: Host, peer) -> None:
        with pytest.raises(UnavailableError, match="has no block"):
            await fetch(host, peer, [NAME])

    between_two_hosts(ContentService({}).serve, act)


def test_bytes_that_do_not_hash_are_the_peers_fault() -> None:
    """A node that sends other bytes under a block's name is found out."""

    async def act(host: Host, peer) -> None:
        with pytest.raises(PeerError, match="not what was asked for"):
            await fetch(host, peer, [NAME])

    between_two_hosts(ContentService({NAME: b"forged"}).serve, act)


def test_another_answer_than_a_block_is_the_peers_fault() -> None:
    """A node that answers something else breaks the protocol."""

    async def lie(stream: FrameStream) -> None:
        await stream.receive()
        await stream.send(Ack(bytes(16), 0))

    async def act(host: Host, peer) -> None:
        with pytest.raises(PeerError, match="something other than the block"):
            await fetch(host, peer, [NAME])

    between_two_hosts(lie, act)


def test_a_block_of_another_name_is_the_peers_fault() -> None:
    """The answer must be to the question."""

    async def swap(stream: FrameStream) -> None:
        await stream.receive()
        await stream.send(Block("something-else", True), b"x")

    async def act(host: Host, peer) -> None:
        with pytest.raises(PeerError):
            await fetch(host, peer, [NAME])

    between_two_hosts(swap, act)


def test_a_file_is_read_once(tmp_path: Path) -> None:
    """Many streams that want a file share one copy of it, so that strangers can't fill the memory with it."""
    (tmp_path / "b").write_bytes(BODY)

    async def act(host: Host, peer) -> None:
        assert await fetch(host, peer, [NAME]) == {NAME: BODY}
        (tmp_path / "b").unlink()
        assert await fetch(host, peer, [NAME]) == {NAME: BODY}

    between_two_hosts(ContentService({NAME: tmp_path / "b"}).serve, act)


def damage(directory: Path) -> None:
    """Spoil a store's only block."""
    (path,) = directory.rglob(NAME)
    path.write_bytes(b"other")


def test_a_store_is_served_as_it_changes(tmp_path: Path) -> None:
    """A block that was put after the node began is there; one that was damaged since, or never was, is not."""
    store = Store(tmp_path)

    async def act(host: Host, peer) -> None:
        with pytest.raises(UnavailableError, match="has no block"):
            await fetch(host, peer, [NAME])
        store.put(BODY)
        assert await fetch(host, peer, [NAME]) == {NAME: BODY}
        damage(tmp_path)
        with pytest.raises(UnavailableError, match="has no block"):
            await fetch(host, peer, [NAME])

    between_two_hosts(ContentService({}, store=store).serve, act)


@pytest.mark.parametrize("name", ["../../etc/passwd", "\0", "x" * 128])
def test_a_name_that_is_no_cid_is_not_there(tmp_path: Path, name: str) -> None:
    """What a stranger asks for is a block's name or nothing; never a path, and no harm to the stream."""
    store = Store(tmp_path)
    other = store.put(b"other")

    async def act(host: Host, peer) -> None:
        stream = await host.open(peer, CONTENT_PROTOCOL)
        for wanted, found in ((name, False), (other, True)):
            await stream.send(Want(wanted))
            answer = await stream.receive()
            assert answer is not None
            assert answer.message == Block(wanted, found)

    between_two_hosts(ContentService({}, store=store).serve, act)


def test_blocks_of_the_store_are_for_so_many_at_once(tmp_path: Path) -> None:
    """Of one peer only so many streams are given what is read from the disk; the rest end."""
    name = Store(tmp_path).put(b"other")

    async def act(host: Host, peer) -> None:
        streams = [await host.open(peer, CONTENT_PROTOCOL) for _ in range(MAX_STREAMS_PER_PEER + 1)]
        for stream in streams[:-1]:
            await stream.send(Want(name))
            answer = await stream.receive()
            assert answer is not None
            assert answer.message == Block(name, True)
        await streams[-1].send(Want(name))
        with pytest.raises(UnavailableError):
            await streams[-1].receive()

    between_two_hosts(ContentService({}, store=Store(tmp_path)).serve, act)
