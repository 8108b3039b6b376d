"""Nodes learn of one another by asking, hear who leaves, and pass over what can't be believed."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from trio_typing import TaskStatus

from p2pos.errors import PeerError, UnavailableError, UserError
from p2pos.node import status
from p2pos.node.discovery import REFRESH_S, Discovery
from p2pos.node.host import Host, open_host
from p2pos.node.identity import Identity
from p2pos.node.streams import FrameStream
from p2pos.node.table import LIFETIME_MS
from p2pos.wire.messages import STATUS_PROTOCOL, Ack, Announcement, Signed, StatusAnswer, StatusRequest
from tests.node.stock import LOOPBACK, echo, host, run
from tests.node.test_table import announcement, sign

EPOCH_MS = 1_700_000_000_000


def clock() -> int:
    """The tests' time in milliseconds since some epoch."""
    return EPOCH_MS + int(trio.current_time() * 1000)


class Node:
    """A host with its view of the swarm."""

    def __init__(self, running: Host, identity: Identity, index: int) -> None:
        self.host = running
        self.identity = identity
        self.discovery = Discovery(running, identity, clock=clock)
        self.life = trio.CancelScope()
        self._index = index

    async def run(self, bootstrap: list[str], *, task_status: TaskStatus[None]) -> None:
        with self.life:
            await self.discovery.run(bootstrap, task_status=task_status)

    def describe(self, sequence: int, expires: int) -> Announcement:
        return announcement(
            self.identity,
            sequence,
            expires=expires,
            addresses=list(self.host.addresses),
            start=self._index,
            end=self._index + 1,
        )

    def spans(self) -> list[int]:
        return sorted(each.start for each in self.discovery.known())


@asynccontextmanager
async def swarm(count: int) -> AsyncIterator[tuple[list[Node], trio.Nursery]]:
    """So many nodes, each joined through the first."""
    async with AsyncExitStack() as stack:
        nodes = []
        for index in range(count):
            identity = Identity(bytes([index + 1]) * 32)
            nodes.append(Node(await stack.enter_async_context(open_host(identity, LOOPBACK)), identity, index))
        async with trio.open_nursery() as nursery:
            for node in nodes:
                bootstrap = [nodes[0].host.addresses[0]] if node is not nodes[0] else []
                await nursery.start(node.run, bootstrap)
                await node.discovery.announce(node.describe)
            yield nodes, nursery
            nursery.cancel_scope.cancel()


def test_all_know_all() -> None:
    """Nodes that joined through one know all the others within one round, and stay known."""

    async def body() -> None:
        async with swarm(4) as (nodes, _):
            await trio.sleep(REFRESH_S)
            assert [node.spans() for node in nodes] == [[0, 1, 2, 3]] * 4
            await trio.sleep(2 * LIFETIME_MS / 1000)
            assert [node.spans() for node in nodes] == [[0, 1, 2, 3]] * 4

    run(body)


def test_a_newcomer_is_known_at_once() -> None:
    """Who it joined through knows a newcomer as soon as it has announced itself, and so does who asks it."""

    async def body() -> None:
        async with swarm(2) as (nodes, _), host(()) as client:
            assert nodes[0].spans() == [0, 1]
            peer = await client.connect_to(nodes[0].host.addresses[0])
            known = await status.ask(client, peer, clock=clock)
            assert [each.start for each in known] == [0, 1]
            assert known[0].peer == peer

    run(body)


def test_a_goodbye() -> None:
    """A node that leaves in order is forgotten at once by those who are connected, and in a round by all."""

    async def body() -> None:
        async with swarm(3) as (nodes, _):
            await trio.sleep(REFRESH_S)
            await nodes[2].discovery.leave()
            assert nodes[0].spans() == nodes[1].spans() == [0, 1]
            await nodes[2].discovery.leave()
            await trio.sleep(2 * REFRESH_S)
            assert [node.spans() for node in nodes] == [[0, 1]] * 3

    run(body)


def test_a_silent_death() -> None:
    """A node that says nothing more is forgotten when its last word expires."""

    async def body() -> None:
        async with swarm(2) as (nodes, _):
            nodes[1].life.cancel()
            await trio.sleep(LIFETIME_MS / 1000 - 2 * REFRESH_S)
            assert nodes[0].spans() == [0, 1]
            await trio.sleep(2 * REFRESH_S)
            assert nodes[0].spans() == [0]

    run(body)


