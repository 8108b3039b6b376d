"""Who has a place at this relay, which circuits run, and what they may still carry. A pure machine.

A relay serves strangers, so each of its resources has a bound; see `Limits` for the numbers and their reasons.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

from p2pos.types import PeerId

BURST_S = 0.1
"""Seconds of the line's time that bytes may run ahead: a token of a whole batch, at once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a relay gives away at most."""

    reservations: int = 128
    """Places, each held by a connection of its peer."""
    reservations_per_ip: int = 16
    """Places of peers with one IP address: those behind one router are few, identities cost nothing."""
    reservation_s: float = 3600.0
    """Seconds that one is kept for; the usual number. Its peer asks again before."""
    circuits: int = 256
    """At once. Each may hold twice `relay.WINDOW` of memory: 256 MiB together."""
    circuits_per_peer: int = 32
    """At once, from or to one peer. Two stages, their neighbours and a dozen clients, with room to spare."""
    circuit_s: float = 6 * 3600.0
    """Seconds that one runs. The usual two minutes end before an answer does; one that is cut costs its peers a
    failover, so seldom, but one that is forgotten must end."""
    circuit_bytes: int = 16 << 30
    """Bytes that one carries, both ways together. The usual 128 KiB are sixteen tokens of a model 4,096 wide in
    bfloat16; this is two million of them. What strangers can have of the line is bounded by the rate."""
    bytes_per_s: int = 16 << 20
    """Of all circuits together: what a line of 128 Mbit/s carries. Two thousand such tokens."""


class Refusal(Enum):
    """Why a relay says no."""

    FULL = auto()
    NO_RESERVATION = auto()


@dataclass(slots=True, eq=False)
class Running:
    """A circuit that runs."""

    source: PeerId
    target: PeerId
    bytes_left: int
    ends_s: float


class RelayBook:
    """The relay's bookkeeping.

    Args:
        limits: what it gives away at most.

    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._places: dict[PeerId, tuple[str, float]] = {}
        """The IP address of whoever has a place, and until when."""
        self._circuits: set[Running] = set()
        self._of_peer: Counter[PeerId] = Counter()
        self._free_s = 0.0
        """When the line will have carried all that was given to it."""

    def reserve(self, peer: PeerId, ip: str, now_s: float) -> float | Refusal:
        """Keep a place for a peer, or keep it on; returns until when."""
        self._places = {each: place for each, place in self._places.items() if place[1] > now_s}
        others = [place for each, place in self._places.items() if each != peer]
        same = sum(place[0] == ip for place in others)
        if len(others) >= self.limits.reservations or same >= self.limits.reservations_per_ip:
            return Refusal.FULL
        ends_s = now_s + self.limits.reservation_s
        self._places[peer] = (ip, ends_s)
        return ends_s

    def left(self, peer: PeerId) -> None:
        """The last connection of a peer has ended, and its place with it."""
        self._places.pop(peer, None)

    def open(self, source: PeerId, target: PeerId, now_s: float) -> Running | Refusal:
        """Count a circuit from one peer to another that has a place; `close` it whatever becomes of it."""
        place = self._places.get(target)
        if place is None or place[1] <= now_s:
            return Refusal.NO_RESERVATION
        busiest = max(self._of_peer[source], self._of_peer[target])
        if len(self._circuits) >= self.limits.circuits or busiest >= self.limits.circuits_per_peer:
            return Refusal.FULL
        running = Running(source, target, self.limits.circuit_bytes, now_s + self.limits.circuit_s)
        self._circuits.add(running)
        self._of_peer.update((source, target))
        return running

    def close(self, running: Running) -> None:
        """A circuit has ended."""
        if running in self._circuits:
            self._circuits.remove(running)
            self._of_peer.subtract((running.source, running.target))
            self._of_peer = +self._of_peer

    def carry(self, running: Running, size: int, now_s: float) -> float | None:
        """Count bytes that a circuit carries: seconds to wait before they leave, None where it may carry no more."""
        if size > running.bytes_left or now_s >= running.ends_s:
            return None
        running.bytes_left -= size
        self._free_s = max(self._free_s, now_s) + size / self.limits.bytes_per_s
        return max(0.0, self._free_s - now_s - BURST_S)

    @property
    def peers(self) -> Collection[PeerId]:
        """Who has a place."""
        return self._places.keys()

    @property
    def reservations(self) -> int:
        """Places that are taken, those included whose time is over and whose peer is still there."""
        return len(self._places)

    @property
    def circuits(self) -> int:
        """How many run."""
        return len(self._circuits)
