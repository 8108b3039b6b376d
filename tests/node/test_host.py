"""A host dials, is dialled, and says in one line why it can't; who is not who they say gets no connection."""

import importlib.metadata
from functools import partial

import pytest
import trio
from libp2p import new_host
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.stream_muxer.mplex.mplex import MPLEX_PROTOCOL_ID, Mplex
from multiaddr import Multiaddr

from p2pos.errors import PeerError, UnavailableError, UserError
from p2pos.node import libp2p_host as host_module
from p2pos.node.host import open_host
from p2pos.node.identity import Identity
from p2pos.types import PeerId
from p2pos.wire.messages import Ack
from tests.node.stock import LOOPBACK, echo, host, network, run

SESSION = b"0123456789abcdef"
SINK = "/ip4/127.0.0.1/tcp/1"  # tcpmux, which nobody runs: refuses at once


def test_connect_and_speak() -> None:
    """A pure client connects to a listening host and each speaks to the other over that one connection."""

    async def body() -> None:
        async with host(()) as a, host() as b:
            assert a.addresses == ()
            assert b.addresses[0].endswith(f"/p2p/{b.peer}")
            a.serve("/echo", echo)
            b.serve("/echo", echo)
            assert await a.connect_to(b.addresses[0]) == b.peer
            assert a.connected() == {b.peer}
            for one, other in ((a, b), (b, a)):
                stream = await one.open(other.peer, "/echo")
                assert stream.peer == other.peer
                await stream.send(Ack(SESSION, 3), b"payload")
                frame = await stream.receive()
                assert frame is not None
                assert (frame.message, bytes(frame.payload)) == (Ack(SESSION, 3), b"payload")
                await stream.close()
                assert await stream.receive() is None
            assert len(network(b).get_connections()) == 1

    run(body)


def test_the_first_address_that_answers() -> None:
    """Of many addresses one that answers is enough, wherever it stands, and the others cost little time."""

    async def body() -> None:
        async with host(()) as a, host() as b, trio.open_nursery() as nursery:
            (silent,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), _say_nothing, 0)
            hole = f"/ip4/127.0.0.1/tcp/{silent.socket.getsockname()[1]}"
            before_s = trio.current_time()
            await a.connect(b.peer, [SINK, hole, hole, SINK, b.addresses[0]])
            assert trio.current_time() - before_s < 2.0
            assert a.connected() == {b.peer}
            nursery.cancel_scope.cancel()

    run(body)


async def _say_nothing(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await trio.sleep_forever()


def test_nobody_answers() -> None:
    """A peer that answers nowhere is unavailable: at once where all refuse, at the deadline where one is silent."""

    async def body() -> None:
        async with host(()) as a, trio.open_nursery() as nursery:
            (silent,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), _say_nothing, 0)
            hole = f"/ip4/127.0.0.1/tcp/{silent.socket.getsockname()[1]}"
            peer = Identity.new().peer
            before_s = trio.current_time()
            with pytest.raises(UnavailableError, match="does not answer at any of its 2 addresses") as caught:
                await a.connect(peer, [SINK, SINK])
            assert trio.current_time() - before_s < 1.0
            assert len(caught.value.fields["why"]) == 2
            with pytest.raises(UnavailableError):
                await a.connect(peer, [hole], deadline_s=3.0)
            assert trio.current_time() - before_s < 4.0
            with pytest.raises(UnavailableError, match="none of its addresses is known"):
                await a.connect(peer, [])
            nursery.cancel_scope.cancel()

    run(body)


def test_a_failure_is_not_held_against_a_peer() -> None:
    """A peer that did not answer is dialled again at once, not after a minute."""

    async def body() -> None:
        async with host(()) as a, host() as b:
            with pytest.raises(UnavailableError):
                await a.connect(b.peer, [SINK])
            await a.connect(b.peer, b.addresses)
            assert b.peer in a.connected()

    run(body)


def test_somebody_else_answers() -> None:
    """A peer that is not the one that was dialled gets no connection."""

    async def body() -> None:
        async with host(()) as a, host() as b:
            other = b.addresses[0].replace(b.peer, Identity.new().peer)
            with pytest.raises(UnavailableError, match="nobody answers") as caught:
                await a.connect_to(other)
            assert "is this its peer id" in caught.value.hint
            assert a.connected() == frozenset()

    run(body)


def test_many_dial_at_once() -> None:
    """Tasks that all want a connection to one peer share one."""

    async def body() -> None:
        async with host(()) as a, host() as b:
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(a.connect, b.peer, b.addresses)
            assert len(network(a).get_connections()) == 1

    run(body)


def test_both_dial_at_once() -> None:
    """Two hosts that dial each other at once are connected, and speak."""

    async def body() -> None:
        async with host() as a, host() as b:
            a.serve("/echo", echo)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.connect, b.peer, b.addresses)
                nursery.start_soon(b.connect, a.peer, a.addresses)
            stream = await b.open(a.peer, "/echo")
            await stream.send(Ack(SESSION, 1))
            assert await stream.receive() is not None

    run(body)


