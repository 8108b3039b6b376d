"""Whose word on who serves what is believed, and for how long. Pure: time and the check of a signature come in.

A node signs what it says of itself, with a sequence that grows and a time at which it expires. The table keeps the
newest of each peer, hands the signed bytes on as they came, and believes nothing that was not signed by the peer
that it speaks of. It is bounded per model: of the models that matter to this node it keeps all that a swarm may
hold, of each other some, so that it can tell others where to begin.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from p2pos.errors import PeerError
from p2pos.types import PeerId
from p2pos.wire import codec
from p2pos.wire.messages import MAX_ANNOUNCEMENTS, Announcement, Signed

LIFETIME_MS = 15_000
"""Milliseconds that an announcement is good for: three that get lost, at one every four seconds, and a bit."""
MAX_AHEAD_MS = 10_000
"""Milliseconds that a peer's clock may run ahead of ours. One that lags by as much only shortens its announcements."""
DOMAIN = b"p2pos announcement 1\n"
"""Stands before what is signed, so that no signature made for another purpose passes for one of these."""
CAPACITY = 2 * MAX_ANNOUNCEMENTS
"""Peers in all; at the usual 0.5 KiB each some 4 MiB, at the most that a peer can say of itself 40 MiB."""
OTHERS = 64
"""Peers of a model that doesn't matter here: with them whoever it matters to finds the rest."""

Verify = Callable[[bytes, bytes, bytes], PeerId]
"""Given public key, body and signature: the peer that signed. Raises PeerError."""


def fingerprint(peer: PeerId) -> bytes:
    """A short name of a peer: the first 8 bytes of the sha2-256 of its id."""
    return hashlib.sha256(peer.encode()).digest()[:8]


@dataclass(slots=True)
class _Entry:
    announcement: Announcement
    signed: Signed
    until_ms: int
    """Until when it is believed: as it says, but no longer than its lifetime after it came."""
    buried: bool = False
    """Found dead: kept so that the same word can't come back by another way, until a newer one comes."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an announcement."""

    peer: PeerId
    sequence: int
    news: Announcement | None
    """It, where it was not known already."""
    first: bool = False
    """Nothing was known of this peer before."""


