"""A chain in memory whose blocks hold the logs of random deeds, and what is true after each of them.

Blocks can be taken back and made anew. It answers what `indexer.Source` asks; `bench index` and the trials in the tests
use it.
"""

import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from bench.index_deeds import BLOCK_S, CONTRACT, START_S, Deeds, Truth, json_logs
from p2pos.ledger.bloom import mark
from p2pos.ledger.records import Header

_MARK = mark(CONTRACT)


class ModelBlock(NamedTuple):
    """A block and what is true after it."""

    number: int
    hash: bytes
    parent: bytes
    logs: list[dict[str, Any]]
    truth: Truth


class ModelChain:
    """The chain: `indexer.Source`, and what changes it."""

    def __init__(self, rng: random.Random, *, accounts: int = 6, classes: int = 5) -> None:
        self.rng = rng
        self.accounts = [hashlib.sha256(f"account {at}".encode()).hexdigest()[:40] for at in range(accounts)]
        self.most_classes = classes
        self.blocks = [ModelBlock(0, self._hash(), bytes(32), [], Truth())]
        self.before_answer: Callable[[], None] = lambda: None
        """Called before each question is answered: where a trial lets the chain change in the middle of a sync."""
        self.lag = 0
        """Blocks by which the end point is behind."""
        self.with_times = True
        """Whether logs bear their block's time."""

    @property
    def head(self) -> ModelBlock:
        """The newest block that the end point has."""
        return self.blocks[max(0, len(self.blocks) - 1 - self.lag)]

    def mine(self, blocks: int, deeds: Callable[[Deeds], None] | None = None) -> None:
        """Add blocks, empty ones or with deeds."""
        for _ in range(blocks):
            parent = self.blocks[-1]
            number = parent.number + 1
            if deeds is None:
                self.blocks.append(ModelBlock(number, self._hash(), parent.hash, [], parent.truth))
                continue
            work = Deeds(self.rng, parent.truth.copy(), self.accounts, self.most_classes)
            work.now_s = START_S + BLOCK_S * number
            deeds(work)
            hash_ = self._hash()
            logs = json_logs(number, hash_, work.now_s if self.with_times else None, work.logs)
            self.blocks.append(ModelBlock(number, hash_, parent.hash, logs, work.truth if logs else parent.truth))

    def take_back(self, depth: int) -> None:
        """Forget the newest blocks, all but the first at most."""
        del self.blocks[max(1, len(self.blocks) - depth) :]

    def _hash(self) -> bytes:
        return self.rng.randbytes(32)

    # ---- what an indexer asks

    contract = CONTRACT

    def consistent(self) -> AbstractContextManager[None]:
        """There is only one."""
        return nullcontext()

    def first_block(self) -> int:
        """The contract was always there."""
        return 0

    def newest(self) -> Header:
        """The newest block."""
        self.before_answer()
        return _header(self.head)

    def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        """Blocks by number."""
        self.before_answer()
        return [_header(self.blocks[number]) if number <= self.head.number else None for number in numbers]

    def raw_logs(self, first: int, last: int) -> list[Mapping[str, Any]]:
        """The logs of blocks."""
        self.before_answer()
        return [log for block in self.blocks[first : min(last, self.head.number) + 1] for log in block.logs]

    def logs_of_blocks(self, hashes: Sequence[bytes]) -> list[list[Mapping[str, Any]] | None]:
        """The logs of these very blocks."""
        self.before_answer()
        by_hash = {block.hash: block.logs for block in self.blocks[: self.head.number + 1]}
        return [list(by_hash[each]) if each in by_hash else None for each in hashes]

    def balances(self, pairs: Sequence[tuple[str, int]], *, block: int | None = None) -> list[int]:
        """What is true of holdings."""
        truth = self.head.truth if block is None else self.blocks[block].truth
        return [truth.balances.get((of[2:].lower(), f"{id_:064x}"), 0) for of, id_ in pairs]


def _header(block: ModelBlock) -> Header:
    # as if other contracts had set bits of ours in one block of four
    bloom = _MARK if block.logs or block.number % 4 == 0 else 0
    return Header(block.number, block.hash, block.parent, START_S + BLOCK_S * block.number, bloom)
