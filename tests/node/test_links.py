"""Links carry every session's frames over one stream per direction, and tell once when it breaks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, trio_test, wait_all_tasks_blocked

from p2pos.errors import InternalError, PeerError, UnavailableError
from p2pos.node.links import MAX_INBOUND, MAX_LINKS, MOVE_S, QUEUE_FRAMES, Links
from p2pos.types import PeerId
from p2pos.wire import framing
from p2pos.wire.framing import Frame
from p2pos.wire.messages import Ack, WireMessage
from tests.node.memory import MemoryHost

PROTOCOL = "/test/1"
SESSION = b"0123456789abcdef"
ALICE, BOB, CAROL = (PeerId(f"peer-{name}") for name in ("alice", "bob", "carol"))


@pytest.fixture
def autojump_clock() -> MockClock:
    """Time that passes when nothing else can happen."""
    return MockClock(autojump_threshold=0)


class End:
    """One host, its links, and what they told."""

    def __init__(self, host: MemoryHost, *, queue_frames: int = QUEUE_FRAMES) -> None:
        self.host = host
        self.received: list[tuple[PeerId, WireMessage]] = []
        self.lost: list[PeerId] = []
        self.open_gate = trio.Event()
        self.open_gate.set()
        self.links = Links(host, PROTOCOL, receive=self.receive, on_lost=self.lost.append, queue_frames=queue_frames)

    async def receive(self, peer: PeerId, frame: Frame) -> None:
        await self.open_gate.wait()
        self.received.append((peer, frame.message))

    async def send(self, peer: PeerId, position: int, **kwargs: float) -> None:
        await self.links.send(peer, [], Ack(SESSION, position), b"x" * 100, **kwargs)

    def post(self, peer: PeerId, position: int) -> None:
        self.links.post(peer, [], Ack(SESSION, position), b"x" * 100)


@asynccontextmanager
async def ends(*peers: PeerId, queue_frames: int = QUEUE_FRAMES) -> AsyncIterator[list[End]]:
    """Hosts of one net with running links."""
    net: dict[str, MemoryHost] = {}
    async with trio.open_nursery() as nursery:
        made = [End(MemoryHost(peer, net, nursery), queue_frames=queue_frames) for peer in peers]
        for end in made:
            await nursery.start(end.links.run)
        yield made
        nursery.cancel_scope.cancel()


@trio_test
async def test_one_stream_for_all() -> None:
    """Frames of many senders go over one stream, in the order of the calls."""
    async with ends(ALICE, BOB) as (alice, bob):
        for position in range(50):
            await alice.send(BOB, position)
        await wait_all_tasks_blocked()
        assert bob.received == [(ALICE, Ack(SESSION, position)) for position in range(50)]
        assert alice.host.opened == 1
        assert bob.host.opened == 0


@trio_test
async def test_each_direction_has_its_own_stream() -> None:
    """An answer goes over a stream of its own."""
    async with ends(ALICE, BOB) as (alice, bob):
        await alice.send(BOB, 1)
        await bob.send(ALICE, 2)
        await wait_all_tasks_blocked()
        assert alice.received == [(BOB, Ack(SESSION, 2))]
        assert (alice.host.opened, bob.host.opened) == (1, 1)
        assert alice.links.linked() == {BOB}


@trio_test
async def test_post_returns_at_once() -> None:
    """Posting waits for nothing, and what was posted arrives in order."""
    async with ends(ALICE, BOB) as (alice, bob):
        for position in range(10):
            alice.post(BOB, position)
        assert bob.received == []
        await alice.links.flush(1.0)
        await wait_all_tasks_blocked()
        assert [message.position for _, message in bob.received] == list(range(10))  # type: ignore[union-attr]


@trio_test
async def test_a_full_queue_refuses_a_post() -> None:
    """A peer that does not read fills its queue, and the next post fails."""
    async with ends(ALICE, BOB, queue_frames=4) as (alice, bob):
        bob.open_gate = trio.Event()
        for position in range(6):  # one is being received, one is being sent, four wait
            alice.post(BOB, position)
            await wait_all_tasks_blocked()
        with pytest.raises(UnavailableError, match="too slowly"):
            alice.post(BOB, 6)


@trio_test
async def test_backpressure_reaches_the_sender(autojump_clock: MockClock) -> None:
    """A sender to a peer that does not read waits, and gets UnavailableError at its deadline."""
    async with ends(ALICE, BOB) as (alice, bob):
        bob.open_gate = trio.Event()
        await alice.send(BOB, 0)
        before_s = trio.current_time()
        with pytest.raises(UnavailableError, match="took nothing for 3 s"):
            await alice.send(BOB, 1, deadline_s=3.0)
        assert trio.current_time() - before_s == 3.0


@trio_test
async def test_a_slow_peer_holds_up_nobody_else() -> None:
    """While one peer doesn't read, frames to another one arrive."""
    async with ends(ALICE, BOB, CAROL) as (alice, bob, carol):
        bob.open_gate = trio.Event()
        for position in range(10):
            alice.post(BOB, position)
        await alice.send(CAROL, 7)
        await wait_all_tasks_blocked()
        assert carol.received == [(ALICE, Ack(SESSION, 7))]


