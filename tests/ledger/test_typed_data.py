import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import UserError
from p2pos.ledger.typed_data import MAX_ITEMS, TYPES, Transfer, digest
from tests.ledger.structs import SAMPLES, A, B, domains, independent_digest, structs, transfers

ABI_TYPES = {
    # word for word what the contract's type-hash constants are made of
    "Transfer(address from,address to,uint256 id,uint256 amount,uint256 nonce,uint256 deadline)",
    "BatchTransfer(address from,address to,uint256[] ids,uint256[] amounts,uint256 nonce,uint256 deadline)",
    "Lock(address owner,address world,uint256 id,uint256 amount,uint64 until,uint256 nonce,uint256 deadline)",
    "Unlock(address owner,address world,uint256 id,uint256 nonce,uint256 deadline)",
    "Spend(address owner,address world,uint256 id,uint256 max,uint64 until,uint256 nonce,uint256 deadline)",
    (
        "Swap(address first,address second,Item[] firstGives,Item[] secondGives,uint256 firstNonce,"
        "uint256 secondNonce,uint256 deadline)Item(uint256 id,uint256 amount)"
    ),
}


def test_type_strings():
    """The type strings that follow from the fields are the contract's."""
    assert {kind.TYPE for kind in TYPES.values()} == ABI_TYPES


@given(domains, structs)
def test_digest_is_that_of_eth_account(domain, struct):
    """Our hand-written encoding gives the digest of an independent EIP-712 implementation."""
    assert digest(domain, struct) == independent_digest(domain, struct)


@given(structs)
def test_message_reads_back(struct):
    """A struct survives the way through its message of strings."""
    assert type(struct).from_message(struct.message()) == struct


@given(domains, domains, transfers)
def test_domains_do_not_mix(one, other, struct):
    """A signature for one chain and contract is none for another."""
    assert (digest(one, struct) == digest(other, struct)) == (one == other)


@pytest.mark.parametrize("struct", SAMPLES, ids=lambda one: type(one).__name__)
def test_who_signs(struct):
    """Owners sign for what is theirs, a world for a release, both for a swap, each with a nonce of their own."""
    expected = {"Unlock": ((B, 2),), "Swap": ((A, 7), (B, 8)), "BatchTransfer": ((A, 5),), "Transfer": ((A, 3),)}
    assert struct.signers == expected.get(type(struct).__name__, ((A, 4),))


@pytest.mark.parametrize("struct", SAMPLES, ids=lambda one: type(one).__name__)
def test_a_message_must_have_exactly_its_fields(struct):
    """A field that is missing or unknown is named."""
    message = struct.message()
    for name in message:
        with pytest.raises(UserError, match=f"lacks {name}"):
            type(struct).from_message({key: value for key, value in message.items() if key != name})
    with pytest.raises(UserError, match="unknown fields memo"):
        type(struct).from_message({**message, "memo": "x"})


@given(st.sampled_from(SAMPLES), st.data(), st.none() | st.lists(st.integers() | st.none()) | st.text() | st.floats())
def test_a_bad_field_is_named(struct, data, value):
    """Whatever stands in a field is taken, or refused with the field's name."""
    name = data.draw(st.sampled_from(list(struct.message())))
    try:
        found = type(struct).from_message({**struct.message(), name: value})
    except UserError as exc:
        assert any(one in str(exc) for one in (name, "ids", "amounts", "firstGives"))  # noqa: PT017 - it may be taken
    else:
        assert type(found) is type(struct)


@pytest.mark.parametrize(
    ("kind", "changes", "fault"),
    [
        ("BatchTransfer", {"ids": [], "amounts": []}, "ids: a batch of nothing"),
        ("BatchTransfer", {"ids": ["1"]}, "amounts: 2 amounts for 1 ids"),
        ("BatchTransfer", {"ids": ["1"] * (MAX_ITEMS + 1)}, "ids: 33 are more than 32"),
        ("BatchTransfer", {"ids": ["1", "x"]}, r"ids\[1\]: x is not a whole number"),
        ("Lock", {"until": str(1 << 64)}, "until: "),
        ("Swap", {"firstGives": [], "secondGives": []}, "neither side gives anything"),
        ("Swap", {"second": A}, "second: nobody swaps with themselves"),
        ("Swap", {"firstGives": [{"id": "1", "amount": "-1"}]}, r"firstGives\[0\].amount: -1"),
        ("Swap", {"firstGives": [{"id": "1", "amount": "1", "memo": ""}]}, r"firstGives\[0\] has unknown fields memo"),
        ("Swap", {"firstGives": [["1", "1"]]}, r"firstGives\[0\] is not a JSON object"),
        ("Swap", {"firstGives": {"id": "1"}}, "firstGives: want a list"),
    ],
)
def test_what_makes_no_sense_is_refused(kind, changes, fault):
    """Fields that are each sound and together are not, and faults deep inside, are named."""
    message = next(one for one in SAMPLES if type(one).__name__ == kind).message()
    with pytest.raises(UserError, match=fault):
        TYPES[kind].from_message({**message, **changes})


def test_a_struct_does_not_change():
    """What is shown, signed and submitted is the same object, so it is frozen."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Transfer(A, B, 1, 2, 3, 4).amount = 5
