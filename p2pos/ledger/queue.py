"""The relayer's durable memory: what was accepted, which signed transactions carry it, and what became of it.

SQLite in WAL mode with `synchronous=FULL`: a method that returned has reached the disk, so that what was accepted
survives kill -9 and a power cut. Synchronous, for one thread at a time. One process at a time, held by a file lock.

An intent is `accepted`, then `submitted` (a signed transaction with it is on disk), then `settled` or `failed`; a
batch that was lost or reorganised away brings it back.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pos.errors import UserError
from p2pos.ledger.fees import Fees
from p2pos.ledger.intents import Refusal, SignedIntent
from p2pos.types import Wei

MAX_WAITING = 10_000
"""Intents accepted and not yet settled. At the 100 to 1,000 a chain takes per second, a minute's work; 16 MB."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS intents (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  owner TEXT NOT NULL,
  nonce TEXT NOT NULL,
  kind TEXT NOT NULL,
  body TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('accepted', 'submitted', 'settled', 'failed')),
  attempts INTEGER NOT NULL DEFAULT 0,
  batch INTEGER,
  refusal TEXT NOT NULL DEFAULT '',
  reason TEXT NOT NULL DEFAULT '',
  tx TEXT NOT NULL DEFAULT '',
  block INTEGER,
  accepted_s REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS intents_by_state ON intents (state, seq);
CREATE UNIQUE INDEX IF NOT EXISTS live_nonces ON intents (owner, nonce) WHERE state <> 'failed';
CREATE TABLE IF NOT EXISTS batches (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  nonce INTEGER NOT NULL,
  gas INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('open', 'mined', 'lost')),
  tx TEXT NOT NULL DEFAULT '',
  block INTEGER,
  block_hash TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS batches_by_state ON batches (state, block);
