"""One long-lived stream per direction between neighbours, carrying every session that they share.

Opening a stream costs milliseconds and round trips, a token has neither to spare. Each peer that something is
sent to has one outgoing stream and one task that writes on it, so that a session that is cancelled never cuts a
frame of another in half. What peers send comes in by streams that they opened, each with its own task, so that
one that is slow or hostile holds up nobody else.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import InternalError, P2posError, PeerError, UnavailableError
from p2pos.node.streams import FrameStream, fault_of
from p2pos.types import PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import WireMessage

QUEUE_FRAMES = 64
"""Frames that wait for one peer. With all sessions of a stage stepping at once, more than it serves at a time;
whoever comes later waits, which is how a slow peer slows its senders down."""
MAX_LINKS = 1024
"""Peers that frames are being sent to at once; four routes of `messages.MAX_STAGES` stages."""
MAX_INBOUND = 4
"""Links that one peer may have open to us. It needs one, and another while it hasn't noticed the end of the first;
each can hold the memory of a frame."""
MOVE_S = 10.0
"""Seconds for a peer to take what has left on one stream before the next one goes on."""
SEND_DEADLINE_S = 10.0
"""For one frame from `send` to the socket, dialling included."""

_log = log.get("links")


class Transport(Protocol):
    """What links need of a host."""

    async def connect(self, peer: PeerId, addresses: Sequence[str], *, deadline_s: float = ...) -> None:
        """Have a connection. Raises UnavailableError."""

    async def open(self, peer: PeerId, protocol: str, *, deadline_s: float = ...) -> FrameStream:
        """Open a stream. Raises UnavailableError, PeerError."""

    def serve(self, protocol: str, handler: Callable[[FrameStream], Awaitable[None]], *, max_frame: int = ...) -> None:
        """Have the handler called with each stream that is opened to us."""

    def on_direct(self, callback: Callable[[PeerId], None]) -> None:
        """Have the callback called with each peer that is connected better than it was."""

    def on_disconnect(self, callback: Callable[[PeerId], None]) -> None:
        """Have the callback called with each peer whose last connection ends."""


class Links:
    """The links of one protocol. Everything runs inside `run`; `send` may be called from any task meanwhile.

    Args:
        host: a running `Host`.
        protocol: the id that both directions speak.
        receive: called with each frame that comes in, one at a time per stream; where it returns an awaitable,
            the stream is not read on until that is done. A PeerError that it raises resets the stream, as bytes
            that are no frame do.
        on_lost: called once when what joined us to a peer breaks (a link, or its last connection), or when a
            peer that something was posted to can't be reached. Not called for a peer that closes in order.
        queue_frames: how many frames may wait for one peer.

    """

    def __init__(
        self,
        host: Transport,
        protocol: str,
        *,
        receive: Callable[[PeerId, Frame], Awaitable[None] | None],
        on_lost: Callable[[PeerId], None],
        queue_frames: int = QUEUE_FRAMES,
    ) -> None:
        self._host = host
        self._protocol = protocol
        self._receive = receive
        self._on_lost = on_lost
        self._queue_frames = queue_frames
        self._links: dict[PeerId, _Link] = {}
        self._joined: dict[PeerId, set[FrameStream]] = {}
        """The streams that join us to each peer, in both directions."""
        self._inbound: Counter[PeerId] = Counter()
        """How many streams each peer has open to us."""
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the protocol until cancelled, then close every link."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._host.on_disconnect(self._lost)
            self._host.on_direct(self.move)
            self._host.serve(self._protocol, self._pump)
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    async def send(
        self,
        peer: PeerId,
        addresses: Sequence[str],
        message: WireMessage,
        payload: bytes | memoryview = b"",
        *,
        deadline_s: float = SEND_DEADLINE_S,
    ) -> None:
        """Send one frame, and return when its bytes have left.

        Frames to one peer leave in the order of the calls. A caller that is cancelled takes its frame back
        where it has not begun to leave.

        Args:
            peer: whom to.
            addresses: where to dial it, where it isn't connected.
            message: what to say.
            payload: raw bytes that go with it; not to be changed before this returns.
            deadline_s: for all of it.

        Raises UnavailableError where the peer can't be reached, is lost or takes too long, PeerError where it
        does not speak the protocol.

        """
        link = self._link(peer, addresses)
        item = _Item(message, payload)
        try:
            with trio.fail_after(deadline_s):
                await link.put(item)
                await item.done.wait()
        except trio.TooSlowError:
            raise UnavailableError(f"peer {peer} took nothing for {deadline_s:g} s", peer=peer) from None
        finally:
            item.abandoned = True
        if item.error is not None:
            raise item.error

    def post(
        self, peer: PeerId, addresses: Sequence[str], message: WireMessage, payload: bytes | memoryview = b""
    ) -> None:
        """Queue one frame and return at once; that it can't be sent is told later, as the peer's loss.

        For machines that must not wait for a socket: two that wait for each other to read would do so for ever.
        The payload is not to be changed afterwards.

        Raises UnavailableError where the queue to this peer is full.
        """
        link = self._link(peer, addresses)
        link.posted = True
        link.put_nowait(_Item(message, payload))

    async def flush(self, deadline_s: float) -> None:
        """Wait until what is queued now has left or failed, or for this long."""
        with trio.move_on_after(deadline_s):
            for link in list(self._links.values()):
                await link.empty()

    def move(self, peer: PeerId) -> None:
        """Carry the link to a peer over to the connection that is best by now, without losing or turning a frame."""
        link = self._links.get(peer)
        if link is not None:
            link.leave()

    def linked(self) -> frozenset[PeerId]:
        """The peers that a stream is open to or from."""
        return frozenset(self._joined)

    def _link(self, peer: PeerId, addresses: Sequence[str]) -> "_Link":
        if (link := self._links.get(peer)) is not None:
            return link
        if self._nursery is None:
            raise UnavailableError("the node is not running", peer=peer)
        if len(self._links) >= MAX_LINKS:
            raise UnavailableError(f"frames are being sent to {MAX_LINKS} peers already", peer=peer)
        link = self._links[peer] = _Link(peer, self._queue_frames)
        self._nursery.start_soon(self._drive, link, tuple(addresses))
        return link

    async def _drive(self, link: "_Link", addresses: Sequence[str]) -> None:
        """Open a link's stream, write what is queued, and see to its end."""
        peer = link.peer
        error: PeerError | UnavailableError = UnavailableError(f"the link to peer {link.peer} is gone", peer=link.peer)
        stream: FrameStream | None = None
        try:
            with link.scope:
                await self._host.connect(peer, addresses)
                while True:
                    link.leaving = False
                    before, stream = stream, await self._host.open(peer, self._protocol)
                    self._join(stream)
                    if before is not None:
                        self._part(before)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._watch, stream)
                        await link.write_to(stream)
                        nursery.cancel_scope.cancel()
                    await self._end(stream)
        except (P2posError, BaseExceptionGroup) as exc:
            fault = fault_of(exc)
            if fault is None:
                raise
            error = fault
            link.broken = True
        finally:
            if self._links.get(peer) is link:
                del self._links[peer]
            link.fail(error)
            if stream is not None:
                await (stream.reset() if link.broken else stream.close())
        _log.info("lost a link", peer=peer, protocol=self._protocol, why=str(error))
        if stream is not None:
            self._lost_with(stream)
        elif link.posted:
            self._joined.setdefault(peer, set())
            self._lost(peer)

    async def _end(self, stream: FrameStream) -> None:
        """End a stream in order, once the peer has taken all of it. Raises UnavailableError, PeerError."""
        await stream.close()
        with trio.move_on_after(MOVE_S) as slow:
            if await stream.receive() is not None:
                raise PeerError(stream.peer, "sent a frame on a stream that it was to read")
        if slow.cancelled_caught:
            raise UnavailableError(f"peer {stream.peer} did not take what was sent to it", peer=stream.peer)

    async def _watch(self, stream: FrameStream) -> None:
        """Wait for the end of a link's stream, on which the peer has nothing to say."""
        if await stream.receive() is not None:
            raise PeerError(stream.peer, "sent a frame on a stream that it was to read")
        raise UnavailableError(f"peer {stream.peer} closed the link", peer=stream.peer)

    async def _pump(self, stream: FrameStream) -> None:
        """Hand on what a peer sends on a stream that it opened."""
        self._join(stream)
        self._inbound[stream.peer] += 1
        try:
            if self._inbound[stream.peer] > MAX_INBOUND:
                raise PeerError(stream.peer, f"opened more than {MAX_INBOUND} links")
            while (frame := await stream.receive()) is not None:
                if (pending := self._receive(stream.peer, frame)) is not None:
                    await pending
        except P2posError:
            self._lost_with(stream)
            raise
        finally:
            self._part(stream)
            self._inbound[stream.peer] -= 1
            if not self._inbound[stream.peer]:
                del self._inbound[stream.peer]

    def _join(self, stream: FrameStream) -> None:
        self._joined.setdefault(stream.peer, set()).add(stream)

    def _part(self, stream: FrameStream) -> None:
        streams = self._joined.get(stream.peer, set())
        streams.discard(stream)
        if not streams:
            self._joined.pop(stream.peer, None)

    def _lost_with(self, stream: FrameStream) -> None:
        """Count the peer as lost, if this stream still joined us to it."""
        if stream in self._joined.get(stream.peer, ()):
            self._lost(stream.peer)

    def _lost(self, peer: PeerId) -> None:
        """Tell once of a peer that we were joined to, and give up what is left of it."""
        if self._joined.pop(peer, None) is None:
            return
        link = self._links.pop(peer, None)
        if link is not None:
            link.end(UnavailableError(f"peer {peer} is gone", peer=peer))
        self._on_lost(peer)


