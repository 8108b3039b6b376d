"""Random structs of every kind, for hypothesis; and an independent encoder to compare with."""

from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import strategies as st

from p2pos.ledger.typed_data import (
    BatchTransfer,
    Domain,
    Item,
    Lock,
    Signable,
    Spend,
    Swap,
    Transfer,
    Unlock,
    address,
    as_typed_data,
)

uint256 = st.integers(0, 2**256 - 1)
uint64 = st.integers(0, 2**64 - 1)
addresses = st.binary(min_size=20, max_size=20).map(lambda raw: address("0x" + raw.hex()))
domains = st.builds(Domain, uint256, addresses)

items = st.lists(st.builds(Item, uint256, uint256), max_size=4).map(tuple)
rows = st.lists(st.tuples(uint256, uint256), min_size=1, max_size=4)


@st.composite
def _batches(draw) -> BatchTransfer:
    ids, amounts = zip(*draw(rows), strict=True)
    return BatchTransfer(draw(addresses), draw(addresses), ids, amounts, draw(uint256), draw(uint256))


transfers = st.builds(Transfer, addresses, addresses, uint256, uint256, uint256, uint256)
batches = _batches()
locks = st.builds(Lock, addresses, addresses, uint256, uint256, uint64, uint256, uint256)
unlocks = st.builds(Unlock, addresses, addresses, uint256, uint256, uint256)
spends = st.builds(Spend, addresses, addresses, uint256, uint256, uint64, uint256, uint256)
swaps = st.builds(Swap, addresses, addresses, items, items, uint256, uint256, uint256).filter(
    lambda swap: swap.first != swap.second and (swap.first_gives or swap.second_gives)
)
structs = st.one_of(transfers, batches, locks, unlocks, spends, swaps)

A, B = address("0x" + "aa" * 20), address("0x" + "bb" * 20)
SAMPLES: tuple[Signable, ...] = (
    Transfer(A, B, 1, 2, 3, 4),
    BatchTransfer(A, B, (1, 2), (3, 4), 5, 6),
    Lock(A, B, 1, 2, 3, 4, 5),
    Unlock(A, B, 1, 2, 3),
    Spend(A, B, 1, 2, 3, 4, 5),
    Swap(A, B, (Item(1, 2), Item(3, 4)), (Item(5, 6),), 7, 8, 9),
)
"""One of each kind."""


def independent_digest(domain: Domain, struct: Signable) -> bytes:
    """eth-account's EIP-712 digest, of the JSON that other software is given."""
    full = as_typed_data(domain, struct)
    full["message"] = _numbers(full["message"])
    return bytes(_hash_eip191_message(encode_typed_data(full_message=full)))


def _numbers(value):
    """Decimal strings as numbers, which eth-account wants."""
    if isinstance(value, dict):
        return {key: _numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    return int(value) if isinstance(value, str) and value.isdecimal() else value
