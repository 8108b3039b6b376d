"""Being reached: finds out whether others can dial this node, and where they can't, has relays join them to it.

The decisions are `reachability`'s; this asks, reserves, accepts circuits, and keeps the host's addresses true.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import trio
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node import addresses as multiaddresses
from p2pos.node import autonat, circuits, identify
from p2pos.node.autonat import AutoNat
from p2pos.node.host import Host
from p2pos.node.pipes import Pipe
from p2pos.node.punch import Puncher
from p2pos.node.reachability import Reachability, Verdict
from p2pos.node.relay import Relay
from p2pos.types import PeerId

ADDRESSES_PER_RELAY = 2
"""Announced of each: where it was dialled, and one more that it names."""
MAX_LEARNED = 8
"""Addresses that are announced besides those that are listened on; an announcement has room for 16."""
SETTLE_S = 0.2
"""Seconds that news may gather, so that ten peers that connect at once are one piece of it."""

_log = log.get("reach")


class Reach:
    """Keeps a node reachable.

    Args:
        host: a running host that listens.
        relay: what this node is for others, or None where it is to relay for nobody.
        named: addresses of relays where a place is wanted in any case.

    """

    def __init__(self, host: Host, relay: Relay | None, named: Sequence[str] = ()) -> None:
        self._host = host
        self._relay = relay
        self._named = {multiaddresses.peer_of(address): address for address in named}
        self._state = Reachability(always=frozenset(self._named))
        self._autonat = AutoNat(host.dialler)
        self._puncher = Puncher(host, self._outside)
        self._asked: set[PeerId] = set()
        """Relays that may have agreed already, though we have not heard it yet."""
        self._news = trio.Event()

    @property
    def verdict(self) -> Verdict:
        """Whether others can dial this node."""
        return self._state.verdict

    @property
    def relays(self) -> tuple[PeerId, ...]:
        """Relays that hold a place for this node."""
        return tuple(self._state.places)

    def status(self) -> dict[str, Any]:
        """What `/status` shows of it."""
        relaying = self._relay
        return {
            "reachable": self._state.verdict.value,
            "relays": sorted(self._state.places),
            "relayed_peers": sum(self._is_relayed(peer) for peer in self._host.connected()),
            "reservations": 0 if relaying is None else relaying.reservations,
            "circuits": 0 if relaying is None else relaying.circuits,
        }

    def _is_relayed(self, peer: PeerId) -> bool:
        return all(each.relayed for each in self._host.connections(peer))

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the node reachable until cancelled."""
        self._host.serve_raw(autonat.AUTONAT_PROTOCOL, self._autonat.answer)
        self._host.serve_raw(circuits.STOP_PROTOCOL, self._accept)
        self._host.keep(lambda: self._state.places)
        self._host.on_connect(self._connected)
        self._host.on_disconnect(self._lost)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._puncher.run)
            task_status.started()
            while True:
                self._news = trio.Event()
                await self._step()
                with trio.move_on_at(self._state.next_s(trio.current_time())):
                    await self._news.wait()
                await trio.sleep(SETTLE_S)

    async def _step(self) -> None:
        """Do what is to be done now."""
        before = self._state.verdict
        await self._ask()
        if self._state.verdict is not before:
            _log.info("found out whether others can dial us", verdict=self._state.verdict.value)
        if self._relay is not None:
            self._offer(self._relay)
        for relay in self._state.spare():
            self._state.lost(relay)
        for relay in self._state.to_renew(trio.current_time()):
            await self._reserve(relay)
        await self._reach_named()
        for relay in self._state.to_reserve(self._candidates(), trio.current_time()):
            if self._state.short or relay in self._named:
                await self._reserve(relay)
        self._tell()

    def _offer(self, relay: Relay) -> None:
        """Relay for others, unless nobody can dial us."""
        if self._state.verdict is Verdict.PRIVATE:
            relay.withdraw()
        elif not relay.offering:
            relay.offer()

    async def _ask(self) -> None:
        """Have others try to dial us, where it's time for it."""
        now_s = trio.current_time()
        connected = {peer: self._host.connections(peer) for peer in self._host.connected()}
        near = {peer for peer, open_to in connected.items() if any(not each.relayed for each in open_to)}
        dialled = {peer for peer in near if any(each.dialled for each in connected[peer])}
        servers = self._state.whom_to_ask(sorted(dialled), sorted(near - dialled), now_s)
        if not servers:
            return
        heard: list[PeerId] = []

        async def ask(server: PeerId) -> None:
            with suppress(UnavailableError, PeerError):
                seen = (await identify.ask(self._host, server)).sees_us
                own = self._seen_as(seen) if seen else []
                found = await autonat.ask(self._host, server, own) if own else None
                _log.debug("was dialled back", server=server, at=str(found))
                heard.append(server)
                self._state.found(server, None if found is None else str(found), trio.current_time())

        async with trio.open_nursery() as nursery:
            for server in servers:
                nursery.start_soon(ask, server)
        if not heard:
            self._state.nobody_said(trio.current_time())

    def _seen_as(self, seen: tuple[str, int]) -> list[Any]:
        """Where this node would be, seen from outside as this IP address, if nothing changed its ports."""
        ports = {place[1] for text in self._host.listening if (place := _socket(text)) and _same_family(place, seen)}
        return [multiaddresses.packed(seen[0], port) for port in sorted(ports)]

    def _outside(self) -> list[tuple[PeerId, Any]]:
        """Peers that this node dialled without a relay, and where: first those that are outside its router."""
        found = [
            (peer, multiaddresses.packed(*each.remote))
            for peer in sorted(self._host.connected())
            for each in self._host.connections(peer)
            if each.dialled and each.remote is not None
        ]
        place = multiaddresses.socket_of
        return sorted(found, key=lambda one: not multiaddresses.is_global((place(one[1]) or ("0.0.0.0", 0))[0]))  # noqa: S104 - stands for no address

    def _candidates(self) -> list[PeerId]:
        """Peers that may be relays, the best first."""
        return list(dict.fromkeys([*(self._named.keys() & self._host.connected()), *(p for p, _ in self._outside())]))

    async def _reach_named(self) -> None:
        """Have a connection to each relay that the operator named."""
        for relay, address in self._named.items():
            if relay not in self._host.connected():
                try:
                    await self._host.connect(relay, [address])
                except (UnavailableError, PeerError) as exc:
                    _log.warning("a relay does not answer", relay=relay, address=address, why=str(exc))

    async def _reserve(self, relay: PeerId) -> None:
        """Ask a relay for a place, or for the same one again."""
        where = dict(self._outside()).get(relay)
        self._asked.add(relay)
        try:
            place = await circuits.reserve(self._host, relay)
        except (UnavailableError, PeerError) as exc:
            _log.debug("no place", relay=relay, why=str(exc))
            self._state.refused(relay, trio.current_time())
            return
        finally:
            self._asked.discard(relay)
        dialled = [self._named[relay]] if relay in self._named else []
        dialled += [f"{where}/p2p/{relay}"] if where is not None else []
        said = [
            f"{each}/p2p/{relay}"
            for text in place.addresses
            if (each := multiaddresses.bare(str(text))) and (at := multiaddresses.socket_of(each))
            if multiaddresses.is_global(at[0])
        ]
        through = [multiaddresses.through(each, self._host.peer) for each in dict.fromkeys([*dialled, *said])]
        if relay not in self._state.places:
            _log.info("keeps a place at a relay", relay=relay, seconds=round(place.lifetime_s))
        self._state.holds(relay, tuple(through[:ADDRESSES_PER_RELAY]), place.lifetime_s, trio.current_time())

    async def _accept(self, _relay: PeerId, pipe: Pipe) -> None:
        """Take a circuit from a relay. Raises PeerError, UnavailableError."""
        peer = await circuits.accept(pipe, lambda relay: relay in self._state.places or relay in self._asked)
        muxed = await self._host.dialler.adopt(pipe, peer, dialled=False)
        _log.info("joined through a relay", peer=peer, relay=pipe.peer)
        await muxed.event_closed.wait()

    def _tell(self) -> None:
        """Have the host's addresses be what is known now."""
        reached: list[str] = []
        if self._state.verdict is Verdict.PUBLIC:
            mine = {str(multiaddresses.bare(each)) for each in self._host.listening}
            reached = [f"{each}/p2p/{self._host.peer}" for each in sorted(self._state.reached_at - mine)]
        learned = (*reached, *self._state.relayed())[:MAX_LEARNED]
        if learned != self._host.learned:
            self._host.learn(learned)
            _log.info("can be dialled elsewhere now", addresses=list(learned))

    def _connected(self, _peer: PeerId) -> None:
        if self._state.verdict is Verdict.UNKNOWN or self._state.short:
            self._state.try_soon()
            self._news.set()

    def _lost(self, peer: PeerId) -> None:
        if self._state.lost(peer):
            _log.info("lost a relay", relay=peer)
            self._news.set()


def _socket(text: str) -> tuple[str, int] | None:
    return multiaddresses.socket_of(multiaddresses.bare(text))


def _same_family(one: tuple[str, int], other: tuple[str, int]) -> bool:
    return (":" in one[0]) == (":" in other[0])
