"""Keeps an index in step with the chain: reads on from where it stopped, and undoes what was reorganised away.

An end point is believed as far as it can be held against itself. Blocks that a reorganisation may still reach are read
with every header, each linked to the one before, and each log must bear its block's hash; a block whose bloom filter
has the contract, but that no log came of, is asked for once more by its hash. Older ones are read by ranges whose first
block follows on what the index has, and whose last one has the same hash before and after. So an end point that changes
its mind in between, or is two nodes of which one lags, makes a sync begin again, and never a mixture.
"""

import gc
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from p2pos.errors import ChainError, UnavailableError
from p2pos.ledger.bloom import mark, may_hold
from p2pos.ledger.index import UNDO_BLOCKS, BlockRow, Chunk, Index
from p2pos.ledger.index_decode import Batch
from p2pos.ledger.records import Header
from p2pos.ledger.rpc import RpcError
from p2pos.types import Address

MAX_SPAN = 2000
"""Blocks asked for at once; public end points allow 500 to 10,000, and where one allows less the span is halved."""
FIRST_SPAN = 4
"""Blocks of the first range: how dense they are is not known yet, and an answer must fit into memory."""
WANTED_LOGS = 2000
"""In one answer. Decoded JSON takes 3 kB of memory a log; public end points refuse more than 10,000."""
BATCH_LOGS = 12_000
"""Folded and committed together: a page of the database that several ranges touch is then written once."""
HEADERS = 100
"""Of blocks asked for at once: one JSON array."""
BATCH_RANGES = 50
"""Read before what there is is committed, so that a kill costs little where few blocks have events."""
MAX_TRIES = 5
"""Reorganisations in a row during one sync before it gives up; the next sync goes on."""
POLL_S = 1.0
"""Between two looks at the head while following. A block takes 12 s on Ethereum, 2 s on its roll-ups."""
MAX_POLL_S = 60.0
"""After failures in a row, each of which doubles the pause."""


class Source(Protocol):
    """What the indexer needs of a `Chain`."""

    @property
    def contract(self) -> Address:
        """The asset contract."""
        ...

    def consistent(self) -> AbstractContextManager[None]:
        """What is read within comes from one end point."""
        ...

    def first_block(self) -> int:
        """The block in which the contract was deployed, or an earlier one."""
        ...

    def newest(self) -> Header:
        """The newest block."""
        ...

    def headers(self, numbers: Sequence[int]) -> list[Header | None]:
        """The blocks with these numbers; None for one that isn't there."""
        ...

    def raw_logs(self, first: int, last: int) -> list[Mapping[str, Any]]:
        """The contract's logs in blocks `first … last`, as JSON-RPC has them."""
        ...

    def logs_of_blocks(self, hashes: Sequence[bytes]) -> list[list[Mapping[str, Any]] | None]:
        """The contract's logs in each of these very blocks; None for one that isn't there."""
        ...

    def balances(self, pairs: Sequence[tuple[str, int]], *, block: int | None = None) -> list[int]:
        """What the contract says each (account, class) holds after a block."""
        ...


class _ChangedError(Exception):
    """The chain, or the index, is another than a moment ago."""


