"""A thin layer over the database that the index is in: SQLite here, PostgreSQL in `index_postgres`.

Both speak one SQL with `?` for a parameter. What differs is how a transaction begins, how many rows go in at once, and
what an error is called.
"""

import itertools
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from p2pos.errors import UserError
from p2pos.ledger.index_schema import ddl
from p2pos.ledger.index_state import TABLES, Cells, Key, Table, Value

CHUNK = 400
"""Rows named in one statement. Of three key columns each, far below SQLite's 32,766 parameters; more is no faster."""
CACHE_KIB = 8 * 1024
"""Of SQLite's pages in memory: the current segment of mentions and the balances of those who deal now."""
CHECKPOINT_PAGES = 8000
"""Of SQLite's write-ahead log (32 MB) before it is copied to the file: a page that is written in each of ten commits
is then copied once."""


class Store(ABC):
    """Tables and transactions. Not to be used from two threads at once."""

    where: str
    """For messages; never with a password."""

    @abstractmethod
    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query answers."""

    @abstractmethod
    def run(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """One statement that answers nothing."""

    @abstractmethod
    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for each row."""

    @abstractmethod
    def append(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows that are not there yet."""

    @abstractmethod
    def write(self) -> AbstractContextManager[None]:
        """A transaction that alone may write; undone where the block raises."""

    @abstractmethod
    def read(self) -> AbstractContextManager[None]:
        """A transaction in which all queries see the same moment."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file or the connection."""

    # ---- the same for both

    def one(self, sql: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row of what a query answers."""
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def numbers(self, values: Collection[bytes]) -> dict[bytes, int]:
        """The row numbers of those of these names that there are."""
        found: dict[bytes, int] = {}
        for chunk in _chunks(values):
            marks = ", ".join("?" * len(chunk))
            for value, number in self.rows(f"SELECT value, id FROM names WHERE value IN ({marks})", chunk):  # noqa: S608 - question marks
                found[bytes(value)] = number
        return found

    def load(self, table: Table, keys: Collection[Key]) -> Cells:
        """The cells of a table with these keys; those that hold nothing are left out."""
        names = [name for name, _ in table.keys]
        columns = ", ".join(name for name, _ in (*table.keys, *table.values))
        mark = f"({', '.join('?' * len(names))})"
        wanted = ", ".join(f"k{at}" for at in range(len(names)))
        match = " AND ".join(f"{name} = k{at}" for at, name in enumerate(names))
        cells: Cells = {}
        for chunk in _chunks(sorted(keys)):
            # a join and not IN, for SQLite looks each key up by the join, and reads the whole table for IN
            sql = (
                f"WITH wanted ({wanted}) AS (VALUES {', '.join([mark] * len(chunk))})"  # noqa: S608 - constants
                f" SELECT {columns} FROM wanted CROSS JOIN {table.name} WHERE {match}"
            )
            cells.update(_cells(table, self.rows(sql, [part for key in chunk for part in key])))
        return cells

    def cells(self, table: Table, condition: str = "", parameters: Sequence[Any] = ()) -> Cells:
        """All cells of a table that meet a condition."""
        columns = ", ".join(name for name, _ in (*table.keys, *table.values))
        return dict(_cells(table, self.rows(f"SELECT {columns} FROM {table.name} {condition}", parameters)))  # noqa: S608 - constants

    def save(self, changed: Iterable[tuple[int, Key, Value | None]]) -> None:
        """Put cells where they belong; None empties one."""
        by_table: dict[int, list[tuple[Key, Value | None]]] = {}
        for number, key, value in changed:
            by_table.setdefault(number, []).append((key, value))
        for number, cells in by_table.items():
            table = TABLES[number]
            cells.sort()  # rows that lie side by side are written side by side
            self.run_many(_deletion(table), [key for key, value in cells if value is None])
            self.run_many(_upsert(table), _rows(table, cells))


class SqliteStore(Store):
    """One file."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
            for pragma in (
                "journal_mode=WAL",
                "synchronous=NORMAL",  # a power cut may take the last commits; they are read again from the chain
                f"cache_size=-{CACHE_KIB}",
                f"wal_autocheckpoint={CHECKPOINT_PAGES}",
            ):
                self._db.execute(f"PRAGMA {pragma}")
            for statement in ddl(postgres=False):
                self._db.execute(statement)
        except OSError as exc:
            raise UserError(f"{path} can't be used: {exc.strerror}", hint="choose another --home") from exc
        except sqlite3.DatabaseError as exc:
            raise UserError(f"{path} is not an index: {exc}", hint=f"remove {path}; it is made again") from exc

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """What a query answers."""
        with self._errors():
            return self._db.execute(sql, parameters).fetchall()

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        """One statement that answers nothing."""
        with self._errors():
            self._db.execute(sql, parameters)

    def run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """One statement for each row."""
        with self._errors():
            self._db.executemany(sql, rows)

    def append(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows that are not there yet."""
        marks = ", ".join("?" * len(columns))
        self.run_many(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)  # noqa: S608 - constants

    @contextmanager
    def write(self) -> Iterator[None]:
        """A transaction that alone may write; undone where the block raises."""
        with self._transaction("BEGIN IMMEDIATE"):
            yield

    @contextmanager
    def read(self) -> Iterator[None]:
        """A transaction in which all queries see the same moment."""
        with self._transaction("BEGIN"):
            yield

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self.run(begin)
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as exc:
            raise UserError(
                f"{self.where} can't be read or written: {exc}", hint="is the disk full, or another p2pos at work?"
            ) from exc
        except sqlite3.DatabaseError as exc:
            raise UserError(f"{self.where} is damaged: {exc}", hint=f"remove {self.where}; it is made again") from exc


def _chunks(values: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    rest = iter(values)
    while chunk := tuple(itertools.islice(rest, CHUNK)):
        yield chunk


def _cells(table: Table, rows: Iterable[Sequence[Any]]) -> Iterator[tuple[Key, Value]]:
    width = len(table.keys)
    kinds = [kind for _, kind in (*table.keys, *table.values)]
    if kinds == ["r", "r", "n"]:  # balances and minters: nearly all there are
        for one, other, amount in rows:
            yield (one, other), (int(amount),)
        return
    for row in rows:
        typed = tuple(_typed(value, kind) for value, kind in zip(row, kinds, strict=True))
        yield typed[:width], typed[width:]


def _rows(table: Table, cells: Iterable[tuple[Key, Value | None]]) -> list[tuple[Any, ...]]:
    kinds = [kind for _, kind in table.values]
    if kinds == ["n"]:
        return [(*key, str(value[0])) for key, value in cells if value is not None]
    if "n" not in kinds:
        return [key + value for key, value in cells if value is not None]
    return [
        key + tuple(_stored(one, kind) for one, kind in zip(value, kinds, strict=True))
        for key, value in cells
        if value is not None
    ]


def _typed(value: Any, kind: str) -> Any:
    if value is None:
        return None
    return int(value) if kind == "n" else bytes(value) if kind == "b" else value


def _stored(value: Any, kind: str) -> Any:
    return str(value) if kind == "n" and value is not None else value


def _upsert(table: Table) -> str:
    keys, values = [name for name, _ in table.keys], [name for name, _ in table.values]
    marks = ", ".join("?" * (len(keys) + len(values)))
    changes = ", ".join(f"{name} = excluded.{name}" for name in values)
    return (
        f"INSERT INTO {table.name} ({', '.join(keys + values)}) VALUES ({marks})"  # noqa: S608 - constants
        f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}"
    )


def _deletion(table: Table) -> str:
    return f"DELETE FROM {table.name} WHERE {' AND '.join(f'{name} = ?' for name, _ in table.keys)}"  # noqa: S608 - constants
