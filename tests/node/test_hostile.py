"""A node that strangers and peers attack goes on serving others, and one that dies or hangs is noticed."""

import json
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil
import pytest
import trio
from libp2p.exceptions import BaseLibp2pError
from trio.testing import MockClock

from p2pos.errors import PeerError, UnavailableError
from p2pos.node import status
from p2pos.node.addresses import peer_of
from p2pos.node.host import Host
from p2pos.node.libp2p_host import PING_INTERVAL_S, PING_TIMEOUT_S
from p2pos.node.libp2p_patches import MAX_INBOUND_STREAMS
from p2pos.node.libp2p_yamux import STALL_S
from p2pos.node.links import Links
from p2pos.node.streams import FrameStream
from p2pos.types import PeerId
from p2pos.wire import framing
from p2pos.wire.framing import Frame
from p2pos.wire.messages import STAGE_PROTOCOL, STATUS_PROTOCOL, Ack, Announcement, Signed, StatusRequest
from tests.node.stock import host, muxed, network

SESSION = b"0123456789abcdef"


@dataclass
class Node:
    """A real process that serves."""

    process: subprocess.Popen[str]
    address: str

    @property
    def peer(self) -> PeerId:
        return peer_of(self.address)

    @property
    def port(self) -> int:
        return int(self.address.split("/")[4])


