import dataclasses
import sqlite3

import pytest

from p2pos.errors import InternalError, UnavailableError, UserError
from p2pos.ledger import queue as module
from p2pos.ledger.fees import Fees
from p2pos.ledger.intents import Refusal, SignedIntent
from p2pos.ledger.queue import Draft, Mined, Queue, Sending, Verdict
from p2pos.ledger.typed_data import Domain, Item, Lock, Swap, Transfer
from p2pos.types import Wei
from tests.ledger.chains import ALICE, BOB, CAROL, FAR, OPERATOR

DOMAIN = Domain(31337, BOB.address)
FEES = Fees(Wei(2), Wei(1))


def signed(nonce: int, *, lock: bool = False, amount: int = 1) -> SignedIntent:
    struct = (
        Lock(ALICE.address, BOB.address, 7, amount, 60, nonce, FAR)
        if lock
        else Transfer(ALICE.address, BOB.address, 7, amount, nonce, FAR)
    )
    return SignedIntent.of(DOMAIN, struct, ALICE.sign_typed(DOMAIN, struct))


def swapped(alices: int, bobs: int) -> SignedIntent:
    struct = Swap(ALICE.address, BOB.address, (Item(7, 1),), (), alices, bobs, FAR)
    return SignedIntent.of(DOMAIN, struct, ALICE.sign_typed(DOMAIN, struct), BOB.sign_typed(DOMAIN, struct))


@pytest.fixture
def queue(tmp_path):
    made = Queue(tmp_path / "queue.sqlite")
    yield made
    made.close()


def carry(queue: Queue, most: int = 100, *, nonce: int = 0, tx: str = "0x1", sender=OPERATOR):
    """Open a batch of what waits."""
    members = tuple(queue.waiting(most))
    (batch,) = queue.open_batch([Draft(sender.address, nonce, 100, members, Sending(tx, b"raw", FEES))])
    return batch


def mined(batch, *verdicts: Verdict, block: int = 5) -> Mined:
    return Mined(batch.number, batch.sendings[-1].transaction, block, f"0xb{block}", verdicts)


def settled(batch, *, block: int = 5) -> Mined:
    """All of a batch took effect."""
    tx = batch.sendings[-1].transaction
    verdicts = [Verdict(member.seq, "settled", transaction=tx, block=block) for member in batch.members]
    return mined(batch, *verdicts, block=block)


def test_what_is_accepted_outlives_the_process(tmp_path):
    """An accepted intent is there, whole, when the file is opened again."""
    queue = Queue(tmp_path / "queue.sqlite")
    queue.accept([signed(1), swapped(2, 3)], 5.0)
    queue.close()
    again = Queue(tmp_path / "queue.sqlite")
    assert [one.intent for one in again.waiting(10)] == [signed(1), swapped(2, 3)]
    assert again.status(signed(1).id).accepted_s == 5.0
    again.close()


def test_what_is_under_way_outlives_the_process(tmp_path):
    """Open batches with members, sendings and attempts are there again, and what waits beside them."""
    queue = Queue(tmp_path / "queue.sqlite")
    queue.accept([signed(1), signed(2), signed(3)], 5.0)
    first = carry(queue, 2)
    queue.mine([mined(first, Verdict(1, "accepted"), Verdict(2, "settled", transaction="0x1", block=5))])
    batch = carry(queue, 1, nonce=1, tx="0x2")
    queue.add_sending(batch.number, Sending("0x3", b"more", Fees(Wei(4), Wei(2))))
    before = queue.open_batches(), queue.waiting(10), queue.counts()
    queue.close()
    again = Queue(tmp_path / "queue.sqlite")
    assert (again.open_batches(), again.waiting(10), again.counts()) == before
    assert [member.attempts for member in again.open_batches()[0].members] == [1]
    again.close()


def test_it_is_flushed_to_the_disk(queue):
    """The file is in WAL mode with synchronous FULL (2), which survives a power cut."""
    assert queue._file.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert queue._file.db.execute("PRAGMA synchronous").fetchone() == (2,)


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


