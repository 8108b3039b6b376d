"""Whoever asks is dialled back, where it is and nowhere else, and learns whether others can reach it."""

import pytest
import trio
from libp2p.host.autonat.pb.autonat_pb2 import Message
from multiaddr import Multiaddr

from p2pos.errors import PeerError, UnavailableError
from p2pos.node import addresses, autonat, identify
from p2pos.node.autonat import AUTONAT_PROTOCOL, MAX_REMEMBERED, PAUSE_S, AutoNat
from p2pos.node.host import Host
from p2pos.node.identity import Identity
from p2pos.types import PeerId
from tests.node.stock import host, library_id, run

CLOSED = Multiaddr("/ip4/127.0.0.1/tcp/1")  # tcpmux, which nobody runs


def server(of: Host) -> AutoNat:
    made = AutoNat(of.dialler)
    of.serve_raw(AUTONAT_PROTOCOL, made.answer)
    return made


def test_dialled_back() -> None:
    """A host that listens is reached, though it is connected already, and no connection is left of it."""

    async def body() -> None:
        async with host() as a, host() as b:
            server(b)
            await a.connect_to(b.addresses[0])
            mine = addresses.bare(a.addresses[0])
            assert await autonat.ask(a, b.peer, [mine]) == mine
            await trio.sleep(1)
            assert len(a.connections(b.peer)) == 1

    run(body)


def test_not_reached() -> None:
    """A host where nobody answers learns that. Stock: it is told yes, because it is connected."""

    async def body() -> None:
        async with host() as a, host() as b:
            server(b)
            await a.connect_to(b.addresses[0])
            assert await autonat.ask(a, b.peer, [CLOSED]) is None

    run(body)


def test_somebody_else_is_there() -> None:
    """An address at which another peer answers does not count."""

    async def body() -> None:
        async with host() as a, host() as b, host() as other:
            server(b)
            await a.connect_to(b.addresses[0])
            assert await autonat.ask(a, b.peer, [addresses.bare(other.addresses[0])]) is None

    run(body)


@pytest.mark.parametrize("asked", ["/ip4/127.0.0.2/tcp/4001", "/ip4/8.8.8.8/tcp/53", "/dns4/example.org/tcp/80"])
def test_nowhere_else(asked: str) -> None:
    """Nobody is made to dial an address that the one who asks is not seen at."""

    async def body() -> None:
        async with host() as a, host() as b:
            server(b)
            await a.connect_to(b.addresses[0])
            with pytest.raises(UnavailableError, match="would not dial back"):
                await autonat.ask(a, b.peer, [Multiaddr(asked)])

    run(body)


def test_nobody_else() -> None:
    """Nobody is made to dial another peer than the one who asks."""

    async def body() -> None:
        async with host() as a, host() as b, host() as victim:
            server(b)
            await a.connect_to(b.addresses[0])
            pipe = await a.open_raw(b.peer, AUTONAT_PROTOCOL)
            mine = Message.PeerInfo(
                id=library_id(victim).to_bytes(), addrs=[addresses.bare(victim.addresses[0]).to_bytes()]
            )
            await pipe.send(Message(type=Message.DIAL, dial=Message.Dial(peer=mine)))
            assert (await pipe.receive(Message)).dialResponse.status == Message.E_BAD_REQUEST

    run(body)


def test_not_too_often() -> None:
    """The same peer is dialled back now and then, not as often as it likes; few who asked are remembered."""

    async def body() -> None:
        async with host() as a, host() as b:
            made = server(b)
            await a.connect_to(b.addresses[0])
            mine = addresses.bare(a.addresses[0])
            await autonat.ask(a, b.peer, [mine])
            with pytest.raises(UnavailableError):
                await autonat.ask(a, b.peer, [mine])
            await trio.sleep(PAUSE_S + 1)
            assert await autonat.ask(a, b.peer, [mine]) == mine
            for number in range(MAX_REMEMBERED + 5):
                made._turn(PeerId(str(number)))
            assert len(made._asked_s) == MAX_REMEMBERED

    run(body)


def test_a_server_that_makes_things_up() -> None:
    """An answer that names an address that was not asked about is the server's fault."""

    async def lie(_peer: PeerId, pipe: object) -> None:
        await pipe.receive(Message)  # type: ignore[attr-defined]
        told = Message.DialResponse(status=Message.OK, addr=CLOSED.to_bytes())
        await pipe.send(Message(type=Message.DIAL_RESPONSE, dialResponse=told))  # type: ignore[attr-defined]

    async def body() -> None:
        async with host() as a, host() as b:
            b.serve_raw(AUTONAT_PROTOCOL, lie)  # type: ignore[arg-type]
            await a.connect_to(b.addresses[0])
            with pytest.raises(PeerError, match="not asked to"):
                await autonat.ask(a, b.peer, [addresses.bare(a.addresses[0])])

    run(body)


def test_dialling_from_the_port_that_is_listened_on() -> None:
    """A dial leaves from the port that the host listens on, so that a router lets answers through to it."""

    async def body() -> None:
        async with host() as a, host() as b:
            port = addresses.socket_of(addresses.bare(a.addresses[0]))[1]
            seen = await a.dialler.seen_from(port, addresses.bare(b.addresses[0]), b.peer)
            assert seen == ("127.0.0.1", port)
            await a.dialler.dial_from(port, addresses.bare(b.addresses[0]), b.peer, as_server=False)
            assert (await identify.ask(a, b.peer)).sees_us == ("127.0.0.1", port)

    run(body)


def test_nobody_answers_there() -> None:
    """Whoever does not answer, or is somebody else, has not proved that it is there."""

    async def body() -> None:
        async with host() as a, host() as b:
            assert await a.dialler.answers_at(addresses.bare(b.addresses[0]), b.peer)
            assert not await a.dialler.answers_at(CLOSED, b.peer)
            assert not await a.dialler.answers_at(addresses.bare(b.addresses[0]), Identity.new().peer)

    run(body)