def test_an_unknown_protocol() -> None:
    """A peer that does not speak a protocol is told from one that is not there."""

    async def body() -> None:
        async with host(()) as a, host() as b:
            await a.connect_to(b.addresses[0])
            with pytest.raises(PeerError, match="does not speak /nothing/1"):
                await a.open(b.peer, "/nothing/1")
            with pytest.raises(UnavailableError, match="not connected"):
                await a.open(Identity.new().peer, "/echo")
            with pytest.raises(PeerError, match="not a peer id"):
                await a.connect(PeerId("0"), [SINK])

    run(body)


def test_no_place_for_a_stream() -> None:
    """Where a connection has no place for another stream, opening one fails at once instead of waiting for ever."""

    async def body() -> None:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            await trio.sleep(1)
            (connection,) = network(a).get_connections()
            places, connection.muxed_conn.stream_backlog_semaphore = (
                connection.muxed_conn.stream_backlog_semaphore,
                trio.Semaphore(0),
            )
            with pytest.raises(UnavailableError, match="too many streams"):
                await a.open(b.peer, "/echo")
            connection.muxed_conn.stream_backlog_semaphore = places
            assert (await a.open(b.peer, "/echo")).peer == b.peer

    run(body)


def test_a_disconnect_is_told() -> None:
    """Both ends hear of a connection that ends, once, and can connect again."""

    async def body() -> None:
        told: list[tuple[str, PeerId]] = []
        async with host(()) as a, host() as b:
            a.on_disconnect(lambda peer: told.append(("a", peer)))
            b.on_disconnect(lambda peer: told.append(("b", peer)))
            await a.connect_to(b.addresses[0])
            await a.disconnect(b.peer)
            await trio.sleep(1)
            assert sorted(told) == [("a", b.peer), ("b", a.peer)]
            assert a.connected() == b.connected() == frozenset()
            await a.connect_to(b.addresses[0])
            assert a.connected() == {b.peer}

    run(body)


def test_a_handlers_fault() -> None:
    """A handler that fails resets its stream; the next stream is served."""

    async def fail(_stream: object) -> None:
        raise ZeroDivisionError

    async def body() -> None:
        async with host(()) as a, host() as b:
            b.serve("/fail", fail)
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            broken = await a.open(b.peer, "/fail")
            with pytest.raises(UnavailableError):
                await broken.receive()
            stream = await a.open(b.peer, "/echo")
            await stream.send(Ack(SESSION, 1))
            assert await stream.receive() is not None

    run(body)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("/ip4/127.0.0.1", "not an address to listen on"),
        ("nonsense", "not an address to listen on"),
        ("/ip4/192.0.2.1/tcp/0", "can't be listened on"),  # TEST-NET-1, which no machine has
    ],
)
def test_a_bad_listen_address(address: str, why: str) -> None:
    """An address that can't be listened on is the user's mistake, in one line."""

    async def body() -> None:
        async with open_host(Identity.new(), [address]):
            pass

    with pytest.raises(UserError, match=why):
        run(body)


def test_listening_twice() -> None:
    """A host may listen at several addresses, IPv6 among them; each can be dialled, and twice the same is once."""

    async def body() -> None:
        async with host((*LOOPBACK, *LOOPBACK, "/ip6/::1/tcp/0")) as b:
            assert len(b.addresses) == 2
            for address in b.addresses:
                async with host(()) as a:
                    await a.connect_to(address)

    run(body)


@pytest.mark.parametrize(
    "options",
    [
        {"sec_opt": lambda pair: {PLAINTEXT_PROTOCOL_ID: InsecureTransport(pair)}},
        {"muxer_opt": lambda _: {MPLEX_PROTOCOL_ID: Mplex}},
    ],
    ids=["plaintext", "mplex"],
)
def test_what_is_not_spoken(options: dict[str, object]) -> None:
    """A peer that offers plaintext alone, where ids can be forged, or mplex alone gets no connection."""

    async def body() -> None:
        identity = Identity.new()
        async with host() as b:
            stranger = new_host(
                key_pair=identity.key_pair,
                **{name: make(identity.key_pair) for name, make in options.items()},  # type: ignore[operator]
            )
            async with stranger.run([]):
                with pytest.raises(Exception, match="unable to connect"):
                    await stranger.connect(info_from_p2p_addr(Multiaddr(b.addresses[0])))
                assert b.connected() == frozenset()

    run(body)


def test_the_security_offered() -> None:
    """Noise and TLS are all that is offered, noise first."""
    assert [str(name) for name in host_module._security(Identity.new())] == ["/noise", "/tls/1.0.0"]


def test_the_version() -> None:
    """The installed library is the one that the patches were written for."""
    assert importlib.metadata.version("libp2p") == "0.8.1"
