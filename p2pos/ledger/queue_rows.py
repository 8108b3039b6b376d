"""Rows of the queue's file, within a transaction that `queue` has begun: what is written where, and read back."""

import sqlite3
from array import array
from collections.abc import Iterable, Sequence

from p2pos.ledger.fees import Fees
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.packed import unpack
from p2pos.ledger.queue_records import Sending, Verdict, Waiting
from p2pos.types import Wei


def first_number(db: sqlite3.Connection, question: str) -> int:
    """The number that a question answers."""
    return int(db.execute(question).fetchone()[0])


def count(db: sqlite3.Connection, state: str, more: int) -> None:
    """Count so many more, or fewer, intents that are over in this way."""
    db.execute("UPDATE tally SET count = count + ? WHERE state = ?", (more, state))


def free_nonces(db: sqlite3.Connection, members: Iterable[Waiting]) -> None:
    """Let others take what these intents had."""
    rows = [(*pair, member.seq) for member in members for pair in nonces(member.intent)]
    db.executemany("DELETE FROM nonces WHERE owner = ? AND nonce = ? AND seq = ?", rows)


def remember_former(db: sqlite3.Connection, pairs: Sequence[tuple[int, int]]) -> None:
    """(intent, batch): this batch carried it and came to nothing, but its transaction may yet turn up."""
    db.executemany("INSERT OR IGNORE INTO former VALUES (?, ?)", pairs)


def nonces(intent: SignedIntent) -> list[tuple[bytes, bytes]]:
    """What an intent takes, as the file's keys."""
    return [(bytes.fromhex(owner[2:]), nonce.to_bytes(32, "big")) for owner, nonce in intent.struct.signers]


def packed_members(members: Iterable[Waiting]) -> bytes:
    """The intents of a batch, in their order, as its row has them."""
    return array("Q", [member.seq for member in members]).tobytes()


def seqs_of(members: bytes) -> list[int]:
    """What `packed_members` made."""
    return array("Q", members).tolist()


def sendings_of(db: sqlite3.Connection, batch: int) -> tuple[Sending, ...]:
    """The signed transactions of a batch, oldest first."""
    rows = db.execute("SELECT tx, raw, max_fee, priority FROM sendings WHERE batch = ? ORDER BY ordinal", (batch,))
    return tuple(Sending(tx, raw, Fees(Wei(int(max_fee)), Wei(int(priority)))) for tx, raw, max_fee, priority in rows)


def insert_sending(db: sqlite3.Connection, batch: int, ordinal: int, one: Sending) -> None:
    """Write down one more of them."""
    db.execute(
        "INSERT INTO sendings VALUES (?, ?, ?, ?, ?, ?)",
        (batch, ordinal, one.transaction, one.raw, str(one.fees.max_fee), str(one.fees.priority)),
    )


def revive(db: sqlite3.Connection, seq: int, state: str, body: bytes, digest: bytes, attempts: int) -> Waiting | None:
    """An intent of a batch whose block is gone, live again; None where another has one of its nonces by now."""
    member = Waiting(seq, unpack(body, digest), attempts)
    if state == "failed":
        pairs = [(*pair, seq) for pair in nonces(member.intent)]
        if db.executemany("INSERT OR IGNORE INTO nonces VALUES (?, ?, ?)", pairs).rowcount < len(pairs):
            free_nonces(db, [member])
            return None
    db.execute(
        "UPDATE intents SET state = 'live', refusal = '', reason = '', tx = '', block = NULL WHERE seq = ?", (seq,)
    )
    count(db, state, -1)
    return member


def judge(db: sqlite3.Connection, judged: Sequence[tuple[Waiting, Verdict]]) -> None:
    """Write verdicts down; a failed intent's nonces become free."""
    over = [one for _, one in judged if one.state != "accepted"]
    db.executemany(
        "UPDATE intents SET state = ?, refusal = ?, reason = ?, tx = ?, block = ? WHERE seq = ?",
        [(one.state, one.refusal or "", one.reason, one.transaction, one.block, one.seq) for one in over],
    )
    failed = [member for member, one in judged if one.state == "failed"]
    free_nonces(db, failed)
    db.executemany(
        "UPDATE intents SET attempts = attempts + 1 WHERE seq = ?",
        [(one.seq,) for _, one in judged if one.state == "accepted"],
    )
    count(db, "failed", len(failed))
    count(db, "settled", len(over) - len(failed))


def is_final(db: sqlite3.Connection, members: bytes, block: int) -> bool:
    """Whether a lost batch can't matter any more: each of its intents is over, and what ended it is before `block`.

    Until then its transaction, if it gets into a block after all, may be the one that carries an intent out.
    """
    for seq in seqs_of(members):
        row = db.execute("SELECT state, block FROM intents WHERE seq = ?", (seq,)).fetchone()
        if row and (row[0] == "live" or (row[1] is not None and row[1] >= block)):
            return False
    return True
