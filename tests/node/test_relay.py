"""A relay joins two hosts that can't dial each other; what it gives away is bounded, and it is trusted with nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status
from libp2p.relay.circuit_v2.pb.circuit_pb2 import PeerId as PeerField

from p2pos.errors import PeerError, UnavailableError
from p2pos.node import addresses, circuits
from p2pos.node.circuits import HOP_PROTOCOL, STOP_PROTOCOL
from p2pos.node.host import Host, open_host
from p2pos.node.identity import Identity
from p2pos.node.pipes import Pipe
from p2pos.node.relay import WINDOW, Relay
from p2pos.node.relay_book import Limits
from p2pos.types import PeerId
from p2pos.wire.messages import Ack
from tests.node.stock import LOOPBACK, echo, host, library_id, muxed, run

SESSION = b"0123456789abcdef"


def take_circuits(of: Host) -> None:
    """Have a host accept what relays join to it."""

    async def accept(_relay: PeerId, pipe: Pipe) -> None:
        peer = await circuits.accept(pipe, lambda _: True)
        await (await of.dialler.adopt(pipe, peer, dialled=False)).event_closed.wait()

    of.serve_raw(STOP_PROTOCOL, accept)


@asynccontextmanager
async def joined(limits: Limits | None = None) -> AsyncIterator[tuple[Host, Host, Host, Relay]]:
    """A client, a host with a place at a relay, the relay's host, and the relay."""
    async with host(()) as client, host(()) as hidden, host() as middle:
        relay = Relay(middle, limits)
        relay.offer()
        take_circuits(hidden)
        hidden.serve("/echo", echo)
        await hidden.connect_to(middle.addresses[0])
        await circuits.reserve(hidden, middle.peer)
        yield client, hidden, middle, relay


def through(middle: Host, hidden: Host) -> str:
    return addresses.through(middle.addresses[0], hidden.peer)


async def echoed(one: Host, other: Host, size: int) -> int:
    """Bytes that came back."""
    with trio.fail_after(30):
        stream = await one.open(other.peer, "/echo")
        await stream.send(Ack(SESSION, 1), bytes(size))
        frame = await stream.receive()
        await stream.finish()
    return 0 if frame is None else len(frame.payload)


def test_a_relay_joins_two() -> None:
    """A host that listens nowhere is dialled through a relay, by its id, and speaks both ways."""

    async def body() -> None:
        async with joined() as (client, hidden, middle, relay):
            assert await client.connect_to(through(middle, hidden)) == hidden.peer
            assert [each.relayed for each in client.connections(hidden.peer)] == [True]
            client.serve("/echo", echo)
            assert await echoed(client, hidden, 700_000) == 700_000
            assert await echoed(hidden, client, 700_000) == 700_000
            assert (relay.reservations, relay.circuits) == (1, 1)

    run(body)


def test_a_relay_of_a_private_swarm() -> None:
    """In a swarm with a key of its own circuits are sealed with it at both ends, and dialling back works as well."""

    async def body() -> None:
        key = bytes(range(32))
        async with (
            open_host(Identity.new(), (), swarm_key=key) as client,
            open_host(Identity.new(), LOOPBACK, swarm_key=key) as hidden,
            open_host(Identity.new(), LOOPBACK, swarm_key=key) as middle,
        ):
            Relay(middle).offer()
            take_circuits(hidden)
            hidden.serve("/echo", echo)
            await hidden.connect_to(middle.addresses[0])
            await circuits.reserve(hidden, middle.peer)
            await client.connect_to(through(middle, hidden))
            assert [each.relayed for each in client.connections(hidden.peer)] == [True]
            assert await echoed(client, hidden, 100_000) == 100_000
            assert await middle.dialler.answers_at(addresses.bare(hidden.addresses[0]), hidden.peer)

    run(body)


async def splice(listener: trio.SocketListener) -> None:
    """Make one connection of the first two that come, as simultaneous dials do."""
    one, other = await listener.accept(), await listener.accept()

    async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        async for data in source:
            await sink.send_all(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pump, one, other)
        nursery.start_soon(pump, other, one)


