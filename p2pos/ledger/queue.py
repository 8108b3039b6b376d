"""The relayer's durable memory: what was accepted, which signed transactions carry it, and what became of it.

A method that returned has reached the disk (SQLite in WAL mode with `synchronous=FULL`), so that what was accepted
survives kill -9 and a power cut; one that raised UnavailableError because the disk takes nothing has changed nothing.
What is under way is held in memory as well and never read again while the process lives. May be used from several
threads. One process at a time.

An intent is `accepted`, then `submitted` (a signed transaction with it is on disk), then `settled` or `failed`; a
batch that was lost or reorganised away brings it back. It takes a nonce of each of its signers until it fails.
"""

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from p2pos.errors import InternalError, UserError
from p2pos.ledger import queue_rows as rows
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.packed import pack, unpack
from p2pos.ledger.queue_file import QueueFile
from p2pos.ledger.queue_records import Batch, Draft, Mined, Sending, Status, Verdict, Waiting
from p2pos.types import Address

__all__ = ["MAX_WAITING", "Batch", "Draft", "Mined", "Queue", "Sending", "Status", "Verdict", "Waiting"]

MAX_WAITING = 10_000
"""Intents accepted and not yet settled: two seconds of work at the most that this service does, a minute's on a slow
chain; 20 MB."""


