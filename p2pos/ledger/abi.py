"""Solidity's ABI and addresses, by hand: what is sent in hundreds a second must not pass through a general encoder.

Written from "Contract ABI Specification" (docs.soliditylang.org); tests compare it with eth-abi. Pure.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

from eth_hash.auto import keccak

from p2pos.errors import UserError
from p2pos.types import Address

MAX_UINT256 = (1 << 256) - 1
MAX_UINT128 = (1 << 128) - 1
MAX_UINT64 = (1 << 64) - 1

ZERO = Address("0x0000000000000000000000000000000000000000")
"""No account: where units come from when they are made, and where they go when they are burned."""

KNOWN_ADDRESSES = 1 << 16
"""Checksummed addresses remembered, 20 MB at most: a checksum costs a keccak, 12 µs, and an account comes often."""

_HIGH = frozenset("89abcdef")


@functools.lru_cache(maxsize=KNOWN_ADDRESSES)
def checksummed(digits: str) -> Address:
    """The address of 40 lower-case hex digits, with EIP-55's checksum. Raises ValueError where they are none."""
    raw = bytes.fromhex(digits)
    if len(raw) != 20:
        raise ValueError("an address has 20 bytes")
    marks = keccak(digits.encode()).hex()
    return Address("0x" + "".join([c.upper() if m in _HIGH else c for c, m in zip(digits, marks, strict=False)]))


def address(text: object, what: str = "address") -> Address:
    """An address with its checksum. All-lower-case is taken; a wrong mixed-case checksum is a typing error.

    Raises UserError that names `what`.
    """
    if not isinstance(text, str) or len(text) != 42 or not text.startswith("0x"):
        raise UserError(f"{what}: “{_shown(text)}” is not an address", hint="write 0x and 40 hex digits")
    digits = text[2:].lower()
    if not set(digits) <= _HEX:
        raise UserError(f"{what}: “{_shown(text)}” is not an address", hint="write 0x and 40 hex digits")
    found = checksummed(digits)
    if text[2:] not in {digits, found[2:]}:
        raise UserError(f"{what}: {text} has a wrong checksum", hint="copy it again; one character is off")
    return found


_HEX = frozenset("0123456789abcdef")


def unsigned(value: object, what: str, most: int = MAX_UINT256) -> int:
    """A whole number 0 … `most`, from an int or a string of decimal digits. Raises UserError that names `what`."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 78:  # 2^256 has 78 digits
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        shown = "a number of more than 256 bits" if type(value) is int and abs(value) > MAX_UINT256 else _shown(value)
        raise UserError(f"{what}: {shown} is not a whole number from 0 to {most}")
    return value


def _shown(value: object) -> str:
    """A stranger's value as it may stand in one line: what is no short text is named by its type."""
    if isinstance(value, str):
        return value[:100] if value.isprintable() else ascii(value[:100])[1:-1]
    return str(value)[:100] if value is None or type(value) in {int, float, bool} else f"a {type(value).__name__}"


# ---- words


def word(value: int) -> bytes:
    """An unsigned number as 32 bytes. Raises OverflowError where it has more than 256 bits."""
    return value.to_bytes(32, "big")


def address_word(value: str) -> bytes:
    """An address as 32 bytes."""
    return _TWELVE + bytes.fromhex(value[2:])


_TWELVE = bytes(12)


class Part(NamedTuple):
    """An encoded value inside a tuple."""

    data: bytes
    dynamic: bool
    """Its place is held by an offset, and it stands behind."""


def static(data: bytes) -> Part:
    """What stands where it is: a word, or a struct of words."""
    return Part(data, dynamic=False)


def dynamic(data: bytes) -> Part:
    """What has a length of its own."""
    return Part(data, dynamic=True)


def join(parts: Sequence[Part]) -> bytes:
    """A tuple: heads, then the tails that they point to."""
    at = sum(32 if part.dynamic else len(part.data) for part in parts)
    heads, tails = [], []
    for data, is_dynamic in parts:
        if is_dynamic:
            heads.append(word(at))
            tails.append(data)
            at += len(data)
        else:
            heads.append(data)
    return b"".join(heads + tails)


def byte_string(data: bytes) -> bytes:
    """`bytes`: its length, and its bytes filled up to whole words."""
    return word(len(data)) + data + bytes(-len(data) % 32)


def array(parts: Sequence[Part]) -> bytes:
    """`T[]`: how many, then as a tuple of them."""
    return word(len(parts)) + join(parts)
