import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.ledger.abi import ZERO
from p2pos.ledger.index_history import KINDS, Happening
from p2pos.ledger.story import _SENTENCES, COLUMNS, Words, inert, row, told
from tests.ledger.chains import ALICE, BOB, CAROL

A, B, C = ALICE.address, BOB.address, CAROL.address
WORDS = Words({A: "alice", B: "bob"}, {7: "Bronze Lantern", 8: "Coin"}, lambda data: f"because of {data.hex()}")
TERMS = {"cap": 0, "soulbound": False, "policy": 0, "delay": 0, "royalty_bps": 0}


def happened(kind: str, one: str = A, other: str = B, **more) -> Happening:
    fields = {"operator": "", "id": 7, "amount": 2, **more}
    return Happening(5, 60, "0x7a", 3, 0, kind, one, other, **fields)


STORIES = [
    (
        happened("class", other="", terms=TERMS),
        "alice made the class Bronze Lantern: without a limit, never to be changed",
    ),
    (
        happened(
            "class",
            other="",
            terms={"cap": 9, "soulbound": True, "policy": 2, "delay": 60, "royalty_bps": 250},
        ),
        (
            "alice made the class Bronze Lantern: at most 9 ever, never to change hands, to be changed by the issuer,"
            " 60 s after saying so, with 2.5 % owed of each sale"
        ),
    ),
    (happened("minter"), "alice let bob make up to 2 × Bronze Lantern"),
    (happened("minter", amount=0), "alice no longer let bob make Bronze Lantern"),
    (happened("made", ZERO, operator=A), "alice made 2 × Bronze Lantern for bob"),
    (happened("moved", operator=C), "alice gave bob 2 × Bronze Lantern"),
    (happened("moved", other=C, id=9), f"alice gave {C} 2 × item 0x9"),
    (
        happened("moved", other=A, id=0, amount=0),
        "alice used up a nonce, so that nothing else signed with it takes effect",
    ),
    (happened("burned", other=ZERO), "alice destroyed 2 × Bronze Lantern"),
    (happened("spent", other=B, operator=B), "world bob took 2 × Bronze Lantern from alice, as allowed"),
    (happened("spent", other=C, operator=B), f"world bob took 2 × Bronze Lantern from alice, as allowed, for {C}"),
    (
        happened("spent", other=ZERO, operator=B),
        "world bob took 2 × Bronze Lantern from alice, as allowed, and destroyed it",
    ),
    (
        happened("swapped", id=None, amount=None, first_gives=((7, 1),), second_gives=((8, 20),)),
        "alice swapped 1 × Bronze Lantern for 20 × Coin with bob",
    ),
    (
        happened("swapped", id=None, amount=None, first_gives=(), second_gives=((8, 20), (7, 1))),
        "alice swapped nothing for 20 × Coin and 1 × Bronze Lantern with bob",
    ),
    (
        happened("locked", until=120),
        "alice carried 2 × Bronze Lantern into world bob, to stay until 1970-01-01 00:02:00 UTC at the latest",
    ),
    (happened("released"), "2 × Bronze Lantern of alice's came back from world bob"),
    (
        happened("allowed", until=120),
        "alice let world bob take up to 2 × Bronze Lantern, until 1970-01-01 00:02:00 UTC",
    ),
    (happened("revoked", amount=0), "alice no longer let world bob take any Bronze Lantern"),
    (
        happened("proposed", other="", version=2, starts=120),
        "alice proposed version 2 of Bronze Lantern, to hold from 1970-01-01 00:02:00 UTC on",
    ),
    (happened("withdrawn", other="", version=2), "alice withdrew version 2 of Bronze Lantern"),
    (happened("updated", other="", version=2), "version 2 of Bronze Lantern came into force"),
    (
        happened("cancelled", other="", id=None, amount=None, nonce=9),
        "alice used up nonce 9, so that nothing else signed with it takes effect",
    ),
    (
        happened("failed", other="", id=None, amount=None, nonce=9, reason=b"\x01"),
        "what alice signed with nonce 9 had no effect: because of 01",
    ),
    (
        happened("call failed", "", "", id=None, amount=None, reason=b"\x01"),
        "something in a batch had no effect: because of 01",
    ),
    (happened("approved", id=None, amount=None), "alice let bob move every item, now and later"),
    (happened("disapproved", id=None, amount=None), "alice no longer let bob move every item"),
]


@pytest.mark.parametrize(("one", "said"), STORIES, ids=lambda one: getattr(one, "kind", ""))
def test_sentences(one, said):
    """Each thing that can happen is one plain sentence."""
    assert told(one, WORDS) == said


def test_there_is_a_sentence_for_every_kind():
    """Whatever the index tells of can be told to a person."""
    assert set(_SENTENCES) == set(KINDS) == {one.kind for one, _ in STORIES}


def test_an_update_names_its_descriptor():
    """A new version says where its descriptor is found."""
    assert "described by bafkrei" in told(happened("updated", other="", version=2, digest=bytes(32)), WORDS)


def test_a_line_of_csv():
    """A line has as many cells as the head, and whole addresses and ids."""
    line = dict(zip(COLUMNS, row(happened("moved", operator=C), WORDS), strict=True))
    assert (line["time"], line["from"], line["to"], line["operator"]) == ("1970-01-01 00:01:00 UTC", A, B, C)
    assert (line["class"], line["name"], line["amount"]) == (f"0x{7:064x}", "Bronze Lantern", "2")
    empty = dict(zip(COLUMNS, row(STORIES[-1][0], WORDS), strict=True))
    assert (empty["class"], empty["name"], empty["amount"]) == ("", "", "")


@given(st.text())
def test_no_cell_is_a_formula(name):
    """A class called “=HYPERLINK(…)” is text in whatever program opens the file."""
    words = dataclasses.replace(WORDS, items={7: name}, names={A: name})
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row(happened("moved"), words))
    assert inert(name).removeprefix("'") == name.removeprefix("'")
