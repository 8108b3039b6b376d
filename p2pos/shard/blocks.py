"""The blocks of a KV cache: who holds which, which may be shared, and which goes first when room is needed. Pure.

A block holds `BLOCK_TOKENS` positions. A full block is named by a key, the hash of all tokens up to its end, so that
sessions whose texts begin alike share it without a copy. Nobody writes to a block once it is full, and a session's own
positions begin at a block's start; so sharing needs no locks.

A session is admitted with the number of blocks that it may come to need. They are only counted then, and taken one by
one as it grows: free ones first, else the shared ones that nobody holds, the longest unused first. What was admitted
always finds its room. Where there is a run of neighbours for all that a session may need, others leave it alone as long
as they find free blocks elsewhere: what lies in a row can be read without being gathered.
"""

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from p2pos.errors import InternalError
from p2pos.wire.messages import BLOCK_TOKENS, StageRef

KEY_BYTES = 16
"""Of blake2b. Finding two texts with one key takes 2^64 hashes, and wins a wrong answer to one's own question."""


def root(model: str) -> bytes:
    """The key before the first block of any text."""
    return hashlib.blake2b(model.encode(), digest_size=KEY_BYTES, person=b"p2pos-prefix").digest()


def next_key(key: bytes, tokens: Sequence[int]) -> bytes:
    """The key of the block with these `BLOCK_TOKENS` tokens that follows the block, or root, named by `key`."""
    return hashlib.blake2b(struct.pack(f"<{len(tokens)}I", *tokens), digest_size=KEY_BYTES, key=key).digest()


def keys(model: str, tokens: Sequence[int]) -> list[bytes]:
    """The keys of a text's whole blocks."""
    found, key = [], root(model)
    for start in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        key = next_key(key, tokens[start : start + BLOCK_TOKENS])
        found.append(key)
    return found


def scope(owner: str, upstream: Iterable[StageRef]) -> bytes:
    """Names those who vouch for a block's content: the session's owner, and the stages before this one.

    A stage takes keys from its neighbour and from the owner, and can't tell whether they are those of the tokens that
    made what it computes. So sessions of one owner share, over one way to the stage; nobody can spoil another's cache,
    nor go on from another's text by its keys. A node that answers for many people owns all of their sessions.
    """
    digest = hashlib.blake2b(f"{owner}\n".encode(), digest_size=KEY_BYTES)
    for stage in upstream:
        digest.update(f"{stage.peer} {stage.start}:{stage.end}\n".encode())
    return digest.digest()


def scoped(scope_: bytes, key: bytes) -> bytes:
    """A key as one stage files it."""
    return hashlib.blake2b(key, digest_size=KEY_BYTES, key=scope_).digest()


@dataclass(slots=True)
class Lease:
    """The blocks of one session, in the order of its positions, and how many more it may take."""

    blocks: list[int] = field(default_factory=list)
    reserved: int = 0
    settled: bool = False
    """Whether it is known how many of the blocks that were found are kept."""
    plan: list[int] = field(default_factory=list)
    """The blocks that it takes next where they are still free, the last first."""