class Indexer:
    """Feeds one index from one chain. Synchronous."""

    def __init__(self, index: Index, chain: Source) -> None:
        self.index = index
        self._chain = chain
        self._span = FIRST_SPAN
        self._mark = mark(chain.contract)

    def sync(self, stop: threading.Event | None = None) -> int:
        """Read on to the newest block and return its number; to an earlier one where `stop` is set meanwhile.

        Raises UnavailableError where the chain doesn't answer or lags far behind the index, ChainError where it
        changes all the time or says what can't be; what was read until then stays.
        """
        for _ in range(MAX_TRIES):
            head = self._chain.newest()
            newest = self.index.newest()
            if newest is not None and newest.hash == head.hash:
                return head.number
            try:
                with self._chain.consistent(), _no_search_for_cycles():
                    return self._read(self._common(head), head, stop or threading.Event())
            except _ChangedError:
                continue
        raise ChainError("the chain reorganised again and again while it was read", hint="try again in a minute")

    def follow(
        self,
        stop: threading.Event,
        *,
        on_block: Callable[[int], None] = lambda _: None,
        on_trouble: Callable[[ChainError | UnavailableError], None] = lambda _: None,
        poll_s: float = POLL_S,
    ) -> None:
        """Keep in step until `stop` is set, which ends a pause at once and a cold sync after its current range.

        Args:
            stop: set it from another thread or a signal handler.
            on_block: told the newest block whenever it is another one.
            on_trouble: told what went wrong; it is tried again after a pause that doubles each time.
            poll_s: between two looks at the head; each is one small request.

        """
        last, pause_s = -1, poll_s
        while not stop.is_set():
            try:
                block = self.sync(stop)
            except (ChainError, UnavailableError) as exc:
                on_trouble(exc)
                pause_s = min(2 * pause_s, MAX_POLL_S)
            else:
                pause_s = poll_s
                if block != last:
                    last = block
                    on_block(block)
            stop.wait(pause_s)

    # ---- proven answers

    def checked_holdings(self, account: Address) -> tuple[int, dict[int, int]]:
        """What an account holds, from the index and proven against `balanceOf` at the same block.

        Returns the block and the amounts by class. Raises ChainError where index and chain disagree.
        """
        return self._checked(lambda: {(account, id_): held for id_, held in self.index.holdings(account).items()}, 1)

    def checked_holders(self, id_: int) -> tuple[int, dict[Address, int]]:
        """Who holds how much of a class, proven likewise."""
        return self._checked(lambda: {(who, id_): held for who, held in self.index.holders(id_).items()}, 0)

    def _checked(self, read: Callable[[], dict[tuple[Address, int], int]], part: int) -> tuple[int, dict[Any, int]]:
        """Read, and compare with the chain at the same block; again where a reorganisation came between."""
        for _ in range(MAX_TRIES):
            self.sync()
            with self.index.snapshot():
                block, claims = self.index.newest(), read()
            if block is None:
                break
            found = self._chain.balances(list(claims), block=block.number)
            wrong = [(pair, truth) for pair, truth in zip(claims, found, strict=True) if claims[pair] != truth]
            if not wrong:
                return block.number, {pair[part]: amount for pair, amount in claims.items()}
            now = self._chain.headers([block.number])[0]
            if now is not None and now.hash == block.hash:
                (account, id_), truth = wrong[0]
                raise ChainError(
                    f"the index says {account} holds {claims[account, id_]} of {hex(id_)}, the chain says {truth}",
                    hint=f"remove {self.index.where}; it is made again",
                )
        raise ChainError("the chain reorganised again and again while it was read", hint="try again in a minute")

    # ---- where index and chain part

    def _common(self, head: Header) -> BlockRow | None:
        """The newest block that both have, after rolling back to it; None where the index is empty or was emptied."""
        index = self.index
        newest = index.newest()
        if newest is None:
            return None
        if self._agrees(newest, head):
            return newest
        lowest = index.lowest_undo()
        reach = newest.number if lowest is None else lowest - 1
        shared = self._shared(index.blocks(below=min(newest.number, head.number)), head)
        if shared is not None and shared.number >= reach:
            if not index.roll_back(shared):
                raise _ChangedError
            return shared
        if head.number < newest.number:
            older = index.blocks(below=head.number, most=1)
            if older and self._agrees(older[0], head):
                raise UnavailableError(
                    f"the end point is at block {head.number}, and {newest.number} was read before",
                    hint=f"it may lag: try again, use another one, or remove {index.where}",
                )
        index.clear()
        return None

    def _shared(self, known: Sequence[BlockRow], head: Header) -> BlockRow | None:
        """The newest of these blocks (newest first) that the chain has: below it they agree, so halves will do."""
        if not known or not self._agrees(known[-1], head):
            return None
        low, high = 0, len(known) - 1  # known[high] agrees
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._agrees(known[middle], head) else (middle + 1, high)
        return known[high]

    def _agrees(self, block: BlockRow, head: Header) -> bool:
        if block.number >= head.number:
            return block.number == head.number and block.hash == head.hash
        found = self._chain.headers([block.number])[0]
        return found is not None and found.hash == block.hash

    # ---- reading on

    def _read(self, newest: BlockRow | None, head: Header, stop: threading.Event) -> int:
        """Take in all from the newest block that the index has to the head. Raises _ChangedError."""
        start = newest.number + 1 if newest else min(self._chain.first_block(), head.number)
        undo_from = head.number - UNDO_BLOCKS + 1
        parent = newest.hash if newest else None
        while start <= head.number and not stop.is_set():
            first, link, batch, headers = start, parent, Batch(self._chain.contract), dict[int, Header]()
            for _ in range(BATCH_RANGES):
                if start > head.number or batch.logs >= BATCH_LOGS:
                    break
                old = start < undo_from
                start, link = self._read_range(
                    start, undo_from - 1 if old else head.number, link, batch, headers, old=old
                )
            if not self.index.take(Chunk(batch, first, parent, self._rows(batch, headers), undo_from)):
                raise _ChangedError
            parent = link
        return start - 1

    def _read_range(
        self, start: int, most: int, link: bytes | None, batch: Batch, headers: dict[int, Header], *, old: bool
    ) -> tuple[int, bytes | None]:
        """Read a range of blocks, to `most` at the farthest, into the batch, and those headers that are needed.

        Returns the block that comes next and the hash of the last one. Raises _ChangedError.
        """
        while True:
            last = min(start + (self._span if old else min(HEADERS, self._span)) - 1, most)
            numbers = [start, last] if old else range(start, last + 1)
            found = self._headers(numbers)
            if link is not None and found[0].parent != link:
                raise _ChangedError
            if not old and any(after.parent != before.hash for before, after in itertools.pairwise(found)):
                raise _ChangedError
            logs = self._logs(start, last)
            if logs is not None:
                break
        if not old:
            self._require_all(found, logs)
        if self._headers([last])[0].hash != found[-1].hash:
            raise _ChangedError
        batch.add(logs, start, last)
        headers |= {header.number: header for header in (found[-1:] if old else found)}
        return last + 1, found[-1].hash

    def _require_all(self, headers: Sequence[Header], logs: Sequence[Mapping[str, Any]]) -> None:
        """Raise _ChangedError where logs of a block are not among those that came of its range.

        They lack where one URL leads to several nodes and the one that was asked for them lags behind the one that gave
        the headers: it tells of as many blocks as it has, and of no fault.
        """
        told = {log.get("blockNumber") for log in logs if isinstance(log, Mapping)}
        silent = [one.hash for one in headers if hex(one.number) not in told and may_hold(one.bloom, self._mark)]
        if silent and any(self._chain.logs_of_blocks(silent)):
            raise _ChangedError

    def _headers(self, numbers: Sequence[int]) -> list[Header]:
        found = [header for header in self._chain.headers(numbers) if header is not None]
        if [header.number for header in found] != list(numbers):
            raise _ChangedError
        return found

    def _logs(self, first: int, last: int) -> list[Mapping[str, Any]] | None:
        """The logs of these blocks; None where the end point gives fewer at once, and the span is now shorter."""
        try:
            logs = self._chain.raw_logs(first, last)
        except RpcError:
            if first == last:
                raise
            self._span = max(1, (last - first + 1) // 2)
            return None
        asked = last - first + 1
        if len(logs) > WANTED_LOGS:
            self._span = max(1, asked * WANTED_LOGS // len(logs))
        elif len(logs) < WANTED_LOGS // 2 and asked >= self._span:
            self._span = min(2 * self._span, MAX_SPAN)
        return logs

    def _rows(self, batch: Batch, headers: dict[int, Header]) -> list[BlockRow]:
        """All blocks with events and all whose headers were read, in order; times that the logs lack are asked for."""
        for block in batch.blocks:
            if block.number in headers and headers[block.number].hash != block.hash:
                raise _ChangedError
        lacking = [one.number for one in batch.blocks if one.timestamp is None and one.number not in headers]
        for at in range(0, len(lacking), HEADERS):
            headers |= {header.number: header for header in self._headers(lacking[at : at + HEADERS])}
        rows = {number: BlockRow(number, one.hash, one.timestamp) for number, one in headers.items()}
        for number, hash_, timestamp in batch.blocks:
            if number not in rows and timestamp is not None:
                rows[number] = BlockRow(number, hash_, timestamp)
            elif rows[number].hash != hash_:  # asked for its time, it was another
                raise _ChangedError
        return [rows[number] for number in sorted(rows)]


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Within this the interpreter doesn't look for cycles of objects, of which reading makes none.

    It would look through all that a range of blocks was decoded into, again and again: a fifth of a cold sync.
    """
    looking = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if looking:
            gc.enable()
