"""EIP-712: the two things an owner signs, and the digest that stands for them. Pure.

The encoding is written out here by hand, because each struct is a row of 32-byte words and nothing more; the
tests compare every digest with eth-account's independent encoder. Start reading at `Transfer`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from eth_hash.auto import keccak
from eth_utils.address import is_checksum_address, to_checksum_address

from p2pos.errors import UserError
from p2pos.types import Address

NAME = "p2pos"
VERSION = "1"
"""Name and version of the signing domain, fixed in the contract's constructor."""

MAX_UINT256 = (1 << 256) - 1
MAX_UINT64 = (1 << 64) - 1

_DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
_DOMAIN_HEAD = keccak(_DOMAIN_TYPE) + keccak(NAME.encode()) + keccak(VERSION.encode())


def address(text: object, what: str = "address") -> Address:
    """An address with its checksum. All-lower-case is taken; a wrong mixed-case checksum is a typing error.

    Raises UserError that names `what`.
    """
    if not isinstance(text, str) or len(text) != 42 or not text.startswith("0x"):
        raise UserError(f"{what}: “{text}” is not an address", hint="write 0x and 40 hex digits")
    try:
        checksummed = to_checksum_address(text)
    except ValueError as exc:
        raise UserError(f"{what}: “{text}” is not an address", hint="write 0x and 40 hex digits") from exc
    if text[2:] != text[2:].lower() and not is_checksum_address(text):
        raise UserError(f"{what}: {text} has a wrong checksum", hint="copy it again; one character is off")
    return Address(checksummed)


def unsigned(value: object, what: str, most: int = MAX_UINT256) -> int:
    """A whole number 0 … `most`, from an int or a string of decimal digits. Raises UserError that names `what`."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 78:  # 2^256 has 78 digits
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise UserError(f"{what}: {str(value)[:100]} is not a whole number from 0 to {most}")
    return value


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _address_word(value: str) -> bytes:
    return bytes(12) + bytes.fromhex(value[2:])


@dataclass(frozen=True, slots=True)
class Domain:
    """Where a signature counts: one contract on one chain."""

    chain_id: int
    contract: Address

    def separator(self) -> bytes:
        """32 bytes that differ for every chain and contract."""
        return keccak(_DOMAIN_HEAD + _word(self.chain_id) + _address_word(self.contract))


@dataclass(frozen=True, slots=True)
class Transfer:
    """The owner gives `amount` of item class `id` to another; anyone may submit it until `deadline`."""

    TYPE: ClassVar[str] = "Transfer(address from,address to,uint256 id,uint256 amount,uint256 nonce,uint256 deadline)"
    TYPE_HASH: ClassVar[bytes] = keccak(TYPE.encode())

    owner: Address
    """The `from` of the signed struct: whose items move, and who must have signed."""
    to: Address
    id: int
    amount: int
    nonce: int
    """Any number the owner has not used; there is no order."""
    deadline: int
    """Seconds since the epoch; the last second in which the contract takes it."""

    def struct_hash(self) -> bytes:
        """EIP-712's hashStruct."""
        return keccak(
            self.TYPE_HASH
            + _address_word(self.owner)
            + _address_word(self.to)
            + b"".join(map(_word, (self.id, self.amount, self.nonce, self.deadline)))
        )

    def message(self) -> dict[str, str]:
        """The fields under their signed names; numbers as decimal strings, because JSON's end at 2⁵³."""
        return {
            "from": self.owner,
            "to": self.to,
            "id": str(self.id),
            "amount": str(self.amount),
            "nonce": str(self.nonce),
            "deadline": str(self.deadline),
        }

    def arguments(self) -> tuple[Any, ...]:
        """The fields as the contract's struct takes them."""
        return self.owner, self.to, self.id, self.amount, self.nonce, self.deadline

    @classmethod
    def from_message(cls, message: Mapping[str, object]) -> Self:
        """Read `message()` back. Raises UserError at the first field that is missing, unknown or out of range."""
        _exactly(message, ("from", "to", "id", "amount", "nonce", "deadline"))
        return cls(
            owner=address(message["from"], "from"),
            to=address(message["to"], "to"),
            id=unsigned(message["id"], "id"),
            amount=unsigned(message["amount"], "amount"),
            nonce=unsigned(message["nonce"], "nonce"),
            deadline=unsigned(message["deadline"], "deadline"),
        )


@dataclass(frozen=True, slots=True)
class Lock:
    """The owner lets `world` hold `amount` of item class `id` in place until `until`."""

    TYPE: ClassVar[str] = (
        "Lock(address owner,address world,uint256 id,uint256 amount,uint64 until,uint256 nonce,uint256 deadline)"
    )
    TYPE_HASH: ClassVar[bytes] = keccak(TYPE.encode())

    owner: Address
    world: Address
    id: int
    amount: int
    until: int
    """Seconds since the epoch; from then on anyone may release the lock."""
    nonce: int
    deadline: int
    """Seconds since the epoch; the last second in which the contract takes it."""

    def struct_hash(self) -> bytes:
        """EIP-712's hashStruct."""
        return keccak(
            self.TYPE_HASH
            + _address_word(self.owner)
            + _address_word(self.world)
            + b"".join(map(_word, (self.id, self.amount, self.until, self.nonce, self.deadline)))
        )

    def message(self) -> dict[str, str]:
        """The fields under their signed names; numbers as decimal strings, because JSON's end at 2⁵³."""
        return {
            "owner": self.owner,
            "world": self.world,
            "id": str(self.id),
            "amount": str(self.amount),
            "until": str(self.until),
            "nonce": str(self.nonce),
            "deadline": str(self.deadline),
        }

    def arguments(self) -> tuple[Any, ...]:
        """The fields as the contract's struct takes them."""
        return self.owner, self.world, self.id, self.amount, self.until, self.nonce, self.deadline

    @classmethod
    def from_message(cls, message: Mapping[str, object]) -> Self:
        """Read `message()` back. Raises UserError at the first field that is missing, unknown or out of range."""
        _exactly(message, ("owner", "world", "id", "amount", "until", "nonce", "deadline"))
        return cls(
            owner=address(message["owner"], "owner"),
            world=address(message["world"], "world"),
            id=unsigned(message["id"], "id"),
            amount=unsigned(message["amount"], "amount"),
            until=unsigned(message["until"], "until", MAX_UINT64),
            nonce=unsigned(message["nonce"], "nonce"),
            deadline=unsigned(message["deadline"], "deadline"),
        )


Signable = Transfer | Lock

TYPES: dict[str, type[Transfer] | type[Lock]] = {"Transfer": Transfer, "Lock": Lock}
"""By the name that an intent file states."""


def digest(domain: Domain, struct: Signable) -> bytes:
    """The 32 bytes that the owner's key signs (EIP-712: keccak of 0x19 0x01, the domain and the struct)."""
    return keccak(b"\x19\x01" + domain.separator() + struct.struct_hash())


def _exactly(message: Mapping[str, object], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in message]
    extra = [str(name)[:40] for name in message if name not in names]
    if missing or extra:
        fault = f"lacks {', '.join(missing)}" if missing else f"has unknown fields {', '.join(extra[:5])}"
        raise UserError(f"the intent's message {fault}")
