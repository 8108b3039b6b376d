import pytest
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import UserError
from p2pos.ledger.typed_data import Domain, Lock, Transfer, address, digest, unsigned

uint256 = st.integers(0, 2**256 - 1)
addresses = st.binary(min_size=20, max_size=20).map(lambda raw: address("0x" + raw.hex()))
domains = st.builds(Domain, uint256, addresses)
transfers = st.builds(Transfer, addresses, addresses, uint256, uint256, uint256, uint256)
locks = st.builds(Lock, addresses, addresses, uint256, uint256, st.integers(0, 2**64 - 1), uint256, uint256)


def independent_digest(domain, struct) -> bytes:
    kind, _, fields = struct.TYPE.rstrip(")").partition("(")
    types = {kind: [dict(zip(("type", "name"), field.split(" "), strict=True)) for field in fields.split(",")]}
    message = {
        field["name"]: int(value) if field["type"].startswith("uint") else value
        for field, value in zip(types[kind], struct.message().values(), strict=True)
    }
    where = {
        "name": "p2pos",
        "version": "1",
        "chainId": domain.chain_id,
        "verifyingContract": domain.contract,
    }
    return bytes(_hash_eip191_message(encode_typed_data(where, types, message)))


@given(domains, transfers | locks)
def test_digest_is_that_of_eth_account(domain, struct):
    """Our hand-written encoding gives the digest of an independent EIP-712 implementation."""
    assert digest(domain, struct) == independent_digest(domain, struct)


@given(transfers | locks)
def test_message_reads_back(struct):
    """A struct survives the way through its message of strings."""
    assert type(struct).from_message(struct.message()) == struct


@given(domains, domains, transfers)
def test_domains_do_not_mix(one, other, struct):
    """A signature for one chain and contract is none for another."""
    assert (digest(one, struct) == digest(other, struct)) == (one == other)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("alice", "not an address"),
        ("0x12", "not an address"),
        ("0x" + "g" * 40, "not an address"),
        ("0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "wrong checksum"),
        (None, "not an address"),
    ],
)
def test_bad_addresses_are_refused(text, fault):
    """An address with a typing error is refused, and said why."""
    with pytest.raises(UserError, match=fault):
        address(text)


def test_lower_case_gains_its_checksum():
    """An all-lower-case address is taken and given EIP-55's checksum (its first test vector)."""
    assert address("0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed") == "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


@pytest.mark.parametrize("value", [-1, 1 << 256, True, 1.0, "1.0", "", "٣", "9" * 79, None])
def test_odd_numbers_are_refused(value):
    """What is not a whole number of 256 bits is refused."""
    with pytest.raises(UserError, match="not a whole number"):
        unsigned(value, "amount")


def test_a_message_must_have_exactly_its_fields():
    """A field that is missing or unknown is named."""
    message = Transfer(*[address("0x" + "11" * 20)] * 2, 1, 2, 3, 4).message()
    with pytest.raises(UserError, match="lacks amount"):
        Transfer.from_message({key: value for key, value in message.items() if key != "amount"})
    with pytest.raises(UserError, match="unknown fields memo"):
        Transfer.from_message({**message, "memo": "x"})
