"""Who is asked for which chunk: several peers at once, each within bounds, until every chunk is here. Pure.

The shell tells what happens and performs what the machine answers. It hashes what comes and says the hash; whether that
is the right one is decided here, so that no bytes of a liar are ever accepted.

- **Which chunk.** A peer that has room is asked for the chunk that the fewest peers have, so that what is rare comes
  while its holder is here.
- **How much.** Each peer has up to `WINDOW` bytes and `REQUESTS` requests under way, and is asked again as its answers
  come: a faster peer is asked for more.
- **The end.** A peer with nothing else to do is asked for a chunk that another is slow with, so that the slowest peer
  doesn't decide when all is here. A chunk is asked of two at most.
- **Faults.** A peer that sends wrong bytes, or what it was not asked for, is dropped for good; one that is silent for
  `STALL_S`, or is lost, may come back, as often as the shell lets it. What it was asked for is asked of others.
- **Room.** A peer that has nothing which is lacking gives up its place to another.
- **Failure.** When for a while no peer is here that has a chunk which is lacking, and none is under way, it ends.
"""

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from p2pos.content import chunks as bitmaps
from p2pos.content.bucket import Bucket

WINDOW = 8 << 20
"""Bytes under way from one peer: at a round trip of 100 ms, 80 MB/s."""
REQUESTS = 32
"""Requests under way to one peer; many tensors are of some KB."""
MAX_PEERS = 8
"""Peers that are asked at once: with `WINDOW`, 64 MiB under way."""
STALL_S = 120.0
"""Seconds without an answer after which a peer counts as gone: a chunk of 2 MiB at 18 KB/s, from one that is capped and
has others to serve. Where another peer has its chunks, nobody waits for that."""
PATIENCE_S = 10.0
"""Seconds to wait for a peer that has what is lacking."""
OTHERS = 2
"""Peers that one chunk is asked of at the end."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask a peer for a chunk."""

    peer: str
    chunk: int


@dataclass(frozen=True, slots=True)
class Accept:
    """What this peer sent is the chunk: keep it."""

    peer: str
    chunk: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Have no more to do with a peer."""

    peer: str
    why: str
    fault: Literal["lied", "silent", ""]
    """`lied`: it broke the protocol or sent wrong bytes, and is not to come back. "": it did nothing wrong."""

    @property
    def lied(self) -> bool:
        """Whether it is not to come back."""
        return self.fault == "lied"


@dataclass(frozen=True, slots=True)
class Finish:
    """Every chunk was accepted."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Nobody who is here has these chunks."""

    lacking: int


Effect: TypeAlias = Ask | Accept | Drop | Finish | Fail


@dataclass(slots=True)
class _Peer:
    bit: int
    have: bytearray
    under_way: set[int] = field(default_factory=set)
    nbytes: int = 0
    """Under way."""
    heard_s: float = 0.0
    """When it last answered, or was first asked after a rest."""