@pytest.mark.parametrize("swarm_key", [None, bytes(range(32))], ids=["open", "private"])
def test_two_dials_that_become_one_connection(swarm_key: bytes | None) -> None:
    """Where both ends dialled, the one that is the server speaks second, and each knows who the other is."""

    async def body() -> None:
        async with (
            open_host(Identity.new(), LOOPBACK, swarm_key=swarm_key) as one,
            open_host(Identity.new(), LOOPBACK, swarm_key=swarm_key) as other,
            trio.open_nursery() as nursery,
        ):
            one.serve("/echo", echo)
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(splice, listener)
            between = addresses.packed("127.0.0.1", listener.socket.getsockname()[1])

            async def dial(host: Host, peer: PeerId, as_server: bool) -> None:
                port = addresses.socket_of(addresses.bare(host.addresses[0]))[1]
                await host.dialler.dial_from(port, between, peer, as_server=as_server)

            async with trio.open_nursery() as dials:
                dials.start_soon(dial, other, one.peer, False)
                dials.start_soon(dial, one, other.peer, True)
            assert one.connected() == {other.peer}
            assert await echoed(other, one, 1000) == 1000
            nursery.cancel_scope.cancel()

    run(body)


def test_relayed_addresses_come_last() -> None:
    """Where a host can be dialled both ways, the relay is left alone."""

    async def body() -> None:
        async with joined() as (client, hidden, middle, relay):
            await hidden.listen("/ip4/127.0.0.1/tcp/0")
            await client.connect(hidden.peer, [through(middle, hidden), *hidden.addresses])
            assert [each.relayed for each in client.connections(hidden.peer)] == [False]
            assert relay.circuits == 0

    run(body)


def test_a_stream_takes_the_direct_connection() -> None:
    """Beside a relayed connection a direct one is told, and new streams go over it."""

    async def body() -> None:
        async with joined() as (client, hidden, middle, _):
            better: list[PeerId] = []
            client.on_direct(better.append)
            await client.connect_to(through(middle, hidden))
            await hidden.listen("/ip4/127.0.0.1/tcp/0")
            await client.dialler.race(hidden.peer, [addresses.dialable(hidden.addresses[0], hidden.peer)], [])
            assert sorted(each.relayed for each in client.connections(hidden.peer)) == [False, True]
            assert better == [hidden.peer]
            for _ in range(5):
                pipe = await client.open_raw(hidden.peer, "/echo")
                assert not pipe.relayed
                await pipe.reset()

    run(body)


def test_one_circuit_ends_alone() -> None:
    """When one of two circuits to the same host ends, the other goes on."""

    async def body() -> None:
        async with joined() as (client, hidden, middle, relay), host(()) as other:
            for each in (client, other):
                await each.connect_to(through(middle, hidden))
            await client.disconnect(hidden.peer)
            await trio.sleep(1)
            assert relay.circuits == 1
            assert await echoed(other, hidden, 100_000) == 100_000

    run(body)


def test_no_place_no_circuit() -> None:
    """A peer without a place is not reached, one whose connection has ended neither; the error says so."""

    async def body() -> None:
        async with joined() as (client, hidden, middle, relay), host(()) as stranger:
            await stranger.connect_to(middle.addresses[0])
            with pytest.raises(UnavailableError) as caught:
                await client.connect_to(addresses.through(middle.addresses[0], stranger.peer))
            assert "NO_RESERVATION" in str(caught.value.fields["why"])
            await hidden.disconnect(middle.peer)
            await trio.sleep(1)
            assert relay.reservations == 0
            with pytest.raises(UnavailableError):
                await client.connect_to(through(middle, hidden))

    run(body)


def test_nobody_reserves_for_another() -> None:
    """Whoever asks for a place in another's name gets one of its own. Stock: the other one's."""

    async def body() -> None:
        async with joined() as (client, hidden, middle, relay):
            await client.connect_to(middle.addresses[0])
            await hidden.disconnect(middle.peer)
            await trio.sleep(1)
            pipe = await client.open_raw(middle.peer, HOP_PROTOCOL)
            name = PeerField(id=library_id(hidden).to_bytes())
            await pipe.send(HopMessage(type=HopMessage.RESERVE, peer=name))
            assert (await pipe.receive(HopMessage)).status == Status.OK
            assert list(relay._book.peers) == [client.peer]

    run(body)


def test_a_relay_that_lies_gets_no_connection() -> None:
    """Who answers at the end of a circuit and is not who was asked for, is nobody."""

    async def body() -> None:
        async with joined() as (client, hidden, middle, _), host(()) as impostor:
            take_circuits(impostor)
            await impostor.connect_to(middle.addresses[0])
            await client.connect_to(middle.addresses[0])
            await circuits.reserve(impostor, middle.peer)
            pipe = await circuits.join(client, middle.peer, impostor.peer)
            with pytest.raises(UnavailableError, match="over the circuit"):
                await client.dialler.adopt(pipe, hidden.peer, dialled=True)
            assert hidden.peer not in client.connected()
            assert impostor.peer not in client.connected()

    run(body)


