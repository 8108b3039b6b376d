"""Frames over one libp2p stream: who is at the other end, what it says, and whose fault it is when it ends."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import trio

from p2pos.errors import PeerError, UnavailableError
from p2pos.types import PeerId
from p2pos.wire import framing
from p2pos.wire.framing import Frame, FrameReader
from p2pos.wire.messages import WireMessage

SEND_DEADLINE_S = 30.0
"""Seconds for one frame: the largest, 64 MiB, at 18 Mbit/s."""
CLOSE_DEADLINE_S = 2.0
"""Seconds for a farewell; the other end learns of it by the connection's end otherwise."""
LINGER_S = 5.0
"""Seconds that the other end has to close its direction after ours."""
READ_SIZE = 1 << 20
"""Bytes taken from the stream's buffer at once."""
FRAMES_PER_TURN = 32
"""Frames handed over before other tasks get their turn; one read holds some 30,000 of the smallest."""
JOIN_LIMIT = 64 << 10
"""Bytes. Below it a payload is copied behind its header to leave in one piece; above it, that copy costs more."""


class ByteStream(Protocol):
    """What a `FrameStream` needs of a stream. `host` makes one of libp2p's, tests make one of memory."""

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of it. Raises StreamLost where the stream is gone."""

    async def read(self, size: int) -> bytes:
        """At least one byte and at most `size`; b"" at a clean end. Raises StreamLost where the stream is gone."""

    async def close(self) -> None:
        """Say that no more will be sent. Never raises for a stream that is gone."""

    async def reset(self) -> None:
        """End both directions at once. Never raises for a stream that is gone."""


class StreamLost(Exception):  # noqa: N818 - as trio.Cancelled: a fact, turned into one of our errors right here
    """The stream was reset, or its connection ended."""


@dataclass(slots=True)
class Traffic:
    """What passed over all streams of one protocol. Bytes are those of frames, before they are encrypted."""

    frames_in: int = 0
    frames_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class FrameStream:
    """Messages with payloads, over one stream. Any task may send; one task receives.

    Args:
        peer: who is at the other end.
        stream: carries the bytes.
        max_frame: bytes of the largest frame that is taken.
        traffic: counts what passes.

    """

    def __init__(
        self,
        peer: PeerId,
        stream: ByteStream,
        *,
        max_frame: int = framing.MAX_FRAME,
        traffic: Traffic | None = None,
    ) -> None:
        self.peer = peer
        self._traffic = Traffic() if traffic is None else traffic
        self._stream = stream
        self._sending = trio.Lock()
        self._reader = FrameReader(peer=peer, max_frame=max_frame)
        self._frames: Iterator[Frame] = iter(())
        """Yields the frames that came whole with the last read."""
        self._received = 0
        self._closed = False

    async def send(
        self, message: WireMessage, payload: bytes | memoryview = b"", *, deadline_s: float = SEND_DEADLINE_S
    ) -> None:
        """Send one frame, after those of other tasks that came first.

        A frame that can't be finished, because the deadline passes or the caller is cancelled, takes the stream
        with it: the other end could not tell where the next one begins.

        Raises UnavailableError where the deadline passes or the stream is gone, InternalError for a frame that
        is larger than any reader would take.
        """
        head = framing.head(message, len(payload))
        try:
            with trio.fail_after(deadline_s):
                await self._turn()
                try:
                    await self._write(head, payload)
                finally:
                    self._sending.release()
                self._traffic.frames_out += 1
                self._traffic.bytes_out += len(head) + len(payload)
        except trio.TooSlowError:
            raise UnavailableError(f"peer {self.peer} took nothing for {deadline_s:g} s", peer=self.peer) from None
        except StreamLost as exc:
            raise UnavailableError(f"the stream to peer {self.peer} is gone", peer=self.peer) from exc

    async def _turn(self) -> None:
        """Wait until no other task sends; where none does, without a turn of the scheduler."""
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            await self._sending.acquire()

    async def _write(self, head: bytes, payload: bytes | memoryview) -> None:
        if self._closed:
            raise StreamLost
        try:
            if len(payload) <= JOIN_LIMIT:
                await self._stream.write(head + payload)
            else:
                await self._stream.write(head)
                await self._stream.write(payload)
        except trio.Cancelled:
            await self.reset()
            raise

    async def receive(self) -> Frame | None:
        """The next frame, or None at a clean end.

        Raises PeerError where the peer sent what is not a frame or stopped inside one, after which the stream is
        of no use, and UnavailableError where the stream was reset or its connection is gone.
        """
        while (frame := next(self._frames, None)) is None:
            try:
                data = await self._stream.read(READ_SIZE)
            except StreamLost as exc:
                raise UnavailableError(f"the stream from peer {self.peer} is gone", peer=self.peer) from exc
            if not data:
                if self._reader.pending:
                    raise PeerError(self.peer, f"stopped {self._reader.pending} bytes into a frame")
                return None
            self._traffic.bytes_in += len(data)
            self._frames = self._reader.feed(data)
        self._received += 1
        self._traffic.frames_in += 1
        if self._received % FRAMES_PER_TURN == 0:
            await trio.lowlevel.checkpoint()
        return frame

    async def close(self) -> None:
        """Say that no more will be sent; what the peer still sends can be received."""
        if not self._closed:
            self._closed = True
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_DEADLINE_S):
                await self._stream.close()

    async def finish(self) -> None:
        """Close, and give the peer a little time to do so too; what it still sends is thrown away.

        A stream that only one end has closed keeps its place in the muxer, so one that lingers is reset.
        """
        await self.close()
        with trio.move_on_after(LINGER_S) as linger:
            await self._end()
        if linger.cancelled_caught:
            await self.reset()

    async def _end(self) -> None:
        with suppress(StreamLost):
            while await self._stream.read(READ_SIZE):
                pass

    async def reset(self) -> None:
        """End the stream in both directions at once, for both ends."""
        self._closed = True
        with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_DEADLINE_S):
            await self._stream.reset()


def fault_of(exc: BaseException) -> PeerError | UnavailableError | None:
    """The first error of a peer or of the network in `exc`, where it holds nothing else; else None."""
    leaves = list(_leaves(exc))
    ours = [leaf for leaf in leaves if isinstance(leaf, PeerError | UnavailableError)]
    return ours[0] if ours and len(ours) == len(leaves) else None


def _leaves(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for inner in exc.exceptions for leaf in _leaves(inner)]
    return [exc]
