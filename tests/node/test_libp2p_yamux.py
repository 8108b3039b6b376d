"""The stock muxer's faults are there without their patches, and gone with them."""

import itertools
import struct
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.stream_muxer.yamux import yamux
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream
from trio.testing import wait_all_tasks_blocked

from p2pos.errors import PeerError, UnavailableError
from p2pos.node.host import Host
from p2pos.node.libp2p_yamux import MAX_FRAME_PAYLOAD, STALL_S, Incoming
from p2pos.node.streams import FrameStream
from p2pos.wire.messages import Ack
from tests.node.stock import Turns, echo, host, muxed, network, put_back, run

SESSION = b"0123456789abcdef"
stock_or_mended = pytest.mark.parametrize("mended", [False, True], ids=["stock", "mended"])


class SlowSocket:
    """Has the next write of the process take only half of its bytes until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.armed = False
        self.half_sent = trio.Event()
        self.go_on = trio.Event()
        inner = RawConnection.write

        async def write(conn: Any, data: bytes) -> None:
            if self.armed:
                self.armed = False
                await inner(conn, data[: len(data) // 2])
                self.half_sent.set()
                await self.go_on.wait()
                await inner(conn, data[len(data) // 2 :])
            else:
                await inner(conn, data)

        monkeypatch.setattr(RawConnection, "write", write)


async def echoes(stream: FrameStream, size: int = 100) -> bool:
    """Whether this stream's other end answers within ten seconds."""
    try:
        with trio.fail_after(10):
            await stream.send(Ack(SESSION, 1), b"x" * size)
            frame = await stream.receive()
    except (trio.TooSlowError, UnavailableError, PeerError):
        return False
    return frame is not None and len(frame.payload) == size