class _Item:
    """A frame on its way out."""

    __slots__ = ("abandoned", "done", "error", "message", "payload")

    def __init__(self, message: WireMessage, payload: bytes | memoryview) -> None:
        self.message = message
        self.payload = payload
        self.done = trio.Event()
        self.error: P2posError | None = None
        self.abandoned = False


class _Link:
    """The queue to one peer, and its writer."""

    def __init__(self, peer: PeerId, queue_frames: int) -> None:
        self.peer = peer
        self.posted = False
        """Whether somebody relies on hearing of this link's end."""
        self.broken = False
        """Whether it did not end in order."""
        self.leaving = False
        """Set to have the link's frames go on over another stream."""
        self.scope = trio.CancelScope()
        """Holds all that works for this link."""
        self._put, self._get = trio.open_memory_channel[_Item](queue_frames)
        self._current: _Item | None = None
        self._waiting: trio.CancelScope | None = None
        """Holds the wait for the next frame."""
        self._last: _Item | None = None
        """The frame that was queued last."""
        self._error: P2posError | None = None

    async def put(self, item: _Item) -> None:
        """Queue a frame, waiting for a place. Raises what the link ended of where it has ended."""
        try:
            await self._put.send(item)
            self._last = item
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._error or UnavailableError(f"the link to peer {self.peer} is gone", peer=self.peer) from None

    def put_nowait(self, item: _Item) -> None:
        """Queue a frame. Raises UnavailableError where there is no place, or no link any more."""
        try:
            self._put.send_nowait(item)
            self._last = item
        except trio.WouldBlock:
            raise UnavailableError(f"peer {self.peer} reads too slowly", peer=self.peer) from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._error or UnavailableError(f"the link to peer {self.peer} is gone", peer=self.peer) from None

    async def empty(self) -> None:
        """Wait until everything that is queued now has left or failed."""
        if self._last is not None:
            await self._last.done.wait()

    async def write_to(self, stream: FrameStream) -> None:
        """Send what is queued, in order, until the stream is to be left. Raises UnavailableError where it is lost."""
        while (item := await self._next()) is not None:
            if item.abandoned:
                item.done.set()
                continue
            self._current = item
            try:
                await stream.send(item.message, item.payload)
            except InternalError as exc:  # too large: nothing of it has left
                item.error = exc
            self._current = None
            item.done.set()

    async def _next(self) -> "_Item | None":
        """The next frame, or None where this stream is to be left."""
        found: _Item | None = None
        if not self.leaving:
            with trio.CancelScope() as self._waiting:
                found = await self._get.receive()
        return found

    def leave(self) -> None:
        """Have the frames that have not begun to leave go over another stream."""
        self.leaving = True
        if self._waiting is not None:
            self._waiting.cancel()

    def end(self, error: P2posError) -> None:
        """Have the link's tasks end, and remember why."""
        self.broken = True
        self._error = self._error or error
        self.scope.cancel()

    def fail(self, error: P2posError) -> None:
        """Fail every frame that waits and every later one. Called when the link's tasks have ended."""
        self._error = self._error or error
        waiting = [self._current] if self._current is not None else []
        while True:
            try:
                waiting.append(self._get.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
                break
        self._get.close()
        for item in waiting:
            item.error = self._error
            item.done.set()
