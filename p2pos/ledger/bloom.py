"""A block's bloom filter of its logs: whether it can hold one of some contract. Pure.

2,048 bits in the header. A log sets three of them for its contract, each by 11 bits of the address's keccak (Ethereum's
yellow paper, 4.3.1: M). So what the filter lacks is not there; what it has may be another contract's doing.
"""

from eth_hash.auto import keccak

BITS = 2048
"""Of a filter."""


def mark(address: str) -> int:
    """The bits that every log of this contract sets, as a number."""
    digest = keccak(bytes.fromhex(address[2:]))
    bits = 0
    for at in (0, 2, 4):
        bits |= 1 << (int.from_bytes(digest[at : at + 2], "big") % BITS)
    return bits


def may_hold(bloom: int, marked: int) -> bool:
    """Whether a block with this filter can hold a log of the contract that is so marked."""
    return bloom & marked == marked
