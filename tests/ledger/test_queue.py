import dataclasses
import sqlite3

import pytest

from p2pos.errors import UserError
from p2pos.ledger import queue as module
from p2pos.ledger.fees import Fees
from p2pos.ledger.intents import Refusal, SignedIntent
from p2pos.ledger.queue import Queue, Sending, Verdict
from p2pos.ledger.typed_data import Domain, Lock, Transfer
from p2pos.types import Wei
from tests.ledger.chains import ALICE, BOB, FAR

DOMAIN = Domain(31337, BOB.address)
FEES = Fees(Wei(2), Wei(1))


def signed(nonce: int, *, lock: bool = False, amount: int = 1) -> SignedIntent:
    struct = (
        Lock(ALICE.address, BOB.address, 7, amount, 60, nonce, FAR)
        if lock
        else Transfer(ALICE.address, BOB.address, 7, amount, nonce, FAR)
    )
    return SignedIntent.of(DOMAIN, struct, ALICE.sign_typed(DOMAIN, struct))


@pytest.fixture
def queue(tmp_path):
    made = Queue(tmp_path / "queue.sqlite")
    yield made
    made.close()


def test_what_is_accepted_outlives_the_process(tmp_path):
    """An accepted intent is there, whole, when the file is opened again."""
    queue = Queue(tmp_path / "queue.sqlite")
    queue.accept([signed(1)], 5.0)
    queue.close()
    again = Queue(tmp_path / "queue.sqlite")
    assert [one.intent for one in again.waiting(10)] == [signed(1)]
    assert again.status(signed(1).id).accepted_s == 5.0
    again.close()


def test_it_is_flushed_to_the_disk(queue):
    """The file is in WAL mode with synchronous FULL (2), which survives a power cut."""
    assert queue._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert queue._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_one_process_at_a_time(queue, tmp_path):
    """A second opener of the same file is refused."""
    with pytest.raises(UserError, match="another relayer runs on"):
        Queue(tmp_path / "queue.sqlite")


def test_a_file_of_another_kind(tmp_path):
    """A file that is no database is refused, not overwritten."""
    path = tmp_path / "queue.sqlite"
    path.write_text("hello " * 1000)
    with pytest.raises(UserError, match="is not a relayer's queue"):
        Queue(path)
    assert path.read_text() == "hello " * 1000


def test_accepting_twice_changes_nothing(queue):
    """The same intent again keeps its state and its place."""
    queue.accept([signed(1), signed(2)], 1.0)
    queue.open_batch(0, 100, Sending("0x1", b"raw", FEES), [1])
    queue.accept([signed(1)], 2.0)
    assert queue.status(signed(1).id).state == "submitted"
    assert queue.status(signed(1).id).accepted_s == 1.0


def test_a_failed_intent_may_come_again(queue):
    """What failed starts again when it is handed in again."""
    queue.accept([signed(1)], 1.0)
    queue.fail([Verdict(1, "failed", Refusal.BALANCE, "poor")])
    assert queue.status(signed(1).id).reason == "poor"
    queue.accept([signed(1)], 2.0)
    assert queue.status(signed(1).id).state == "accepted"
    assert queue.status(signed(1).id).reason == ""


def test_a_failed_intent_comes_again_with_its_new_signature(queue):
    """The signature that counts is the newest: a contract wallet may have changed its keys."""
    queue.accept([signed(1)], 1.0)
    queue.fail([Verdict(1, "failed", Refusal.WRONG_SIGNER, "old key")])
    again = dataclasses.replace(signed(1), signatures=(b"new",))
    queue.accept([again], 2.0)
    assert [one.intent for one in queue.waiting(1)] == [again]


def test_rivals(queue):
    """Another intent with the same owner and nonce is a rival until it fails."""
    one, other = signed(1), signed(1, amount=2)
    assert queue.rival(other) == ""
    queue.accept([one], 1.0)
    assert queue.rival(other) == one.id
    assert queue.rival(one) == ""
    queue.fail([Verdict(1, "failed", Refusal.BALANCE, "poor")])
    assert queue.rival(other) == ""


