import pytest
from eth_account import Account
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import InternalError
from p2pos.ledger.signer import KeySigner
from p2pos.ledger.transaction import read

ACCOUNT = Account.from_key(keccak(b"a signer of transactions"))
numbers = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1))
transactions = st.fixed_dictionaries(
    {
        "type": st.just(2),
        "chainId": st.integers(1, 2**32),
        "nonce": numbers,
        "to": st.one_of(st.just(b""), st.just(ACCOUNT.address)),
        "value": st.integers(0, 2**128),
        "data": st.one_of(st.binary(max_size=70), st.binary(min_size=250, max_size=300)),
        "gas": numbers,
        "maxFeePerGas": numbers,
        "maxPriorityFeePerGas": numbers,
    }
)


@given(transactions)
def test_bytes_and_hash_are_those_of_eth_account(fields):
    """A transaction signed here is, byte for byte, the one that eth-account signs."""
    ours, theirs = KeySigner(ACCOUNT).sign_transaction(fields), ACCOUNT.sign_transaction(fields)
    assert ours.raw == bytes(theirs.raw_transaction)
    assert ours.hash == "0x" + bytes(theirs.hash).hex()


@given(transactions)
def test_a_signed_transaction_can_be_read_back(fields):
    """Its fields come back from its bytes, so that it can be signed again with another fee."""
    found = read(KeySigner(ACCOUNT).sign_transaction(fields).raw)
    if fields["to"]:
        found["to"] = ACCOUNT.address if found["to"] == ACCOUNT.address.lower() else found["to"]
    assert found == fields


@pytest.mark.parametrize("raw", [b"", b"\x02", b"\x01\xc0", b"\x02\xc0", b"\x02" + bytes([0x83, 1, 2, 3])])
def test_other_bytes_are_no_transaction_of_ours(raw):
    """What this code did not make is a damaged file."""
    with pytest.raises(InternalError):
        read(raw)