def test_a_circuit_that_had_its_share() -> None:
    """A circuit that has carried all it may is cut, and both ends hear of it."""

    async def body() -> None:
        async with joined(replace(Limits(), circuit_bytes=200_000)) as (client, hidden, middle, relay):
            gone: list[PeerId] = []
            hidden.on_disconnect(gone.append)
            await client.connect_to(through(middle, hidden))
            with pytest.raises(UnavailableError):
                await echoed(client, hidden, 300_000)
            await trio.sleep(1)
            assert relay.circuits == 0
            assert client.peer in gone
            assert hidden.peer not in client.connected()

    run(body)


def test_the_relay_holds_little() -> None:
    """However fast an end sends, the relay lets it run ahead of the other by a bounded window."""

    async def body() -> None:
        async with joined() as (client, hidden, middle, _):
            await client.connect_to(through(middle, hidden))
            assert await echoed(client, hidden, 8 << 20) == 8 << 20
            windows = [
                stream.target_recv_window
                for connection in middle._network.get_connections()
                for stream in connection.muxed_conn.streams.values()
            ]
            assert windows
            assert max(windows) <= WINDOW

    run(body)


def test_no_relay_through_a_relay() -> None:
    """Whoever came through a relay is neither kept a place nor joined to anybody."""

    async def body() -> None:
        async with joined() as (client, hidden, middle, _):
            Relay(hidden).offer()
            await client.connect_to(through(middle, hidden))
            with pytest.raises(UnavailableError, match="PERMISSION_DENIED"):
                await circuits.reserve(client, hidden.peer)

    run(body)


def test_a_relay_that_withdrew() -> None:
    """A node that does not relay any more says that it doesn't, and ends no circuit."""

    async def body() -> None:
        async with joined() as (client, hidden, middle, relay):
            await client.connect_to(through(middle, hidden))
            relay.withdraw()
            with pytest.raises(PeerError, match="does not speak"):
                await circuits.reserve(hidden, middle.peer)
            assert await echoed(client, hidden, 10_000) == 10_000

    run(body)


@pytest.mark.parametrize(
    "said",
    [b"", b"\xff\xff\xff\xff", b"\x05\xff\xff\xff\xff\xff", b"\x02\x08\x07", b"\x04\x08\x01\x12\x00", bytes(5000)],
    ids=["nothing", "length", "no-message", "no-kind", "nobody", "zeros"],
)
def test_nonsense(said: bytes) -> None:
    """A stream of nonsense ends; the relay goes on for everybody else."""

    async def body() -> None:
        async with joined() as (client, hidden, middle, relay):
            await client.connect_to(middle.addresses[0])
            pipe = await client.open_raw(middle.peer, HOP_PROTOCOL)
            await pipe.write(said)
            await pipe.close()
            await trio.sleep(1)
            await client.connect_to(through(middle, hidden))
            assert await echoed(client, hidden, 100) == 100
            assert relay.circuits == 1

    run(body)


def test_a_circuit_from_a_relay_that_was_not_asked() -> None:
    """A relay where no place is kept joins nobody to us."""

    async def body() -> None:
        async with host(()) as hidden, host() as middle:
            refused = trio.Event()

            async def accept(_relay: PeerId, pipe: Pipe) -> None:
                try:
                    await circuits.accept(pipe, lambda _: False)
                finally:
                    refused.set()

            hidden.serve_raw(STOP_PROTOCOL, accept)
            await hidden.connect_to(middle.addresses[0])
            relay = Relay(middle)
            relay._book.reserve(hidden.peer, "127.0.0.1", trio.current_time())
            with pytest.raises(UnavailableError):
                await relay._ask(hidden.peer, middle.peer)
            assert refused.is_set()

    run(body)


def test_windows_grow_without_a_bound() -> None:
    """Of a stream that is not a circuit's the window grows, for files; the bound is the relay's alone."""

    async def body() -> None:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            stream = await a.open(b.peer, "/echo")
            for _ in range(4):
                await stream.send(Ack(SESSION, 1), bytes(2 << 20))
                await stream.receive()
            assert muxed(stream).target_recv_window > WINDOW

    run(body)