class Exchange:
    """One fetch of some chunks.

    Args:
        wanted: their numbers.
        total: how many chunks the model has, which a peer's bitmap must match.
        size: bytes of a chunk.
        leaf: the sha256 of a chunk.
        bucket: the cap on what is asked for.
        patience_s: see `PATIENCE_S`.
        now_s: the time.

    """

    def __init__(
        self,
        wanted: Collection[int],
        *,
        total: int,
        size: Callable[[int], int],
        leaf: Callable[[int], bytes],
        bucket: Bucket | None = None,
        patience_s: float = PATIENCE_S,
        now_s: float,
    ) -> None:
        self._lacking = set(wanted)
        self._total = total
        self._size = size
        self._leaf = leaf
        self._bucket = bucket or Bucket(0)
        self._patience_s = patience_s
        self._peers: dict[str, _Peer] = {}
        self._queues: dict[int, deque[int]] = {0: deque(sorted(self._lacking))}
        """Chunks that nobody is asked for, by the bits of the peers that have them; few queues, however many chunks."""
        self._asked: dict[int, list[str]] = {}
        """Chunks under way, longest first, and whom they are asked of."""
        self._starved_s: float | None = now_s
        """Since when no peer could give anything."""
        self._over = False
        self.liars: dict[str, str] = {}
        """Peers that are never to come back, and why."""

    @property
    def lacking(self) -> frozenset[int]:
        """The chunks that have not been accepted."""
        return frozenset(self._lacking)

    @property
    def over(self) -> bool:
        """Whether it finished or failed."""
        return self._over

    @property
    def room(self) -> int:
        """How many more peers may join."""
        return MAX_PEERS - len(self._peers)

    def begin(self, now_s: float) -> list[Effect]:
        """Start; where nothing is wanted, that is the end."""
        return self._settle([], now_s)

    def joined(self, peer: str, have: bytes, now_s: float) -> list[Effect]:
        """A peer is connected and has these chunks. It comes into `room`."""
        if self._over or peer in self.liars or peer in self._peers or not self.room:
            return []
        if len(have) != -(-self._total // 8):
            return self._drop(peer, f"has a bitmap of {len(have)} bytes for {self._total} chunks", now_s, "lied")
        taken = 0
        for each in self._peers.values():
            taken |= each.bit
        bit = next(1 << number for number in range(MAX_PEERS) if not taken >> number & 1)
        self._peers[peer] = _Peer(bit, bytearray(have), heard_s=now_s)
        whole = have == bitmaps.everything(self._total)
        for mask, queue in list(self._queues.items()):  # each chunk's place is with those whom it can be had of
            mine = queue if whole else deque(chunk for chunk in queue if have[chunk >> 3] >> (chunk & 7) & 1)
            if mine:
                rest = deque() if whole else deque(chunk for chunk in queue if not have[chunk >> 3] >> (chunk & 7) & 1)
                self._queues[mask] = rest
                self._queues[mask | bit] = mine
        return self._settle([], now_s)

    @property
    def peers(self) -> frozenset[str]:
        """The peers that are here."""
        return frozenset(self._peers)

    def left(self, peer: str, now_s: float) -> list[Effect]:
        """The connection to a peer is gone."""
        self._forget(peer)
        return self._settle([], now_s)

    def broke(self, peer: str, why: str, now_s: float) -> list[Effect]:
        """A peer sent what is no message of this protocol."""
        return self._drop(peer, why, now_s, "lied")

    def answered(self, peer: str, chunk: int, sha256: bytes | None, now_s: float) -> list[Effect]:
        """A peer answered with bytes of this sha256; or, where it is None, that it hasn't got the chunk."""
        source = self._peers.get(peer)
        if self._over or source is None:
            return []
        if chunk not in source.under_way:
            return self._drop(peer, "sent a chunk that it was not asked for", now_s, "lied")
        if sha256 is not None and sha256 != self._leaf(chunk):
            return self._drop(peer, f"sent wrong bytes for chunk {chunk}", now_s, "lied")
        source.heard_s = now_s
        self._no_longer_asked(peer, source, chunk)
        if chunk not in self._lacking:
            return self._settle([], now_s)  # another peer was faster
        if sha256 is None:
            source.have[chunk >> 3] &= ~(1 << (chunk & 7))
            self._queue(chunk)
            return self._settle([], now_s)
        self._lacking.discard(chunk)
        return self._settle([Accept(peer, chunk)], now_s)

    def on_time(self, now_s: float) -> list[Effect]:
        """Some time has passed; `deadline_s` is when this must be called at the latest."""
        effects: list[Effect] = []
        for peer, source in list(self._peers.items()):
            if source.under_way and now_s >= source.heard_s + STALL_S:
                effects += self._drop(peer, f"sent nothing for {STALL_S:g} s", now_s, "silent")
        return effects + self._settle([], now_s)

    def deadline_s(self, now_s: float) -> float:
        """When `on_time` is next to be called."""
        times = [source.heard_s + STALL_S for source in self._peers.values() if source.under_way]
        if self._starved_s is not None:
            times.append(self._starved_s + self._patience_s)
        free_s = self._bucket.free_s(now_s)
        if free_s > now_s:
            times.append(free_s)
        return min(times, default=float("inf"))

    def _settle(self, effects: list[Effect], now_s: float) -> list[Effect]:
        """After any change: ask for what can be asked for, and see whether this is the end."""
        if self._over:
            return effects
        if not self._lacking:
            self._over = True
            return [*effects, Finish()]
        effects += self._ask(now_s)
        for peer, source in list(self._peers.items()):
            if not source.under_way and not self._is_of_use(source):
                self._forget(peer)
                effects.append(Drop(peer, "has nothing that is lacking", ""))
        if self._asked or any(mask and queue for mask, queue in self._queues.items()):
            self._starved_s = None
        elif self._starved_s is None:
            self._starved_s = now_s
        elif now_s >= self._starved_s + self._patience_s:
            self._over = True
            return [*effects, Fail(len(self._lacking))]
        return effects

    def _ask(self, now_s: float) -> list[Effect]:
        """One round after the other, so that peers with equal room are asked for equally much."""
        effects: list[Effect] = []
        asked = True
        while asked:
            asked = False
            for peer, source in self._peers.items():
                if self._bucket.free_s(now_s) > now_s:
                    return effects
                chunk = self._choose(peer, source)
                if chunk is not None:
                    if not source.under_way:
                        source.heard_s = now_s
                    source.under_way.add(chunk)
                    source.nbytes += self._size(chunk)
                    self._asked.setdefault(chunk, []).append(peer)
                    self._bucket.take(self._size(chunk), now_s)
                    effects.append(Ask(peer, chunk))
                    asked = True
        return effects

    def _choose(self, peer: str, source: _Peer) -> int | None:
        """What this peer is to be asked for, if anything."""
        if len(source.under_way) >= REQUESTS or source.nbytes >= WINDOW:
            return None
        masks = [mask for mask, queue in self._queues.items() if mask & source.bit and queue]
        if masks:
            rarest = min(masks, key=lambda mask: (mask.bit_count(), self._queues[mask][0]))
            return self._queues[rarest].popleft()
        if source.under_way:
            return None
        for chunk, others in self._asked.items():
            may = chunk in self._lacking and len(others) < OTHERS and peer not in others
            if may and bitmaps.has(source.have, chunk):
                return chunk
        return None

    def _is_of_use(self, source: _Peer) -> bool:
        if any(mask & source.bit and queue for mask, queue in self._queues.items()):
            return True
        return any(chunk in self._lacking and bitmaps.has(source.have, chunk) for chunk in self._asked)

    def _drop(self, peer: str, why: str, now_s: float, fault: Literal["lied", "silent"]) -> list[Effect]:
        self._forget(peer)
        if fault == "lied":
            self.liars[peer] = why
        return self._settle([Drop(peer, why, fault)], now_s)

    def _forget(self, peer: str) -> None:
        source = self._peers.pop(peer, None)
        if source is None:
            return
        for chunk in sorted(source.under_way):
            self._no_longer_asked(peer, source, chunk)
            if chunk in self._lacking:
                self._queue(chunk)
        for mask in [mask for mask in self._queues if mask & source.bit]:
            rest = self._queues.setdefault(mask & ~source.bit, deque())
            rest.extend(self._queues.pop(mask))

    def _no_longer_asked(self, peer: str, source: _Peer, chunk: int) -> None:
        source.under_way.discard(chunk)
        source.nbytes -= self._size(chunk)
        others = self._asked[chunk]
        others.remove(peer)
        if not others:
            del self._asked[chunk]

    def _queue(self, chunk: int) -> None:
        """Put a chunk, which is lacking, back to where it is asked for next; nothing where another is asked for it."""
        if chunk not in self._asked:
            mask = self._mask(chunk)
            self._queues.setdefault(mask, deque()).appendleft(chunk)

    def _mask(self, chunk: int) -> int:
        mask = 0
        for source in self._peers.values():
            if bitmaps.has(source.have, chunk):
                mask |= source.bit
        return mask
