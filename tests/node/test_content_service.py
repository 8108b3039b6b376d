from pathlib import Path

import pytest
import trio

from p2pos.content import cid
from p2pos.errors import PeerError, UnavailableError
from p2pos.node.content_service import ContentService, fetch
from p2pos.node.host import Host, open_host
from p2pos.node.identity import Identity
from p2pos.node.streams import FrameStream
from p2pos.wire.messages import CONTENT_PROTOCOL, Ack, Block

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
