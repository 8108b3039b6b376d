"""Each fault of the stock library is there without its patch, and gone with it."""

import importlib.metadata
import logging
import socket
import subprocess
import sys
from typing import Any

import pytest
import trio
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.stream.exceptions import StreamError

from p2pos.errors import InternalError, PeerError, UnavailableError, UserError
from p2pos.node import addresses, libp2p_patches
from p2pos.node import libp2p_host as host_module
from p2pos.node.host import Host
from p2pos.node.identity import Identity
from p2pos.node.libp2p_patches import PATCHES
from p2pos.wire.messages import Ack
from tests.node.stock import Turns, echo, host, library, library_id, muxed, network, put_back, run

SESSION = b"0123456789abcdef"
stock_or_mended = pytest.mark.parametrize("mended", [False, True], ids=["stock", "mended"])


async def answers(one: Host, other: Host) -> bool:
    """Whether an echo comes back in ten seconds."""
    try:
        with trio.fail_after(10):
            stream = await one.open(other.peer, "/echo")
            await stream.send(Ack(SESSION, 1))
            frame = await stream.receive()
            await stream.reset()
    except (trio.TooSlowError, UnavailableError, PeerError):
        return False
    return frame is not None and frame.message == Ack(SESSION, 1)


async def read_on(stream: Any) -> None:
    """Read a stream of the library to its end."""
    while await stream.read(100):
        pass


def test_every_patch_is_in_place() -> None:
    """Applying puts every replacement where it belongs, and applying again changes nothing."""
    libp2p_patches.apply()
    before = {
        (owner, name): vars(owner)[name]
        for patches in PATCHES.values()
        for owner, name, _ in patches
    }  # fmt: skip
    libp2p_patches.apply()
    for patches in PATCHES.values():
        for owner, name, mend in patches:
            assert vars(owner)[name] is mend is before[owner, name]


def test_importing_changes_nothing() -> None:
    """The library is as it came until `apply` is called."""
    code = (
        "from p2pos.node import libp2p_patches as patches; import sys;"
        "sys.exit(any(vars(o).get(n) is m for ps in patches.PATCHES.values() for o, n, m in ps))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches of private names are not put on a version that they were not written for."""
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "0.8.2")
    with pytest.raises(InternalError, match=r"0\.8\.2"):
        libp2p_patches.apply()


