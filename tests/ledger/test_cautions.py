import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.ledger import cautions
from p2pos.ledger.abi import checksummed
from p2pos.ledger.cautions import Known
from p2pos.ledger.typed_data import BatchTransfer, Domain, Item, Lock, Spend, Swap, Transfer, Unlock
from tests.ledger.chains import ALICE, BOB, CAROL

NOW, DAY = 1_800_000_000, 86_400
HERE = Domain(31337, CAROL.address)
KNOWN = Known({BOB.address: "bob"}, items={7: "Lantern"}, domain=HERE)
SOON = NOW + DAY


def said(struct, known: Known = KNOWN, domain: Domain = HERE) -> str:
    return "\n".join(cautions.of(domain, struct, known, now_s=NOW))


def gift(to=BOB.address, id_=7, amount=1, deadline=SOON) -> Transfer:
    return Transfer(ALICE.address, to, id_, amount, 1, deadline)


def impostor(of: str) -> str:
    """An address that begins and ends as another does."""
    return checksummed(of[2:7].lower() + "0" * 30 + of[-5:].lower())


def test_nothing_unusual():
    """A gift to a known person, of a known class, for a day, has nothing to be warned of."""
    assert not said(gift())


@pytest.mark.parametrize(
    ("struct", "line"),
    [
        (gift(deadline=NOW + 40 * DAY), "40 days from now"),
        (gift(deadline=NOW - 1), "its time was over"),
        (gift(deadline=1 << 255), "until the end of time"),
        (gift(id_=8), "nothing is known here of class 0x8"),
        (gift(amount=1 << 200), "more than there is of anything"),
        (gift(to=CAROL.address), "the asset contract itself; what is given to it is lost"),
        (Spend(ALICE.address, BOB.address, 7, (1 << 128) - 1, SOON, 1, SOON), "WITHOUT LIMIT"),
        (Spend(ALICE.address, BOB.address, 7, 5, NOW + 99 * DAY, 1, SOON), "has this power until"),
        (Lock(ALICE.address, BOB.address, 7, 1, NOW + 99 * DAY, 1, SOON), "99 days from now"),
        (BatchTransfer(ALICE.address, BOB.address, (7, 9), (1, 1), 1, SOON), "class 0x9"),
        (Swap(ALICE.address, BOB.address, (Item(7, 1),), (Item(10, 1),), 1, 2, SOON), "class 0xa"),
        (Unlock(BOB.address, ALICE.address, 11, 1, SOON), "class 0xb"),
    ],
)
def test_what_is_unusual_is_said(struct, line):
    """Amounts without end, far dates, unknown classes and the contract as receiver are each said in a line."""
    assert line in said(struct)


def test_another_contract_than_the_settings():
    """What counts elsewhere than the settings say is said first; without settings there is nothing to compare."""
    other = Domain(1, ALICE.address)
    assert said(gift(), domain=other).startswith(f"this counts on chain 1 at contract {ALICE.address}, not on chain")
    assert "this counts" not in said(gift(), Known({}, items={7: "Lantern"}), domain=other)


def test_a_soulbound_class():
    """What never changes hands is said to; releasing it is no change of hands."""
    known = Known({BOB.address: "bob"}, items={7: "Medal"}, soulbound=frozenset({7}), domain=HERE)
    assert "Medal is soulbound" in said(gift(), known)
    assert "soulbound" not in said(Unlock(BOB.address, ALICE.address, 7, 1, SOON), known)


def test_a_cancellation_needs_no_class():
    """Using up a nonce is about no class, so none is unknown."""
    assert not said(Transfer(ALICE.address, ALICE.address, 0, 0, 5, SOON))


def test_a_forged_address():
    """An address that begins and ends like a contact's gets a loud line with both addresses."""
    forged = impostor(BOB.address)
    text = said(gift(to=forged))
    assert f"{forged} only LOOKS like bob {BOB.address}" in text
    assert "ANOTHER address" in text


def test_a_forged_address_of_somebody_without_a_name():
    """So does one like an address that something was given to before; the address itself has no line."""
    known = Known({}, received=frozenset({BOB.address}), items={7: "Lantern"}, domain=HERE)
    assert "for which something was signed before" in said(gift(to=impostor(BOB.address)), known)
    assert not said(gift(to=BOB.address), known)


@given(st.binary(min_size=20, max_size=20), st.binary(min_size=20, max_size=20))
def test_likeness(one, other):
    """Two addresses are alike where three digits at each end are, and they are not the same; it has no sides."""
    a, b = checksummed(one.hex()), checksummed(other.hex())
    expected = one != other and one.hex()[:3] == other.hex()[:3] and one.hex()[-3:] == other.hex()[-3:]
    assert cautions.alike(a, b) == cautions.alike(b, a) == expected
    assert not cautions.alike(a, a)
    assert cautions.alike(a, impostor(a)) == (a != impostor(a))
