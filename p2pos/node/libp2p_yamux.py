"""What is mended in libp2p 0.8.1's yamux: writes, windows, frame size. All of it is legal yamux on the wire.

Nothing is replaced on import; `libp2p_patches` puts these in place. Names that begin with an underscore are the
library's own, which is why its version is pinned exactly.

Specification: https://github.com/hashicorp/yamux/blob/master/spec.md
"""

import struct
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.stream_muxer.exceptions import MuxedStreamEOF, MuxedStreamError, MuxedStreamReset
from libp2p.stream_muxer.yamux import yamux

MAX_FRAME_PAYLOAD = 256 << 10
"""Bytes. The window that every stream starts with, so no frame of this size can exceed what the peer granted."""
STALL_S = 10.0
"""Seconds that a frame may take to leave. The peer's muxer drains its socket whatever its streams do, so a socket
that takes nothing for so long belongs to a process or a link that is gone (as `libp2p_patches.USER_TIMEOUT_MS`)."""
UPDATES_PER_WINDOW = 4
"""Credit is handed back a quarter of the window at a time: rare enough to be cheap, early enough never to stall."""
WINDOW_GROWTH = 4
"""With each update the window grows so much, from 256 KiB to yamux's 16 MiB in three updates."""

MAX_WINDOW = "p2pos_max_window"
"""The attribute of a stream whose window is to stay below yamux's largest: so many bytes."""

_WAKE = "_p2pos_wake"
_WRITING = "_p2pos_writing"


class Watched:
    """A field of a `YamuxStream` whose every change wakes the task that waits to write on that stream."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, stream: Any, owner: type | None = None) -> Any:
        if stream is None:
            return self
        return stream.__dict__[self._name]

    def __set__(self, stream: Any, value: Any) -> None:
        stream.__dict__[self._name] = value
        wake: trio.Event | None = stream.__dict__.get(_WAKE)
        if wake is not None:
            wake.set()


class Ended(Watched):
    """The field `closed` of a `YamuxStream`: who waits to read is woken too.

    Stock: a stream that is reset here, by another task than the one that reads it, is dropped from the connection's
    books without a word to that one, which then waits for ever, the connection's end included.
    """

    def __set__(self, stream: Any, value: Any) -> None:
        super().__set__(stream, value)
        reader = stream.conn.stream_events.get(stream.stream_id) if value else None
        if reader is not None:
            reader.set()


class Granted:
    """The field `recv_window` of a `YamuxStream`: bytes that the peer may still send.

    Stock: a peer that sends more than it was granted is logged, and its bytes are kept all the same, so that a
    hostile one fills the memory. Mended: the connection ends, as the specification asks.
    """

    def __get__(self, stream: Any, owner: type | None = None) -> Any:
        if stream is None:
            return self
        return stream.__dict__["recv_window"]

    def __set__(self, stream: Any, value: int) -> None:
        stream.__dict__["recv_window"] = value
        if value < 0:
            stream.conn.event_shutting_down.set()  # the loop that reads the connection ends with this frame


async def acquire(lock: trio.Lock) -> None:
    """Take a lock; one that is free without a turn of the scheduler, which costs as much as a frame's encryption."""
    try:
        lock.acquire_nowait()
    except trio.WouldBlock:
        await lock.acquire()


async def write_frame(conn: Any, data: bytes) -> None:
    """`Yamux._write_frame`, whole or not at all.

    Stock: a task that is cancelled while its frame is half sent leaves the other half out, and the peer takes
    the next frame's bytes for it: every stream of the connection hangs. Mended: a frame that has begun is sent
    to its end, out of reach of the caller's cancellation; where it can't be, the connection ends.
    """
    await acquire(conn._write_lock)
    try:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + STALL_S) as stall:
            await conn.secured_conn.write(data)
        if stall.cancelled_caught:
            with trio.CancelScope(shield=True):
                await conn._cleanup_on_error()
            raise ConnectionClosedError(f"the peer took nothing for {STALL_S:g} s")
    finally:
        conn._write_lock.release()
    await trio.lowlevel.checkpoint_if_cancelled()


async def write(stream: Any, data: bytes | memoryview) -> None:
    """`YamuxStream.write`, which waits for the peer's credit as long as its caller wants to.

    Stock: polls every 10 ms, gives up after 5 s with the bytes half sent, and sends frames of 64 KiB. Mended:
    wakes when credit comes or the stream ends, in frames of up to 256 KiB; deadlines are the caller's.
    """
    lock: trio.Lock | None = stream.__dict__.get(_WRITING)
    if lock is None:
        lock = stream.__dict__[_WRITING] = trio.Lock()
    rest = memoryview(data)
    await acquire(lock)
    try:
        while rest:
            if stream.send_closed or stream.closed:
                raise MuxedStreamError("the stream is closed for sending")
            if stream.send_window <= 0:
                wake = stream.__dict__[_WAKE] = trio.Event()
                await wake.wait()
                continue
            length = min(stream.send_window, MAX_FRAME_PAYLOAD, len(rest))
            stream.send_window -= length
            header = struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_DATA, 0, stream.stream_id, length)
            await stream.conn._write_frame(b"".join((header, rest[:length])))
            rest = rest[length:]
    finally:
        lock.release()


