"""What a `Fetcher` fetches: chunks of a model's weights, or blocks by their CID. How each is asked for, and kept."""

from collections.abc import Sequence
from typing import Protocol

import trio

from p2pos.content import chunks, cid
from p2pos.content.chunks import CHUNK
from p2pos.content.store import Store
from p2pos.content.unixfs import MAX_BLOCK, Link
from p2pos.errors import PeerError, UnavailableError
from p2pos.node.streams import FrameStream
from p2pos.shard.shelf import Shelf
from p2pos.wire.messages import Block, Chunk, Have, Want, WantChunk, WantHave, WireMessage

HEADER = 64 << 10
"""Bytes of a frame besides what it carries, at most."""
HAVE_S = 10.0
"""Seconds for a peer to say what it has."""


class Goods(Protocol):
    """What a fetch needs to know of what it fetches. Pieces are numbered from 0."""

    total: int
    """Pieces there are."""
    max_answer: int
    """Bytes of the largest frame that answers."""

    def size(self, number: int) -> int:
        """Bytes of a piece, or where that isn't known, the most that it can have."""

    def leaf(self, number: int) -> bytes:
        """The sha256 of a piece."""

    async def have(self, stream: FrameStream) -> bytes:
        """The bitmap of what a peer has. Raises UnavailableError, PeerError."""

    def want(self, number: int) -> WireMessage:
        """The question for a piece."""

    def answered(self, message: WireMessage) -> tuple[int, bool] | None:
        """Which piece a message answers for, and whether it is there; None where it is no such answer."""

    def keep(self, number: int, data: bytes | memoryview) -> None:
        """Put a piece where it belongs. Called in a thread. Raises P2posError where the disk won't have it."""


class Weights:
    """A model's chunks."""

    max_answer = CHUNK + HEADER

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.total = shelf.chunks.total

    def size(self, number: int) -> int:
        """Bytes of a chunk."""
        return self._shelf.chunks.size(number)

    def leaf(self, number: int) -> bytes:
        """The sha256 of a chunk."""
        return self._shelf.leaves.of(number)

    async def have(self, stream: FrameStream) -> bytes:
        """What a peer says that it has. Raises UnavailableError where it is silent, PeerError for another answer."""
        with trio.move_on_after(HAVE_S):
            await stream.send(WantHave(self._shelf.model))
            frame = await stream.receive()
            if frame is None or not isinstance(frame.message, Have) or frame.message.model != self._shelf.model:
                raise PeerError(stream.peer, "answered something other than what it has")
            if not frame.message.found:
                raise UnavailableError("it has no weights to pass on", peer=stream.peer)
            return bytes(frame.payload)
        raise UnavailableError(f"it did not say what it has for {HAVE_S:g} s", peer=stream.peer)

    def want(self, number: int) -> WireMessage:
        """The question for a chunk."""
        return WantChunk(self._shelf.model, number)

    def answered(self, message: WireMessage) -> tuple[int, bool] | None:
        """Of which chunk of this model a message is."""
        if isinstance(message, Chunk) and message.model == self._shelf.model:
            return message.chunk, message.found
        return None

    def keep(self, number: int, data: bytes | memoryview) -> None:
        """Write a chunk in its place. Raises UserError where the disk won't have it."""
        self._shelf.write(number, data)


class Blocks:
    """Blocks by their CID, into a store. Whoever is asked is taken to have them all, until it says otherwise.

    Args:
        store: where they go.
        links: of which each CID is there once; of a node or a file's root, the bytes are not known.

    """

    max_answer = MAX_BLOCK + HEADER

    def __init__(self, store: Store, links: Sequence[Link]) -> None:
        self._store = store
        self._links = links
        self._numbers: dict[str, int] = {link.cid: number for number, link in enumerate(links)}
        self.total = len(links)

    def size(self, number: int) -> int:
        """Bytes of a block, at most."""
        return min(self._links[number].size, MAX_BLOCK)

    def leaf(self, number: int) -> bytes:
        """The sha256 of a block."""
        return cid.encode(self._links[number].cid)[-chunks.LEAF :]

    async def have(self, stream: FrameStream) -> bytes:  # noqa: ARG002 - nobody is asked
        """Everything."""
        await trio.lowlevel.checkpoint()
        return chunks.everything(self.total)

    def want(self, number: int) -> WireMessage:
        """The question for a block."""
        return Want(self._links[number].cid)

    def answered(self, message: WireMessage) -> tuple[int, bool] | None:
        """Which block a message brings."""
        if isinstance(message, Block) and message.cid in self._numbers:
            return self._numbers[message.cid], message.found
        return None

    def keep(self, number: int, data: bytes | memoryview) -> None:
        """Keep a block."""
        self._store.put(bytes(data), cid.codec(self._links[number].cid))