@stock_or_mended
def test_a_write_cancelled_in_mid_frame(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: cancelling one stream's write inside a frame makes every other stream of the connection hang."""
    if not mended:
        put_back(monkeypatch, "a write cancelled in mid-frame hangs the connection")

    async def body() -> bool:
        slow = SlowSocket(monkeypatch)
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            victim, bystander = await a.open(b.peer, "/echo"), await a.open(b.peer, "/echo")
            assert await echoes(victim)
            assert await echoes(bystander)
            await wait_all_tasks_blocked(0.05)
            async with trio.open_nursery() as nursery:
                slow.armed = True
                nursery.start_soon(muxed(victim).write, b"x" * 10_000)
                await slow.half_sent.wait()
                nursery.cancel_scope.cancel()
                slow.go_on.set()
            return await echoes(bystander)

    assert run(body) == mended


def test_a_frame_that_never_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that the socket does not take to its end ends the connection, in bounded time."""

    async def body() -> tuple[float, bool]:
        slow = SlowSocket(monkeypatch)
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            stream = await a.open(b.peer, "/echo")
            assert await echoes(stream)
            await wait_all_tasks_blocked(0.05)
            before_s = trio.current_time()
            slow.armed = True
            with pytest.raises(UnavailableError):
                await stream.send(Ack(SESSION, 1), b"x" * 10_000)
            return trio.current_time() - before_s, b.peer in a.connected()

    took_s, connected = run(body)
    assert STALL_S <= took_s < STALL_S + 5
    assert not connected


@stock_or_mended
def test_a_reader_that_rests(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: a writer whose reader rests for more than 5 s gives up with its bytes half sent."""
    if not mended:
        put_back(monkeypatch, "a writer without credit gives up after 5 s")

    async def rest(stream: FrameStream) -> None:
        await trio.sleep(20)
        await echo(stream)

    async def body() -> bool:
        async with host(()) as a, host() as b:
            b.serve("/rest", rest)
            await a.connect_to(b.addresses[0])
            stream = await a.open(b.peer, "/rest")
            try:
                await stream.send(Ack(SESSION, 1), b"x" * 1_000_000)
            except UnavailableError:
                return False
            frame = await stream.receive()
            return frame is not None and len(frame.payload) == 1_000_000

    assert run(body, idle_s=0.004) == mended  # the stock writer polls 500 times


@stock_or_mended
def test_a_reader_hears_of_a_reset(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: who reads a stream waits for ever once another task of the same node has reset it."""
    if not mended:
        put_back(monkeypatch, "a reset leaves the stream's reader waiting")

    async def body() -> bool:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            stream = await a.open(b.peer, "/echo")
            assert await echoes(stream)
            ended = trio.Event()

            async def read() -> None:
                with pytest.raises(UnavailableError):
                    await stream.receive()
                ended.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await wait_all_tasks_blocked(0.05)
                await stream.reset()
                with trio.move_on_after(60):
                    await ended.wait()
                nursery.cancel_scope.cancel()
            return ended.is_set()

    assert run(body) == mended


def test_a_writer_hears_of_a_reset() -> None:
    """A writer that waits for credit is woken when the reader resets the stream."""
    resting: list[FrameStream] = []

    async def keep(stream: FrameStream) -> None:
        resting.append(stream)
        await trio.sleep_forever()

    async def body() -> float:
        async with host(()) as a, host() as b:
            b.serve("/keep", keep)
            await a.connect_to(b.addresses[0])
            stream = await a.open(b.peer, "/keep")
            before_s = trio.current_time()
            async with trio.open_nursery() as nursery:

                async def write() -> None:
                    with pytest.raises(UnavailableError):
                        await stream.send(Ack(SESSION, 1), b"x" * 1_000_000)

                nursery.start_soon(write)
                await wait_all_tasks_blocked(0.05)
                await resting[0].reset()
            return trio.current_time() - before_s

    assert run(body) < 5.0


@stock_or_mended
def test_large_frames(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: cuts what is sent into frames of 64 KiB. Mended: no frame is larger than the peer's first window."""
    if not mended:
        put_back(monkeypatch, "a writer without credit gives up after 5 s")

    async def body() -> int:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            stream = await a.open(b.peer, "/echo")
            lengths: list[int] = []
            conn = muxed(stream).conn
            inner = conn._write_frame

            async def noting(data: bytes) -> None:
                lengths.append(len(data) - 12)
                await inner(data)

            monkeypatch.setattr(conn, "_write_frame", noting)
            assert await echoes(stream, 4_000_000)
            return max(lengths)

    longest = run(body)
    assert (longest > 65_536) == mended
    assert longest <= MAX_FRAME_PAYLOAD


@stock_or_mended
def test_credit_in_bulk(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: sends a window update for every read. Mended: one per quarter of a window that grows."""
    if not mended:
        put_back(monkeypatch, "every read sends a window update")
    sent: list[int] = []
    inner = YamuxStream.send_window_update

    async def noting(self: Any, increment: int, skip_lock: bool = False) -> None:
        sent.append(increment)
        await inner(self, increment, skip_lock)

    monkeypatch.setattr(YamuxStream, "send_window_update", noting)

    async def body() -> None:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            stream = await a.open(b.peer, "/echo")
            for _ in range(1000):
                assert await echoes(stream, 1000)

    run(body)
    assert (len(sent) < 100) == mended
    if mended:
        assert len(sent) < 20


@stock_or_mended
def test_reads_without_locks(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: takes several turns of the scheduler to hand over bytes that are there already."""
    if not mended:
        put_back(monkeypatch, "every read takes three locks")

    async def body() -> int:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            stream = await a.open(b.peer, "/echo")
            await stream.send(Ack(SESSION, 1))
            await wait_all_tasks_blocked(0.05)
            turns = Turns(trio.lowlevel.current_task())
            trio.lowlevel.add_instrument(turns)
            assert await muxed(stream).read(1000)
            trio.lowlevel.remove_instrument(turns)
            return turns.count

    turns = run(body)
    assert (turns == 0) == mended


@stock_or_mended
def test_small_frames_come_in_without_ceremony(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: every frame's body is read by itself, under a deadline of its own."""
    if not mended:
        put_back(monkeypatch, "a frame that comes in takes a lock and a deadline")
    bodies: list[int] = []
    inner = Yamux._read_data_body

    async def noting(conn: Any, length: int) -> bytes:
        bodies.append(length)
        return bytes(await inner(conn, length))

    async def body() -> None:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            stream = await a.open(b.peer, "/echo")
            monkeypatch.setattr(Yamux, "_read_data_body", noting)
            for _ in range(10):
                assert await echoes(stream, 4096)

    run(body)
    assert (not bodies) == mended


FRAME = struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, yamux.TYPE_DATA, 0, 1, 4) + b"mine"
FRAMES = st.lists(
    st.tuples(
        st.sampled_from([yamux.TYPE_DATA, yamux.TYPE_DATA, yamux.TYPE_WINDOW_UPDATE, yamux.TYPE_PING]),
        st.sampled_from([0, 0, 0, yamux.FLAG_SYN, yamux.FLAG_ACK, yamux.FLAG_FIN]),
        st.sampled_from([1, 3, 5]),
        # a body that reads as a frame, too: it must not be taken for one
        st.binary(max_size=40) | st.just(FRAME),
    ),
    max_size=12,
)


@given(FRAMES, st.lists(st.integers(1, 60), min_size=1), st.booleans())
def test_no_frame_is_lost_or_read_twice(frames: list[Any], cuts: list[int], early: bool) -> None:
    """Cut anywhere, every frame goes either to its stream or to the library, whole, once, in each one's order."""
    wire, others = b"", []
    for kind, flags, stream_id, data in frames:
        body = data if kind == yamux.TYPE_DATA else b""
        header = struct.pack(yamux.YAMUX_HEADER_FORMAT, 0, kind, flags, stream_id, len(body))
        wire += header + body
        others.append((header, body))
    pieces, rest = [], wire
    for cut in itertools.cycle(cuts):
        if not rest:
            break
        pieces.append(rest[:cut])
        rest = rest[cut:]
    ahead = pieces.pop(0) if early and pieces else b""
    streams = {number: SimpleNamespace(closed=False, recv_window=1 << 20) for number in (1, 3)}  # 5 is not open
    conn: Any = SimpleNamespace(
        streams=streams,
        stream_buffers={number: bytearray() for number in streams},
        stream_events={number: trio.Event() for number in streams},
        streams_lock=trio.Lock(),
        event_shutting_down=trio.Event(),
    )
    session: Any = SimpleNamespace(_drain=lambda _: ahead, conn=Messages(pieces))

    async def read_as_the_library_does() -> list[tuple[bytes, bytes]]:
        incoming, found = Incoming(conn, session), []
        while True:
            try:
                header = await incoming.read(yamux.HEADER_SIZE)
            except ConnectionClosedError:
                return found
            _, kind, _, stream_id, length = struct.unpack(yamux.YAMUX_HEADER_FORMAT, header)
            body = await incoming.read(length) if kind == yamux.TYPE_DATA and length else b""
            found.append((header, body))
            if stream_id in streams and kind == yamux.TYPE_DATA:
                conn.stream_buffers[stream_id] += body

    found = trio.run(read_as_the_library_does)
    assert [frame for frame in found if not is_plain(frame)] == [frame for frame in others if not is_plain(frame)]
    for number, buffer in conn.stream_buffers.items():
        sent = [body for kind, _, stream_id, body in frames if (kind, stream_id) == (yamux.TYPE_DATA, number)]
        assert bytes(buffer) == b"".join(sent)


def is_plain(frame: tuple[bytes, bytes]) -> bool:
    """Whether it may go past the library: data, without a flag, for a stream that is open."""
    _, kind, flags, stream_id, length = struct.unpack(yamux.YAMUX_HEADER_FORMAT, frame[0])
    return kind == yamux.TYPE_DATA and not flags and stream_id != 5 and length > 0


class Messages:
    """Gives these messages, one after another, then the connection's end."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = list(pieces)

    async def read_msg(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._pieces.pop(0) if self._pieces else b""


@stock_or_mended
def test_more_than_was_granted(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: keeps all that a peer sends beyond its credit. Mended: ends that connection, and nobody else's."""
    if not mended:
        put_back(monkeypatch, "a peer sends more than it was granted")

    async def rest(_stream: FrameStream) -> None:
        await trio.sleep_forever()

    async def body() -> tuple[bool, int, bool]:
        async with host(()) as a, host(()) as c, host() as b:
            b.serve("/rest", rest)
            b.serve("/echo", echo)
            for each in (a, c):
                await each.connect_to(b.addresses[0])
            stream, other = await a.open(b.peer, "/rest"), await c.open(b.peer, "/echo")
            held = watch_memory(b, a)
            muxed(stream).send_window = 1 << 30
            try:
                with trio.fail_after(5):
                    await muxed(stream).write(b"x" * (8 << 20))
            except Exception:  # noqa: BLE001 - whichever way the connection ends
                pass
            await trio.sleep(1)
            return a.peer in b.connected(), held(), await echoes(other)

    connected, most, other_served = run(body)
    assert connected != mended
    assert other_served
    if mended:
        assert most <= 2 * MAX_FRAME_PAYLOAD
    else:
        assert most == 8 << 20


def watch_memory(of: Host, peer: Host) -> Any:
    """A function that gives the most bytes that a host holds unread for a peer, now and from now on."""
    (connection,) = [
        conn for conn in network(of).get_connections() if str(conn.muxed_conn.peer_id) == peer.peer
    ]  # fmt: skip
    buffers = connection.muxed_conn.stream_buffers
    return lambda: sum(len(buffer) for buffer in buffers.values())


def test_a_stream_outlives_its_writers_cancellation() -> None:
    """Opening streams that are cancelled half-way uses up none of the connection's places."""

    async def body() -> bool:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            for _ in range(300):  # more than the 256 places
                with trio.move_on_after(0) as scope:
                    await a.open(b.peer, "/echo", deadline_s=5)
                assert scope.cancelled_caught
            await trio.sleep(1)
            return await echoes(await a.open(b.peer, "/echo"))

    assert run(body)


def test_many_streams_in_a_life() -> None:
    """A connection carries any number of streams, one after the other, and keeps nothing of them."""

    async def body() -> list[int]:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            for _ in range(600):
                stream = await a.open(b.peer, "/echo")
                assert await echoes(stream)
                await stream.finish()
            await trio.sleep(10)
            return [
                len(conn.muxed_conn.streams) + len(conn.streams)
                for end in (a, b)
                for conn in network(end).get_connections()
            ]

    assert run(body) == [0, 0]
