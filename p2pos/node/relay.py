"""The relay that a node is for others: it joins those who can't be dialled to whoever asks for them.

It speaks circuit relay v2 as any libp2p does; see `circuits` for the other side. What it gives away is bounded by
`relay_book.Limits`. It asks nothing of a circuit's bytes, which are encrypted between the ends.
"""

import time
from collections.abc import Callable, Collection
from typing import Protocol

import trio
from libp2p.relay.circuit_v2.pb.circuit_pb2 import HopMessage, Limit, Status, StopMessage
from libp2p.relay.circuit_v2.pb.circuit_pb2 import PeerId as PeerField
from libp2p.relay.circuit_v2.pb.circuit_pb2 import Reservation as ReservationField
from multiaddr import Multiaddr

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node import addresses as multiaddresses
from p2pos.node.circuits import HOP_PROTOCOL, STOP_PROTOCOL
from p2pos.node.pipes import Pipe, RawHandler
from p2pos.node.relay_book import Limits, Refusal, RelayBook, Running
from p2pos.node.streams import StreamLost
from p2pos.types import PeerId

WINDOW = 512 << 10
"""Bytes that each end of a circuit may send ahead of the other: 5 MiB/s over 100 ms."""
CHUNK = 64 << 10
"""Bytes handed on at once."""
STALL_S = 30.0
"""Seconds that an end may take nothing while the other sends, and seconds for the second end to close after the
first, before the circuit is cut."""
JOIN_S = 10.0
"""Seconds for the peer that a circuit leads to to agree."""

_log = log.get("relay")

_SAY = {Refusal.FULL: Status.RESOURCE_LIMIT_EXCEEDED, Refusal.NO_RESERVATION: Status.NO_RESERVATION}


class RelayHost(Protocol):
    """What a relay needs of a host."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it can be dialled."""

    def serve_raw(self, protocol: str, handler: RawHandler) -> None:
        """Have the handler called with each stream."""

    def stop_serving(self, protocol: str) -> None:
        """Answer that this protocol is not spoken from now on."""

    async def open_raw(self, peer: PeerId, protocol: str, *, deadline_s: float = ...) -> Pipe:
        """Open a stream to a peer that is connected. Raises UnavailableError, PeerError."""

    def connected(self) -> frozenset[PeerId]:
        """The peers that a connection is open to."""

    def keep(self, peers: Callable[[], Collection[PeerId]]) -> None:
        """Keep the connections to those that `peers` returns."""

    def on_disconnect(self, callback: Callable[[PeerId], None]) -> None:
        """Have the callback called with each peer whose last connection ends."""


