"""From a relayed connection to a direct one: DCUtR, in libp2p's own messages.

Whoever was joined to us through a relay hears from us at once: it may be dialled where it listens; else each tells
the other how it is seen from outside, and both dial at the same moment, from the ports that they listen on, so that
each one's router takes the other's dial for an answer. Routers that give every destination a port of its own can't
be passed so; then the relay stays.

Specification: https://github.com/libp2p/specs/blob/master/relay/DCUtR.md. The library's own class is not used: it
dials whatever it is told to, and foretells a router's port instead of asking.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import trio
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node import addresses as multiaddresses
from p2pos.node import identify
from p2pos.node.dialling import Dialler, Failures
from p2pos.node.host import Connection
from p2pos.node.pipes import Pipe, RawHandler
from p2pos.types import PeerId

PUNCH_PROTOCOL = "/libp2p/dcutr"
ATTEMPTS = 3
"""The specification's number."""
ROUND_S = 5.0
"""Seconds that both dial: the system sends a dial again after 1 s and 3 s."""
PLAIN_S = 3.0
"""Seconds for a dial that needs no punching."""
MAX_ADDRESSES = 8
"""Addresses of one message that are looked at."""
MAX_DIALLED = 4
"""Addresses dialled at a time: a peer must not have us scan a network."""
MAX_AT_ONCE = 8
"""Peers that are being punched through to; others wait for their turn, on the relay."""
OBSERVERS = 2
"""Peers that are asked how a port of ours is seen."""
KNOWN_S = 120.0
"""Seconds for which that is believed: longer than the minute for which the system keeps the ports of a connection
that we closed, so that asking again works."""
GRACE_S = 30.0
"""Seconds for what runs on the relay to move or end, after a direct connection is there."""
STREAM_S = 30.0
"""Seconds for the other end's next message."""
LONGEST_TRIP_S = 4.0
"""Seconds of a round trip, at most, that are waited for half of."""

_log = log.get("reach")


class PunchHost(Protocol):
    """What punching needs of a host."""

    dialler: Dialler

    @property
    def listening(self) -> tuple[str, ...]:
        """Where it listens."""

    def serve_raw(self, protocol: str, handler: RawHandler) -> None:
        """Have the handler called with each stream."""

    async def open_raw(self, peer: PeerId, protocol: str, *, deadline_s: float = ...) -> Pipe:
        """Open a stream to a peer that is connected. Raises UnavailableError, PeerError."""

    def connections(self, peer: PeerId) -> list[Connection]:
        """The connections that are open to a peer."""

    def on_connect(self, callback: Callable[[PeerId], None]) -> None:
        """Have the callback called with the peer of each connection that begins."""