def test_a_damaged_file_is_said(tmp_path):
    """A queue whose pages were overwritten ends the work in one line, instead of losing what it promised."""
    path = tmp_path / "queue.sqlite"
    queue = Queue(path)
    queue.accept([signed(nonce) for nonce in range(200)], 1.0)
    queue.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(UserError, match="is damaged|is not a relayer's queue"):
        Queue(path)


def test_accepting_twice_changes_nothing(queue):
    """The same intent again keeps its state and its place, also beside new ones."""
    queue.accept([signed(1), signed(2)], 1.0)
    carry(queue, 1)
    queue.accept([signed(1), signed(3), signed(3)], 2.0)
    assert queue.status(signed(1).id).state == "submitted"
    assert queue.status(signed(1).id).accepted_s == 1.0
    assert [one.intent for one in queue.waiting(10)] == [signed(2), signed(3)]


def test_a_failed_intent_may_come_again(queue):
    """What failed starts again when it is handed in again, in its old place."""
    queue.accept([signed(1), signed(2)], 1.0)
    queue.fail([Verdict(1, "failed", Refusal.BALANCE, "poor")])
    assert queue.status(signed(1).id).reason == "poor"
    queue.accept([signed(1)], 2.0)
    assert queue.status(signed(1).id).state == "accepted"
    assert queue.status(signed(1).id).reason == ""
    assert [one.intent for one in queue.waiting(2)] == [signed(1), signed(2)]
    assert queue.counts() == {"accepted": 2, "submitted": 0, "settled": 0, "failed": 0}


def test_a_failed_intent_comes_again_with_its_new_signature(queue):
    """The signature that counts is the newest: a contract wallet may have changed its keys."""
    queue.accept([signed(1)], 1.0)
    queue.fail([Verdict(1, "failed", Refusal.WRONG_SIGNER, "old key")])
    again = dataclasses.replace(signed(1), signatures=(b"new",))
    queue.accept([again], 2.0)
    assert [one.intent for one in queue.waiting(1)] == [again]


def test_who_holds_a_nonce(queue):
    """An intent holds its signers' nonces from when it is accepted until it fails."""
    one, other = signed(1), signed(1, amount=2)
    assert queue.holder(other) is None
    queue.accept([one], 1.0)
    assert queue.holder(other).id == queue.holder(one).id == one.id
    queue.fail([Verdict(1, "failed", Refusal.BALANCE, "poor")])
    assert queue.holder(other) is None


def test_a_swap_takes_a_nonce_of_each(queue):
    """Whoever wants a nonce of either party of a swap meets the swap; both are free once it fails."""
    swap = swapped(1, 9)
    queue.accept([swap], 1.0)
    assert queue.holder(signed(1)).id == swap.id
    assert queue.holder(swapped(2, 9)).id == swap.id
    assert queue.holder(swapped(9, 1)) is None
    with pytest.raises(InternalError):
        queue.accept([swapped(2, 9)], 2.0)
    assert queue.status(swapped(2, 9).id) is None
    queue.fail([Verdict(1, "failed", Refusal.BALANCE, "poor")])
    assert queue.holder(swapped(1, 9)) is None