class Queue:
    """The queue in one file."""

    def __init__(self, path: Path) -> None:
        self._file = QueueFile(path)
        self._guard = threading.RLock()
        self._accepted: dict[int, Waiting] = {}
        """Waiting for a batch, oldest first."""
        self._open: dict[int, Batch] = {}
        self._batch_of: dict[int, int] = {}
        """Of each submitted intent."""
        try:
            with self._file.read() as db:
                self._load(db)
        except BaseException:
            self._file.close()
            raise

    def _load(self, db: sqlite3.Connection) -> None:
        self._next_seq = rows.first_number(db, "SELECT ifnull(max(seq), 0) + 1 FROM intents")
        self._next_batch = rows.first_number(db, "SELECT ifnull(max(number), 0) + 1 FROM batches")
        live = db.execute(
            "SELECT seq, body, id, attempts FROM intents JOIN bodies USING (seq) WHERE state = 'live' ORDER BY seq"
        )
        self._accepted = {seq: Waiting(seq, unpack(body, digest), attempts) for seq, body, digest, attempts in live}
        for number, sender, nonce, gas, members in db.execute(
            "SELECT number, sender, nonce, gas, members FROM batches WHERE state = 'open' ORDER BY number"
        ).fetchall():
            gone = {seq for (seq,) in db.execute("SELECT seq FROM former WHERE batch = ?", (number,))}
            mine = [seq for seq in rows.seqs_of(members) if seq in self._accepted and seq not in gone]
            carried = [self._accepted.pop(seq) for seq in mine]
            sendings = rows.sendings_of(db, number)
            self._take_up(Batch(number, Address(sender), nonce, gas, tuple(carried), sendings))

    def close(self) -> None:
        """Close the file and let go of it. A second time does nothing."""
        with self._guard:
            self._file.close()

    # ---- whose queue this is

    def bind(self, facts: dict[str, str]) -> None:
        """Remember what this queue is for: chain, contract. Raises UserError where it is for something else."""
        with self._guard, self._file.write() as db:
            known = dict(db.execute("SELECT key, value FROM meta"))
            for key, value in facts.items():
                if known.get(key, value) != value:
                    raise UserError(
                        f"the queue is for {key} {known[key]}, not {value}", hint="give --queue another file"
                    )
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(facts.items()))

    def bound(self, key: str) -> str:
        """What was remembered; "" where nothing was."""
        with self._guard, self._file.read() as db:
            row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    # ---- intents

    def status(self, id_: str) -> Status | None:
        """What is known of an intent, or None where it never came."""
        try:
            digest = bytes.fromhex(id_.removeprefix("0x"))
        except ValueError:
            return None
        with self._guard, self._file.read() as db:
            row = db.execute(
                "SELECT seq, id, state, refusal, reason, tx, block, accepted_s FROM intents WHERE id = ?", (digest,)
            ).fetchone()
            return self._status(row) if row else None

    def holder(self, intent: SignedIntent) -> Status | None:
        """Who holds one of the nonces that this intent takes: itself, a rival, or None where they are all free."""
        with self._guard, self._file.read() as db:
            for owner, nonce in rows.nonces(intent):
                row = db.execute("SELECT seq FROM nonces WHERE owner = ? AND nonce = ?", (owner, nonce)).fetchone()
                if row:
                    found = db.execute(
                        "SELECT seq, id, state, refusal, reason, tx, block, accepted_s FROM intents WHERE seq = ?", row
                    ).fetchone()
                    return self._status(found)
        return None

    def _status(self, row: tuple[int, bytes, str, str, str, str, int | None, float]) -> Status:
        seq, digest, state, refusal, reason, transaction, block, accepted_s = row
        if state == "live":
            state = "submitted" if seq in self._batch_of else "accepted"
        return Status("0x" + digest.hex(), state, refusal, reason, transaction, block, accepted_s)

    def unsettled(self) -> int:
        """How many intents are accepted or submitted."""
        return len(self._accepted) + len(self._batch_of)

    def waiting_by_signer(self) -> Counter[Address]:
        """How many intents of each signer are accepted or submitted."""
        with self._guard:
            carried = (member for batch in self._open.values() for member in batch.members)
            return Counter(
                signer for one in (*self._accepted.values(), *carried) for signer, _ in one.intent.struct.signers
            )

    def oldest_s(self) -> float | None:
        """When the oldest intent that is not settled was accepted, in seconds since the epoch; None where all are."""
        with self._guard, self._file.read() as db:
            row = db.execute("SELECT accepted_s FROM intents WHERE state = 'live' ORDER BY seq LIMIT 1").fetchone()
        return float(row[0]) if row else None

    def room(self) -> int:
        """How many more intents can be accepted now."""
        return MAX_WAITING - self.unsettled()

    def accept(self, intents: Sequence[SignedIntent], now_s: float) -> None:
        """Take intents in, durably, all or none. One that had failed starts again; one that is in stays as it is.

        Raises InternalError where one takes a nonce that another holds: `holder` is asked first.
        """
        with self._guard:
            made = [Waiting(self._next_seq + at, intent, 0) for at, intent in enumerate(intents)]
            try:
                with self._file.write() as db:
                    fresh = db.executemany(
                        "INSERT OR IGNORE INTO intents (seq, id, accepted_s) VALUES (?, ?, ?)",
                        [(one.seq, one.intent.stated_digest, now_s) for one in made],
                    )
                    if fresh.rowcount < len(made):
                        made = list(self._again(db, made, now_s))
                    db.executemany(
                        "INSERT INTO nonces VALUES (?, ?, ?)",
                        [(*pair, one.seq) for one in made for pair in rows.nonces(one.intent)],
                    )
                    db.executemany(
                        "INSERT OR REPLACE INTO bodies VALUES (?, ?)", [(one.seq, pack(one.intent)) for one in made]
                    )
            except sqlite3.IntegrityError as exc:
                raise InternalError("an intent was accepted whose nonce another holds") from exc
            self._next_seq += len(intents)
            self._queue_up(made)

    @staticmethod
    def _again(db: sqlite3.Connection, made: Sequence[Waiting], now_s: float) -> Iterator[Waiting]:
        """Of intents some of which were here before, those that start now."""
        for one in made:
            seq, state = db.execute(
                "SELECT seq, state FROM intents WHERE id = ?", (one.intent.stated_digest,)
            ).fetchone()
            if state == "failed":
                db.execute(
                    "UPDATE intents SET state = 'live', attempts = 0, refusal = '', reason = '', tx = '', block = NULL,"
                    " accepted_s = ? WHERE seq = ?",
                    (now_s, seq),
                )
                rows.count(db, "failed", -1)
                yield Waiting(seq, one.intent, 0)
            elif seq == one.seq:
                yield one

    def waiting(self, most: int, skip: int = 0) -> list[Waiting]:
        """The oldest accepted intents, save the first `skip`."""
        with self._guard:
            return list(islice(self._accepted.values(), skip, skip + most))

    def fail(self, verdicts: Sequence[Verdict]) -> None:
        """Write verdicts on intents that no batch carries."""
        with self._guard:
            judged = [(self._accepted[one.seq], one) for one in verdicts]
            with self._file.write() as db:
                rows.judge(db, judged)
                failed = [(one.seq,) for one in verdicts if one.state == "failed"]
                db.executemany("DELETE FROM bodies WHERE seq = ?", failed)
            for one in verdicts:
                del self._accepted[one.seq]

    def counts(self) -> dict[str, int]:
        """How many intents are in each state."""
        with self._guard, self._file.read() as db:
            over = dict(db.execute("SELECT state, count FROM tally"))
            return {"accepted": len(self._accepted), "submitted": len(self._batch_of), **over}

    # ---- batches

    def open_batches(self) -> list[Batch]:
        """Batches whose outcome is not known, of each sender by its nonces."""
        with self._guard:
            return sorted(self._open.values(), key=lambda batch: (batch.sender, batch.nonce))

    def mined_since(self, block: int) -> list[tuple[int, int, str]]:
        """(batch, block, block hash) of batches in blocks from this one on."""
        with self._guard, self._file.read() as db:
            return db.execute(
                "SELECT number, block, block_hash FROM batches WHERE state = 'mined' AND block >= ?", (block,)
            ).fetchall()

    def other_transactions(self, seq: int, batch: int) -> list[tuple[int, str]]:
        """(batch, transaction) of all that carried this intent before, save one batch."""
        with self._guard, self._file.read() as db:
            return db.execute(
                "SELECT batch, tx FROM former JOIN sendings USING (batch) WHERE seq = ? AND batch <> ?", (seq, batch)
            ).fetchall()

    def open_batch(self, drafts: Sequence[Draft]) -> list[Batch]:
        """Write down signed batches, before they are sent."""
        with self._guard:
            made = [
                Batch(self._next_batch + at, one.sender, one.nonce, one.gas, one.members, (one.sending,))
                for at, one in enumerate(drafts)
            ]
            with self._file.write() as db:
                db.executemany(
                    "INSERT INTO batches (number, sender, nonce, gas, members) VALUES (?, ?, ?, ?, ?)",
                    [(one.number, one.sender, one.nonce, one.gas, rows.packed_members(one.members)) for one in made],
                )
                for batch in made:
                    rows.insert_sending(db, batch.number, 0, batch.sendings[0])
            self._next_batch += len(made)
            for batch in made:
                for member in batch.members:
                    del self._accepted[member.seq]
                self._take_up(batch)
            return made

    def add_sending(self, batch: int, sending: Sending) -> None:
        """Write down a replacement with a higher fee, before it is sent."""
        with self._guard:
            known = self._open[batch]
            with self._file.write() as db:
                rows.insert_sending(db, batch, len(known.sendings), sending)
            self._open[batch] = replace(known, sendings=(*known.sendings, sending))

    def mine(self, mined: Sequence[Mined]) -> None:
        """Batches are in settled blocks; this became of their intents. Those that are to be tried again wait again."""
        with self._guard:
            batches = [self._open[one.batch] for one in mined]
            members = {member.seq: member for batch in batches for member in batch.members}
            judged = [(members[one.seq], one) for outcome in mined for one in outcome.verdicts]
            again = [(member, one) for member, one in judged if one.state == "accepted"]
            with self._file.write() as db:
                db.executemany(
                    "UPDATE batches SET state = 'mined', tx = ?, block = ?, block_hash = ? WHERE number = ?",
                    [(one.transaction, one.block, one.block_hash, one.batch) for one in mined],
                )
                rows.judge(db, judged)
                rows.remember_former(db, [(member.seq, self._batch_of[member.seq]) for member, _ in again])
            for one in mined:
                self._put_down(one.batch)
            self._queue_up([replace(member, attempts=member.attempts + 1) for member, _ in again])

    def found(self, batch: int, transaction: str, block: int, block_hash: str) -> None:
        """A batch that was taken for lost is in a block after all; its block is watched from now on."""
        with self._guard, self._file.write() as db:
            db.execute(
                "UPDATE batches SET state = 'mined', tx = ?, block = ?, block_hash = ?"
                " WHERE number = ? AND state = 'lost'",  # one that is open again has its own verdict to come
                (transaction, block, block_hash, batch),
            )

    def lose(self, numbers: Sequence[int]) -> None:
        """Batches can't get into a block any more: their intents wait again."""
        with self._guard:
            batches = [self._open[number] for number in numbers]
            pairs = [(member.seq, batch.number) for batch in batches for member in batch.members]
            with self._file.write() as db:
                db.executemany("UPDATE batches SET state = 'lost' WHERE number = ?", [(one,) for one in numbers])
                rows.remember_former(db, pairs)
            for number in numbers:
                self._put_down(number)
            self._queue_up([member for batch in batches for member in batch.members])

    def reopen(self, number: int) -> None:
        """A batch's block is no longer part of the chain: its outcome is open again, and so are its intents.

        One that failed stays so where another has taken its nonce since.
        """
        with self._guard:
            with self._file.write() as db:
                sender, nonce, gas, seqs, tx = db.execute(
                    "SELECT sender, nonce, gas, members, tx FROM batches WHERE number = ?", (number,)
                ).fetchone()
                members = []
                for seq in rows.seqs_of(seqs):
                    row = db.execute(
                        "SELECT state, body, id, attempts FROM intents JOIN bodies USING (seq)"
                        " WHERE seq = ? AND state <> 'live' AND tx = ?",
                        (seq, tx),
                    ).fetchone()
                    if row and (member := rows.revive(db, seq, *row)):
                        members.append(member)
                        db.execute("DELETE FROM former WHERE seq = ? AND batch = ?", (seq, number))
                    else:  # it is elsewhere by now; this batch's transaction may still be the one that carries it out
                        rows.remember_former(db, [(seq, number)])
                db.execute(
                    "UPDATE batches SET state = 'open', tx = '', block = NULL, block_hash = '' WHERE number = ?",
                    (number,),
                )
                sendings = rows.sendings_of(db, number)
            self._take_up(Batch(number, Address(sender), nonce, gas, tuple(members), sendings))

    def forget_before(self, block: int, most: int) -> None:
        """Drop what up to `most` batches were made of that no reorganisation can reach; the verdicts stay."""
        with self._guard, self._file.write() as db:
            over = db.execute(
                "SELECT number, members FROM batches WHERE state = 'mined' AND block < ? LIMIT ?", (block, most)
            ).fetchall()
            lost = db.execute("SELECT number, members FROM batches WHERE state = 'lost' LIMIT ?", (most,)).fetchall()
            over += [(number, members) for number, members in lost if rows.is_final(db, members, block)]
            seqs = [(seq,) for _, members in over for seq in rows.seqs_of(members) if not self._is_live(seq)]
            # not of an intent that another batch has ended since: that one may come back
            for table in ("bodies", "former"):
                db.executemany(
                    f"DELETE FROM {table} WHERE seq = ? AND NOT EXISTS"  # noqa: S608 - constants
                    f" (SELECT 1 FROM intents WHERE intents.seq = {table}.seq AND intents.block >= ?)",
                    [(seq, block) for (seq,) in seqs],
                )
            numbers = [(number,) for number, _ in over]
            db.executemany("DELETE FROM sendings WHERE batch = ?", numbers)
            db.executemany("DELETE FROM batches WHERE number = ?", numbers)

    # ----

    def _is_live(self, seq: int) -> bool:
        return seq in self._accepted or seq in self._batch_of

    def _take_up(self, batch: Batch) -> None:
        self._open[batch.number] = batch
        self._batch_of.update((member.seq, batch.number) for member in batch.members)

    def _put_down(self, number: int) -> None:
        for member in self._open.pop(number).members:
            del self._batch_of[member.seq]

    def _queue_up(self, members: Iterable[Waiting]) -> None:
        newest = next(reversed(self._accepted), 0)
        in_order = True
        for member in members:
            in_order = in_order and member.seq > newest
            newest = member.seq
            self._accepted[member.seq] = member
        if not in_order:
            self._accepted = dict(sorted(self._accepted.items()))
