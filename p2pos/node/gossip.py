"""What neighbours tell one another of the swarm, unasked. Pure: time comes in, messages go out.

Each node has a few neighbours, with one stream to each. News that can't wait (a newcomer's first word, a goodbye,
that a node drains, this node's own announcement) goes to all of them at once. All else goes by marks: which
announcements there are, 20 bytes each, of which the other asks for what it lacks, from one neighbour at a time. So an
announcement of some 400 bytes comes to a node once, however many neighbours it has.

Why not gossipsub: between eight real processes, py-libp2p's delivered every one of 960 messages at one per second and
node, 12 ms in the median; of a burst of 60 from one node each other got 10. A swarm's announcements come in such bursts
whenever somebody joins or comes back, and what gossipsub loses nobody asks for again. Marks are told until they are
taken.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from p2pos import log
from p2pos.errors import PeerError
from p2pos.node.table import CAPACITY, MAX_AHEAD_MS, Table, fingerprint
from p2pos.types import PeerId
from p2pos.wire.messages import MAX_MARKS, MAX_NEWS, Announcement, Marks, News, Signed

ASK_AGAIN_MS = 1_500
"""Milliseconds for a neighbour to send what it said it has; after that another who has it is asked."""
MAX_OFFERS = 4096
"""Marks of one neighbour's that are kept for the case that another does not deliver."""

_log = log.get("gossip")


@dataclass(slots=True)
class Link:
    """One neighbour: what it knows, what it wants, and what it is to be told."""

    peer: PeerId
    wake: Callable[[], None]
    """Called when there is something that can't wait."""
    knows: dict[bytes, int] = field(default_factory=dict)
    """By fingerprint, the newest sequence that it has, or was told of. Those that the table knows alone."""
    urgent: dict[bytes, None] = field(default_factory=dict)
    """Whose announcements go to it at once."""
    wanted: dict[bytes, None] = field(default_factory=dict)
    """Whose it asked for."""
    offers: dict[bytes, int] = field(default_factory=dict)
    """What it has that this node lacks, by fingerprint with the sequence."""
    asked: dict[bytes, int] = field(default_factory=dict)
    """What it was asked for, by fingerprint, and until when its answer is waited for."""


@dataclass(frozen=True, slots=True)
class Told:
    """An announcement that was new, and whether it was the first of its peer."""

    announcement: Announcement
    first: bool


