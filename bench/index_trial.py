"""Trials of the index: a chain that is reorganised at random, and a process that is killed at random.

A trial changes the chain (it grows; its newest blocks, up to 1,000, are replaced; the end point lags; it changes in the
middle of a sync), lets the index follow, and kills it there: at a random step of a random SQL statement, where
the database's files are copied as they lie, which is what a machine finds after `kill -9`. The copy is opened. It must
hold exactly what was true after the block that it names, be that block still on the chain or not; and after another
sync, what is true now. "True" is the bookkeeping of the model, which knows nothing of logs.
"""

import math
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.index_chain import ModelBlock, ModelChain
from bench.index_deeds import Deeds, Truth
from p2pos.errors import ChainError, P2posError, UnavailableError
from p2pos.ledger import index_decode as d
from p2pos.ledger.index import Index
from p2pos.ledger.index_state import TABLES, Cells
from p2pos.ledger.index_store import SqliteStore, Store
from p2pos.ledger.indexer import Indexer

DEEPEST = 1000
"""Blocks that a reorganisation replaces at most."""
LIFE = 25
"""Trials on one chain, before another is begun."""
STEPS = 20
"""Of SQLite's machine between two moments at which it may be killed."""
MOMENTS = 4000
"""A sync of a few blocks has some hundred, one after a deep reorganisation ten thousand."""


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Outcome:
    """What became of trials."""

    done: Counter[str] = field(default_factory=Counter)
    """Trials, and how many of them had a reorganisation, a kill, …"""
    deepest: int = 0
    wrong: list[str] = field(default_factory=list)
    """A line for every trial whose index held anything untrue."""


def run_trials(count: int, seed: int, directory: Path) -> Outcome:
    """So many trials. The same seed gives the same ones."""
    outcome = Outcome()
    number = 0
    while outcome.done["trials"] < count:
        number += 1
        life = Life(random.Random(f"{seed} {number}"), directory / f"{seed}-{number}", outcome)
        try:
            for _ in range(min(LIFE, count - outcome.done["trials"])):
                life.trial()
            life.compare_with_fresh()
        except P2posError as exc:
            life.complain(str(exc))
        finally:
            life.end()
    return outcome


class Life:
    """One chain, and the index that follows it through kills."""

    def __init__(self, rng: random.Random, directory: Path, outcome: Outcome) -> None:
        self.rng, self.directory, self.outcome = rng, directory, outcome
        directory.mkdir(parents=True)
        self.chain = ModelChain(rng)
        self.chain.with_times = rng.random() < 0.5
        self.truths: dict[bytes, Truth] = {}
        self.generation = 0
        self.index = self._open()
        self._grow(rng.choice([0, 3, 40, 1100, 1400]))

    def trial(self) -> None:
        """One trial."""
        done = self.outcome.done
        done["trials"] += 1
        self._change()
        if self.rng.random() < 0.7:
            try:
                self._sync(killed=True)
            except Killed:
                done["kills"] += 1
                self._reopen()
            self._compare("after a kill")
        self._sync(killed=False)
        self._compare("after a sync in between")
        self.chain.lag = 0
        changes = self.outcome.done["changes in mid-sync"]
        self._sync(killed=False)
        if self.outcome.done["changes in mid-sync"] != changes:  # after its last look at the head, perhaps
            self._sync(killed=False)
        self._compare("after a sync", self.chain.head)

    def end(self) -> None:
        """Close and remove what it left on disk."""
        self.index.close()
        shutil.rmtree(self.directory)

    def complain(self, what: str) -> None:
        """Write down that something was wrong."""
        self.outcome.wrong.append(f"{self.directory.name}, trial {self.outcome.done['trials']}: {what}")

    def compare_with_fresh(self) -> None:
        """The index and its history are those of an index that saw nothing but the chain as it is."""
        self.chain.before_answer = lambda: None
        self._sync(killed=False)
        fresh = Index(self.directory / "fresh.sqlite")
        try:
            Indexer(fresh, self.chain).sync()
            if fresh.history(most=1 << 30) != self.index.history(most=1 << 30):
                self.complain("the history is not that of a fresh index")
            for who in self.chain.accounts:
                if fresh.history(account="0x" + who) != self.index.history(account="0x" + who):
                    self.complain(f"the history of {who} is not that of a fresh index")
        finally:
            fresh.close()

    # ---- the chain

    def _change(self) -> None:
        rng, chain = self.rng, self.chain
        if rng.random() < 0.7:
            most = len(chain.blocks) if rng.random() < 0.03 else min(DEEPEST, len(chain.blocks))
            depth = round(math.exp(rng.uniform(0, math.log(most))))
            self._reorganise(depth)
        if rng.random() < 0.8:
            self._grow(rng.choice([1, 1, 2, 5, 30]))
        if rng.random() < 0.15:
            chain.lag = rng.randint(1, 5)
        if rng.random() < 0.2:
            self._change_later(rng.randint(1, 12))

    def _reorganise(self, depth: int, *, empty: bool = False) -> None:
        depth = min(depth, len(self.chain.blocks) - 1)
        if not depth:
            return
        self.outcome.done["reorganisations"] += 1
        self.outcome.deepest = max(self.outcome.deepest, depth)
        self.chain.take_back(depth)
        self._grow(max(0, depth + self.rng.choice([-2, 0, 0, 1, 1, 3])), empty=empty)

    def _change_later(self, questions: int) -> None:
        """A short reorganisation after so many more questions, in the middle of a sync."""
        left = questions

        def count() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                self.chain.before_answer = lambda: None
                self.outcome.done["changes in mid-sync"] += 1
                # by empty blocks: then no log shows that its block is another
                self._reorganise(self.rng.randint(1, 4), empty=self.rng.random() < 0.5)

        self.chain.before_answer = count

    def _grow(self, blocks: int, *, empty: bool = False) -> None:
        """Busy blocks at the end, at most 30; before them one in ten."""
        for left in range(blocks, 0, -1):
            busy = not empty and (left <= 30 or self.rng.random() < 0.1)
            self.chain.mine(1, self._deeds if busy else None)
            block = self.chain.blocks[-1]
            self.truths[block.hash] = block.truth

    def _deeds(self, work: Deeds) -> None:
        for _ in range(self.rng.randrange(4)):
            work.any()

    # ---- the index

    def _open(self) -> Index:
        return Index(SqliteStore(self.directory / f"{self.generation}.sqlite"))

    def _reopen(self) -> None:
        self.index.close()
        self.generation += 1
        self.index = self._open()

    def _sync(self, *, killed: bool) -> None:
        if not killed:
            self._follow()
            return
        moment = round(math.exp(self.rng.uniform(0, math.log(MOMENTS))))
        store = self.index.store
        with kill_at(store, moment, self._copy) as happened:
            try:
                self._follow()
            except P2posError:
                if not happened():
                    raise
        if happened():
            raise Killed

    def _follow(self) -> None:
        try:
            Indexer(self.index, self.chain).sync()
        except UnavailableError:
            if not self.chain.lag:
                raise
            self.outcome.done["lags refused"] += 1
        except ChainError:
            self.outcome.done["gave up"] += 1
            Indexer(self.index, self.chain).sync()

    def _copy(self) -> None:
        """The files as they lie. What SQLite keeps in `-shm` is made anew by whoever opens them."""
        for suffix in ("", "-wal"):
            source = self.directory / f"{self.generation}.sqlite{suffix}"
            if source.exists():
                shutil.copy(source, self.directory / f"{self.generation + 1}.sqlite{suffix}")

    # ---- whether it is true

    def _compare(self, when: str, block: ModelBlock | None = None) -> None:
        newest = self.index.newest()
        if newest is None:
            truth = Truth()
        elif block is not None and newest.hash != block.hash:
            self.complain(f"{when}: it stopped before the head")
            return
        else:
            truth = self.truths.get(newest.hash) or self.chain.blocks[0].truth
        found = held(self.index)
        for name, value in vars(truth).items():
            if getattr(found, name) != value:
                self.complain(f"{when}: {name} are not what they were")


