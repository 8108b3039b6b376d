"""`/p2pos/content/1.0.0`: blocks by their CID.

A node serves its model's manifest and side files, so that a client
without the model can still read and write its text.
"""

from collections.abc import Mapping
from pathlib import Path

import trio

from p2pos.content import cid
from p2pos.errors import PeerError, UnavailableError
from p2pos.node.host import Host
from p2pos.node.metrics import Metrics
from p2pos.node.streams import FrameStream
from p2pos.types import Cid, PeerId
from p2pos.wire.messages import CONTENT_PROTOCOL, Block, Want

MAX_WANTS = 256
"""Blocks that one stream may ask for: a manifest and its side files are under ten."""
MAX_REQUEST = 4096
"""Bytes of a frame that asks: a `Want` is some hundred."""
IDLE_S = 30.0
"""Seconds after which a stream that asks for nothing is closed."""
FETCH_DEADLINE_S = 60.0
"""Seconds for one block: the largest tokenizer, 34 MB, at 5 Mbit/s."""


class ContentService:
    """Serves files by CID, read when first asked for and then kept: one copy, however many streams want it."""

    def __init__(self, blocks: Mapping[Cid, Path | bytes], metrics: Metrics | None = None) -> None:
        self._blocks = dict(blocks)
        self._metrics = metrics
        self._reading = trio.Lock()

    async def serve(self, stream: FrameStream) -> None:
        """Answer `Want`s on one stream until it ends. Raises PeerError for anything else that comes."""
        for _ in range(MAX_WANTS):
            with trio.move_on_after(IDLE_S) as idle:
                frame = await stream.receive()
            if idle.cancelled_caught or frame is None:
                break
            if not isinstance(frame.message, Want):
                raise PeerError(stream.peer, f"sent {type(frame.message).__name__} on the content protocol")
            wanted = Cid(frame.message.cid)
            data = await self._block(wanted)
            await stream.send(Block(wanted, data is not None), data or b"")
            if self._metrics is not None:
                self._metrics.served(len(data or b""))
        await stream.close()

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
            with trio.fail_after(FETCH_DEADLINE_S):
                await stream.send(Want(block))
                frame = await stream.receive()
            if frame is None or not isinstance(frame.message, Block) or frame.message.cid != block:
                raise PeerError(peer, "answered something other than the block that was asked for")
            if not frame.message.found:
                raise UnavailableError(f"the node {peer} has no block {block}", peer=peer, cid=block)
            found[block] = cid.check(bytes(frame.payload), block, peer=peer)
    except trio.TooSlowError as exc:
        raise UnavailableError(f"the node {peer} sent nothing for {FETCH_DEADLINE_S:g} s", peer=peer) from exc
    finally:
        await stream.reset()
    return found
