"""libp2p 0.8.1, mended: each fault of the stock library that reaches us, what replaces it, and why.

`apply()` puts every patch in place, once per process, before the first host is made; importing this module
changes nothing. What the patches send on the wire any libp2p takes. The faults were measured between real
processes; `tests/node/test_libp2p_patches.py` shows each with its patch left out and healed with it in.
Yamux's are written in `libp2p_yamux`.
"""

import importlib.metadata
import logging
import os
import socket
import ssl
from typing import Any, NamedTuple

import trio
from libp2p.exceptions import BaseLibp2pError, ParseError
from libp2p.io.exceptions import ConnectionClosedError, IncompleteReadError, IOException
from libp2p.io.trio import TrioTCPStream
from libp2p.network import swarm
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.connection import swarm_connection
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.protocol_muxer import multiselect_communicator
from libp2p.protocol_muxer.exceptions import MultiselectCommunicatorError
from libp2p.security.noise.io import MAX_PLAINTEXT_LENGTH, NoisePacketReadWriter, NoiseTransportReadWriter
from libp2p.security.tls.io import TLSStreamReadWriter
from libp2p.stream_muxer.yamux import yamux
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp import tcp
from libp2p.utils.varint import read_varint_prefixed_bytes_limited

from p2pos import log
from p2pos.errors import InternalError
from p2pos.node import libp2p_yamux, private

VERSION = "0.8.1"
"""The version whose private names these patches know."""

KEEPALIVE_IDLE_S = 5
"""Seconds of silence after which TCP asks whether the other end is there."""
KEEPALIVE_INTERVAL_S = 2
"""Seconds between two such questions."""
KEEPALIVE_COUNT = 3
"""Questions without an answer after which the connection is dead: 5 + 3 × 2 = 11 s."""
USER_TIMEOUT_MS = 10_000
"""Milliseconds for which bytes that were sent may stay unacknowledged before the connection is dead."""
LISTEN_BACKLOG = 128
"""Connections that wait to be accepted; the library's number."""

SOCKET_READ = 128 << 10
"""Bytes asked of the socket at once: two of noise's largest messages, eight of TLS's largest records."""
NOISE_LENGTH = 2
"""Bytes that say how long a noise message is."""
TLS_RECORD = 64 << 10
"""Bytes asked of the TLS session at once; it gives one record, at most 16 KiB."""

MAX_MULTISTREAM_MESSAGE = 64 << 10
"""Bytes of one line of protocol negotiation; go-multistream's limit."""
MAX_INBOUND_STREAMS = 256
"""Streams that a peer may have open on one connection; yamux's usual backlog. Links and requests need a dozen."""

_log = log.get("libp2p")


def _keep_alive(stream: Any, trio_stream: trio.SocketStream) -> None:
    """`TrioTCPStream.__init__`: have the kernel notice a peer that is gone.

    Stock: a link that drops without a word is never noticed (half open: nothing in 100 s).
    """
    _stock[TrioTCPStream, "__init__"](stream, trio_stream)
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS),
    ):
        trio_stream.socket.setsockopt(level, option, value)


async def _dial_nobody(_connector: Any) -> None:
    """`AutoConnector.maybe_connect`: whom to dial is ours to say.

    Stock: dials everyone that it has an address of, which strangers tell it by identify, until half of the
    connections that it may have are open; a `low_watermark` of 0 does not keep it from it.
    """