class kill_at:  # noqa: N801 - used as a function
    """Within this the store's connection is interrupted at its `moment`-th moment, after `copy` was called."""

    def __init__(self, store: Store, moment: int, copy: Callable[[], None]) -> None:
        if not isinstance(store, SqliteStore):
            raise TypeError("only SQLite can be stopped in mid-statement")
        self._db: sqlite3.Connection = store._db
        self._left = moment
        self._copy = copy

    def __enter__(self) -> Callable[[], bool]:
        self._db.set_progress_handler(self._step, STEPS)
        return lambda: self._left <= 0

    def __exit__(self, *_: object) -> None:
        self._db.set_progress_handler(None, 0)

    def _step(self) -> int:
        self._left -= 1
        if self._left == 0:
            self._copy()
        return int(self._left <= 0)  # nothing it does from here on counts


def held(index: Index) -> Truth:
    """What the index holds, in the model's form."""
    names = {number: value.hex() for number, value in index.names().items()}
    state = index.state()

    def named(table: int) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        return _named(state[table], table, names)

    told = index.store.one("SELECT count(*) FROM happenings")
    return Truth(
        balances={(who, item): amount for (who, item), (amount,) in named(d.BALANCES).items()},
        classes={item: value[:5] for (item,), value in named(d.CLASSES).items()},
        supplies={item: (made, gone) for (item,), (made, gone) in named(d.SUPPLIES).items()},
        descriptors={item: (at, now, new, start) for (item,), (at, now, new, start) in named(d.DESCRIPTORS).items()},
        minters={(item, who): left for (item, who), (left,) in named(d.MINTERS).items()},
        locks={(who, item, world): (held, until) for (who, item, world), (held, until) in named(d.LOCKS).items()},
        allowances={(who, item, at): (left, until) for (who, item, at), (left, until) in named(d.ALLOWANCES).items()},
        nonces={(who, int(word, 16)): int(bits, 16) for (who, word), (bits,) in named(d.NONCES).items()},
        approvals={(who, operator) for who, operator in named(d.APPROVALS)},
        told=told[0] if told else 0,
    )


def _named(cells: Cells, table: int, names: dict[int, str]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Cells with names for row numbers and hex for bytes."""

    def text(value: Any, kind: str) -> Any:
        return names[value] if kind == "r" else value.hex() if isinstance(value, bytes) else value

    keys, values = TABLES[table].keys, TABLES[table].values
    return {
        tuple(text(part, kind) for part, (_, kind) in zip(key, keys, strict=True)): tuple(
            text(part, kind) for part, (_, kind) in zip(value, values, strict=True)
        )
        for key, value in cells.items()
        if value is not None
    }