CREATE TABLE IF NOT EXISTS members (
  batch INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (batch, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS members_by_intent ON members (seq);
CREATE TABLE IF NOT EXISTS sendings (
  tx TEXT PRIMARY KEY, batch INTEGER NOT NULL, raw BLOB NOT NULL,
  max_fee TEXT NOT NULL, priority TEXT NOT NULL, ordinal INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS sendings_by_batch ON sendings (batch, ordinal);
"""


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of an intent."""

    id: str
    state: str
    refusal: str
    reason: str
    """Why it failed, for a person; "" otherwise."""
    transaction: str
    """That settled it or in which it failed; while `submitted`, "" or the one it was last seen in."""
    block: int | None
    accepted_s: float
    """Seconds since the epoch."""

    def as_json(self) -> dict[str, Any]:
        """For HTTP and `--json`."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Waiting:
    """An intent in the queue."""

    seq: int
    intent: SignedIntent
    attempts: int
    """Batches that carried it and came to nothing."""


@dataclass(frozen=True, slots=True)
class Sending:
    """One signed transaction of a batch."""

    transaction: str
    raw: bytes
    fees: Fees


@dataclass(frozen=True, slots=True)
class Batch:
    """Intents that one account nonce carries; a fee that was too low gives it several sendings, of which one wins."""

    number: int
    nonce: int
    gas: int
    sendings: tuple[Sending, ...]
    """Oldest first."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one intent of a batch that is in a block."""

    seq: int
    state: str
    """`settled`, `failed`, or `accepted` to try again."""
    refusal: Refusal | None = None
    reason: str = ""
    transaction: str = ""
    block: int | None = None


class Queue:
    """The queue in one file."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise UserError(f"{path} can't be used: {exc.strerror}", hint="give --queue another file") from exc
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(self._lock)
            raise UserError(f"another relayer runs on {path}", hint="stop it, or give --queue another file") from exc
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as exc:
            os.close(self._lock)
            raise UserError(f"{path} is not a relayer's queue: {exc}", hint="give --queue another file") from exc

    def close(self) -> None:
        """Close the file and let go of the lock. A second time does nothing."""
        self._db.close()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    # ---- whose queue this is

    def bind(self, facts: dict[str, str], *, keep: Sequence[str]) -> None:
        """Remember the chain, contract and sender that this queue is for.

        Args:
            facts: what is true now.
            keep: of these, the ones that may never change; the others may while no batch is open.

        Raises:
            UserError: where a remembered fact that must stand differs.

        """
        known = dict(self._db.execute("SELECT key, value FROM meta"))
        opened = bool(self._db.execute("SELECT 1 FROM batches WHERE state = 'open'").fetchone())
        for key, value in facts.items():
            if key in known and known[key] != value and (key in keep or opened):
                raise UserError(f"the queue is for {key} {known[key]}, not {value}", hint="give --queue another file")
        with self._write():
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(facts.items()))

    def seen_head(self) -> tuple[int, str] | None:
        """The newest block that was looked at last: number and hash."""
        row = self._db.execute("SELECT value FROM meta WHERE key = 'head'").fetchone()
        return tuple(json.loads(row[0])) if row else None

    def set_seen_head(self, number: int, block_hash: str) -> None:
        """Remember the newest block."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('head', ?)", (json.dumps([number, block_hash]),))

    # ---- intents

    def status(self, id_: str) -> Status | None:
        """What is known of an intent, or None where it never came."""
        row = self._db.execute(
            "SELECT id, state, refusal, reason, tx, block, accepted_s FROM intents WHERE id = ?", (id_,)
        ).fetchone()
        return Status(*row) if row else None

    def rival(self, intent: SignedIntent) -> str:
        """The id of another intent of the same owner and nonce that has not failed, or ""."""
        row = self._db.execute(
            "SELECT id FROM intents WHERE owner = ? AND nonce = ? AND state <> 'failed' AND id <> ?",
            (intent.owner, str(intent.nonce), intent.id),
        ).fetchone()
        return str(row[0]) if row else ""

    def unsettled(self) -> int:
        """How many intents are accepted or submitted."""
        row = self._db.execute("SELECT count(*) FROM intents WHERE state IN ('accepted', 'submitted')").fetchone()
        return int(row[0])

    def room(self) -> int:
        """How many more intents can be accepted now."""
        return MAX_WAITING - self.unsettled()

    def accept(self, intents: Sequence[SignedIntent], now_s: float) -> None:
        """Take intents in, durably, all or none. One that had failed starts again; one that is in stays as it is."""
        rows = [(one.id, one.owner, str(one.nonce), one.kind, json.dumps(one.as_json()), now_s) for one in intents]
        with self._write():
            self._db.executemany(
                "INSERT INTO intents (id, owner, nonce, kind, body, state, accepted_s)"
                " VALUES (?, ?, ?, ?, ?, 'accepted', ?) ON CONFLICT (id) DO UPDATE"
                " SET body = excluded.body, state = 'accepted', attempts = 0, batch = NULL, refusal = '', reason = '',"
                " tx = '', block = NULL"
                " WHERE state = 'failed'",
                rows,
            )

    def waiting(self, most: int) -> list[Waiting]:
        """The oldest accepted intents: up to `most` transfers, or a single lock, which travels alone."""
        rows = self._db.execute(
            "SELECT seq, body, attempts FROM intents WHERE state = 'accepted' ORDER BY seq LIMIT ?", (most,)
        ).fetchall()
        found = [Waiting(seq, SignedIntent.parse(body), attempts) for seq, body, attempts in rows]
        locks = next((index for index, one in enumerate(found) if one.intent.kind == "Lock"), len(found))
        return found[:locks] or found[:1]

    def members(self, batch: int) -> list[Waiting]:
        """The intents that a batch carries, in the order in which it does."""
        rows = self._db.execute(
            "SELECT seq, body, attempts FROM intents JOIN members USING (seq) WHERE members.batch = ? ORDER BY seq",
            (batch,),
        )
        return [Waiting(seq, SignedIntent.parse(body), attempts) for seq, body, attempts in rows if body]

    def fail(self, verdicts: Sequence[Verdict]) -> None:
        """Give up on intents that no batch carries."""
        with self._write():
            self._judge(verdicts)

    def counts(self) -> dict[str, int]:
        """How many intents are in each state."""
        counts = dict.fromkeys(("accepted", "submitted", "settled", "failed"), 0)
        counts.update(self._db.execute("SELECT state, count(*) FROM intents GROUP BY state"))
        return counts

    # ---- batches

    def open_batches(self) -> list[Batch]:
        """Batches whose outcome is not known, by account nonce."""
        rows = self._db.execute("SELECT number, nonce, gas FROM batches WHERE state = 'open' ORDER BY nonce").fetchall()
        return [Batch(number, nonce, gas, self._sendings(number)) for number, nonce, gas in rows]

    def mined_since(self, block: int) -> list[tuple[int, int, str]]:
        """(batch, block, block hash) of batches in blocks from this one on."""
        return self._db.execute(
            "SELECT number, block, block_hash FROM batches WHERE state = 'mined' AND block >= ?", (block,)
        ).fetchall()

    def other_transactions(self, seq: int, batch: int) -> list[str]:
        """Every transaction that ever carried this intent, save those of one batch."""
        rows = self._db.execute(
            "SELECT tx FROM sendings JOIN members USING (batch) WHERE seq = ? AND batch <> ?", (seq, batch)
        )
        return [row[0] for row in rows]

    def open_batch(self, nonce: int, gas: int, sending: Sending, members: Sequence[int]) -> int:
        """Write down a signed batch, before it is sent. Returns its number."""
        with self._write():
            cursor = self._db.execute("INSERT INTO batches (nonce, gas, state) VALUES (?, ?, 'open')", (nonce, gas))
            number = cursor.lastrowid or 0
            self._add_sending(number, sending)
            self._db.executemany("INSERT INTO members VALUES (?, ?)", [(number, seq) for seq in members])
            self._db.executemany(
                "UPDATE intents SET state = 'submitted', batch = ? WHERE seq = ?", [(number, seq) for seq in members]
            )
        return number

    def add_sending(self, batch: int, sending: Sending) -> None:
        """Write down a replacement with a higher fee, before it is sent."""
        with self._write():
            self._add_sending(batch, sending)

    def mine(self, batch: int, transaction: str, block: int, block_hash: str, verdicts: Sequence[Verdict]) -> None:
        """A batch is in a settled block; this became of its intents."""
        with self._write():
            self._db.execute(
                "UPDATE batches SET state = 'mined', tx = ?, block = ?, block_hash = ? WHERE number = ?",
                (transaction, block, block_hash, batch),
            )
            self._judge(verdicts)

    def lose(self, batch: int) -> None:
        """A batch can't get into a block any more: its intents wait again."""
        with self._write():
            self._db.execute("UPDATE batches SET state = 'lost' WHERE number = ?", (batch,))
            self._db.execute(
                "UPDATE intents SET state = 'accepted', batch = NULL WHERE batch = ? AND state = 'submitted'", (batch,)
            )

    def reopen(self, batch: int) -> None:
        """A batch's block is no longer part of the chain: its outcome is open again, and so are its intents."""
        with self._write():
            self._db.execute(
                "UPDATE batches SET state = 'open', tx = '', block = NULL, block_hash = '' WHERE number = ?", (batch,)
            )
            self._db.execute(
                "UPDATE OR IGNORE intents SET state = 'submitted', refusal = '', reason = '', tx = '', block = NULL"
                " WHERE batch = ? AND seq IN (SELECT seq FROM members WHERE batch = ?)",
                (batch, batch),
            )

    def forget_before(self, block: int) -> None:
        """Drop signed transactions and bodies of batches too deep to be reorganised; the verdicts stay."""
        with self._write():
            old = "SELECT number FROM batches WHERE state <> 'open' AND (block < ?1 OR (state = 'lost' AND number <"
            old += " (SELECT min(number) FROM batches WHERE block >= ?1)))"
            self._db.execute(
                f"UPDATE intents SET body = '' WHERE state IN ('settled', 'failed') AND batch IN ({old})",  # noqa: S608 - a constant
                (block,),
            )
            for table, column in (("sendings", "batch"), ("members", "batch"), ("batches", "number")):
                self._db.execute(f"DELETE FROM {table} WHERE {column} IN ({old})", (block,))  # noqa: S608 - constants

    # ----

    def _judge(self, verdicts: Sequence[Verdict]) -> None:
        self._db.executemany(
            "UPDATE intents SET state = ?, refusal = ?, reason = ?, tx = ?, block = ?,"
            " attempts = attempts + (? = 'accepted') WHERE seq = ?",
            [
                (one.state, one.refusal or "", one.reason, one.transaction, one.block, one.state, one.seq)
                for one in verdicts
            ],
        )

    def _sendings(self, batch: int) -> tuple[Sending, ...]:
        rows = self._db.execute(
            "SELECT tx, raw, max_fee, priority FROM sendings WHERE batch = ? ORDER BY ordinal", (batch,)
        )
        return tuple(
            Sending(tx, raw, Fees(Wei(int(max_fee)), Wei(int(priority)))) for tx, raw, max_fee, priority in rows
        )

    def _add_sending(self, batch: int, one: Sending) -> None:
        self._db.execute(
            "INSERT INTO sendings SELECT ?, ?, ?, ?, ?, count(*) FROM sendings WHERE batch = ?",
            (one.transaction, batch, one.raw, str(one.fees.max_fee), str(one.fees.priority), batch),
        )

    @contextmanager
    def _write(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