@pytest.mark.parametrize("leap_ms", [20 * LIFETIME_MS, -20 * LIFETIME_MS])
def test_a_clock_that_leaps_ends_nothing(leap_ms: int) -> None:
    """A machine that slept, or whose clock is set, says nothing that is in time for a moment, and then does again."""

    async def body() -> None:
        async with swarm(2) as (nodes, _):
            mine = nodes[1].discovery
            before = mine._own
            assert before is not None
            mine._clock = lambda: clock() + leap_ms
            assert mine._keep_record(before) == (leap_ms < 0)  # what was kept before is as it was
            mine.say_anew()
            mine._clock = clock
            await trio.sleep(3 * REFRESH_S)
            mine.say_anew()
            assert 1 in nodes[0].spans()

    run(body)


def test_nobody_answers() -> None:
    """A node whose bootstrap peers don't answer says so instead of starting alone."""

    async def body() -> None:
        nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.new().peer}"
        async with host(()) as alone, trio.open_nursery() as nursery:
            await nursery.start(Discovery(alone, Identity.new(), clock=clock).run, [nobody])

    with pytest.raises(BaseExceptionGroup) as caught:
        run(body)
    assert caught.group_contains(UnavailableError, match="nobody answers at")


def test_one_of_two_answers() -> None:
    """One bootstrap peer that answers is enough."""

    async def body() -> None:
        nobody = f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.new().peer}"
        async with swarm(1) as (nodes, nursery), host(()) as joining:
            late = Discovery(joining, Identity.new(), clock=clock)
            await nursery.start(late.run, [nobody, nodes[0].host.addresses[0]])
            assert [each.start for each in late.known()] == [0]

    run(body)


def test_a_bad_bootstrap_address() -> None:
    """A bootstrap address without a peer is the user's mistake."""

    async def body() -> None:
        async with host(()) as alone, trio.open_nursery() as nursery:
            await nursery.start(Discovery(alone, Identity.new(), clock=clock).run, ["/ip4/127.0.0.1/tcp/1"])

    with pytest.raises(BaseExceptionGroup) as caught:
        run(body)
    assert caught.group_contains(UserError, match="not the address of a peer")


def test_lies_are_passed_over() -> None:
    """Of an answer, forged and stale announcements are left out and the rest is believed."""
    alice, bob = Identity(bytes([7]) * 32), Identity(bytes([8]) * 32)

    async def body() -> list[str]:
        now_ms = clock()
        told = [
            Signed(b"nonsense", b"", b""),
            sign(bob, announcement(alice, now_ms)),
            sign(alice, announcement(alice, now_ms - LIFETIME_MS)),
            sign(bob, announcement(bob, now_ms)),
        ]

        async def lie(stream: FrameStream) -> None:
            await stream.receive()
            await stream.send(StatusAnswer(told))

        async with host(()) as client, host() as liar:
            liar.serve(STATUS_PROTOCOL, lie)
            await client.connect_to(liar.addresses[0])
            return [each.peer for each in await status.ask(client, liar.peer, clock=clock)]

    assert run(body) == [bob.peer]


def test_an_answer_to_another_question() -> None:
    """A peer that answers a status request with something else is at fault."""

    async def body() -> None:
        async with host(()) as client, host() as odd:
            odd.serve(STATUS_PROTOCOL, echo)
            await client.connect_to(odd.addresses[0])
            await status.ask(client, odd.peer, clock=clock)

    with pytest.raises(PeerError, match="other than its status"):
        run(body)


def test_another_question() -> None:
    """A peer that asks a node something else has its stream reset, and the node goes on."""

    async def body() -> None:
        async with swarm(1) as (nodes, _), host(()) as odd:
            peer = await odd.connect_to(nodes[0].host.addresses[0])
            stream = await odd.open(peer, STATUS_PROTOCOL)
            await stream.send(Ack(b"0123456789abcdef", 1))
            with pytest.raises(UnavailableError):
                await stream.receive()
            assert len(await status.ask(odd, peer, clock=clock)) == 1

    run(body)


def test_many_questions_on_one_stream() -> None:
    """A stream can ask again."""

    async def body() -> None:
        async with swarm(1) as (nodes, _), host(()) as client:
            peer = await client.connect_to(nodes[0].host.addresses[0])
            stream = await client.open(peer, STATUS_PROTOCOL)
            for _ in range(3):
                await stream.send(StatusRequest())
                frame = await stream.receive()
                assert frame is not None
                assert isinstance(frame.message, StatusAnswer)
            await stream.finish()

    run(body)
