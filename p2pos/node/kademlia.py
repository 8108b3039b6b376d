"""Kademlia without sockets or clock: whom a node keeps in mind, and how a look-up goes from peer to peer.

After Maymounkov and Mazières (2002) with the parameters of libp2p's specification (kad-dht): positions are
sha2-256 of a key's or a peer id's bytes, distance is their XOR, buckets hold k = 20, ten questions are under way at
once. Two things differ from the letter of the paper, for the sake of swarms that lose a fifth of their nodes at once:
a look-up takes a peer that fails as if it had never been named, and ends only when the k nearest that are left have
all answered.
"""

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from p2pos.types import PeerId

BITS = 256
"""Of a position: sha2-256."""
K = 20
"""Contacts in a bucket, in an answer, and nearest peers that a look-up wants; libp2p's k."""
ALPHA = 10
"""Questions under way at once; libp2p's α."""
MAX_FAILURES = 2
"""Questions in a row that go unanswered before a contact is forgotten; one may be the network's fault."""
REFRESH_BITS = 12
"""Distances that are refreshed by themselves, farthest first: enough for 80,000 nodes. A key for the nearest of them is
found by trying 2¹³, in some 10 ms; what is nearer still, a look-up of the node itself brings."""
MAX_QUESTIONS = 160
"""In one look-up. In 10,000 nodes it takes some 40; only liars who always name somebody nearer make it longer."""
MAX_CANDIDATES = 512
"""Contacts that one look-up keeps in mind, the nearest; several times what the questions above could use."""


def position(key: bytes) -> int:
    """Where a key, or a peer by the bytes of its id, lies: 0 ≤ position < 2²⁵⁶."""
    return int.from_bytes(hashlib.sha256(key).digest(), "big")


class Contact(NamedTuple):
    """A peer that may be asked."""

    peer: PeerId
    position: int
    addresses: tuple[str, ...]
    """Multiaddresses, as many as are worth trying."""


@dataclass(slots=True)
class _Bucket:
    """Contacts at one distance, the one heard from longest ago first: who has stayed long stays longer."""

    contacts: dict[PeerId, Contact] = field(default_factory=dict)
    spares: dict[PeerId, Contact] = field(default_factory=dict)
    """Who was heard from last when there was no place: at most k, of whom one steps in when a contact fails."""


class RoutingTable:
    """The contacts that a node keeps in mind: many near it, few far away, at most 2 k for each of 256 distances.

    Args:
        own: the node's position.
        k: contacts of a bucket.

    """

    def __init__(self, own: int, *, k: int = K) -> None:
        self._own = own
        self._k = k
        self._buckets: dict[int, _Bucket] = {}
        """By the bit length of the XOR of positions."""
        self._failures: dict[PeerId, int] = {}

    def __len__(self) -> int:
        return sum(len(bucket.contacts) for bucket in self._buckets.values())

    def heard(self, contact: Contact) -> None:
        """A contact has just answered, or shown in another way that it is there."""
        bucket = self._bucket(contact.position)
        if bucket is None:
            return
        self._failures.pop(contact.peer, None)
        if contact.peer in bucket.contacts or len(bucket.contacts) < self._k:
            bucket.contacts.pop(contact.peer, None)
            bucket.contacts[contact.peer] = contact
            bucket.spares.pop(contact.peer, None)
        else:
            bucket.spares.pop(contact.peer, None)
            bucket.spares[contact.peer] = contact
            if len(bucket.spares) > self._k:
                bucket.spares.pop(next(iter(bucket.spares)))

    def failed(self, contact: Contact) -> None:
        """A contact did not answer. After `MAX_FAILURES`, or where a spare waits for its place, it is forgotten."""
        bucket = self._bucket(contact.position)
        if bucket is None:
            return
        bucket.spares.pop(contact.peer, None)
        if contact.peer not in bucket.contacts:
            return
        self._failures[contact.peer] = self._failures.get(contact.peer, 0) + 1
        if bucket.spares or self._failures[contact.peer] >= MAX_FAILURES:
            self.remove(contact)

    def remove(self, contact: Contact) -> None:
        """A contact is gone for sure, as by its own word."""
        bucket = self._bucket(contact.position)
        if bucket is None:
            return
        self._failures.pop(contact.peer, None)
        bucket.spares.pop(contact.peer, None)
        if bucket.contacts.pop(contact.peer, None) is not None and bucket.spares:
            peer, spare = bucket.spares.popitem()
            bucket.contacts[peer] = spare

    def closest(self, target: int, count: int = K) -> list[Contact]:
        """The contacts nearest to a position, nearest first."""
        everyone = (each for bucket in self._buckets.values() for each in bucket.contacts.values())
        return heapq.nsmallest(count, everyone, key=lambda each: each.position ^ target)

    def refresh_keys(self, entropy: bytes) -> list[bytes]:
        """A key at each distance up to that of the nearest contact, to look up so that the buckets stay filled.

        Args:
            entropy: some unpredictable bytes, from which the keys come.

        """
        nearest = min((length for length, bucket in self._buckets.items() if bucket.contacts), default=BITS + 1)
        wanted = set(range(max(nearest, BITS - REFRESH_BITS), BITS + 1))
        keys = []
        for number in range(4 << REFRESH_BITS):
            if not wanted:
                break
            key = entropy + number.to_bytes(4, "big")
            length = (position(key) ^ self._own).bit_length()
            if length in wanted:
                wanted.remove(length)
                keys.append(key)
        return keys

    def _bucket(self, where: int) -> _Bucket | None:
        """The bucket of a position; None for the node's own, which it does not keep."""
        length = (self._own ^ where).bit_length()
        return self._buckets.setdefault(length, _Bucket()) if length else None


