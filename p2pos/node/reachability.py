"""What a node knows of whether others can dial it, and which relays hold a place for it. A pure machine.

It is told what others found when they dialled back, and what became of its requests to relays; it says what is to
be done next, and when. Times are seconds of any clock that only moves on.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from p2pos.types import PeerId

OPINIONS = 5
"""Peers whose last word counts. The specification asks that more than three agree; a small swarm has not so many."""
SURE = 3
"""Opinions after which another is asked for only now and then."""
ASK_SOON_S = 5.0
"""Seconds between two questions while there is no opinion yet."""
ASK_AGAIN_S = 60.0
"""Seconds between two questions while there are few."""
ASK_LATER_S = 600.0
"""Seconds between two questions after that: a laptop is carried elsewhere, a router gets another address."""
RELAYS = 2
"""Places that a node behind a router keeps: one may die, and peers find out faster than it does."""
REFUSED_S = 60.0
"""Seconds for which a relay that refused, failed or is none is not asked again; doubled with each time, up to
`REFUSED_MAX_S`."""
REFUSED_MAX_S = 1800.0
MAX_REFUSED = 256
"""Peers remembered for it; the oldest are forgotten."""


class Verdict(Enum):
    """Whether others can dial this node."""

    UNKNOWN = "unknown"
    PUBLIC = "public"
    PRIVATE = "private"


@dataclass(frozen=True, slots=True)
class Place:
    """A place at a relay."""

    relay: PeerId
    addresses: tuple[str, ...]
    """This node's, through that relay."""
    renew_s: float
    """When it is to be asked for again."""


@dataclass(slots=True)
class _Refused:
    until_s: float
    times: int


@dataclass(slots=True)
class Reachability:
    """One node's. `always` are relays that its operator named: places there are kept whatever others find."""

    always: frozenset[PeerId] = frozenset()
    places: dict[PeerId, Place] = field(default_factory=dict)
    _opinions: dict[PeerId, str | None] = field(default_factory=dict)
    """Where each of the last peers reached this node, or None; the oldest first."""
    _verdict: Verdict = Verdict.UNKNOWN
    _ask_s: float = 0.0
    _refused: dict[PeerId, _Refused] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """What most of those found who were asked last; as long as they are even, what it was before."""
        return self._verdict

    @property
    def reached_at(self) -> frozenset[str]:
        """The addresses at which others reached this node."""
        return frozenset(each for each in self._opinions.values() if each is not None)

    def found(self, server: PeerId, address: str | None, now_s: float) -> None:
        """A peer dialled back, and reached this node at an address or not at all."""
        self._opinions.pop(server, None)
        self._opinions[server] = address
        if len(self._opinions) > OPINIONS:
            del self._opinions[next(iter(self._opinions))]
        reached = sum(each is not None for each in self._opinions.values())
        if 2 * reached > len(self._opinions):
            self._verdict = Verdict.PUBLIC
        elif 2 * reached < len(self._opinions):
            self._verdict = Verdict.PRIVATE
        self._ask_s = now_s + (ASK_LATER_S if len(self._opinions) >= SURE else ASK_AGAIN_S)

    def try_soon(self) -> None:
        """Somebody new is there to be asked, who may know what nobody could say so far."""
        if not self._opinions:
            self._ask_s = 0.0

    def nobody_said(self, now_s: float) -> None:
        """Whoever was asked did not answer."""
        self._ask_s = now_s + (ASK_AGAIN_S if self._opinions else ASK_SOON_S)

    def whom_to_ask(self, dialled: Iterable[PeerId], others: Iterable[PeerId], now_s: float) -> list[PeerId]:
        """Whom to ask now: enough for an opinion each, those who have given none first; none where it isn't time.

        Args:
            dialled: peers that this node dialled: they can be reached, so their routers let them dial.
            others: the rest of those who are connected.
            now_s: the time.

        """
        if now_s < self._ask_s:
            return []
        known = [*dialled, *others]
        new = [peer for peer in known if peer not in self._opinions]
        old = [peer for peer in self._opinions if peer in known]  # the one that was asked longest ago first
        return [*new, *old][: SURE - 1 if self._opinions else SURE]

    def refused(self, relay: PeerId, now_s: float) -> None:
        """A peer keeps no place for this node."""
        self.places.pop(relay, None)
        last = self._refused.pop(relay, _Refused(now_s, 0))
        pause_s = min(REFUSED_S * 2**last.times, REFUSED_MAX_S)
        self._refused[relay] = _Refused(now_s + pause_s, min(last.times + 1, 8))
        if len(self._refused) > MAX_REFUSED:
            del self._refused[next(iter(self._refused))]

    def lost(self, relay: PeerId) -> bool:
        """A peer is not connected any more; returns whether it held a place."""
        return self.places.pop(relay, None) is not None

    def holds(self, relay: PeerId, addresses: tuple[str, ...], lifetime_s: float, now_s: float) -> None:
        """A relay keeps a place for this node for so long."""
        self._refused.pop(relay, None)
        self.places[relay] = Place(relay, addresses, now_s + lifetime_s / 2)

    def spare(self) -> list[PeerId]:
        """Relays whose place is not needed: all but those that the operator named, where others can dial."""
        if self._verdict is not Verdict.PUBLIC:
            return []
        return [relay for relay in self.places if relay not in self.always]

    def to_renew(self, now_s: float) -> list[PeerId]:
        """Relays whose place is to be asked for again."""
        return [place.relay for place in self.places.values() if place.renew_s <= now_s]

    def to_reserve(self, candidates: Iterable[PeerId], now_s: float) -> list[PeerId]:
        """Relays to ask for a place, in order; stop when enough have agreed.

        Args:
            candidates: peers that may be relays, the best first.
            now_s: the time.

        """
        may = [relay for relay in candidates if relay not in self.places and not self._is_refused(relay, now_s)]
        named = [relay for relay in may if relay in self.always]
        if self._verdict is Verdict.PRIVATE and self.short:
            return [*named, *(relay for relay in may if relay not in self.always)]
        return named

    @property
    def short(self) -> bool:
        """Whether more places are needed."""
        return self._verdict is Verdict.PRIVATE and len(self.places) < RELAYS

    def relayed(self) -> tuple[str, ...]:
        """The node's addresses through its relays."""
        return tuple(address for place in self.places.values() for address in place.addresses)

    def next_s(self, now_s: float) -> float:
        """When something is to be done, at the latest, if nothing happens before."""
        times = [self._ask_s, *(place.renew_s for place in self.places.values())]
        if self.short or self.always - self.places.keys():
            times.append(now_s + ASK_SOON_S)
        return max(min(times), now_s)

    def _is_refused(self, relay: PeerId, now_s: float) -> bool:
        refused = self._refused.get(relay)
        return refused is not None and refused.until_s > now_s