class Relay:
    """A relay. Made once per host; it offers its service between `offer` and `withdraw`.

    Args:
        host: a running `Host`.
        limits: what it gives away at most.

    """

    def __init__(self, host: RelayHost, limits: Limits | None = None) -> None:
        self._host = host
        self._book = RelayBook(limits or Limits())
        self.offering = False
        host.on_disconnect(self._book.left)
        host.keep(lambda: self._book.peers)

    @property
    def reservations(self) -> int:
        """Peers that have a place here."""
        return self._book.reservations

    @property
    def circuits(self) -> int:
        """Circuits that run through here."""
        return self._book.circuits

    def offer(self) -> None:
        """Serve whoever asks, from now on."""
        self._host.serve_raw(HOP_PROTOCOL, self._answer)
        self.offering = True

    def withdraw(self) -> None:
        """Take nobody new. Circuits that run go on."""
        if self.offering:
            self._host.stop_serving(HOP_PROTOCOL)
        self.offering = False

    async def _answer(self, _peer: PeerId, pipe: Pipe) -> None:
        """Serve one request. Raises PeerError, UnavailableError."""
        if pipe.relayed:
            _log.info("asked for a relay through a relay", peer=pipe.peer)
            await _say(pipe, Status.PERMISSION_DENIED)
            return  # in order: a reset might overtake the answer
        asked = await pipe.receive(HopMessage)
        if asked.type == HopMessage.RESERVE:
            await self._reserve(pipe)
        elif asked.type == HopMessage.CONNECT:
            await self._connect(pipe, multiaddresses.peer_from(asked.peer.id))
        else:
            await _say(pipe, Status.MALFORMED_MESSAGE)
            raise PeerError(pipe.peer, "asked a relay for nothing that it does")

    async def _reserve(self, pipe: Pipe) -> None:
        """Keep a place for whoever asks, never for anybody else."""
        remote = pipe.remote
        until_s = self._book.reserve(pipe.peer, remote[0] if remote else "", trio.current_time())
        if isinstance(until_s, Refusal):
            _log.info("no place left at this relay", peer=pipe.peer, reservations=self._book.reservations)
            await _say(pipe, _SAY[until_s])
            return
        _log.info("keeps a place at this relay", peer=pipe.peer, reservations=self._book.reservations)
        mine = [Multiaddr(each).to_bytes() for each in self._host.addresses if not multiaddresses.is_circuit(each)]
        expire = int(time.time() + until_s - trio.current_time())
        place = ReservationField(expire=expire, addrs=mine[:8])
        message = HopMessage(type=HopMessage.STATUS, status=Status.OK, reservation=place, limit=self._limit())
        await pipe.send(message)

    async def _connect(self, source: Pipe, peer: PeerId | None) -> None:
        """Join whoever asks to a peer that has a place here, until one of them ends it or it has had its share."""
        if peer is None or peer == source.peer:
            await _say(source, Status.MALFORMED_MESSAGE)
            raise PeerError(source.peer, "asked for a circuit to nobody")
        running = self._book.open(source.peer, peer, trio.current_time())
        if isinstance(running, Refusal):
            await _say(source, _SAY[running])
            return
        try:
            try:
                target = await self._ask(peer, source.peer)
            except (UnavailableError, PeerError) as exc:
                _log.info("a circuit was not taken", source=source.peer, target=peer, why=str(exc))
                await _say(source, Status.CONNECTION_FAILED)
                return
            try:
                await source.send(HopMessage(type=HopMessage.STATUS, status=Status.OK, limit=self._limit()))
                _log.info("joined two peers", source=source.peer, target=peer, circuits=self._book.circuits)
                await self._carry(source, target, running)
            finally:
                await target.reset()
                await source.reset()
        finally:
            self._book.close(running)

    async def _ask(self, peer: PeerId, source: PeerId) -> Pipe:
        """A stream to a peer that agrees to be joined to `source`. Raises UnavailableError, PeerError."""
        pipe = await self._host.open_raw(peer, STOP_PROTOCOL, deadline_s=JOIN_S)
        try:
            named = PeerField(id=multiaddresses.library_id(source).to_bytes())
            await pipe.send(StopMessage(type=StopMessage.CONNECT, peer=named, limit=self._limit()))
            answer = await pipe.receive(StopMessage, deadline_s=JOIN_S)
        except BaseException:
            await pipe.reset()
            raise
        if pipe.relayed or answer.type != StopMessage.STATUS or answer.status != Status.OK:
            await pipe.reset()
            raise UnavailableError(f"peer {peer} does not take a circuit", peer=peer)
        return pipe

    async def _carry(self, one: Pipe, other: Pipe, running: Running) -> None:
        """Hand bytes on in both directions until both have ended, or one of them breaks or has had its share."""
        one.bound(WINDOW)
        other.bound(WINDOW)
        with trio.move_on_after(running.ends_s - trio.current_time()) as scope:

            async def pump(source: Pipe, sink: Pipe) -> None:
                try:
                    while data := await source.read(CHUNK):
                        wait_s = self._book.carry(running, len(data), trio.current_time())
                        if wait_s is None:
                            _log.info("a circuit has had its share", source=running.source, target=running.target)
                            scope.cancel()
                            return
                        await trio.sleep(wait_s)
                        with trio.fail_after(STALL_S):
                            await sink.write(data)
                except (StreamLost, trio.TooSlowError):
                    scope.cancel()
                    return
                await sink.close()
                scope.deadline = min(scope.deadline, trio.current_time() + STALL_S)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump, one, other)
                nursery.start_soon(pump, other, one)

    def _limit(self) -> Limit:
        limits = self._book.limits
        return Limit(duration=int(limits.circuit_s), data=limits.circuit_bytes)


async def _say(pipe: Pipe, status: "Status.ValueType") -> None:
    await pipe.send(HopMessage(type=HopMessage.STATUS, status=status))