@trio_test
async def test_a_cancelled_session_harms_no_other() -> None:
    """A sender that is cancelled inside its frame leaves the link whole: its frame goes out to the end."""
    async with ends(ALICE, BOB) as (alice, bob):
        bob.open_gate = trio.Event()
        await alice.send(BOB, 0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(alice.send, BOB, 1)
            nursery.start_soon(alice.send, BOB, 2)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        bob.open_gate.set()
        await alice.send(BOB, 3)
        await wait_all_tasks_blocked()
        positions = [message.position for _, message in bob.received]  # type: ignore[union-attr]
        assert positions[0] == 0
        assert positions[-1] == 3
        assert alice.host.opened == 1
        assert alice.lost == []


@trio_test
async def test_unreachable() -> None:
    """A peer that can't be reached is told to the sender, and to nobody else."""
    async with ends(ALICE) as (alice,):
        with pytest.raises(UnavailableError, match="does not answer"):
            await alice.send(BOB, 1)
        assert alice.lost == []
        assert alice.links.linked() == frozenset()


@trio_test
async def test_unreachable_after_a_post() -> None:
    """Where nobody waits for an answer, a peer that can't be reached is told as lost, once."""
    async with ends(ALICE) as (alice,):
        alice.post(BOB, 1)
        alice.post(BOB, 2)
        await wait_all_tasks_blocked()
        assert alice.lost == [BOB]


@trio_test
async def test_lost_once() -> None:
    """When a link breaks and then its connection, the peer is lost once, and waiting senders hear of it."""
    async with ends(ALICE, BOB) as (alice, bob):
        bob.open_gate = trio.Event()
        await alice.send(BOB, 0)
        failed = []

        async def send(position: int) -> None:
            try:
                await alice.send(BOB, position)
            except UnavailableError:
                failed.append(position)

        async with trio.open_nursery() as nursery:
            for position in range(1, 4):
                nursery.start_soon(send, position)
            await wait_all_tasks_blocked()
            await alice.host.ends[0].reset()
            alice.host.drop(BOB)
        await wait_all_tasks_blocked()
        assert len(failed) == 3
        assert alice.lost == [BOB]
        assert alice.links.linked() == frozenset()


@trio_test
async def test_a_new_link_after_a_loss() -> None:
    """A peer that was lost and is there again gets a new link."""
    async with ends(ALICE, BOB) as (alice, bob):
        await alice.send(BOB, 1)
        alice.host.drop(BOB)
        await wait_all_tasks_blocked()
        await alice.send(BOB, 2)
        await wait_all_tasks_blocked()
        assert [message.position for _, message in bob.received] == [1, 2]  # type: ignore[union-attr]
        assert alice.host.opened == 2
        assert alice.lost == [BOB]


@trio_test
async def test_the_disconnect_of_a_stranger() -> None:
    """A peer that nothing was exchanged with is not lost."""
    async with ends(ALICE, BOB) as (alice, _):
        alice.host.drop(BOB)
        assert alice.lost == []


@trio_test
async def test_garbage_costs_its_sender_alone() -> None:
    """A peer that sends what is no frame has its stream reset and counts as lost; others go on."""
    async with ends(ALICE, BOB, CAROL) as (alice, _, carol):
        await carol.send(ALICE, 1)
        stream = await MemoryHost.open(alice.host._net[BOB], ALICE, PROTOCOL)
        await stream.send(Ack(SESSION, 5))
        await stream._stream.write(b"\xff" * 8)
        await wait_all_tasks_blocked()
        await carol.send(ALICE, 2)
        await wait_all_tasks_blocked()
        assert alice.lost == [BOB]
        assert [peer for peer, _ in alice.received] == [CAROL, BOB, CAROL]
        with pytest.raises(UnavailableError):
            await stream.receive()


@trio_test
async def test_a_frame_on_the_wrong_stream() -> None:
    """A peer that sends on a stream that it was to read breaks the protocol and is lost."""
    async with ends(ALICE, BOB) as (alice, bob):
        await alice.send(BOB, 1)
        with trio.move_on_after(1):
            await bob.host.ends[0].write(framing.encode(Ack(SESSION, 9)))
        await wait_all_tasks_blocked()
        assert alice.lost == [BOB]


@trio_test
async def test_a_receiver_that_refuses() -> None:
    """A PeerError of the receiver ends the stream of the peer that it speaks of."""
    async with ends(ALICE, BOB) as (alice, bob):

        def refuse(peer: PeerId, frame: Frame) -> None:
            raise PeerError(peer, "said something silly")

        alice.links._receive = refuse
        bob.post(ALICE, 1)
        await wait_all_tasks_blocked()
        assert alice.lost == [BOB]
        assert bob.lost == [ALICE]


@trio_test
async def test_a_frame_that_is_too_large() -> None:
    """A frame over the limit fails for its sender alone."""
    async with ends(ALICE, BOB) as (alice, bob):
        with pytest.raises(InternalError):
            await alice.links.send(BOB, [], Ack(SESSION, 1), bytes(framing.MAX_FRAME))
        await alice.send(BOB, 2)
        await wait_all_tasks_blocked()
        assert bob.received == [(ALICE, Ack(SESSION, 2))]


@trio_test
async def test_too_many_links_of_one_peer() -> None:
    """A peer may have a few links open to us; with one more it is lost."""
    async with ends(ALICE, BOB) as (alice, bob):
        streams = [await bob.host.open(ALICE, PROTOCOL) for _ in range(MAX_INBOUND)]
        for stream in streams:
            await stream.send(Ack(SESSION, 1))
        await wait_all_tasks_blocked()
        assert alice.lost == []
        await bob.host.open(ALICE, PROTOCOL)
        await wait_all_tasks_blocked()
        assert alice.lost == [BOB]


@trio_test
async def test_leaving_in_order() -> None:
    """Links that end because their owner stops are closed, so that nobody counts their owner as lost."""
    async with ends(ALICE, BOB) as (alice, bob):
        async with trio.open_nursery() as nursery:
            leaving = End(MemoryHost(CAROL, bob.host._net, nursery))
            await nursery.start(leaving.links.run)
            await leaving.send(BOB, 1)
            leaving.links._nursery.cancel_scope.cancel()  # type: ignore[union-attr]
            await wait_all_tasks_blocked()
        assert bob.received == [(CAROL, Ack(SESSION, 1))]
        assert bob.lost == alice.lost == []


@trio_test
async def test_moving_to_a_better_connection() -> None:
    """A link moves to a new stream between two frames: all arrive, in order, and nobody is lost."""
    async with ends(ALICE, BOB) as (alice, bob):
        for position in range(60):
            alice.post(BOB, position)
            if position % 20 == 10:
                alice.host.better(BOB)
            if position % 20 == 15:
                await wait_all_tasks_blocked()
        await alice.links.flush(1.0)
        await wait_all_tasks_blocked()
        assert [message.position for _, message in bob.received] == list(range(60))  # type: ignore[union-attr]
        assert alice.host.opened == 3  # the first time nothing was open yet
        assert alice.lost == bob.lost == []


@trio_test
async def test_moving_waits_until_all_is_taken(autojump_clock: MockClock) -> None:
    """While the peer has not taken what left on the old stream, the new one is not opened; who never does is lost."""
    async with ends(ALICE, BOB) as (alice, bob):
        bob.open_gate = trio.Event()
        alice.post(BOB, 1)
        await wait_all_tasks_blocked()
        alice.host.better(BOB)
        alice.post(BOB, 2)
        await wait_all_tasks_blocked()
        assert alice.host.opened == 1
        await trio.sleep(MOVE_S + 1.0)
        assert alice.lost == [BOB]


@trio_test
async def test_lost_while_moving() -> None:
    """A peer that is lost while its link moves is lost once."""
    async with ends(ALICE, BOB) as (alice, bob):
        bob.open_gate = trio.Event()
        alice.post(BOB, 1)
        await wait_all_tasks_blocked()
        alice.host.better(BOB)
        await wait_all_tasks_blocked()
        alice.host.drop(BOB)
        await wait_all_tasks_blocked()
        assert alice.lost == [BOB]
        assert alice.links.linked() == frozenset()


@trio_test
async def test_not_running() -> None:
    """Links that do not run, or not any more, refuse to send."""
    async with trio.open_nursery() as nursery:
        end = End(MemoryHost(ALICE, {}, nursery))
        with pytest.raises(UnavailableError, match="not running"):
            await end.send(BOB, 1)


@trio_test
async def test_too_many_peers() -> None:
    """There is a bound on the peers that frames are sent to at once."""
    async with ends(ALICE, BOB) as (alice, _):
        for number in range(MAX_LINKS):
            alice.post(PeerId(f"peer-{number}"), 1)
        with pytest.raises(UnavailableError, match="peers already"):
            alice.post(BOB, 1)
