"""Whose word on who serves what is believed, and for how long. Pure: time and the check of a signature come in.

A node signs what it says of itself, with a sequence that grows and a time at which it expires. The table keeps the
newest of each peer, hands the signed bytes on as they came, and believes nothing that was not signed by the peer
that it speaks of.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from p2pos.errors import PeerError
from p2pos.types import PeerId
from p2pos.wire import codec
from p2pos.wire.messages import MAX_ANNOUNCEMENTS, Announcement, Signed

LIFETIME_MS = 15_000
"""Milliseconds that an announcement is good for: four that get lost, at one every three seconds, and a bit."""
MAX_AHEAD_MS = 10_000
"""Milliseconds that a peer's clock may run ahead of ours. One that lags by as much only shortens its announcements."""
DOMAIN = b"p2pos announcement 1\n"
"""Stands before what is signed, so that no signature made for another purpose passes for one of these."""

Verify = Callable[[bytes, bytes, bytes], PeerId]
"""Given public key, body and signature: the peer that signed. Raises PeerError."""


@dataclass(frozen=True, slots=True)
class _Entry:
    announcement: Announcement
    signed: Signed


class Table:
    """The newest announcement of each peer.

    Args:
        verify: checks a signature (`identity.verify`).
        capacity: peers at most; a newcomer to a full table is refused, so that a crowd can't push others out.

    """

    def __init__(self, verify: Verify, *, capacity: int = MAX_ANNOUNCEMENTS) -> None:
        self._verify = verify
        self._capacity = capacity
        self._entries: dict[PeerId, _Entry] = {}

    def accept(self, signed: Signed, now_ms: int) -> Announcement | None:
        """Take an announcement where it is newer than what is known, and return it; None where it is known already.

        Args:
            signed: as it came off the wire.
            now_ms: milliseconds since the epoch.

        Raises PeerError where it is forged, broken, out of its time, older than what is known, or one too many.

        """
        told = codec.decode_announcement(signed.body)
        peer = PeerId(told.peer)
        known = self._entries.get(peer)
        if known is not None and known.signed == signed:
            return None
        if self._verify(signed.public_key, DOMAIN + signed.body, signed.signature) != peer:
            raise PeerError(peer, "has an announcement that another peer signed")
        _check(told, now_ms)
        if known is not None and told.sequence <= known.announcement.sequence:
            raise PeerError(peer, "has an announcement that is older than what is known of it")
        if known is None:
            self.expire(now_ms)
            if len(self._entries) >= self._capacity:
                raise PeerError(peer, f"is one too many: {self._capacity} nodes are known")
        self._entries[peer] = _Entry(told, signed)
        return told

    def sequence_of(self, peer: PeerId) -> int:
        """The sequence of what is known of a peer, or 0."""
        known = self._entries.get(peer)
        return 0 if known is None else known.announcement.sequence

    def live(self, now_ms: int) -> list[Announcement]:
        """What is believed now, without those who said goodbye."""
        self.expire(now_ms)
        return [entry.announcement for entry in self._entries.values() if not entry.announcement.goodbye]

    def signed(self, now_ms: int) -> list[Signed]:
        """What to tell others: all that is believed now, goodbyes included, so that they spread too."""
        self.expire(now_ms)
        return [entry.signed for entry in self._entries.values()]

    def expire(self, now_ms: int) -> None:
        """Forget what has expired. An older announcement of the same peer has expired too, so none can come back."""
        self._entries = {peer: entry for peer, entry in self._entries.items() if entry.announcement.expires > now_ms}


def _check(told: Announcement, now_ms: int) -> None:
    """Raise PeerError where what was said can't be so."""
    if told.expires != told.sequence + LIFETIME_MS:
        raise PeerError(told.peer, f"has an announcement that is not good for {LIFETIME_MS} ms")
    if told.sequence > now_ms + MAX_AHEAD_MS:
        raise PeerError(told.peer, "has an announcement from the future", ahead_ms=told.sequence - now_ms)
    if told.expires <= now_ms:
        raise PeerError(told.peer, "has an announcement that has expired", ago_ms=now_ms - told.expires)
    if not told.start < told.end <= told.layers:
        raise PeerError(told.peer, f"announces layers {told.start}:{told.end} of {told.layers}")
    speeds = (told.tokens_per_s, told.layer_tokens_per_s, *(ms for _, ms in told.round_trips))
    if not all(math.isfinite(each) for each in speeds):
        raise PeerError(told.peer, "announces a speed that is no number")
    if not all(text.isprintable() for text in (told.model, told.model_name, *told.addresses)):
        raise PeerError(told.peer, "has an announcement with characters that can't be shown")