class Lookup:
    """The way to the k peers nearest to a position.

    The caller takes whom to ask from `ask`, and gives back `answered` or `failed` for each.

    Args:
        target: the position.
        start: whom the node knows nearest to it.
        own: the node's own position, which is not asked.
        k: how many are wanted.
        alpha: questions under way at once.

    """

    def __init__(
        self, target: int, start: Iterable[Contact], *, own: int | None = None, k: int = K, alpha: int = ALPHA
    ) -> None:
        self._target = target
        self._own = own
        self._k = k
        self._alpha = alpha
        self._known: dict[PeerId, Contact] = {}
        self._depth: dict[PeerId, int] = {}
        """Questions in a row that it took to hear of a peer and ask it: 1 for those known at the start."""
        self._waiting: set[PeerId] = set()
        self._answered: set[PeerId] = set()
        self._failed: set[PeerId] = set()
        self._asked = 0
        self._learn(start, depth=1)

    @property
    def done(self) -> bool:
        """Whether nobody is to be asked any more and nobody's answer is waited for."""
        return not self._waiting and not self._next()

    @property
    def hops(self) -> int:
        """Questions one after another that led to the nearest peer which answered; 0 where none did."""
        nearest = self.closest()[:1]
        return self._depth[nearest[0].peer] if nearest else 0

    @property
    def questions(self) -> int:
        """How many peers were asked."""
        return self._asked

    def ask(self) -> list[Contact]:
        """Whom to ask now, nearest first; never one twice."""
        chosen = self._next()[: self._alpha - len(self._waiting)]
        self._waiting.update(each.peer for each in chosen)
        self._asked += len(chosen)
        return chosen

    def answered(self, peer: PeerId, closer: Iterable[Contact]) -> None:
        """A peer that was asked named others, of whom the first k count."""
        if peer not in self._waiting:
            return
        self._waiting.discard(peer)
        self._answered.add(peer)
        self._learn((each for each, _ in zip(closer, range(self._k), strict=False)), depth=self._depth[peer] + 1)

    def failed(self, peer: PeerId) -> None:
        """A peer that was asked did not answer, or not as it should."""
        if peer in self._waiting:
            self._waiting.discard(peer)
            self._failed.add(peer)

    def closest(self) -> list[Contact]:
        """The peers nearest to the position of those that answered, nearest first, at most k."""
        return self._nearest(self._answered)

    def _learn(self, contacts: Iterable[Contact], *, depth: int) -> None:
        for each in contacts:
            if each.position != self._own and each.peer not in self._known:
                self._known[each.peer] = each
                self._depth[each.peer] = depth
        if len(self._known) > MAX_CANDIDATES:
            dispensable = self._known.keys() - self._waiting - self._answered - self._failed
            by_distance = sorted(dispensable, key=lambda peer: self._known[peer].position ^ self._target)
            for peer in by_distance[MAX_CANDIDATES // 2 :]:
                del self._known[peer], self._depth[peer]

    def _next(self) -> list[Contact]:
        """Of the k nearest that have not failed, those that were not asked."""
        if self._asked >= MAX_QUESTIONS:
            return []
        nearest = self._nearest(self._known.keys() - self._failed)
        return [each for each in nearest if each.peer not in self._answered and each.peer not in self._waiting]

    def _nearest(self, peers: Iterable[PeerId]) -> list[Contact]:
        contacts = (self._known[peer] for peer in peers)
        return heapq.nsmallest(self._k, contacts, key=lambda each: each.position ^ self._target)