class Gossip:
    """A node's part in spreading announcements.

    Args:
        table: what is believed; news is put into it and taken from it.
        count: told of each announcement that was news, "", or was not believed, with the reason in a word.

    """

    def __init__(self, table: Table, *, count: Callable[[str], None] = lambda _: None) -> None:
        self._table = table
        self._count = count
        self._links: list[Link] = []

    def joined(self, peer: PeerId, wake: Callable[[], None]) -> Link:
        """A neighbour is there: it is to be told all."""
        link = Link(peer, wake)
        self._links.append(link)
        return link

    def left(self, link: Link) -> None:
        """A neighbour is gone."""
        self._links.remove(link)

    def spread(self, told: Announcement, *, teller: Link | None = None) -> None:
        """Have an announcement that the table has sent to all neighbours at once, but to whom it came from."""
        mark = fingerprint(PeerId(told.peer))
        for link in self._links:
            if link is not teller and link.knows.get(mark, -1) < told.sequence:
                link.urgent[mark] = None
                link.wake()

    def take(self, signed: Signed, now_ms: int, *, teller: PeerId, link: Link | None = None) -> Told | None:
        """Believe an announcement and pass it on, at once where it can't wait; None where it's no news.

        What can't be believed is passed over, for who passes it on need not know better.

        Raises PeerError, at the teller's fault, where it is forged.
        """
        try:
            taken = self._table.take(signed, now_ms)
        except PeerError as exc:
            self._count(exc.fields.get("reason", "other"))
            if exc.fields.get("forged"):
                raise PeerError(teller, f"passed on a forged announcement of {exc.peer or 'nobody'}") from exc
            _log.debug("not believed", teller=teller, peer=exc.peer, why=exc.message)
            return None
        mark = fingerprint(taken.peer)
        if link is not None:
            link.knows[mark] = max(link.knows.get(mark, 0), taken.sequence)
        for each in self._links:
            each.asked.pop(mark, None)
        news = taken.news
        if news is None:
            return None
        self._count("")
        if taken.first or news.goodbye or news.draining:
            self.spread(news, teller=link)
        return Told(news, taken.first)

    def receive(self, link: Link, news: News, now_ms: int) -> list[Told]:
        """Take what a neighbour tells. Raises PeerError where it tells what it should have known to be forged."""
        told = [self.take(each, now_ms, teller=link.peer, link=link) for each in news.known]
        for group in news.have:
            room = self._table.room(group.model)
            for mark, sequence in group.marks:
                room -= self._offered(link, mark, sequence, now_ms, room)
        for mark in news.want:
            if self._table.named(mark) is not None:
                link.wanted[mark] = None
        if link.offers or link.wanted:
            link.wake()
        return [each for each in told if each is not None]

    def compose(self, link: Link, now_ms: int, *, tick: bool) -> News | None:
        """What to send a neighbour now; None for nothing. To be called until then, since a message is bounded.

        Args:
            link: the neighbour.
            now_ms: milliseconds since the epoch.
            tick: tell it the marks of all that it may not know as well, once in a while.

        """
        known = self._bodies(link)
        want = self._asking(link, now_ms)
        have = self._marks(link) if tick else []
        return News(known, have, want) if known or have or want else None

    def _offered(self, link: Link, mark: bytes, sequence: int, now_ms: int, room: int) -> int:
        """A neighbour has an announcement. Returns 1 where it is of a peer that is to be added, else 0."""
        peer = self._table.named(mark)
        if peer is not None:
            link.knows[mark] = max(link.knows.get(mark, 0), sequence)
            if self._table.sequence_of(peer) >= sequence:
                return 0
        elif room <= 0:
            return 0
        if sequence <= now_ms + MAX_AHEAD_MS and (mark in link.offers or len(link.offers) < MAX_OFFERS):
            link.offers[mark] = sequence
        return int(peer is None)

    def _asking(self, link: Link, now_ms: int) -> list[bytes]:
        """Of what a neighbour offered, what nobody else is being asked for."""
        want: list[bytes] = []
        link.asked = {mark: until_ms for mark, until_ms in link.asked.items() if until_ms > now_ms}
        for mark, sequence in list(link.offers.items()):
            peer = self._table.named(mark)
            if peer is not None and self._table.sequence_of(peer) >= sequence:
                del link.offers[mark]
            elif len(link.asked) < MAX_MARKS and not any(each.asked.get(mark, 0) > now_ms for each in self._links):
                del link.offers[mark]
                link.asked[mark] = now_ms + ASK_AGAIN_MS
                want.append(mark)
        return want

    def _bodies(self, link: Link) -> list[Signed]:
        known: list[Signed] = []
        for queue in (link.urgent, link.wanted):
            while queue and len(known) < MAX_NEWS:
                mark = next(iter(queue))
                del queue[mark]
                peer = self._table.named(mark)
                signed = None if peer is None else self._table.signed_of(peer)
                if peer is None or signed is None or signed in known:
                    continue
                link.knows[mark] = self._table.sequence_of(peer)
                known.append(signed)
        return known

    def _marks(self, link: Link) -> list[Marks]:
        """Of what a neighbour may not know, `MAX_MARKS` at most; what it was told once it is not told again."""
        groups: dict[str, list[tuple[bytes, int]]] = {}
        told = 0
        for model, mark, sequence in self._table.marks():
            if link.knows.get(mark, -1) < sequence and told < MAX_MARKS:
                link.knows[mark] = sequence
                groups.setdefault(model, []).append((mark, sequence))
                told += 1
        if len(link.knows) > CAPACITY:
            link.knows = {mark: each for mark, each in link.knows.items() if self._table.named(mark) is not None}
        return [Marks(model, marks) for model, marks in groups.items()]
