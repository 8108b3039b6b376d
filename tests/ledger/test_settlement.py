import dataclasses

import pytest

from p2pos.ledger.events import IntentFailed, LockChanged, Moved, NonceSpent, Place
from p2pos.ledger.settlement import failure, took_effect
from p2pos.ledger.typed_data import Lock, Transfer
from tests.ledger.chains import ALICE, BOB, CAROL

TRANSFER = Transfer(ALICE.address, BOB.address, 7, 2, 5, 99)
LOCK = Lock(ALICE.address, BOB.address, 7, 2, 60, 5, 99)


def place(log: int) -> Place:
    return Place(1, "0xb", "0x7", log)


SPENT = NonceSpent(place(3), ALICE.address, 5, cancelled=False)
MOVED = Moved(place(4), 0, CAROL.address, ALICE.address, BOB.address, 7, 2)


def test_a_transfer_that_took_effect():
    """The nonce and right after it the movement that was signed: it took effect."""
    assert took_effect(TRANSFER, [SPENT, MOVED])


def test_a_lock_that_took_effect():
    """Likewise for a lock."""
    held = LockChanged(place(4), ALICE.address, BOB.address, 7, 2, 60)
    assert took_effect(LOCK, [SPENT, held])
    assert not took_effect(LOCK, [SPENT, dataclasses.replace(held, until=61)])


@pytest.mark.parametrize(
    "events",
    [
        [],
        [SPENT],
        [MOVED],
        [SPENT, dataclasses.replace(MOVED, place=place(5))],
        [SPENT, dataclasses.replace(MOVED, amount=1)],
        [SPENT, dataclasses.replace(MOVED, target=CAROL.address)],
        [dataclasses.replace(SPENT, nonce=6), MOVED],
        [dataclasses.replace(SPENT, cancelled=True), MOVED],
        [MOVED, SPENT],
    ],
)
def test_what_does_not_prove_it(events):
    """Another movement, another nonce, or one that a hook put elsewhere proves nothing."""
    assert not took_effect(TRANSFER, events)


def test_a_failure_carries_its_reason():
    """IntentFailed for this owner and nonce gives the revert data; another's does not."""
    failed = IntentFailed(place(3), ALICE.address, 5, b"why")
    assert failure(TRANSFER, [failed]) == b"why"
    assert failure(TRANSFER, [dataclasses.replace(failed, nonce=6)]) is None