@pytest.mark.parametrize(
    ("kinds", "first"), [("tttt", "ttt"), ("ttlt", "tt"), ("lttt", "l"), ("ll", "l"), ("", ""), ("t", "t")]
)
def test_locks_travel_alone(queue, kinds, first):
    """A batch is the longest run of transfers from the front, or a single lock."""
    intents = [signed(nonce, lock=kind == "l") for nonce, kind in enumerate(kinds)]
    queue.accept(intents, 1.0)
    assert [one.intent for one in queue.waiting(3)] == intents[: len(first)]


def test_the_life_of_a_batch(queue):
    """Opened, sent twice, mined, reorganised away, lost: its intents follow, and every step can be read back."""
    queue.accept([signed(1), signed(2)], 1.0)
    first, second = Sending("0x1", b"one", FEES), Sending("0x2", b"two", Fees(Wei(4), Wei(2)))
    number = queue.open_batch(9, 100, first, [1, 2])
    queue.add_sending(number, second)
    (batch,) = queue.open_batches()
    assert (batch.nonce, batch.gas, batch.sendings) == (9, 100, (first, second))
    assert [one.intent for one in queue.members(number)] == [signed(1), signed(2)]
    verdicts = [
        Verdict(1, "settled", transaction="0x2", block=5),
        Verdict(2, "failed", Refusal.BALANCE, "poor", "0x2", 5),
    ]
    queue.mine(number, "0x2", 5, "0xb5", verdicts)
    assert queue.open_batches() == []
    assert queue.mined_since(5) == [(number, 5, "0xb5")]
    assert queue.counts() == {"accepted": 0, "submitted": 0, "settled": 1, "failed": 1}
    queue.reopen(number)
    assert queue.counts() == {"accepted": 0, "submitted": 2, "settled": 0, "failed": 0}
    queue.lose(number)
    assert queue.counts() == {"accepted": 2, "submitted": 0, "settled": 0, "failed": 0}
    later = queue.open_batch(10, 100, Sending("0x3", b"three", FEES), [1, 2])
    assert queue.other_transactions(1, later) == ["0x1", "0x2"]


def test_a_verdict_to_try_again_counts(queue):
    """Each batch that came to nothing is counted against the intent."""
    queue.accept([signed(1)], 1.0)
    for nonce in range(3):
        number = queue.open_batch(nonce, 100, Sending(f"0x{nonce}", b"raw", FEES), [1])
        queue.mine(number, f"0x{nonce}", nonce, "0xb", [Verdict(1, "accepted")])
    assert queue.waiting(1)[0].attempts == 3


def test_room_is_bounded(queue, monkeypatch):
    """What is accepted and not yet settled takes up room; what is settled gives it back."""
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    queue.accept([signed(1), signed(2)], 1.0)
    assert queue.room() == 1
    queue.fail([Verdict(1, "settled", transaction="0x1", block=1)])
    assert queue.room() == 2


def test_a_failed_write_leaves_nothing(queue):
    """All of a step is written, or none of it."""
    queue.accept([signed(1)], 1.0)
    queue.open_batch(0, 100, Sending("0x1", b"raw", FEES), [1])
    with pytest.raises(sqlite3.IntegrityError):
        queue.open_batch(1, 100, Sending("0x1", b"raw", FEES), [1])
    assert len(queue.open_batches()) == 1


def test_a_queue_knows_its_chain(queue):
    """Facts that must stand are held to; others may change while no batch is open."""
    queue.bind({"chain": "1", "sender": "a"}, keep=("chain",))
    queue.bind({"chain": "1", "sender": "b"}, keep=("chain",))
    with pytest.raises(UserError, match="the queue is for chain 1, not 2"):
        queue.bind({"chain": "2", "sender": "b"}, keep=("chain",))
    queue.open_batch(0, 100, Sending("0x1", b"raw", FEES), [])
    with pytest.raises(UserError, match="the queue is for sender b, not a"):
        queue.bind({"chain": "1", "sender": "a"}, keep=("chain",))


def test_the_head_is_remembered(queue):
    """The newest block that was seen comes back as it was."""
    assert queue.seen_head() is None
    queue.set_seen_head(5, "0xb5")
    queue.set_seen_head(6, "0xb6")
    assert queue.seen_head() == (6, "0xb6")