class Blocks:
    """Hands out the blocks 0 … count-1.

    Args:
        count: how many there are.

    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = set(range(count))
        self._spoken_for = bytearray(count)  # 0: free, and in nobody's plan
        self._holders = [0] * count
        self._unsettled = [0] * count
        self._by_key: dict[bytes, int] = {}
        self._key: dict[int, bytes] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()  # held by nobody, kept for their keys; longest unused first
        self._reserved = 0

    @property
    def available(self) -> int:
        """Blocks that may still be promised."""
        return len(self._free) + len(self._idle) - self._reserved

    @property
    def held(self) -> int:
        """Blocks that sessions hold."""
        return self.count - len(self._free) - len(self._idle)

    @property
    def idle(self) -> int:
        """Blocks that only wait for someone with the same text."""
        return len(self._idle)

    def admit(self, tokens: int, prefix: Sequence[bytes] = ()) -> Lease | None:
        """Promise room for a session, None where there isn't any.

        Until `settle` says how much of what was found is kept, a found block that others hold is promised once more:
        giving it back frees nothing then, and the session needs one of its own.

        Args:
            tokens: positions that it may come to hold.
            prefix: keys of its prompt's whole blocks, as this stage files them. The lease holds those found here.

        """
        total = -(-tokens // BLOCK_TOKENS)
        found: list[int] = []
        for key in prefix[:total]:
            block = self._by_key.get(key)
            if block is None:
                break
            found.append(block)
        if (
            total > self.available
        ):  # a found block takes one as well: an unused one itself, another's its second promise
            return None
        for block in found:
            self._idle.pop(block, None)
            self._count(block, 1, unsettled=1)
        wanted = total - len(found)
        lease = Lease(found, wanted)
        self._reserved += wanted
        start = self._spoken_for.find(bytes(wanted))
        if start >= 0:
            lease.plan = list(range(start + wanted - 1, start - 1, -1))
            self._spoken_for[start : start + wanted] = b"\1" * wanted
        return lease

    def settle(self, lease: Lease, blocks: int) -> None:
        """Keep so many of the blocks that were found, and give the others back for blocks of its own.

        Raises InternalError where that has been said already.
        """
        if lease.settled:
            raise InternalError("a session begins twice")
        lease.settled = True
        for block in lease.blocks[:blocks]:
            self._count(block, 0, unsettled=-1)
        for block in reversed(lease.blocks[blocks:]):
            self._drop(block, unsettled=-1)
            lease.reserved += 1
            self._reserved += 1
        del lease.blocks[blocks:]

    def grow(self, lease: Lease, tokens: int) -> None:
        """Take blocks until the lease holds room for so many positions. Raises InternalError beyond its promise."""
        while len(lease.blocks) * BLOCK_TOKENS < tokens:
            if not lease.reserved:
                raise InternalError("a session takes more blocks than it was promised")
            block = self._take(lease)
            self._holders[block] = 1
            lease.blocks.append(block)
            lease.reserved -= 1
            self._reserved -= 1

    def name(self, lease: Lease, index: int, key: bytes) -> None:
        """File the lease's block `index`, which is full now. Where one with that key is filed already, it stays."""
        if key not in self._by_key and lease.blocks[index] not in self._key:
            self._by_key[key] = lease.blocks[index]
            self._key[lease.blocks[index]] = key

    def release(self, lease: Lease) -> None:
        """End a lease. Its last blocks will go first: a text's beginning is the likeliest to be wanted again."""
        for block in reversed(lease.blocks):
            self._drop(block, unsettled=0 if lease.settled else -1)
        self._reserved -= lease.reserved
        for block in self._free.intersection(lease.plan):
            self._spoken_for[block] = 0
        lease.blocks, lease.reserved, lease.plan = [], 0, []

    def _count(self, block: int, holders: int, *, unsettled: int) -> None:
        """More or fewer sessions hold a block, and more or fewer of them may yet give it back for one of their own.

        Each of these is promised one, but for the last holder of all: what it gives back is free.
        """
        self._reserved -= min(self._unsettled[block], max(0, self._holders[block] - 1))
        self._holders[block] += holders
        self._unsettled[block] += unsettled
        self._reserved += min(self._unsettled[block], max(0, self._holders[block] - 1))

    def _drop(self, block: int, *, unsettled: int) -> None:
        self._count(block, -1, unsettled=unsettled)
        if self._holders[block]:
            return
        if block in self._key:
            self._idle[block] = None
        else:
            self._free.add(block)
            self._spoken_for[block] = 0

    def _take(self, lease: Lease) -> int:
        """A block for this lease: the next of its plan, one in nobody's, another's, else one that only waits."""
        while lease.plan:
            block = lease.plan.pop()
            if block in self._free:
                break
        else:
            block = self._spoken_for.find(0)
            if block < 0:
                block = next(iter(self._free)) if self._free else self._evict()
        self._free.discard(block)
        self._spoken_for[block] = 1
        return block

    def _evict(self) -> int:
        block, _ = self._idle.popitem(last=False)
        del self._by_key[self._key.pop(block)]
        return block