class Puncher:
    """Replaces relayed connections by direct ones where it can.

    Args:
        host: a running `Host`.
        observers: peers that are connected directly, and where they are dialled: they say how we are seen.

    """

    def __init__(self, host: PunchHost, observers: Callable[[], Sequence[tuple[PeerId, Any]]]) -> None:
        self._host = host
        self._observers = observers
        self._busy: set[PeerId] = set()
        """Whom it is being tried with, by either side."""
        self._arrived: dict[PeerId, trio.Event] = {}
        """Told of a direct connection, for each that is being dialled."""
        self._turns = trio.CapacityLimiter(MAX_AT_ONCE)
        self._own: list[Any] = []
        self._own_until_s = 0.0
        self._asking = trio.Lock()
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Upgrade what comes through relays, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._host.serve_raw(PUNCH_PROTOCOL, self._answer)
            self._host.on_connect(self._connected)
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def _connected(self, peer: PeerId) -> None:
        open_to = self._host.connections(peer)
        if self._direct(peer) and peer in self._arrived:
            self._arrived[peer].set()
        if self._nursery is None or not open_to or self._direct(peer):
            return
        if not any(each.dialled for each in open_to) and peer not in self._busy:
            self._nursery.start_soon(self._upgrade, peer)
        else:
            self._nursery.start_soon(self._mine)  # the other end is about to ask

    def _direct(self, peer: PeerId) -> bool:
        return any(not each.relayed for each in self._host.connections(peer))

    async def _upgrade(self, peer: PeerId) -> None:
        """Have a direct connection to a peer that came through a relay, and end the relayed one."""
        self._busy.add(peer)
        try:
            async with self._turns:
                await self._try(peer)
        except (UnavailableError, PeerError) as exc:
            _log.info("stays on the relay", peer=peer, why=str(exc))
        finally:
            self._busy.discard(peer)
        if self._direct(peer):
            await trio.sleep(GRACE_S)
            if self._direct(peer):
                for each in self._host.connections(peer):
                    if each.relayed:
                        await each.close()

    async def _try(self, peer: PeerId) -> None:
        """Raises UnavailableError where it fails for good, PeerError where the peer does not do such things."""
        said = await identify.ask(self._host, peer)
        if await self._dial(peer, _outside(said.listening), None, deadline_s=PLAIN_S):
            _log.info("left the relay", peer=peer, how="dialled")
            return
        for attempt in range(1, ATTEMPTS + 1):
            if await self._punch(peer):
                _log.info("left the relay", peer=peer, how="punched", attempt=attempt)
                return
        raise UnavailableError(f"peer {peer} can't be punched through to", peer=peer)

    async def _punch(self, peer: PeerId) -> bool:
        """Ask a peer to dial as we do, and do. Raises UnavailableError, PeerError."""
        pipe = await self._host.open_raw(peer, PUNCH_PROTOCOL)
        try:
            mine = await self._mine()
            began_s = trio.current_time()
            await pipe.send(_message(HolePunch.CONNECT, mine))
            theirs = await pipe.receive(HolePunch, deadline_s=STREAM_S)
            trip_s = trio.current_time() - began_s
            if theirs.type != HolePunch.CONNECT:
                raise PeerError(peer, "answered something other than its addresses")
            found = _outside(multiaddresses.decode(theirs.ObsAddrs, MAX_ADDRESSES))
            if not found or not mine:
                raise UnavailableError("one of the two does not know how it is seen from outside", peer=peer)
            await pipe.send(_message(HolePunch.SYNC, []))
            await trio.sleep(min(trip_s, LONGEST_TRIP_S) / 2)
            return await self._dial(peer, found, self._port(found[0]), as_server=True)
        finally:
            await pipe.reset()

    async def _answer(self, _peer: PeerId, pipe: Pipe) -> None:
        """Do as a peer asks that we dialled through a relay. Raises PeerError, UnavailableError."""
        if not pipe.relayed or pipe.peer in self._busy or len(self._busy) >= MAX_AT_ONCE:
            raise UnavailableError(f"peer {pipe.peer} is not being punched through to now", peer=pipe.peer)
        self._busy.add(pipe.peer)
        try:
            asked = await pipe.receive(HolePunch, deadline_s=STREAM_S)
            await pipe.send(_message(HolePunch.CONNECT, await self._mine()))
            go = await pipe.receive(HolePunch, deadline_s=STREAM_S)
            if (asked.type, go.type) != (HolePunch.CONNECT, HolePunch.SYNC):
                raise PeerError(pipe.peer, "does not keep to the order of punching")
            found = _outside(multiaddresses.decode(asked.ObsAddrs, MAX_ADDRESSES))
            if found:
                await self._dial(pipe.peer, found, self._port(found[0]))
        finally:
            self._busy.discard(pipe.peer)

    async def _dial(
        self,
        peer: PeerId,
        targets: Sequence[Any],
        port: int | None,
        *,
        as_server: bool = False,
        deadline_s: float = ROUND_S,
    ) -> bool:
        """Dial every address, from a port of ours or from any; returns whether a direct connection is there."""

        async def attempt(address: Any) -> None:
            if port is None:
                await self._host.dialler.race(peer, [address], Failures())
            else:
                try:
                    await self._host.dialler.dial_from(port, address, peer, as_server=as_server)
                except UnavailableError as exc:
                    _log.debug("not punched", peer=peer, address=str(address), why=str(exc))

        async def all_of_them() -> None:
            async with trio.open_nursery() as dials:
                for address in targets[:MAX_DIALLED]:
                    dials.start_soon(attempt, address)
            if port is None:
                arrived.set()

        arrived = self._arrived[peer] = trio.Event()  # it may be the other end's dial that arrives
        try:
            with trio.move_on_after(deadline_s):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(all_of_them)
                    await arrived.wait()
                    nursery.cancel_scope.cancel()
        finally:
            del self._arrived[peer]
        return self._direct(peer)

    async def _mine(self) -> list[Any]:
        """Where this node can be dialled from outside while it dials, as far as others can tell."""
        async with self._asking:
            if trio.current_time() < self._own_until_s:
                return self._own
            own = [each for text in self._host.listening if (each := multiaddresses.bare(text)) is not None]
            for peer, address in list(self._observers())[:OBSERVERS]:
                port = self._port(address)
                if port is None:
                    continue
                try:
                    seen = await self._host.dialler.seen_from(port, address, peer)
                except (UnavailableError, PeerError) as exc:
                    _log.debug("does not say how it sees us", peer=peer, why=str(exc))
                    continue
                if seen is not None:
                    # the port as it is seen, and as most routers would leave it
                    own += [multiaddresses.packed(seen[0], each) for each in (seen[1], port)]
            self._own = list(dict.fromkeys(_outside(own)))
            self._own_until_s = trio.current_time() + KNOWN_S
            return self._own

    def _port(self, address: Any) -> int | None:
        """The port that we listen on, in the family of this address."""
        family = str(address).split("/", 2)[1]
        for text in self._host.listening:
            if text.startswith(f"/{family}/") and (found := multiaddresses.socket_of(multiaddresses.bare(text))):
                return found[1]
        return None


def _outside(found: Sequence[Any]) -> list[Any]:
    """Those of them that mean the same everywhere."""
    return [each for each in found if (place := multiaddresses.socket_of(each)) and multiaddresses.is_global(place[0])]


def _message(kind: "HolePunch.Type.ValueType", addresses: Sequence[Any]) -> HolePunch:
    return HolePunch(type=kind, ObsAddrs=[each.to_bytes() for each in addresses[:MAX_ADDRESSES]])
