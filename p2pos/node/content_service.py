"""`/p2pos/content/1.0.0`: blocks by their CID, and the weights of a model chunk by chunk.

A node serves its model's manifest and side files, so that a client without the model can still read and write its text;
the chunks of the weights that lie on its disk, so that others can serve them too (`fetcher` is the other end); and the
descriptors and files of items that lie in its store.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import trio

from p2pos.content import cid
from p2pos.content.bucket import Bucket
from p2pos.content.chunks import MAX_CHUNKS
from p2pos.content.store import Store
from p2pos.errors import PeerError, UnavailableError
from p2pos.node.host import Host
from p2pos.node.metrics import Metrics
from p2pos.node.streams import FrameStream
from p2pos.shard.shelf import Shelf
from p2pos.types import Cid, PeerId
from p2pos.wire.messages import (
    CONTENT_PROTOCOL,
    Block,
    Chunk,
    Digests,
    Have,
    Want,
    WantChunk,
    WantDigests,
    WantHave,
    WireMessage,
)

MAX_CHUNK_WANTS = MAX_CHUNKS
"""Chunks, or blocks of the store, that one stream may ask for: each once."""
MAX_WANTS = 256
"""Other questions on one stream: a manifest and its side files are under a hundred."""
MAX_REQUEST = 4096
"""Bytes of a frame that asks: a question is some hundred."""
MAX_STREAMS_PER_PEER = 2
"""On which weights, or blocks of the store, are asked for at once: one, and one more while it isn't noticed that the
first is gone."""
MAX_STREAMS = 32
"""The same of all peers. Each holds a chunk, 2 MiB, until the peer takes it: 64 MiB where none of them reads."""
IDLE_S = 30.0
"""Seconds after which a stream that asks for nothing is closed."""
FETCH_DEADLINE_S = 60.0
"""Seconds for one block: the largest tokenizer, 34 MB, at 5 Mbit/s."""
SEND_DEADLINE_S = 120.0
"""Seconds for a peer to take one answer: a chunk of 2 MiB at 18 KB/s, the largest tokenizer at 2 Mbit/s."""


class ContentService:
    """Serves files by CID, read when first asked for and then kept: one copy, however many streams want it.

    Of weights it keeps nothing: each chunk is read from the disk when it is asked for.

    Args:
        blocks: the files.
        shelf: the weights, where there are some that can be served.
        upload: the cap on the weights and blocks of the store that leave.
        metrics: counts what is served.
        store: blocks that others may have too, where there are some.

    """

    def __init__(
        self,
        blocks: Mapping[Cid, Path | bytes],
        shelf: Shelf | None = None,
        upload: Bucket | None = None,
        metrics: Metrics | None = None,
        store: Store | None = None,
    ) -> None:
        self._store = store
        self._blocks = dict(blocks)
        self._metrics = metrics
        self._reading = trio.Lock()
        self._shelf = shelf
        self._upload = upload or Bucket(0)
        self._pacing = trio.Lock()
        self._streams: Counter[PeerId] = Counter()
        self.sent_bytes = 0
        """Of weights and blocks of the store, to all peers."""

    async def serve(self, stream: FrameStream) -> None:
        """Answer questions on one stream until it ends. Raises PeerError for anything else that comes."""
        weights, left, chunks_left = False, MAX_WANTS, MAX_CHUNK_WANTS
        try:
            while left and chunks_left:
                with trio.move_on_after(IDLE_S) as idle:
                    frame = await stream.receive()
                if idle.cancelled_caught or frame is None:
                    break
                if not await self._is_heavy(frame.message):
                    left -= 1
                elif weights:
                    chunks_left -= 1
                else:
                    self._admit(stream.peer)
                    weights = True
                answer, payload = await self._answer(frame.message, stream.peer)
                await stream.send(answer, payload, deadline_s=SEND_DEADLINE_S)
                if self._metrics is not None:
                    self._metrics.served(len(payload))
            await stream.close()
        finally:
            if weights:
                self._streams -= Counter({stream.peer: 1})  # without what is 0 then

    async def _is_heavy(self, message: WireMessage) -> bool:
        """Whether it asks for what is read from the disk each time."""
        if isinstance(message, Want) and self._store is not None and message.cid not in self._blocks:
            return await trio.to_thread.run_sync(self._store.__contains__, message.cid)
        return isinstance(message, WantChunk)

    def _admit(self, peer: PeerId) -> None:
        """Let a stream have what is large. Raises UnavailableError where too many do."""
        if self._streams[peer] >= MAX_STREAMS_PER_PEER or self._streams.total() >= MAX_STREAMS:
            raise UnavailableError("too many ask for chunks at once", peer=peer)
        self._streams[peer] += 1

    async def _answer(self, message: WireMessage, peer: PeerId) -> tuple[WireMessage, bytes]:
        match message:
            case Want(wanted):
                data = await self._block(Cid(wanted))
                if data is None and self._store is not None and await self._is_heavy(message):
                    data = await trio.to_thread.run_sync(self._store.sound, Cid(wanted))
                    await self._pace(len(data or b""))
                return Block(wanted, data is not None), data or b""
            case WantHave(model):
                here = self._shelf if self._shelf is not None and self._shelf.model == model else None
                return Have(model, here is not None), b"" if here is None else here.have()
            case WantDigests(model):
                here = self._shelf if self._shelf is not None and self._shelf.model == model else None
                return Digests(model, here is not None), b"" if here is None else here.leaves.blob
            case WantChunk(model, chunk):
                data = None
                if self._shelf is not None and self._shelf.model == model:
                    data = await trio.to_thread.run_sync(self._shelf.read, chunk)
                await self._pace(len(data or b""))
                return Chunk(model, chunk, data is not None), data or b""
        raise PeerError(peer, f"sent {type(message).__name__} on the content protocol")

    async def _pace(self, nbytes: int) -> None:
        """Wait until so many bytes of weights may leave; those who came first go first."""
        async with self._pacing:
            await trio.sleep_until(self._upload.free_s(trio.current_time()))
            self._upload.take(nbytes, trio.current_time())
        self.sent_bytes += nbytes

    async def blocks(self, wanted: list[Cid]) -> dict[Cid, bytes]:
        """What this node has of these, for itself. Raises UnavailableError where it lacks one."""
        found = {each: await self._block(each) for each in wanted}
        if missing := [each for each, data in found.items() if data is None]:
            raise UnavailableError(f"this node has no block {missing[0]}", cid=missing[0])
        return {each: data for each, data in found.items() if data is not None}

    async def _block(self, wanted: Cid) -> bytes | None:
        async with self._reading:
            source = self._blocks.get(wanted)
            if isinstance(source, Path):
                source = self._blocks[wanted] = await trio.Path(source).read_bytes()
            return source


async def fetch(host: Host, peer: PeerId, wanted: list[Cid]) -> dict[Cid, bytes]:
    """Blocks from one peer, each checked against its CID.

    Raises PeerError where it sends other bytes than asked for, UnavailableError where it hasn't got one or is
    too slow.
    """
    found: dict[Cid, bytes] = {}
    stream = await host.open(peer, CONTENT_PROTOCOL)
    try:
        for block in wanted:
            answer, data = await _ask(stream, Want(block))
            if not isinstance(answer, Block) or answer.cid != block:
                raise PeerError(peer, "answered something other than the block that was asked for")
            if not answer.found:
                raise UnavailableError(f"the node {peer} has no block {block}", peer=peer, cid=block)
            found[block] = cid.check(data, block, peer=peer)
    finally:
        await stream.reset()
    return found


async def fetch_digests(host: Host, peer: PeerId, model: str) -> bytes:
    """The digests of a model's chunks from one peer, unchecked.

    Raises PeerError where it answers something else, UnavailableError where it has none or is too slow.
    """
    stream = await host.open(peer, CONTENT_PROTOCOL)
    try:
        answer, data = await _ask(stream, WantDigests(model))
    finally:
        await stream.reset()
    if not isinstance(answer, Digests) or answer.model != model:
        raise PeerError(peer, "answered something other than the digests that were asked for")
    if not answer.found:
        raise UnavailableError(f"the node {peer} has no weights of {model} to pass on", peer=peer)
    return data


async def _ask(stream: FrameStream, question: WireMessage) -> tuple[WireMessage, bytes]:
    """One question and its answer. Raises PeerError where the stream ends, UnavailableError where it takes too long."""
    with trio.move_on_after(FETCH_DEADLINE_S):
        await stream.send(question)
        frame = await stream.receive()
        if frame is None:
            raise PeerError(stream.peer, "answered something other than what was asked for")
        return frame.message, bytes(frame.payload)
    raise UnavailableError(f"the node {stream.peer} sent nothing for {FETCH_DEADLINE_S:g} s", peer=stream.peer)