class Table:
    """The newest announcement of each peer.

    Args:
        verify: checks a signature (`identity.verify`).
        capacity: peers at most; a newcomer to a full table is refused, so that a crowd can't push others out.
        others: peers at most of a model that is not followed.

    """

    def __init__(self, verify: Verify, *, capacity: int = CAPACITY, others: int = CAPACITY) -> None:
        self._verify = verify
        self._capacity = capacity
        self._others = others
        self._followed: set[str] = set()
        self._entries: dict[PeerId, _Entry] = {}
        self._names: dict[bytes, PeerId] = {}
        """By fingerprint, of those that there is an entry of."""
        self._per_model: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._entries)

    def follow(self, model: str) -> None:
        """Keep all that serve this model from now on."""
        self._followed.add(model)

    def follows(self, model: str) -> bool:
        """Whether this model matters here."""
        return model in self._followed

    def accept(self, signed: Signed, now_ms: int) -> Announcement | None:
        """As `take`; returns the announcement, or None where it is known already."""
        return self.take(signed, now_ms).news

    def take(self, signed: Signed, now_ms: int) -> Taken:
        """Take an announcement where it is newer than what is known.

        Args:
            signed: as it came off the wire.
            now_ms: milliseconds since the epoch.

        Raises PeerError where it is forged, broken, out of its time, older than what is known, or one too many. Its
        field `forged` is true where whoever passed it on could have known: no key made this signature over it. Its
        field `reason` says in a word what was wrong (`metrics.Refusal`).

        """
        try:
            told = codec.decode_announcement(signed.body)
        except PeerError as exc:
            self._signer(signed)  # a later version's announcement is no forgery
            raise PeerError(exc.peer, exc.message, reason="malformed") from exc
        peer = PeerId(told.peer)
        known = self._entries.get(peer)
        if known is not None and known.signed == signed:
            return Taken(peer, told.sequence, None)
        if self._signer(signed) != peer:
            raise PeerError(peer, "has an announcement that another peer signed", forged=True, reason="forged")
        _check(told, now_ms)
        if known is not None and told.sequence <= known.announcement.sequence:
            raise PeerError(peer, "has an announcement that is older than what is known of it", reason="replayed")
        if known is None or known.announcement.model != told.model:
            self._make_room(peer, told.model, now_ms, newcomer=known is None)
        if known is not None:
            self._count(known.announcement.model, -1)
        self._count(told.model, 1)
        self._entries[peer] = _Entry(told, signed, min(told.expires, now_ms + LIFETIME_MS))
        self._names[fingerprint(peer)] = peer
        return Taken(peer, told.sequence, told, first=known is None)

    def room(self, model: str) -> int:
        """How many more peers of a model would be taken."""
        left = self._capacity - len(self._entries)
        return left if model in self._followed else min(left, self._others - self._per_model[model])

    def bury(self, peer: PeerId) -> None:
        """Believe a peer no longer: it was seen to be dead. Its next announcement is believed again."""
        if peer in self._entries:
            self._entries[peer].buried = True

    def get(self, peer: PeerId, now_ms: int) -> Announcement | None:
        """What is believed of a peer; None where it is nothing, or that it left."""
        entry = self._entries.get(peer)
        if entry is None or entry.buried or entry.until_ms <= now_ms or entry.announcement.goodbye:
            return None
        return entry.announcement

    def named(self, mark: bytes) -> PeerId | None:
        """The peer of this fingerprint, where something is known of it."""
        return self._names.get(mark)

    def sequence_of(self, peer: PeerId) -> int:
        """The sequence of what is known of a peer, or 0."""
        known = self._entries.get(peer)
        return 0 if known is None else known.announcement.sequence

    def signed_of(self, peer: PeerId) -> Signed | None:
        """What to tell others of a peer: as it said it, goodbyes included."""
        entry = self._entries.get(peer)
        return None if entry is None or entry.buried else entry.signed

    def live(self, now_ms: int) -> list[Announcement]:
        """What is believed now, without those who said goodbye."""
        self.expire(now_ms)
        return [
            entry.announcement
            for entry in self._entries.values()
            if not entry.announcement.goodbye and not entry.buried
        ]

    def signed(self, now_ms: int, model: str = "") -> list[Signed]:
        """What to tell others of a model, or of all: what is believed now, goodbyes included, so that they spread."""
        self.expire(now_ms)
        return [
            entry.signed
            for entry in self._entries.values()
            if not entry.buried and model in {"", entry.announcement.model}
        ]

    def marks(self) -> Iterator[tuple[str, bytes, int]]:
        """Of each that others may be told of: its model, its fingerprint, its sequence."""
        for mark, peer in self._names.items():
            entry = self._entries[peer]
            if not entry.buried:
                yield entry.announcement.model, mark, entry.announcement.sequence

    def expire(self, now_ms: int) -> None:
        """Forget what has expired. An older announcement of the same peer has expired too, so none can come back."""
        gone = [peer for peer, entry in self._entries.items() if entry.until_ms <= now_ms]
        for peer in gone:
            self._count(self._entries.pop(peer).announcement.model, -1)
            self._names.pop(fingerprint(peer), None)

    def _signer(self, signed: Signed) -> PeerId:
        try:
            return self._verify(signed.public_key, DOMAIN + signed.body, signed.signature)
        except PeerError as exc:
            raise PeerError(exc.peer, exc.message, forged=True, reason="forged") from exc

    def _make_room(self, peer: PeerId, model: str, now_ms: int, *, newcomer: bool) -> None:
        if (newcomer and len(self._entries) >= self._capacity) or self.room(model) <= 0:
            self.expire(now_ms)
        if newcomer and len(self._entries) >= self._capacity:
            raise PeerError(peer, f"is one too many: {self._capacity} nodes are known", reason="full")
        if model not in self._followed and self._per_model[model] >= self._others:
            text = f"is one too many of a model of no concern here: {self._others} are known"
            raise PeerError(peer, text, reason="full")

    def _count(self, model: str, change: int) -> None:
        self._per_model[model] += change
        if not self._per_model[model]:
            del self._per_model[model]


def _check(told: Announcement, now_ms: int) -> None:
    """Raise PeerError where what was said can't be so."""
    if told.expires != told.sequence + LIFETIME_MS:
        raise _impossible(told, f"has an announcement that is not good for {LIFETIME_MS} ms")
    if told.sequence > now_ms + MAX_AHEAD_MS:
        ahead_ms = told.sequence - now_ms
        raise PeerError(told.peer, "has an announcement from the future", reason="future", ahead_ms=ahead_ms)
    if told.expires <= now_ms:
        ago_ms = now_ms - told.expires
        raise PeerError(told.peer, "has an announcement that has expired", reason="expired", ago_ms=ago_ms)
    if not told.start < told.end <= told.layers:
        raise _impossible(told, f"announces layers {told.start}:{told.end} of {told.layers}")
    speeds = (told.tokens_per_s, told.layer_tokens_per_s, *(ms for _, ms in told.round_trips))
    if not all(math.isfinite(each) for each in speeds):
        raise _impossible(told, "announces a speed that is no number")
    if not all(text.isprintable() for text in (told.model, told.model_name, *told.addresses)):
        raise _impossible(told, "has an announcement with characters that can't be shown")


def _impossible(told: Announcement, text: str) -> PeerError:
    return PeerError(told.peer, text, reason="impossible")
