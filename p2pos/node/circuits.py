"""Connections through a relay, as the peers at their ends see them: circuit relay v2, in libp2p's own messages.

A relay carries the bytes of a stream to another stream. Over these, both ends negotiate noise and yamux as over a
socket, so it can neither read nor change what they say, nor be the one that they mean.

Specification: https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md. The library's own classes for this
are not used: they let anybody reserve a place in another's name, end the wrong circuits, answer a second request
on a stream that is a circuit by then, and keep every fourth newcomer out.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from libp2p.connection_types import ConnectionType
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Status, StopMessage
from libp2p.relay.circuit_v2.pb.circuit_pb2 import PeerId as PeerField
from multiaddr import Multiaddr

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node import addresses as multiaddresses
from p2pos.node.pipes import Pipe
from p2pos.node.streams import StreamLost
from p2pos.types import PeerId

HOP_PROTOCOL = "/libp2p/circuit/relay/0.2.0/hop"
"""What a relay is asked on."""
STOP_PROTOCOL = "/libp2p/circuit/relay/0.2.0/stop"
"""What a relay tells of a circuit on."""
MAX_SAID = 8
"""Addresses of its own that a relay may name."""
SHORTEST_S = 60.0
"""Seconds that a reservation counts for at least, lest a relay have us ask it without end."""
LONGEST_S = 3600.0
"""Seconds that it counts for at most, whatever the relay says; its clock may differ from ours."""
READ_SIZE = 64 << 10
"""Bytes taken from a circuit at once, where the reader names no number."""

_log = log.get("relay")


@dataclass(frozen=True, slots=True)
class Reservation:
    """A place at a relay, which joins to us whoever asks it to."""

    relay: PeerId
    lifetime_s: float
    addresses: tuple[Multiaddr, ...]
    """Where the relay says that it can be dialled."""


class Opener(Protocol):
    """What asking a relay needs of a host."""

    async def open_raw(self, peer: PeerId, protocol: str, *, deadline_s: float = ...) -> Pipe:
        """Open a stream to a peer that is connected. Raises UnavailableError, PeerError."""


class CircuitBytes(ReadWriteCloser):  # type: ignore[misc]  # the library ships no types that mypy follows
    """A stream to a relay, in the place of a socket."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    async def read(self, n: int | None = None) -> bytes:
        """At least one byte, b"" at the end. Raises ConnectionClosedError."""
        try:
            return await self._pipe.read(n or READ_SIZE)
        except StreamLost as exc:
            raise ConnectionClosedError("the circuit is gone", transport="circuit") from exc

    async def write(self, data: bytes) -> None:
        """Send all of it. Raises ConnectionClosedError."""
        try:
            await self._pipe.write(data)
        except StreamLost as exc:
            raise ConnectionClosedError("the circuit is gone", transport="circuit") from exc

    async def close(self) -> None:
        """End the circuit."""
        await self._pipe.close()
        await self._pipe.reset()

    def get_remote_address(self) -> tuple[str, int] | None:
        """None: which peer is at the other end is known, where it is isn't."""
        return None


def raw(pipe: Pipe, peer: PeerId, *, dialled: bool) -> Any:
    """What the library secures and upgrades: a circuit to `peer` over this stream to a relay."""
    address = Multiaddr(f"/p2p/{pipe.peer}/p2p-circuit/p2p/{peer}")
    return RawConnection(CircuitBytes(pipe), dialled, ConnectionType.RELAYED, [address])


async def reserve(host: Opener, relay: PeerId) -> Reservation:
    """Have a relay that is connected keep a place for us.

    Raises UnavailableError where it has none to give or doesn't answer, PeerError where it is no relay.
    """
    pipe = await host.open_raw(relay, HOP_PROTOCOL)
    try:
        await pipe.send(HopMessage(type=HopMessage.RESERVE))
        answer = await pipe.receive(HopMessage)
    finally:
        await pipe.reset()
    _agreed(relay, answer, "keeps no place for us")
    lifetime_s = float(answer.reservation.expire) - time.time()
    said = multiaddresses.decode(answer.reservation.addrs, MAX_SAID)
    return Reservation(relay, min(max(lifetime_s, SHORTEST_S), LONGEST_S), tuple(said))


async def join(host: Opener, relay: PeerId, peer: PeerId) -> Pipe:
    """Have a relay that is connected join us to a peer: the stream that leads there, not secured yet.

    Raises UnavailableError where it can't, PeerError where it is no relay.
    """
    pipe = await host.open_raw(relay, HOP_PROTOCOL)
    try:
        asked = PeerField(id=multiaddresses.library_id(peer).to_bytes())
        await pipe.send(HopMessage(type=HopMessage.CONNECT, peer=asked))
        _agreed(relay, await pipe.receive(HopMessage), f"can't join us to peer {peer}")
    except BaseException:
        await pipe.reset()
        raise
    return pipe


async def accept(pipe: Pipe, welcome: Callable[[PeerId], bool]) -> PeerId:
    """Hear from a relay whom it joins to us on this stream, and agree.

    Args:
        pipe: the stream that it opened.
        welcome: whether circuits from this relay are wanted.

    Returns whom it names; only the handshake over the circuit shows who it is.

    Raises PeerError for a relay that doesn't keep to the protocol, UnavailableError for one that isn't wanted.

    """
    if pipe.relayed or not welcome(pipe.peer):
        await pipe.send(StopMessage(type=StopMessage.STATUS, status=Status.PERMISSION_DENIED))
        raise UnavailableError(f"peer {pipe.peer} offered a circuit though it keeps no place for us", peer=pipe.peer)
    told = await pipe.receive(StopMessage)
    peer = multiaddresses.peer_from(told.peer.id)
    if told.type != StopMessage.CONNECT or peer is None:
        raise PeerError(pipe.peer, "sent something other than a circuit")
    await pipe.send(StopMessage(type=StopMessage.STATUS, status=Status.OK))
    return peer


def _agreed(relay: PeerId, answer: HopMessage, what: str) -> None:
    """Raise PeerError where an answer is none, UnavailableError where it is no."""
    if answer.type != HopMessage.STATUS:
        raise PeerError(relay, "answered something other than a status")
    if answer.status != Status.OK:
        known = answer.status in Status.values()
        why = Status.Name(answer.status) if known else str(answer.status)
        raise UnavailableError(f"relay {relay} {what}: {why}", peer=relay)
