"""Byte streams of memory, which tests hold in their hands, and hosts made of nothing else."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from trio.testing import lockstep_stream_pair

from p2pos.errors import P2posError, UnavailableError
from p2pos.node.streams import FrameStream, StreamLost
from p2pos.types import PeerId
from p2pos.wire import framing


class MemoryBytes:
    """A `streams.ByteStream` over one end of a pair."""

    def __init__(self, send: Any, receive: Any) -> None:
        self.send_end = send
        self.receive_end = receive
        self.was_reset = False
        self.lost = False
        self.partner: MemoryBytes | None = None

    async def write(self, data: bytes | memoryview) -> None:
        try:
            await self.send_end.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise StreamLost from exc

    async def read(self, size: int) -> bytes:
        try:
            data = bytes(await self.receive_end.receive_some(size))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise StreamLost from exc
        if not data and self.lost:
            raise StreamLost
        return data

    async def close(self) -> None:
        self.send_end.close()

    async def reset(self) -> None:
        self.was_reset = True
        if self.partner is not None:
            self.partner.lost = True
        self.send_end.close()
        self.receive_end.close()


def byte_pair() -> tuple[MemoryBytes, MemoryBytes]:
    """Two ends; what one writes the other reads. A write waits until it is read, as without credit."""
    one, other = lockstep_stream_pair()
    left = MemoryBytes(one.send_stream, one.receive_stream)
    right = MemoryBytes(other.send_stream, other.receive_stream)
    left.partner, right.partner = right, left
    return left, right


def frame_pair(one: str = "peer-one", other: str = "peer-other") -> tuple[FrameStream, FrameStream]:
    """Two ends that speak frames; each knows the other's name."""
    left, right = byte_pair()
    return FrameStream(PeerId(other), left), FrameStream(PeerId(one), right)


class MemoryHost:
    """A `links.Transport` whose streams are memory, to hosts of the same `net`."""

    def __init__(self, peer: str, net: "dict[str, MemoryHost]", nursery: trio.Nursery) -> None:
        self.peer = PeerId(peer)
        self.opened = 0
        self.ends: list[MemoryBytes] = []
        self._net = net
        self._nursery = nursery
        self._handlers: dict[str, Callable[[FrameStream], Awaitable[None]]] = {}
        self._moved: list[Callable[[PeerId], None]] = []
        self._callbacks: list[Callable[[PeerId], None]] = []
        net[peer] = self

    async def connect(self, peer: PeerId, addresses: Sequence[str], *, deadline_s: float = 10.0) -> None:
        await trio.lowlevel.checkpoint()
        if peer not in self._net:
            raise UnavailableError(f"peer {peer} does not answer", peer=peer)

    async def open(
        self, peer: PeerId, protocol: str, *, deadline_s: float = 10.0, max_frame: int = framing.MAX_FRAME
    ) -> FrameStream:
        mine, theirs = byte_pair()
        self.ends.append(mine)
        self.opened += 1
        remote = self._net[peer]
        remote.ends.append(theirs)
        self._nursery.start_soon(remote._handle, protocol, FrameStream(self.peer, theirs))
        return FrameStream(peer, mine, max_frame=max_frame)

    async def _handle(self, protocol: str, stream: FrameStream) -> None:
        try:
            await self._handlers[protocol](stream)
            await stream.finish()
        except P2posError:
            await stream.reset()

    def serve(self, protocol: str, handler: Callable[[FrameStream], Awaitable[None]], *, max_frame: int = 0) -> None:
        self._handlers[protocol] = handler

    def on_direct(self, callback: Callable[[PeerId], None]) -> None:
        self._moved.append(callback)

    def better(self, peer: str) -> None:
        """As when a direct connection to a peer comes up beside a relayed one."""
        for callback in self._moved:
            callback(PeerId(peer))

    def on_disconnect(self, callback: Callable[[PeerId], None]) -> None:
        self._callbacks.append(callback)

    def drop(self, peer: str) -> None:
        """As when the last connection to a peer ends."""
        for callback in self._callbacks:
            callback(PeerId(peer))
