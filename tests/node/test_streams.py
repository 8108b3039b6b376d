"""A stream of frames says what came, or whose fault it is that nothing more will."""

import struct

import pytest
import trio
from trio.testing import MockClock, trio_test, wait_all_tasks_blocked

from p2pos.errors import InternalError, PeerError, UnavailableError
from p2pos.node.streams import FRAMES_PER_TURN, JOIN_LIMIT, LINGER_S, FrameStream, fault_of
from p2pos.types import PeerId
from p2pos.wire import framing
from p2pos.wire.messages import Ack, Close
from tests.node.memory import byte_pair, frame_pair

SESSION = b"0123456789abcdef"


@pytest.fixture
def autojump_clock() -> MockClock:
    """Time that passes when nothing else can happen."""
    return MockClock(autojump_threshold=0)


@trio_test
async def test_frames_arrive_in_order() -> None:
    """What one end sends the other receives, in order, with payloads small and large."""
    here, there = frame_pair()
    payloads = [b"", b"x", b"y" * JOIN_LIMIT, b"z" * (JOIN_LIMIT + 1), b"w" * (5 << 20)]
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            for position, payload in enumerate(payloads):
                await here.send(Ack(SESSION, position), payload)
            await here.close()

        nursery.start_soon(send)
        for position, payload in enumerate(payloads):
            frame = await there.receive()
            assert frame is not None
            assert frame.message == Ack(SESSION, position)
            assert bytes(frame.payload) == payload
        assert await there.receive() is None


@trio_test
async def test_senders_do_not_mix() -> None:
    """Frames that many tasks send at once each arrive whole."""
    here, there = frame_pair()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(here.send, Ack(SESSION, number), bytes([number]) * 100_000)
        seen = set()
        for _ in range(20):
            frame = await there.receive()
            assert frame is not None
            assert isinstance(frame.message, Ack)
            assert bytes(frame.payload) == bytes([frame.message.position]) * 100_000
            seen.add(frame.message.position)
    assert seen == set(range(20))


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("!II", 0xFFFFFFFF, 1),
        struct.pack("!II", 4 + 3, 3) + b"\xff\xff\xff",
        struct.pack("!II", 4 + 2, 2) + b"\x91\xc0",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["huge length", "no msgpack", "unknown tag", "another protocol"],
)
@trio_test
async def test_hostile_bytes(data: bytes) -> None:
    """Bytes that are no frame raise PeerError, which names who sent them."""
    here, there = byte_pair()
    stream = FrameStream(PeerId("someone"), there)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.write, data)
        with pytest.raises(PeerError) as caught:
            await stream.receive()
    assert caught.value.peer == "someone"


@trio_test
async def test_cut_off_inside_a_frame() -> None:
    """A stream that is closed inside a frame is the peer's fault, not a clean end."""
    here, there = byte_pair()
    async with trio.open_nursery() as nursery:

        async def half() -> None:
            await here.write(framing.encode(Close(SESSION, "bye"))[:-2])
            await here.close()

        nursery.start_soon(half)
        with pytest.raises(PeerError, match="into a frame"):
            await FrameStream(PeerId("someone"), there).receive()


@trio_test
async def test_a_reset_is_nobodys_clean_end() -> None:
    """A stream that is reset raises UnavailableError at the other end, for sending and receiving."""
    here, there = byte_pair()
    await here.reset()
    stream = FrameStream(PeerId("someone"), there)
    with pytest.raises(UnavailableError):
        await stream.receive()
    with pytest.raises(UnavailableError):
        await stream.send(Ack(SESSION, 1))


@trio_test
async def test_deadline_takes_the_stream(autojump_clock: MockClock) -> None:
    """A frame that nobody reads in time raises UnavailableError and resets the stream."""
    here, _ = byte_pair()
    stream = FrameStream(PeerId("someone"), here)
    before_s = trio.current_time()
    with pytest.raises(UnavailableError, match="took nothing for 5 s"):
        await stream.send(Ack(SESSION, 1), b"x" * 1000, deadline_s=5.0)
    assert trio.current_time() - before_s == 5.0
    assert here.was_reset
    with pytest.raises(UnavailableError):
        await stream.send(Ack(SESSION, 2))


@trio_test
async def test_cancelled_inside_a_frame() -> None:
    """A sender that is cancelled inside its frame takes the stream with it; the next would not be understood."""
    here, _ = byte_pair()
    stream = FrameStream(PeerId("someone"), here)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send, Ack(SESSION, 1), b"x" * 1000)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert here.was_reset


@trio_test
async def test_cancelled_before_its_turn() -> None:
    """A sender that is cancelled while another's frame is leaving costs the stream nothing."""
    here, there = byte_pair()
    stream = FrameStream(PeerId("someone"), here)
    reader = FrameStream(PeerId("other"), there)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send, Ack(SESSION, 1), b"x" * 1000)
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.send(Ack(SESSION, 2))
        frame = await reader.receive()
    assert frame is not None
    assert frame.message == Ack(SESSION, 1)
    assert not here.was_reset


@trio_test
async def test_too_large() -> None:
    """A frame over the limit is our own fault, and leaves the stream usable."""
    here, there = frame_pair()
    with pytest.raises(InternalError):
        await here.send(Ack(SESSION, 1), bytes(framing.MAX_FRAME))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.send, Ack(SESSION, 2))
        frame = await there.receive()
    assert frame is not None
    assert frame.message == Ack(SESSION, 2)


@trio_test
async def test_finish_waits_for_the_other_end(autojump_clock: MockClock) -> None:
    """Finishing throws away what still comes, and resets a stream that the other end keeps open."""
    here, there = byte_pair()
    stream = FrameStream(PeerId("someone"), here)
    before_s = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.finish)
        await there.write(b"anything")
    assert trio.current_time() - before_s == LINGER_S
    assert here.was_reset


@trio_test
async def test_finish_in_order(autojump_clock: MockClock) -> None:
    """Finishing a stream that both ends close takes no time and resets nothing."""
    here, there = byte_pair()
    await there.close()
    before_s = trio.current_time()
    await FrameStream(PeerId("someone"), here).finish()
    assert trio.current_time() == before_s
    assert not here.was_reset


@trio_test
async def test_others_get_their_turn() -> None:
    """A flood of small frames that came in one read does not keep other tasks from running."""
    here, there = byte_pair()
    stream = FrameStream(PeerId("someone"), there)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(here.write, framing.encode(Ack(SESSION, 1)) * 1000)
        await stream.receive()
        nursery.start_soon(other)
        for _ in range(999):
            await stream.receive()
        nursery.cancel_scope.cancel()
    assert turns >= 999 // FRAMES_PER_TURN // 2  # trio shuffles who comes first in a round


def test_fault_of() -> None:
    """A group is a peer's fault only where it holds nothing else."""
    peer, gone = PeerError("a", "lied"), UnavailableError("gone")
    assert fault_of(peer) is peer
    assert fault_of(ExceptionGroup("", [ExceptionGroup("", [gone]), peer])) is gone
    assert fault_of(ExceptionGroup("", [peer, ValueError()])) is None
    assert fault_of(ValueError()) is None
