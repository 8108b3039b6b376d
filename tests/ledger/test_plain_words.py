import pytest
from hypothesis import given

from p2pos.ledger.plain_words import sentence, when
from p2pos.ledger.typed_data import BatchTransfer, Item, Lock, Spend, Swap, Transfer, Unlock
from tests.ledger.chains import ALICE, BOB
from tests.ledger.structs import structs

A, B = ALICE.address, BOB.address
NAMES = {A: "alice", B: "bob"}
ITEMS = {7: "Bronze Lantern", 8: "Coin"}
SENTENCES = [
    (Transfer(A, B, 7, 1, 5, 2_000), "alice gives bob 1 × Bronze Lantern"),
    (
        Transfer(A, A, 0, 0, 5, 2_000),
        "alice uses up nonce 5, so that nothing else signed with it takes effect",
    ),
    (
        BatchTransfer(A, B, (7, 8, 9), (1, 20, 3), 5, 2_000),
        "alice gives bob 1 × Bronze Lantern, 20 × Coin and 3 × item 0x9, all or none",
    ),
    (
        Lock(A, B, 7, 2, 60, 5, 2_000),
        "alice lets world bob hold 2 × Bronze Lantern in place until 1970-01-01 00:01:00 UTC",
    ),
    (Unlock(A, B, 7, 5, 2_000), "world bob releases all of alice's Bronze Lantern that it holds in place"),
    (
        Spend(A, B, 8, 20, 60, 5, 2_000),
        (
            "alice lets world bob take up to 20 × Coin for good, until 1970-01-01 00:01:00 UTC, in place of what it"
            " might take of them before"
        ),
    ),
    (Spend(A, B, 8, 0, 0, 5, 2_000), "alice no longer lets world bob take any Coin"),
    (
        Swap(A, B, (Item(7, 1),), (Item(8, 20), Item(7, 2)), 5, 6, 2_000),
        "alice gives bob 1 × Bronze Lantern, and bob gives alice 20 × Coin and 2 × Bronze Lantern, both or neither",
    ),
    (
        Swap(A, B, (), (Item(8, 20),), 5, 6, 2_000),
        "alice gives bob nothing, and bob gives alice 20 × Coin, both or neither",
    ),
]


@pytest.mark.parametrize(("struct", "said"), SENTENCES)
def test_sentences(struct, said):
    """What is signed reads as one plain sentence, with who may submit it and until when."""
    late = "anyone may submit this until 1970-01-01 00:33:20 UTC"
    assert sentence(struct, names=NAMES, items=ITEMS) == f"{said}; {late}"


@given(structs)
def test_nothing_is_shortened(struct):
    """Strangers' addresses and unknown items are shown whole, because a shortened one can be imitated."""
    said = sentence(struct, names={}, items={})
    assert all(signer in said for signer, _ in struct.signers)
    assert "\n" not in said


def test_a_date_beyond_dates():
    """A deadline past the year 9999 can still be shown."""
    assert when(2**256 - 1) == "the end of time"