@stock_or_mended
def test_dialling_does_not_wait(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: the library's own dial takes 250 ms at least, though its only address answered at once."""
    if not mended:
        put_back(monkeypatch, "every dial waits 250 ms for a second address")

    async def body() -> float:
        async with host(()) as a, host() as b:
            network(a).peerstore.add_addrs(library_id(b), network(b).listeners[_listener(b)].get_addrs(), 100)
            before_s = trio.current_time()
            await network(a).dial_peer(library_id(b))
            return trio.current_time() - before_s

    took_s = run(body)
    assert (took_s < 0.25) == mended


def _listener(of: Host) -> Any:
    return next(iter(network(of).listeners))


@stock_or_mended
def test_one_process_per_port(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: a second host on a port that is taken starts, and takes half of the first one's connections."""
    if not mended:
        put_back(monkeypatch, "a second process listens on the same port")

    async def body() -> None:
        async with host() as a:
            taken = a.addresses[0].partition("/p2p/")[0]
            async with host((taken,)):
                pass

    if mended:
        with pytest.raises(UserError, match="is in use: choose another with --listen"):
            run(body)
    else:
        run(body)


@stock_or_mended
def test_the_kernel_watches_the_link(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: neither end of a connection asks TCP to notice a peer that is gone."""
    if not mended:
        put_back(monkeypatch, "a dropped link is never noticed")
    made: list[trio.SocketStream] = []
    watch_sockets(monkeypatch, made)

    async def body() -> list[tuple[int, int, int]]:
        async with host(()) as a, host() as b:
            await a.connect_to(b.addresses[0])
            return [
                (
                    stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
                    stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
                )
                for stream in made
            ]

    options = run(body)
    assert len(options) == 2
    assert options == [(1, 10_000, 1) if mended else (0, 0, 1)] * 2


def watch_sockets(monkeypatch: pytest.MonkeyPatch, made: list[trio.SocketStream]) -> None:
    """Have each TCP stream that the library makes noted."""
    libp2p_patches.apply()
    inner = TrioTCPStream.__init__

    def noting(self: Any, stream: trio.SocketStream) -> None:
        made.append(stream)
        inner(self, stream)

    monkeypatch.setattr(TrioTCPStream, "__init__", noting)


@stock_or_mended
def test_an_inbound_place_comes_back(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: a host with room for three inbound connections has served three in its life, and serves no fourth."""
    if not mended:
        put_back(monkeypatch, "an inbound slot is held until shutdown")
    monkeypatch.setattr(host_module, "MAX_CONNECTIONS", 3)

    async def body() -> int:
        served = 0
        async with host() as b:
            gone = trio.Event()
            b.on_disconnect(lambda _: gone.set())
            for _ in range(5):
                async with host(()) as a:
                    try:
                        await a.connect_to(b.addresses[0], deadline_s=2.0)
                    except UnavailableError:
                        continue
                    served += 1
                with trio.fail_after(10):
                    await gone.wait()
                gone = trio.Event()
        return served

    assert run(body) == (5 if mended else 3)


@stock_or_mended
def test_a_handler_that_fails(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: an exception in a handler of the library ends the host that runs it."""
    if not mended:
        put_back(monkeypatch, "a handler's exception ends the process")

    async def fail(_stream: Any) -> None:
        raise ZeroDivisionError

    async def body() -> bool:
        async with host(()) as a, host() as b:
            library(b).set_stream_handler("/fail", fail)
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            stream = await a.open(b.peer, "/fail")
            with pytest.raises(UnavailableError):
                await stream.receive()
            return await answers(a, b)

    if mended:
        assert run(body)
    else:
        with pytest.raises(BaseExceptionGroup) as caught:
            run(body)
        assert caught.group_contains(ZeroDivisionError)


@stock_or_mended
def test_bad_utf8_in_negotiation(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: two bytes that are no UTF-8 in the name of a protocol raise what no caller expects."""
    put_back(monkeypatch, "a handler's exception ends the process")
    if not mended:
        put_back(monkeypatch, "negotiation reads any length and bad UTF-8")

    async def body() -> bool:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            stream = await network(a).new_stream(library_id(b))
            await stream.write(b"\x13/multistream/1.0.0\n\x03\xff\xfe\n")
            with pytest.raises(StreamError):
                await read_on(stream)
            return await answers(a, b)

    if mended:
        assert run(body)
    else:
        with pytest.raises(BaseExceptionGroup) as caught:
            run(body)
        assert caught.group_contains(UnicodeDecodeError)


@stock_or_mended
def test_a_huge_length_in_negotiation(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: reads as many bytes as a stranger's first line says it has. Mended: refuses it at its length."""
    if not mended:
        put_back(monkeypatch, "negotiation reads any length and bad UTF-8")

    async def body() -> float:
        async with host(()) as a, host() as b:
            await a.connect_to(b.addresses[0])
            before_s = trio.current_time()
            stream = await network(a).new_stream(library_id(b))
            await stream.write(b"\x13/multistream/1.0.0\n\x80\x80\x80\x80\x10")  # 4 GiB
            with pytest.raises(StreamError):
                await read_on(stream)
            return trio.current_time() - before_s

    assert (run(body) < 5.0) == mended


def test_too_many_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that opens more streams than it may has the rest reset, and the first ones go on."""
    monkeypatch.setattr(libp2p_patches, "MAX_INBOUND_STREAMS", 8)

    async def body() -> tuple[int, bool]:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            opened = []
            for _ in range(20):
                try:
                    opened.append(await a.open(b.peer, "/echo"))
                except (PeerError, UnavailableError):
                    break
            await opened[0].send(Ack(SESSION, 1))
            frame = await opened[0].receive()
            return len(opened), frame is not None

    opened, still_served = run(body)
    assert 4 <= opened <= 8
    assert still_served


@stock_or_mended
def test_tls_reads_in_bulk(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: asks the socket for 4 KiB at a time under TLS."""
    if not mended:
        put_back(monkeypatch, "TLS reads 4 KiB at a time")
    sizes = watch_reads(monkeypatch)
    only(monkeypatch, "TLS")

    async def body() -> None:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            stream = await a.open(b.peer, "/echo")
            sizes.clear()
            await stream.send(Ack(SESSION, 1), b"x" * 1_000_000)
            frame = await stream.receive()
            assert frame is not None
            assert bytes(frame.payload) == b"x" * 1_000_000

    run(body)
    assert set(sizes) == {libp2p_patches.SOCKET_READ if mended else 4096}


@stock_or_mended
def test_noise_reads_in_bulk(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: asks the socket for the two bytes of each noise message's length."""
    if not mended:
        put_back(monkeypatch, "noise calls the socket for every length")
    sizes = watch_reads(monkeypatch)
    only(monkeypatch, "NOISE")

    async def body() -> None:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            stream = await a.open(b.peer, "/echo")
            sizes.clear()
            for _ in range(10):
                await stream.send(Ack(SESSION, 1))
                assert await stream.receive() is not None

    run(body)
    assert (2 in sizes) != mended


def watch_reads(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Have the size of every read of a socket noted."""
    sizes: list[int | None] = []
    inner = RawConnection.read

    async def noting(self: Any, n: int | None = None) -> bytes:
        sizes.append(n)
        return bytes(await inner(self, n))

    monkeypatch.setattr(RawConnection, "read", noting)
    return sizes


def only(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have hosts secure connections in one way alone."""
    protocol, inner = getattr(host_module, name), host_module._security
    monkeypatch.setattr(host_module, "_security", lambda identity: {protocol: inner(identity)[protocol]})


@pytest.mark.parametrize("security", ["NOISE", "TLS"])
def test_every_size_survives(monkeypatch: pytest.MonkeyPatch, security: str) -> None:
    """Frames of sizes at and around every buffer's length arrive as they were sent, noise and TLS alike."""
    only(monkeypatch, security)
    edges = (0, 2, 4096, 16_384, 65_519, 65_535, 1 << 17, 1 << 18, 1 << 20)
    sizes = sorted({max(0, edge + delta) for edge in edges for delta in (-70, -36, -35, -34, -1, 0, 1)})

    async def body() -> None:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            stream = await a.open(b.peer, "/echo")
            for size in sizes:
                payload = bytes(range(256)) * (size // 256) + b"e" * (size % 256)
                await stream.send(Ack(SESSION, 1), payload)
                frame = await stream.receive()
                assert frame is not None
                assert bytes(frame.payload) == payload

    run(body)


@stock_or_mended
def test_its_warnings_stay_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, mended: bool
) -> None:
    """Stock: a connection warns through the root logger, past everyone who silenced the library."""
    if not mended:
        put_back(monkeypatch, "its warnings go to the root logger")

    async def body() -> None:
        async with host(()) as a, host() as b:
            await a.connect_to(b.addresses[0])
            (connection,) = network(b).get_connections(library_id(a))
            connection._actual_transport_addresses = None
            connection.muxed_conn.peer_id = addresses.library_id(Identity.new().peer)
            connection.get_transport_addresses()
            connection.muxed_conn.peer_id = library_id(a)

    monkeypatch.setattr(logging.getLogger("libp2p"), "level", logging.CRITICAL)
    with caplog.at_level(logging.WARNING):
        run(body)
    assert any(record.name == "root" for record in caplog.records) != mended


@stock_or_mended
def test_it_dials_nobody_by_itself(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: dials whomever it has an address of, until it has half of the connections that it may have."""
    if not mended:
        put_back(monkeypatch, "it dials known peers by itself")

    async def body() -> bool:
        async with host(()) as a, host() as b:
            network(a).peerstore.add_addrs(library_id(b), network(b).listeners[_listener(b)].get_addrs(), 1000)
            await trio.sleep(100)
            return bool(a.connected())

    assert run(body) != mended


def test_streams_of_the_right_kind() -> None:
    """What the helpers here reach into is what they take it for."""

    async def body() -> None:
        async with host(()) as a, host() as b:
            b.serve("/echo", echo)
            await a.connect_to(b.addresses[0])
            stream = await a.open(b.peer, "/echo")
            assert type(muxed(stream)).__name__ == "YamuxStream"

    run(body)


async def joined() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of a TCP connection."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    one = await trio.open_tcp_stream(*listener.socket.getsockname())
    other = await listener.accept()
    await listener.aclose()
    return one, other


@stock_or_mended
def test_writing_to_a_socket_with_room(monkeypatch: pytest.MonkeyPatch, mended: bool) -> None:
    """Stock: gives every other task a turn for each of a lock and a call of the socket."""
    libp2p_patches.apply()
    if not mended:
        put_back(monkeypatch, "a call of the socket takes two turns")

    async def body() -> int:
        one, _ = await joined()
        turns = Turns(trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(turns)
        await TrioTCPStream(one).write(b"hello")
        trio.lowlevel.remove_instrument(turns)
        return turns.count

    assert (trio.run(body) == 0) == mended


def test_writing_to_a_full_socket() -> None:
    """What the socket does not take at once goes after it, whole and in order, whoever writes meanwhile."""
    libp2p_patches.apply()
    size = 8 << 20

    async def body() -> bytes:
        one, other = await joined()
        stream, received = TrioTCPStream(one), bytearray()
        async with trio.open_nursery() as nursery:
            for letter in b"ab":
                nursery.start_soon(stream.write, bytes([letter]) * size)
            while len(received) < 2 * size:
                received += await other.receive_some()
        return bytes(received)

    assert trio.run(body) in {b"a" * size + b"b" * size, b"b" * size + b"a" * size}


def test_writing_to_a_socket_that_is_gone() -> None:
    """The other end's close is told as the connection's end; what is written after our own is forgotten."""
    libp2p_patches.apply()

    async def body() -> None:
        one, other = await joined()
        stream = TrioTCPStream(one)
        await other.aclose()
        await stream.write(b"x")  # leaves; the kernel answers that nobody reads it
        await trio.lowlevel.wait_readable(one.socket)
        with pytest.raises(ConnectionClosedError):
            await stream.write(b"x" * (8 << 20))
        await stream.close()
        await stream.write(b"x")

    trio.run(body)
