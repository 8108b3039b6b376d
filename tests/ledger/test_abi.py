import pytest
from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import UserError
from p2pos.ledger import abi
from p2pos.ledger.abi import address, unsigned


@given(st.binary(min_size=20, max_size=20))
def test_checksums_are_those_of_eip_55(raw):
    """Our checksum is that of an independent implementation."""
    assert abi.checksummed(raw.hex()) == to_checksum_address(raw)


@given(st.lists(st.binary(max_size=70), max_size=5), st.integers(0, 2**256 - 1))
def test_joined_parts_are_those_of_eth_abi(strings, number):
    """Heads, offsets, tails and filling are those of an independent encoder."""
    ours = abi.join(
        [
            abi.dynamic(abi.array([abi.dynamic(abi.byte_string(one)) for one in strings])),
            abi.static(abi.word(number)),
            abi.dynamic(abi.array([abi.static(abi.word(len(one))) for one in strings])),
        ]
    )
    assert ours == encode(("bytes[]", "uint256", "uint256[]"), (strings, number, list(map(len, strings))))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("alice", "not an address"),
        ("0x12", "not an address"),
        ("0x" + "g" * 40, "not an address"),
        ("0x" + "\u0661" * 40, "not an address"),
        ("0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "wrong checksum"),
        ("0x5AAEB6053F3E94C9B9A09F33669435E7EF1BEAED", "wrong checksum"),
        (None, "not an address"),
        ({"a": 1}, "“a dict” is not an address"),
    ],
)
def test_bad_addresses_are_refused(text, fault):
    """An address with a typing error is refused, and said why."""
    with pytest.raises(UserError, match=fault):
        address(text)


def test_lower_case_gains_its_checksum():
    """An all-lower-case address is taken and given EIP-55's checksum (its first test vector)."""
    assert address("0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed") == "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


@pytest.mark.parametrize(
    "value",
    [-1, 1 << 256, 10**5000, -(10**5000), True, 1.0, "1.0", "", "٣", "9" * 79, None, [1], "\ud800\n"],
    ids=lambda value: type(value).__name__,
)
def test_odd_numbers_are_refused(value):
    """What is not a whole number of 256 bits is refused, in one line that can be printed."""
    with pytest.raises(UserError, match="not a whole number") as caught:
        unsigned(value, "amount")
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith("amount: ")