def test_the_life_of_a_batch(queue):
    """Opened, sent twice, mined, reorganised away, lost: its intents follow, and every step can be read back."""
    queue.accept([signed(1), signed(2)], 1.0)
    number = carry(queue, nonce=9).number
    second = Sending("0x2", b"two", Fees(Wei(4), Wei(2)))
    queue.add_sending(number, second)
    (batch,) = queue.open_batches()
    assert (batch.sender, batch.nonce, batch.gas) == (OPERATOR.address, 9, 100)
    assert batch.sendings == (Sending("0x1", b"raw", FEES), second)
    assert [one.intent for one in batch.members] == [signed(1), signed(2)]
    queue.mine(
        [
            mined(
                batch,
                Verdict(1, "settled", transaction="0x2", block=5),
                Verdict(2, "failed", Refusal.BALANCE, "poor", "0x2", 5),
            )
        ]
    )
    assert queue.open_batches() == []
    assert queue.mined_since(5) == [(number, 5, "0xb5")]
    assert queue.counts() == {"accepted": 0, "submitted": 0, "settled": 1, "failed": 1}
    queue.reopen(number)
    assert queue.counts() == {"accepted": 0, "submitted": 2, "settled": 0, "failed": 0}
    assert queue.open_batches() == [batch]
    queue.lose([number])
    assert queue.counts() == {"accepted": 2, "submitted": 0, "settled": 0, "failed": 0}
    later = carry(queue, nonce=10, tx="0x3")
    assert queue.other_transactions(1, later.number) == [(number, "0x1"), (number, "0x2")]


def test_a_lost_batch_that_was_found(queue):
    """Where a lost batch settled its intents after all, a reorganisation of its block brings them back."""
    queue.accept([signed(1)], 1.0)
    lost = carry(queue)
    queue.lose([lost.number])
    later = carry(queue, nonce=1, tx="0x2")
    queue.found(lost.number, "0x1", 4, "0xb4")
    queue.mine([mined(later, Verdict(1, "settled", transaction="0x1", block=4))])
    assert queue.mined_since(4) == [(lost.number, 4, "0xb4"), (later.number, 5, "0xb5")]
    queue.reopen(later.number)
    assert queue.counts()["settled"] == 1
    queue.reopen(lost.number)
    assert queue.counts() == {"accepted": 0, "submitted": 1, "settled": 0, "failed": 0}
    assert [batch.members for batch in queue.open_batches()] == [lost.members, ()]


def test_a_reorganisation_of_a_failure_whose_nonce_is_taken(queue):
    """A failed intent stays failed where another has its nonce by the time its block goes."""
    queue.accept([signed(1), signed(2)], 1.0)
    batch = carry(queue)
    failed = [Verdict(seq, "failed", Refusal.BALANCE, "poor", "0x1", 5) for seq in (1, 2)]
    queue.mine([mined(batch, *failed)])
    queue.accept([signed(1, amount=2)], 2.0)
    queue.reopen(batch.number)
    assert [queue.status(one.id).state for one in (signed(1), signed(2))] == ["failed", "submitted"]
    assert queue.holder(signed(1)).id == signed(1, amount=2).id


def test_batches_of_several_senders(queue):
    """Open batches come by sender and nonce."""
    queue.accept([signed(nonce) for nonce in range(3)], 1.0)
    carry(queue, 1, nonce=5, tx="0x1")
    carry(queue, 1, nonce=3, tx="0x2", sender=CAROL)
    carry(queue, 1, nonce=4, tx="0x3")
    found = [(batch.sender, batch.nonce) for batch in queue.open_batches()]
    assert found == sorted([(OPERATOR.address, 4), (OPERATOR.address, 5), (CAROL.address, 3)])


def test_a_verdict_to_try_again_counts(queue):
    """Each batch that came to nothing is counted against the intent."""
    queue.accept([signed(1)], 1.0)
    for nonce in range(3):
        batch = carry(queue, nonce=nonce, tx=f"0x{nonce}")
        queue.mine([mined(batch, Verdict(1, "accepted"), block=nonce)])
    assert queue.waiting(1)[0].attempts == 3


def test_room_is_bounded(queue, monkeypatch):
    """What is accepted and not yet settled takes up room; what is settled gives it back."""
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    queue.accept([signed(1), signed(2)], 1.0)
    assert queue.room() == 1
    queue.mine([settled(carry(queue, 1))])
    assert queue.room() == 2