async def _listen_alone(host: str | None, port: int) -> list[trio.SocketListener]:
    """`_open_reuseport_listeners`: one process per port.

    Stock: listens with SO_REUSEPORT, so a second daemon on the same port starts without an error and takes half
    of the first one's connections. Mended: the option is set once the port is ours, so that we can dial from it
    too, which passes routers; another process that asks for the port is still refused. Raises OpenConnectionError
    where the port is taken.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=LISTEN_BACKLOG)
    except OSError as exc:
        raise OpenConnectionError(f"can't listen on {host}:{port}: {exc}") from exc
    for listener in listeners:
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return list(listeners)


async def _accept(network: Any, stream: Any, address: Any, _failure: Any) -> None:
    """`Swarm._do_handle_inbound_connection`, which returns when its connection ends.

    Stock: waits for the end of the host instead, and holds one of its places for inbound connections so long:
    after 250 in its life a host accepts no more. The caller gives the place back when this returns.
    """
    remote = network._build_remote_multiaddr(stream)
    if remote is not None and not await network.connection_gate.is_allowed(remote):
        await stream.close()
        return
    raw = RawConnection(stream, initiator=False)
    try:
        muxed = await network.upgrade_inbound_raw_conn(raw, address)
    except Exception as exc:  # noqa: BLE001 - what a stranger sends before it has a name may fail anywhere
        _log.debug("refused a connection", remote=str(remote), why=repr(exc))
        await raw.close()
        return
    await muxed.event_closed.wait()


async def _handle_stream(conn: Any, muxed_stream: Any) -> None:
    """`SwarmConn._handle_muxed_stream`: one stream's fault ends that stream.

    Stock: an exception in any handler, or bad UTF-8 in the negotiation, leaves the host's nursery and ends the
    process; and nothing bounds how many streams one peer opens.
    """
    try:
        if sum(not each.is_initiator for each in conn.muxed_conn.streams.values()) > MAX_INBOUND_STREAMS:
            await muxed_stream.reset()
            return
        await _stock[SwarmConn, "_handle_muxed_stream"](conn, muxed_stream)
    except Exception as exc:  # noqa: BLE001 - the last line before the host's nursery
        _log.warning("a stream failed", peer=str(conn.muxed_conn.peer_id), why=repr(exc))
        try:
            await muxed_stream.reset()
        except (BaseLibp2pError, OSError) as lost:
            _log.debug("its connection was gone", why=repr(lost))


async def _read_line(communicator: Any) -> str:
    """`MultiselectCommunicator.read`: one line of protocol negotiation, bounded and in UTF-8.

    Stock: takes any length that the peer names, tries to get that much memory, and raises UnicodeDecodeError,
    which nobody catches. Raises MultiselectCommunicatorError, which everybody does.
    """
    try:
        line = await read_varint_prefixed_bytes_limited(communicator.read_writer, MAX_MULTISTREAM_MESSAGE)
        if line[-1:] != b"\n":
            raise MultiselectCommunicatorError("a line of protocol negotiation does not end")
        return str(line[:-1], "utf-8")
    except (ParseError, IOException, UnicodeDecodeError) as exc:
        raise MultiselectCommunicatorError("fail to read from multiselect communicator") from exc


async def _read_tls(session: Any, n: int | None = None) -> bytes:
    """`TLSStreamReadWriter.read`: at least one byte, or b"" at the end.

    Stock: asks the socket for 4 KiB at a time, four calls per record.
    """
    if session._closed:
        return b""
    size = min(n or TLS_RECORD, TLS_RECORD)
    if session._read_buffer:
        data = bytes(session._read_buffer[:size])
        del session._read_buffer[:size]
        return data
    while True:
        try:
            return bytes(session._ssl_socket.read(size))
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as exc:
            _log.debug("a TLS session ended", why=repr(exc))
            return b""
        if reply := session._out_bio.read():
            await session.raw_connection.write(reply)
        try:
            incoming = await session.raw_connection.read(SOCKET_READ)
        except (IOException, OSError) as exc:
            _log.debug("a TLS connection ended", why=repr(exc))
            return b""
        if not incoming:
            return b""
        session._in_bio.write(incoming)


async def _read_noise(packets: Any) -> bytes:
    """`NoisePacketReadWriter.read_msg`: one noise message.

    Stock: two calls of the socket per message, one for its two bytes of length. Mended: what has come is kept at
    the connection, since the handshake and what follows it read through different objects.
    """
    conn = packets.read_write_closer
    buffer: bytearray = conn.__dict__.setdefault("_p2pos_buffer", bytearray())
    while True:
        end = NOISE_LENGTH + int.from_bytes(buffer[:NOISE_LENGTH], "big")
        if len(buffer) >= max(end, NOISE_LENGTH):
            message = bytes(memoryview(buffer)[NOISE_LENGTH:end])
            del buffer[:end]
            return message
        data = await conn.read(SOCKET_READ)
        if not data:
            raise IncompleteReadError("the connection ended", expected_bytes=end, received_bytes=len(buffer))
        buffer += data


async def _write_noise(session: Any, message: bytes, _prefix_encoded: bool = False) -> None:
    """`NoiseTransportReadWriter.write_msg`: as many noise messages as it takes, in one call of the socket.

    Stock: one call each.
    """
    view = memoryview(message)
    sealed: list[bytes] = []
    for start in range(0, len(view), MAX_PLAINTEXT_LENGTH):
        part: bytes = session.encrypt(bytes(view[start : start + MAX_PLAINTEXT_LENGTH]))
        sealed += [len(part).to_bytes(NOISE_LENGTH, "big"), part]
    await session.read_writer.read_write_closer.write(b"".join(sealed))


async def _write_socket(stream: Any, data: bytes) -> None:
    """`TrioTCPStream.write`: what the socket takes at once leaves without a turn of the scheduler.

    Stock: a turn for a lock, another for every call of the socket. Raises ConnectionClosedError where the other end
    is gone; a socket that was closed here takes anything and forgets it, as with the library.
    """
    await libp2p_yamux.acquire(stream.write_lock)
    try:
        sent = 0
        try:
            sent = os.write(stream.stream.socket.fileno(), data)
        except OSError as exc:  # it is full, or gone: then send_all meets the same, and says it as trio does
            _log.debug("the socket takes nothing now", why=repr(exc))
        if sent < len(data):
            try:
                await stream.stream.send_all(memoryview(data)[sent:])
            except trio.BrokenResourceError as exc:
                raise ConnectionClosedError("the peer closed the connection", transport="tcp") from exc
            except trio.ClosedResourceError as exc:
                _log.debug("wrote to a socket that was closed here", why=repr(exc))
    finally:
        stream.write_lock.release()


async def _handle_incoming(conn: Any) -> None:
    """`Yamux.handle_incoming`; see `libp2p_yamux.handle_incoming`."""
    await libp2p_yamux.handle_incoming(conn, _stock[yamux.Yamux, "handle_incoming"])


class Patch(NamedTuple):
    """One replaced name of the library."""

    owner: Any
    """The module or class that has it."""
    name: str
    mend: Any
    """What stands there instead."""


_STREAM = yamux.YamuxStream

PATCHES: dict[str, tuple[Patch, ...]] = {
    # fault: what heals it
    "its warnings go to the root logger": (Patch(swarm_connection, "logging", logging.getLogger("libp2p.connection")),),
    # stock: Salsa20 with 8 bytes, which no other libp2p speaks, and a first read that takes a short one for the end
    "a private swarm's cipher is its own": (Patch(swarm, "new_protected_conn", private.protected),),
    "every dial waits 250 ms for a second address": (Patch(swarm, "_HAPPY_EYEBALLS_DELAY", 0.0),),
    "it dials known peers by itself": (Patch(AutoConnector, "maybe_connect", _dial_nobody),),
    "a second process listens on the same port": (Patch(tcp, "_open_reuseport_listeners", _listen_alone),),
    "a dropped link is never noticed": (Patch(TrioTCPStream, "__init__", _keep_alive),),
    "an inbound slot is held until shutdown": (Patch(swarm.Swarm, "_do_handle_inbound_connection", _accept),),
    "a handler's exception ends the process": (Patch(SwarmConn, "_handle_muxed_stream", _handle_stream),),
    "negotiation reads any length and bad UTF-8": (
        Patch(multiselect_communicator.MultiselectCommunicator, "read", _read_line),
    ),
    "TLS reads 4 KiB at a time": (Patch(TLSStreamReadWriter, "read", _read_tls),),
    "noise calls the socket for every length": (
        Patch(NoisePacketReadWriter, "read_msg", _read_noise),
        Patch(NoiseTransportReadWriter, "write_msg", _write_noise),
    ),
    "a write cancelled in mid-frame hangs the connection": (
        Patch(yamux.Yamux, "_write_frame", libp2p_yamux.write_frame),
    ),
    "a writer without credit gives up after 5 s": (
        Patch(_STREAM, "send_window", libp2p_yamux.Watched("send_window")),
        Patch(_STREAM, "send_closed", libp2p_yamux.Watched("send_closed")),
        Patch(_STREAM, "write", libp2p_yamux.write),
    ),
    "a reset leaves the stream's reader waiting": (Patch(_STREAM, "closed", libp2p_yamux.Ended("closed")),),
    "a frame that comes in takes a lock and a deadline": (Patch(yamux.Yamux, "handle_incoming", _handle_incoming),),
    "a call of the socket takes two turns": (Patch(TrioTCPStream, "write", _write_socket),),
    "every read takes three locks": (Patch(_STREAM, "read", libp2p_yamux.read),),
    "every read sends a window update": (
        Patch(_STREAM, "_auto_tune_and_send_window_update", libp2p_yamux.return_credit),
    ),
    "a peer sends more than it was granted": (Patch(_STREAM, "recv_window", libp2p_yamux.Granted()),),
}
"""Every patch by the fault that it heals."""

MISSING = object()
"""Stands for a name that the stock library does not have."""

_stock: dict[tuple[Any, str], Any] = {}
"""What each patch replaced."""


def apply() -> None:
    """Put every patch in place; a second call does nothing.

    Raises InternalError where the installed libp2p is not the version they were written for.
    """
    installed = importlib.metadata.version("libp2p")
    if installed != VERSION:
        raise InternalError(f"libp2p {installed} is installed, but the node was written for {VERSION}")
    if _stock:
        return
    for patches in PATCHES.values():
        for owner, name, mend in patches:
            _stock[owner, name] = vars(owner).get(name, MISSING)
            setattr(owner, name, mend)