@pytest.fixture
def node() -> Iterator[Node]:
    """A node for one test; that it is still alive at the end is part of every test that does not kill it."""
    process = subprocess.Popen([sys.executable, "-m", "tests.node.echo_node"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Node(process, json.loads(process.stdout.readline())["address"])
    finally:
        process.kill()
        process.wait()


async def serves(node: Node) -> None:
    """Fail unless a newcomer is served an echo."""
    with trio.fail_after(20):
        async with host(()) as client:
            await client.connect_to(node.address)
            stream = await client.open(node.peer, "/echo")
            await stream.send(Ack(SESSION, 1), b"x" * 10_000)
            frame = await stream.receive()
    assert frame is not None
    assert len(frame.payload) == 10_000
    assert node.process.poll() is None


def varint_line(text: bytes) -> bytes:
    """A line of protocol negotiation."""
    return bytes([len(text) + 1]) + text + b"\n"


HELLO = varint_line(b"/multistream/1.0.0")
FROM_STRANGERS = {
    "nothing": b"",
    "zeros": bytes(100_000),
    "ones": b"\xff" * 100_000,
    "HTTP": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "bad UTF-8": HELLO + b"\x04\xff\xfe\xfd\n",
    "line of 4 GiB": HELLO + b"\x80\x80\x80\x80\x10",
    "line of 2^63 bytes": HELLO + b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "endless varint": HELLO + b"\xff" * 1000,
    "empty line": HELLO + b"\x00",
    "line without an end": HELLO + b"\x04abcd",
    "plaintext": HELLO + varint_line(b"/plaintext/2.0.0"),
    "secio": HELLO + varint_line(b"/secio/1.0.0"),
    "ls": HELLO + varint_line(b"ls") * 1000,
    "noise of zeros": HELLO + varint_line(b"/noise") + bytes(10_000),
    "noise of 65535 bytes": HELLO + varint_line(b"/noise") + b"\xff" * 70_000,
    "TLS of zeros": HELLO + varint_line(b"/tls/1.0.0") + bytes(10_000),
    "TLS alert": HELLO + varint_line(b"/tls/1.0.0") + b"\x15\x03\x03\x00\x02\x02\x28",
}


def test_strangers(node: Node) -> None:
    """Whatever a stranger's socket says before it has a name, at once or left hanging, the node serves others."""
    left_open = []
    for data in FROM_STRANGERS.values():
        for how in ("close", "reset", "leave open"):
            stranger = socket.create_connection(("127.0.0.1", node.port), timeout=10)
            with suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
                stranger.sendall(data)
            if how == "leave open":
                left_open.append(stranger)
                continue
            if how == "reset":
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stranger.close()
    trio.run(serves, node)
    for stranger in left_open:
        stranger.close()


async def _huge_length(stream: FrameStream) -> None:
    await muxed(stream).write(struct.pack("!II", 0xFFFFFFFF, 10))


async def _not_msgpack(stream: FrameStream) -> None:
    await muxed(stream).write(struct.pack("!II", 4 + 100, 100) + b"\xff" * 100)


async def _unknown_tag(stream: FrameStream) -> None:
    header = b"\x92\xa8Nonsense\x01"
    await muxed(stream).write(struct.pack("!II", 4 + len(header), len(header)) + header)


async def _bad_utf8(stream: FrameStream) -> None:
    header = b"\x93\xa5Close\xc4\x10" + SESSION + b"\xa2\xff\xfe"
    await muxed(stream).write(struct.pack("!II", 4 + len(header), len(header)) + header)


async def _nested(stream: FrameStream) -> None:
    header = b"\x91" * 100_000
    await muxed(stream).write(struct.pack("!II", 4 + len(header), len(header)) + header)


async def _cut_off(stream: FrameStream) -> None:
    await muxed(stream).write(framing.encode(Ack(SESSION, 1), b"x" * 1000)[:-1])
    await stream.close()


async def _reset(stream: FrameStream) -> None:
    await muxed(stream).write(framing.encode(Ack(SESSION, 1), b"x" * 1000)[:-1])
    await stream.reset()


async def _wrong_message(stream: FrameStream) -> None:
    await stream.send(StatusRequest(Signed(b"\xff" * 2048, b"\xff" * 512, b"\xff" * 512)))


async def _never_reads(stream: FrameStream) -> None:
    with trio.move_on_after(0.5):
        while True:
            await stream.send(Ack(SESSION, 1), b"x" * 100_000)


FROM_PEERS = [
    _huge_length,
    _not_msgpack,
    _unknown_tag,
    _bad_utf8,
    _nested,
    _cut_off,
    _reset,
    _wrong_message,
    _never_reads,
]


@pytest.mark.parametrize("protocol", ["/echo", STAGE_PROTOCOL, STATUS_PROTOCOL])
def test_peers(node: Node, protocol: str) -> None:
    """Whatever an authenticated peer sends on a stream, the node serves others meanwhile, and its memory stays."""
    before = psutil.Process(node.process.pid).memory_info().rss

    async def body() -> None:
        async with host(()) as attacker:
            for attack in FROM_PEERS:
                await attacker.connect_to(node.address)
                with suppress(UnavailableError, PeerError, BaseLibp2pError):
                    await attack(await attacker.open(node.peer, protocol))
            await serves(node)

    trio.run(body)
    assert psutil.Process(node.process.pid).memory_info().rss < before + (100 << 20)


def test_too_many_streams(node: Node) -> None:
    """A peer that opens streams without end is held to its share, and others are served."""

    async def body() -> None:
        async with host(()) as attacker:
            await attacker.connect_to(node.address)
            (connection,) = network(attacker).get_connections()
            connection.muxed_conn.stream_backlog_semaphore = trio.Semaphore(10_000)  # its own restraint
            opened = 0
            with suppress(UnavailableError, PeerError):
                while opened < 1000:
                    await attacker.open(node.peer, "/echo")
                    opened += 1
            assert opened <= MAX_INBOUND_STREAMS
            await serves(node)

    trio.run(body)


async def _links(
    client: Host, nursery: trio.Nursery, *, enough: trio.Event | None = None
) -> tuple[Links, list[PeerId], trio.Event, list[Frame]]:
    lost: list[PeerId] = []
    told = trio.Event()
    frames: list[Frame] = []

    def on_lost(peer: PeerId) -> None:
        lost.append(peer)
        told.set()

    def receive(_peer: PeerId, frame: Frame) -> None:
        frames.append(frame)
        if len(frames) == 200 and enough is not None:
            enough.set()

    links = Links(client, STAGE_PROTOCOL, receive=receive, on_lost=on_lost)
    await nursery.start(links.run)
    return links, lost, told, frames


def test_a_killed_peer_is_lost_at_once(node: Node) -> None:
    """A neighbour that is killed with -9 is lost within a second, once, and what waited for it fails."""

    async def body() -> None:
        async with host(()) as client, trio.open_nursery() as nursery:
            links, lost, told, _ = await _links(client, nursery)
            await links.send(node.peer, [node.address], Ack(SESSION, 1))
            began_s = trio.current_time()
            node.process.kill()
            with trio.fail_after(5):
                await told.wait()
            assert trio.current_time() - began_s < 1.0
            with pytest.raises(UnavailableError):
                await links.send(node.peer, [node.address], Ack(SESSION, 2))
            assert lost == [node.peer]
            nursery.cancel_scope.cancel()

    trio.run(body)


def test_a_hanging_peer_is_lost(node: Node) -> None:
    """A neighbour whose process stands still, which TCP can't see, is lost after two pings and a stalled write."""

    async def body() -> None:
        async with host(()) as client, trio.open_nursery() as nursery:
            links, lost, told, _ = await _links(client, nursery)
            await links.send(node.peer, [node.address], Ack(SESSION, 1))
            node.process.send_signal(signal.SIGSTOP)
            clock.rate = 5.0  # from here on nobody answers, so time may hurry
            began_s = trio.current_time()
            with trio.fail_after(100):
                await told.wait()
            # a farewell that it doesn't take holds the connection for another `STALL_S`
            assert trio.current_time() - began_s < 2 * (PING_INTERVAL_S + PING_TIMEOUT_S) + STALL_S
            assert lost == [node.peer]
            nursery.cancel_scope.cancel()

    clock = MockClock(rate=1.0)  # real time while a real process answers
    try:
        trio.run(body, clock=clock)
    finally:
        node.process.send_signal(signal.SIGCONT)


def test_a_real_link(node: Node) -> None:
    """Frames go to another process and back over one stream per direction, whole and in order."""

    async def body() -> None:
        async with host(()) as client, trio.open_nursery() as nursery:
            enough = trio.Event()
            links, lost, _, frames = await _links(client, nursery, enough=enough)
            for position in range(200):
                await links.send(node.peer, [node.address], Ack(SESSION, position), bytes([position]) * 5000)
            with trio.fail_after(20):
                await enough.wait()
            assert [frame.message for frame in frames] == [Ack(SESSION, position) for position in range(200)]
            assert all(bytes(frame.payload) == bytes([index]) * 5000 for index, frame in enumerate(frames))
            assert lost == []
            nursery.cancel_scope.cancel()

    trio.run(body)


def test_a_real_status(node: Node) -> None:
    """A node of another process answers what it believes: here, nothing yet."""

    async def body() -> list[Announcement]:
        async with host(()) as client:
            return await status.ask(client, await client.connect_to(node.address))

    assert trio.run(body) == []
