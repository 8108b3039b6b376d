import itertools

import pytest

from p2pos.ledger.events import CallFailed, IntentFailed, LockChanged, Moved, NonceSpent, Place, SpendAllowed, Swapped
from p2pos.ledger.settlement import Outcome
from p2pos.ledger.typed_data import BatchTransfer, Item, Lock, Spend, Swap, Transfer, Unlock
from tests.ledger.chains import ALICE, BOB, CAROL

A, B = ALICE.address, BOB.address
TRANSFER = Transfer(A, B, 7, 2, 5, 99)
BATCH = BatchTransfer(A, B, (7, 8), (2, 3), 5, 99)
LOCK = Lock(A, B, 7, 2, 60, 5, 99)
UNLOCK = Unlock(A, B, 7, 5, 99)
SPEND = Spend(A, B, 7, 2, 60, 5, 99)
SWAP = Swap(A, B, (Item(7, 2),), (Item(8, 3), Item(9, 1)), 5, 6, 99)


def place(log: int) -> Place:
    return Place(1, "0xb", "0x7", log)


SPENT = NonceSpent(place(3), A, 5, cancelled=False)
MOVED = Moved(place(4), 0, CAROL.address, A, B, 7, 2)
BATCH_MOVED = [MOVED, Moved(place(4), 1, CAROL.address, A, B, 8, 3)]
SWAPPED = [
    NonceSpent(place(4), B, 6, cancelled=False),
    Swapped(place(5), A, B, 5, 6),
    Moved(place(6), 0, CAROL.address, A, B, 7, 2),
    Moved(place(7), 0, CAROL.address, B, A, 8, 3),
    Moved(place(7), 1, CAROL.address, B, A, 9, 1),
]
DEEDS = [
    (TRANSFER, [MOVED]),
    (BATCH, BATCH_MOVED),
    (LOCK, [LockChanged(place(4), A, B, 7, 2, 60)]),
    (SPEND, [SpendAllowed(place(4), A, B, 7, 2, 60)]),
    (SWAP, SWAPPED),
]
BY_KIND = {"ids": lambda one: type(one).__name__ if hasattr(one, "signers") else ""}


@pytest.mark.parametrize(("struct", "deed"), DEEDS, **BY_KIND)
def test_what_took_effect(struct, deed):
    """The nonce and right after it what was signed: it took effect, whatever happened before and after."""
    other = NonceSpent(place(1), CAROL.address, 5, cancelled=False)
    assert Outcome([SPENT, *deed]).took_effect(struct)
    assert Outcome([other, SPENT, *deed, MOVED._replace(place=place(50))]).took_effect(struct)


@pytest.mark.parametrize(("struct", "deed"), DEEDS, **BY_KIND)
def test_every_event_and_every_field_of_it_counts(struct, deed):
    """Without one of the events, or with one number or name changed, nothing is proven."""
    for gone in range(len(deed)):
        assert not Outcome([SPENT, *deed[:gone], *deed[gone + 1 :]]).took_effect(struct)
    for at, event in enumerate(deed):
        for field in event._fields:
            if field in {"place", "position", "operator"}:
                continue
            value = getattr(event, field)
            changed = event._replace(**{field: CAROL.address if isinstance(value, str) else value + 1})
            assert not Outcome([SPENT, *deed[:at], changed, *deed[at + 1 :]]).took_effect(struct), (event, field)


@pytest.mark.parametrize(("struct", "deed"), DEEDS, **BY_KIND)
def test_what_comes_later_proves_nothing(struct, deed):
    """A deed that does not follow its nonce at once could be a hook's doing."""
    later = [event._replace(place=place(event.place.log + 1)) for event in deed]
    assert not Outcome([SPENT, *later]).took_effect(struct)
    assert not Outcome([SPENT._replace(cancelled=True), *deed]).took_effect(struct)
    assert not Outcome([SPENT._replace(nonce=6), *deed]).took_effect(struct)
    assert not Outcome([*deed, SPENT]).took_effect(struct)
    assert not Outcome([]).took_effect(struct)


def test_a_release_is_by_the_world():
    """An unlock is proven by the world's nonce and the release, of whatever amount."""
    released = LockChanged(place(4), A, B, 7, 2, 0)
    by_world = NonceSpent(place(3), B, 5, cancelled=False)
    assert Outcome([by_world, released]).took_effect(UNLOCK)
    assert not Outcome([SPENT, released]).took_effect(UNLOCK)
    assert not Outcome([by_world, released._replace(until=60)]).took_effect(UNLOCK)


def test_a_spend_taken_back():
    """An allowance of nothing has no end, whatever was signed."""
    revoked = SpendAllowed(place(4), A, B, 7, 0, 0)
    assert Outcome([SPENT, revoked]).took_effect(Spend(A, B, 7, 0, 60, 5, 99))
    assert not Outcome([SPENT, revoked]).took_effect(SPEND)


@pytest.mark.parametrize("side", ["first_gives", "second_gives"])
def test_a_swap_in_which_one_side_gives_nothing(side):
    """A side that gives nothing emits nothing."""
    fields = {"first_gives": SWAP.first_gives, "second_gives": SWAP.second_gives} | {side: ()}
    swap = Swap(A, B, *fields.values(), 5, 6, 99)
    moves = [one for one in SWAPPED[2:] if (one.source == A) == (side == "second_gives")]
    logs = {log: 6 + at for at, (log, _) in enumerate(itertools.groupby(moves, lambda one: one.place.log))}
    moves = [one._replace(place=place(logs[one.place.log])) for one in moves]
    assert Outcome([SPENT, *SWAPPED[:2], *moves]).took_effect(swap)
    assert not Outcome([SPENT, *SWAPPED[:2]]).took_effect(swap)


def test_a_failure_carries_its_reason():
    """IntentFailed for this owner and nonce, or CallFailed for this position, gives the revert data."""
    failed = IntentFailed(place(3), A, 5, b"why")
    assert Outcome([failed]).failure(TRANSFER, 0) == b"why"
    assert Outcome([failed._replace(reason=b"")]).failure(TRANSFER, 0) == b""
    assert Outcome([failed._replace(nonce=6)]).failure(TRANSFER, 0) is None
    both = [CallFailed(place(3), 1, b"x"), CallFailed(place(4), 2, b"why")]
    assert Outcome(both).failure(TRANSFER, 2) == b"why"
    assert Outcome(both).failure(TRANSFER, 0) is None