def test_a_failed_write_leaves_nothing(queue):
    """All of a step is written, or none of it, and memory agrees with the file."""
    queue.accept([signed(1)], 1.0)
    queue._file.db.execute("CREATE TRIGGER no BEFORE INSERT ON sendings BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(sqlite3.IntegrityError):
        carry(queue)
    assert queue.open_batches() == []
    assert queue.counts()["accepted"] == 1
    assert queue._file.db.execute("SELECT count(*) FROM batches").fetchone() == (0,)


def test_a_full_disk(queue):
    """Where the disk is full a step says so in one line and changes nothing; once there is room all goes on."""
    queue.accept([signed(1)], 1.0)
    batch = carry(queue)
    (pages,) = queue._file.db.execute("PRAGMA page_count").fetchone()
    queue._file.db.execute(f"PRAGMA max_page_count = {pages}")
    many = [signed(nonce) for nonce in range(10, 200)]
    with pytest.raises(UnavailableError, match="can't be written: database or disk is full") as caught:
        queue.accept(many, 2.0)
    assert "\n" not in str(caught.value)
    assert queue.status(many[0].id) is None
    assert queue.counts() == {"accepted": 0, "submitted": 1, "settled": 0, "failed": 0}
    queue._file.db.execute("PRAGMA max_page_count = 1000000")
    queue.accept(many, 3.0)
    queue.mine([settled(batch)])
    assert queue.counts() == {"accepted": 190, "submitted": 0, "settled": 1, "failed": 0}


def test_a_disk_that_takes_nothing(queue):
    """Where the file can only be read, a write says so and what is there stays."""
    queue.accept([signed(1)], 1.0)
    queue._file.db.execute("PRAGMA query_only = 1")
    with pytest.raises(UnavailableError, match="attempt to write a readonly database"):
        queue.accept([signed(2)], 1.0)
    queue._file.db.execute("PRAGMA query_only = 0")
    queue.accept([signed(2)], 1.0)
    assert len(queue.waiting(10)) == 2


def test_a_queue_knows_its_chain(queue):
    """Facts that were once remembered can't change."""
    queue.bind({"chain": "1"})
    queue.bind({"chain": "1", "contract": "a"})
    assert queue.bound("contract") == "a"
    with pytest.raises(UserError, match="the queue is for chain 1, not 2"):
        queue.bind({"chain": "2"})


def test_what_no_reorganisation_can_reach_is_forgotten(queue):
    """Bodies and transactions of deep batches go, lost ones' too; verdicts and the younger batches stay."""
    queue.accept([signed(1), signed(2), signed(3)], 1.0)
    queue.lose([carry(queue, 1, tx="0x0").number])
    queue.mine([settled(carry(queue, 1, nonce=1, tx="0x1"), block=5)])
    queue.mine([settled(carry(queue, 1, nonce=2, tx="0x2"), block=50)])
    queue.forget_before(40, 10)

    def rows(table: str) -> int:
        return queue._file.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]

    assert [rows(table) for table in ("batches", "sendings", "former", "bodies")] == [1, 1, 0, 2]
    assert queue.counts() == {"accepted": 1, "submitted": 0, "settled": 2, "failed": 0}
    assert queue.status(signed(1).id).transaction == "0x1"
    assert queue.holder(signed(1)).state == "settled"


def test_a_lost_batch_is_remembered_while_it_can_matter(queue):
    """A lost batch older than every watched block stays until what carried its intents instead is deep as well."""
    queue.accept([signed(1), signed(2)], 1.0)
    lost = carry(queue, 1, tx="0x0")
    queue.lose([lost.number])
    queue.mine([settled(carry(queue, 1, nonce=1, tx="0x1"), block=50)])
    queue.forget_before(40, 10)
    assert queue.other_transactions(1, 99) == [(lost.number, "0x0")]
    queue.forget_before(51, 10)
    assert queue.other_transactions(1, 99) == []


def test_a_lost_batch_is_remembered_while_its_intent_waits(queue):
    """While an intent is not settled, a lost transaction that may yet carry it out is not forgotten."""
    queue.accept([signed(1), signed(2)], 1.0)
    lost = carry(queue, 1, tx="0x0")
    queue.mine([settled(carry(queue, 1, nonce=1, tx="0x1"), block=50)])
    queue.lose([lost.number])
    queue.forget_before(40, 10)
    assert queue.other_transactions(1, 99) == [(lost.number, "0x0")]