async def read(stream: Any, n: int | None = -1) -> bytes:
    """`YamuxStream.read`: at least one byte and at most `n`, or all that is there for -1.

    Stock: three locks, each a turn of the scheduler, per read. Mended: none, since the buffer changes only
    between two turns. Raises MuxedStreamReset after a reset or with the connection, MuxedStreamEOF at the end.
    """
    conn = stream.conn
    await trio.lowlevel.checkpoint_if_cancelled()
    while True:
        buffer = conn.stream_buffers.get(stream.stream_id)
        if buffer:
            data = bytes(buffer) if n is None or n < 0 or n >= len(buffer) else bytes(memoryview(buffer)[:n])
            del buffer[: len(data)]
            if stream.closed and not buffer:
                await conn._finalize_stream(stream, fully_closed=True)
            else:
                await stream._auto_tune_and_send_window_update(bytes_read=len(data))
            return data
        if stream.reset_received or conn.event_shutting_down.is_set():
            raise MuxedStreamReset("the stream was reset")
        if stream.recv_closed:
            raise MuxedStreamEOF("the stream has ended")
        event = conn.stream_events.get(stream.stream_id)
        if stream.closed or buffer is None or event is None:
            raise MuxedStreamReset("the stream is closed")
        await event.wait()
        if stream.stream_id in conn.stream_events:
            conn.stream_events[stream.stream_id] = trio.Event()


class Incoming:
    """What a `Yamux` reads its connection through: takes plain data frames out, and hands the rest to the library.

    Nearly every frame is data for a stream that is open, with no flag set and no more to it than its bytes. Such a
    frame, where it is there to its end, goes to its stream's buffer right here. All others the library reads as if
    they stood one behind the other: it asks for a header first, and then for the body that the header promised.

    Args:
        conn: the `Yamux`.
        session: the `SecureSession` beneath it.

    """

    def __init__(self, conn: Any, session: Any) -> None:
        self._conn = conn
        self._session = session
        self._buffer = bytearray(session._drain(None))  # read ahead while the muxer was negotiated
        self._body = 0
        """Bytes that the library still has to ask for before the next header."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def write(self, data: bytes) -> None:
        """As the session does."""
        await self._session.conn.write_msg(data)

    async def read(self, n: int) -> bytes:
        """The next header, or `n` bytes of the body that follows the last one; fewer only at the connection's end.

        Raises what the session raises, MuxedStreamReset where the connection was ended meanwhile.
        """
        buffer = self._buffer
        while True:
            if self._body == 0:
                self._deliver()
                if self._conn.event_shutting_down.is_set():
                    raise MuxedStreamReset("the connection is ending")
            if len(buffer) >= n:
                break
            message = await self._session.conn.read_msg()
            if not message:
                if not buffer:
                    raise ConnectionClosedError("the connection has ended")
                break
            buffer += message
        data = bytes(memoryview(buffer)[:n])
        del buffer[: len(data)]
        if self._body:
            self._body = max(0, self._body - len(data))
        elif len(data) == yamux.HEADER_SIZE:
            _, kind, _, _, length = struct.unpack(yamux.YAMUX_HEADER_FORMAT, data)
            self._body = length if kind == yamux.TYPE_DATA else 0
        return data

    def _deliver(self) -> None:
        """Give every plain data frame at the front of the buffer to its stream."""
        conn, buffer, start = self._conn, self._buffer, 0
        with memoryview(buffer) as view:
            while len(buffer) - start >= yamux.HEADER_SIZE:
                _, kind, flags, stream_id, length = struct.unpack_from(yamux.YAMUX_HEADER_FORMAT, buffer, start)
                end = start + yamux.HEADER_SIZE + length
                stream = conn.streams.get(stream_id)
                if kind != yamux.TYPE_DATA or flags or not length or end > len(buffer) or conn.streams_lock.locked():
                    break
                if stream is None or stream.closed or conn.event_shutting_down.is_set():
                    break
                conn.stream_buffers[stream_id] += view[start + yamux.HEADER_SIZE : end]
                stream.recv_window -= length
                conn.stream_events[stream_id].set()
                start = end
        del buffer[:start]


async def handle_incoming(conn: Any, library: Callable[[Any], Awaitable[None]]) -> None:
    """`Yamux.handle_incoming`, with what it reads most often taken out before.

    Stock: two reads, a deadline, a lock and some fifteen lines for a log that nobody writes, per frame. With the
    processor's caches cold, as a model's weights leave them, that is as much as the rest of a frame's way.

    Args:
        conn: the `Yamux`.
        library: the stock method.

    """
    conn.secured_conn = Incoming(conn, conn.secured_conn)
    await library(conn)


async def return_credit(stream: Any, *, bytes_read: int = 0) -> None:
    """`YamuxStream._auto_tune_and_send_window_update`, a quarter of the window at a time.

    Stock: one update per read, as many frames back as forth. Mended: one per quarter of the window, which
    grows fourfold with each until yamux's largest, or the stream's own.
    """
    stream._pending_recv_release += bytes_read
    if stream._pending_recv_release < stream.target_recv_window // UPDATES_PER_WINDOW:
        return
    increment, stream._pending_recv_release = stream._pending_recv_release, 0
    largest = stream.__dict__.get(MAX_WINDOW, yamux.MAX_WINDOW_SIZE)
    target = max(min(stream.target_recv_window * WINDOW_GROWTH, largest), stream.target_recv_window)
    increment += target - stream.target_recv_window
    stream.target_recv_window = target
    stream.recv_window += increment
    await stream.send_window_update(increment)
