"""The contract's events folded into SQLite: who holds what, and how it came to be. Needs no chain to be read.

Every range of blocks is taken in with its last block's hash in one transaction, so that a kill loses nothing and a
reorganisation can be undone block by block. `indexer` feeds it.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pos.errors import UserError
from p2pos.ledger.events import ZERO, ClassCreated, Event, IntentFailed, LockChanged, Moved, NonceSpent
from p2pos.types import Address

KEPT_CHECKPOINTS = 512
"""Block hashes remembered, newest first; a reorganisation deeper than these means reading all again."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS checkpoints (block INTEGER PRIMARY KEY, hash TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS classes (
  id TEXT PRIMARY KEY, issuer TEXT NOT NULL, cap TEXT NOT NULL, digest BLOB NOT NULL, block INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS happenings (
  block INTEGER NOT NULL, log INTEGER NOT NULL, position INTEGER NOT NULL, tx TEXT NOT NULL, kind TEXT NOT NULL,
  one TEXT NOT NULL, other TEXT NOT NULL, id TEXT NOT NULL, amount TEXT NOT NULL,
  PRIMARY KEY (block, log, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS happenings_by_one ON happenings (one, block);
CREATE INDEX IF NOT EXISTS happenings_by_other ON happenings (other, block);
CREATE INDEX IF NOT EXISTS happenings_by_id ON happenings (id, block);
CREATE TABLE IF NOT EXISTS balances (
  account TEXT NOT NULL, id TEXT NOT NULL, amount TEXT NOT NULL, PRIMARY KEY (account, id)
) STRICT, WITHOUT ROWID;
"""

MOVES = ("made", "moved", "burned")


@dataclass(frozen=True, slots=True)
class KnownClass:
    """A class of items that the index has seen made."""

    id: int
    issuer: Address
    cap: int
    digest: bytes
    block: int


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of history."""

    block: int
    transaction: str
    kind: str
    """`class`, `made`, `moved`, `burned`, `locked`, `released`, `cancelled`, `failed`."""
    one: str
    """Who gave, issued, locked or cancelled; for `made` the zero address."""
    other: str
    """Who got it, or the world; "" where there is none."""
    id: int | None
    amount: int | None
    """For `cancelled` and `failed` the nonce."""

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "block": self.block,
            "transaction": self.transaction,
            "kind": self.kind,
            "from": self.one,
            "to": self.other or None,
            "id": None if self.id is None else f"0x{self.id:064x}",
            ("nonce" if self.id is None else "amount"): self.amount,
        }


class Index:
    """One contract's index in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30.0)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # it can be read again from the chain
            self._db.executescript(_SCHEMA)
        except OSError as exc:
            raise UserError(f"{path} can't be used: {exc.strerror}", hint="choose another --home") from exc
        except sqlite3.DatabaseError as exc:
            raise UserError(f"{path} is not an index: {exc}", hint=f"remove {path}; it is made again") from exc

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # ---- reading

    def checkpoints(self) -> list[tuple[int, str]]:
        """(block, hash) up to which the index has read, newest first."""
        return self._db.execute("SELECT block, hash FROM checkpoints ORDER BY block DESC").fetchall()

    def classes(self) -> list[KnownClass]:
        """Every class, oldest first."""
        rows = self._db.execute("SELECT id, issuer, cap, digest, block FROM classes ORDER BY block, id")
        return [KnownClass(int(id_, 16), Address(who), int(cap), digest, at) for id_, who, cap, digest, at in rows]

    def holdings(self, account: str) -> dict[int, int]:
        """What an account holds, by class."""
        rows = self._db.execute("SELECT id, amount FROM balances WHERE account = ? ORDER BY id", (account,))
        return {int(id_, 16): int(amount) for id_, amount in rows}

    def holders(self, id_: int) -> dict[Address, int]:
        """Who holds how much of a class."""
        rows = self._db.execute("SELECT account, amount FROM balances WHERE id = ? ORDER BY account", (_id(id_),))
        return {Address(account): int(amount) for account, amount in rows}

    def history(self, *, account: str = "", id_: int | None = None, most: int = 100) -> list[Happening]:
        """What happened to an account, a class, or both, newest first."""
        rows = self._db.execute(
            "SELECT block, tx, kind, one, other, id, amount FROM happenings"
            " WHERE (?1 = '' OR one = ?1 OR other = ?1) AND (?2 = '' OR id = ?2)"
            " ORDER BY block DESC, log DESC, position DESC LIMIT ?3",
            (account, "" if id_ is None else _id(id_), most),
        )
        return [
            Happening(block, tx, kind, one, other, int(held, 16) if held else None, int(amount) if amount else None)
            for block, tx, kind, one, other, held, amount in rows
        ]

    # ---- writing

    def take(self, events: Sequence[Event], first: int, block: int, block_hash: str) -> bool:
        """Fold in all events of blocks `first … block` and remember the last one's hash.

        Returns False, and does nothing, where another process has read these blocks meanwhile.
        """
        with self._write():
            newest = self._db.execute("SELECT max(block) FROM checkpoints").fetchone()[0]
            if newest is not None and newest >= first:
                return False
            for event in events:
                self._fold(event)
            self._db.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", (block, block_hash))
            self._db.execute(
                "DELETE FROM checkpoints WHERE block <"
                " (SELECT min(block) FROM (SELECT block FROM checkpoints ORDER BY block DESC LIMIT ?))",
                (KEPT_CHECKPOINTS,),
            )
        return True

    def roll_back(self, block: int) -> None:
        """Undo all that happened after this block; -1 undoes everything."""
        with self._write():
            rows = self._db.execute(
                "SELECT kind, one, other, id, amount FROM happenings WHERE block > ?"
                " ORDER BY block DESC, log DESC, position DESC",
                (block,),
            ).fetchall()
            for kind, one, other, id_, amount in rows:
                if kind in MOVES:
                    self._move(Address(other), Address(one), id_, int(amount))
            for table in ("happenings", "classes", "checkpoints"):
                self._db.execute(f"DELETE FROM {table} WHERE block > ?", (block,))  # noqa: S608 - constants

    def _fold(self, event: Event) -> None:
        if isinstance(event, ClassCreated):
            row = (_id(event.id), event.issuer, str(event.cap), event.digest, event.place.block)
            self._db.execute("INSERT INTO classes VALUES (?, ?, ?, ?, ?)", row)
            self._add(event, 0, "class", event.issuer, "", event.id, None)
        elif isinstance(event, Moved):
            kind = "made" if event.source == ZERO else "burned" if event.target == ZERO else "moved"
            self._add(event, event.position, kind, event.source, event.target, event.id, event.amount)
            self._move(event.source, event.target, _id(event.id), event.amount)
        elif isinstance(event, LockChanged):
            kind = "locked" if event.until else "released"
            self._add(event, 0, kind, event.owner, event.world, event.id, event.amount)
        elif isinstance(event, IntentFailed):
            self._add(event, 0, "failed", event.owner, "", None, event.nonce)
        elif isinstance(event, NonceSpent) and event.cancelled:
            self._add(event, 0, "cancelled", event.owner, "", None, event.nonce)

    def _add(
        self, event: Event, position: int, kind: str, one: str, other: str, id_: int | None, amount: int | None
    ) -> None:
        place = event.place
        self._db.execute(
            "INSERT INTO happenings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                place.block,
                place.log,
                position,
                place.transaction,
                kind,
                one,
                other,
                "" if id_ is None else _id(id_),
                "" if amount is None else str(amount),
            ),
        )

    def _move(self, source: Address, target: Address, id_: str, amount: int) -> None:
        for account, change in ((source, -amount), (target, amount)):
            if account == ZERO or not amount:
                continue
            row = self._db.execute(
                "SELECT amount FROM balances WHERE account = ? AND id = ?", (account, id_)
            ).fetchone()
            left = int(row[0] if row else 0) + change
            if left:
                self._db.execute("INSERT OR REPLACE INTO balances VALUES (?, ?, ?)", (account, id_, str(left)))
            else:
                self._db.execute("DELETE FROM balances WHERE account = ? AND id = ?", (account, id_))

    @contextmanager
    def _write(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _id(id_: int) -> str:
    return f"0x{id_:064x}"