def test_a_reopened_batch_is_remembered_by_what_left_it(queue):
    """Where a reorganisation takes back a batch whose intent another carries by now, its transaction stays in view."""
    queue.accept([signed(1)], 1.0)
    first = carry(queue, tx="0x0")
    queue.lose([first.number])
    second = carry(queue, nonce=1, tx="0x1")
    # the first one's transaction turned up after all, and the second one's failed for it
    queue.found(first.number, "0x0", 4, "0xb4")
    queue.mine([mined(second, Verdict(1, "settled", transaction="0x0", block=4))])
    queue.reopen(first.number)
    queue.reopen(second.number)
    assert [[member.seq for member in batch.members] for batch in queue.open_batches()] == [[1], []]
    assert queue.other_transactions(1, first.number) == [(second.number, "0x1")]


def test_whose_intents_wait(queue):
    """Counted are accepted and submitted ones, a swap for both of its signers; what is settled is not."""
    queue.accept([signed(1), signed(2), swapped(3, 4)], 1.0)
    queue.mine([settled(carry(queue, 1))])
    carry(queue, 1, nonce=1, tx="0x2")
    assert queue.waiting_by_signer() == {ALICE.address: 2, BOB.address: 1}


def test_since_when_the_oldest_waits(queue):
    """The oldest that is not settled counts; where all are, there is none."""
    assert queue.oldest_s() is None
    queue.accept([signed(1)], 1.0)
    queue.accept([signed(2)], 2.0)
    assert queue.oldest_s() == 1.0
    queue.mine([settled(carry(queue, 1))])
    assert queue.oldest_s() == 2.0


def test_what_settled_later_outlives_the_batch_that_failed_first(queue):
    """An intent that an old batch failed and a newer one settled comes back with the newer one's block."""
    queue.accept([signed(1)], 1.0)
    old = carry(queue)
    queue.mine([mined(old, Verdict(1, "failed", Refusal.BALANCE, "poor", "0x1", 100), block=100)])
    queue.accept([signed(1)], 2.0)
    new = carry(queue, nonce=1, tx="0x2")
    queue.mine([settled(new, block=350)])
    queue.forget_before(104, 100)
    queue.reopen(new.number)
    assert queue.counts() == {"accepted": 0, "submitted": 1, "settled": 0, "failed": 0}


def test_a_batch_that_is_open_is_not_found(queue):
    """Only a batch that was lost can be found: one that is open has its own verdict to come."""
    queue.accept([signed(1), signed(2)], 1.0)
    batch = carry(queue)
    queue.found(batch.number, "0x1", 4, "0xb4")
    assert queue.mined_since(0) == []


def test_a_second_reorganisation_brings_back_what_had_left(queue, tmp_path):
    """An intent that left a batch, and that its transaction carried out after all, comes back with that batch."""
    queue.accept([signed(1), signed(2)], 1.0)
    first = carry(queue)
    failed = Verdict(1, "failed", Refusal.BALANCE, "poor", "0x1", 5)
    queue.mine([mined(first, failed, Verdict(2, "settled", transaction="0x1", block=5))])
    queue.accept([signed(1)], 2.0)
    second = carry(queue, nonce=1, tx="0x2")
    queue.reopen(first.number)
    assert [[member.seq for member in one.members] for one in queue.open_batches()] == [[2], [1]]
    queue.close()
    again = Queue(tmp_path / "queue.sqlite")
    assert [[member.seq for member in one.members] for one in again.open_batches()] == [[2], [1]]
    again.mine([mined(first, Verdict(2, "settled", transaction="0x1", block=6), block=6)])
    again.mine([mined(second, Verdict(1, "settled", transaction="0x1", block=6), block=7)])
    again.reopen(first.number)
    assert [[member.seq for member in one.members] for one in again.open_batches()] == [[1, 2]]
    again.close()
