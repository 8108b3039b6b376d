"""The file under the relayer's queue: SQLite, one process at a time, and every fault of the disk in one clear line."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2pos.errors import UnavailableError, UserError

WAL_PAGES = 4000
"""Of 4 KiB, after which the log is folded into the file. Sixteen megabytes: a second's work at full speed, so that
the folding's own two flushes come once a second."""
CACHE_KIB = 16_000
"""Of pages in memory: the index of half a million intents."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tally (state TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO tally VALUES ('settled', 0), ('failed', 0);
CREATE TABLE IF NOT EXISTS intents (
  seq INTEGER PRIMARY KEY,
  id BLOB NOT NULL UNIQUE,
  state TEXT NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'settled', 'failed')),
  attempts INTEGER NOT NULL DEFAULT 0,
  refusal TEXT NOT NULL DEFAULT '',
  reason TEXT NOT NULL DEFAULT '',
  tx TEXT NOT NULL DEFAULT '',
  block INTEGER,
  accepted_s REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS live_intents ON intents (seq) WHERE state = 'live';
CREATE TABLE IF NOT EXISTS bodies (seq INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS nonces (
  owner BLOB NOT NULL, nonce BLOB NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (owner, nonce)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches (
  number INTEGER PRIMARY KEY,
  sender TEXT NOT NULL,
  nonce INTEGER NOT NULL,
  gas INTEGER NOT NULL,
  members BLOB NOT NULL,
  state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'mined', 'lost')),
  tx TEXT NOT NULL DEFAULT '',
  block INTEGER,
  block_hash TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS open_batches ON batches (number) WHERE state = 'open';
CREATE INDEX IF NOT EXISTS mined_batches ON batches (block) WHERE state = 'mined';
CREATE INDEX IF NOT EXISTS lost_batches ON batches (number) WHERE state = 'lost';
CREATE TABLE IF NOT EXISTS sendings (
  batch INTEGER NOT NULL, ordinal INTEGER NOT NULL, tx TEXT NOT NULL, raw BLOB NOT NULL,
  max_fee TEXT NOT NULL, priority TEXT NOT NULL, PRIMARY KEY (batch, ordinal)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS former (
  seq INTEGER NOT NULL, batch INTEGER NOT NULL, PRIMARY KEY (seq, batch)
) STRICT, WITHOUT ROWID;
"""
# An intent is `live` while it is accepted or submitted; which of the two, the open batches say (`members`: the seqs,
# eight bytes each, in the transaction's order). `nonces` has the owners' nonces that live and settled intents take.
# `former` has the batches that carried an intent and came to nothing, because their transactions may yet turn up.


class QueueFile:
    """An open file with the queue's tables, held against other processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
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
            self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self.db.execute("PRAGMA journal_mode=WAL")
            self.db.execute("PRAGMA synchronous=FULL")
            self.db.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
            self.db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
            self.db.executescript(_SCHEMA)
        except sqlite3.OperationalError as exc:
            os.close(self._lock)
            raise UserError(f"{path} can't be used: {exc}", hint="make room or writable, or give --queue") from exc
        except sqlite3.DatabaseError as exc:
            os.close(self._lock)
            raise UserError(f"{path} is not a relayer's queue: {exc}", hint="give --queue another file") from exc

    def close(self) -> None:
        """Close the file and let go of the lock. A second time does nothing."""
        self.db.close()
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """All that is written inside reaches the disk together, before this returns, or none of it does.

        Raises UnavailableError where the disk is full or takes nothing: what was written before stands; UserError where
        the file is damaged.
        """
        try:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:  # a full disk has ended it already
                    self.db.execute("ROLLBACK")
                raise
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as exc:
            raise self._fault(exc) from exc

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Reading. Raises as `write`."""
        try:
            yield self.db
        except sqlite3.DatabaseError as exc:
            raise self._fault(exc) from exc

    def _fault(self, exc: sqlite3.DatabaseError) -> UnavailableError | UserError:
        if not isinstance(exc, sqlite3.OperationalError):
            return UserError(f"the queue {self.path} is damaged: {exc}", hint="bring back a copy of it")
        return UnavailableError(
            f"the queue {self.path} can't be written: {exc}",
            hint="make room on its disk; what was accepted is safe, and the relayer goes on by itself",
        )
