"""The six things that are signed, and the digest that stands for each. Pure.

What a field is called when it is signed, how it is encoded and how it is checked is told by its codec (`eip712`); the
tests compare every digest with eth-account's independent encoder. Start reading at `Transfer`.
"""

from typing import Any, Self, TypeAlias

from eth_hash.auto import keccak

from p2pos.errors import UserError
from p2pos.ledger.abi import MAX_UINT64, MAX_UINT128, MAX_UINT256, ZERO, address, unsigned
from p2pos.ledger.eip712 import (
    ADDRESS,
    MAX_ITEMS,
    NAME,
    UINT64,
    UINT256,
    VERSION,
    Domain,
    Struct,
    array_of,
    signed,
    struct,
    struct_of,
)
from p2pos.types import Address

__all__ = [
    "MAX_ITEMS",
    "MAX_UINT64",
    "MAX_UINT128",
    "MAX_UINT256",
    "NAME",
    "TYPES",
    "VERSION",
    "ZERO",
    "BatchTransfer",
    "Domain",
    "Item",
    "Lock",
    "Signable",
    "Signers",
    "Spend",
    "Swap",
    "Transfer",
    "Unlock",
    "address",
    "as_typed_data",
    "digest",
    "unsigned",
]

Signers: TypeAlias = tuple[tuple[Address, int], ...]
"""Who must sign and with which nonce of theirs, in the order of the signatures."""


@struct
class Transfer(Struct):
    """The owner gives `amount` of item class `id` to another; anyone may submit it until `deadline`."""

    owner: Address = signed(ADDRESS, "from")
    """Whose items move, and who must sign."""
    to: Address = signed(ADDRESS)
    id: int = signed(UINT256)
    amount: int = signed(UINT256)
    nonce: int = signed(UINT256)
    """Any number the owner has not used; there is no order."""
    deadline: int = signed(UINT256)
    """Seconds since the epoch; the last second in which the contract takes it. So for all kinds."""

    @property
    def signers(self) -> Signers:
        """The owner."""
        return ((self.owner, self.nonce),)


@struct
class BatchTransfer(Struct):
    """The owner gives items of several classes to another, all or none."""

    owner: Address = signed(ADDRESS, "from")
    to: Address = signed(ADDRESS)
    ids: tuple[int, ...] = signed(array_of(UINT256))
    """1 … `MAX_ITEMS` classes."""
    amounts: tuple[int, ...] = signed(array_of(UINT256))
    """How much of each, in the order of `ids`."""
    nonce: int = signed(UINT256)
    deadline: int = signed(UINT256)

    @property
    def signers(self) -> Signers:
        """The owner."""
        return ((self.owner, self.nonce),)

    def sound(self) -> Self:
        """Itself. Raises UserError where it gives nothing, or `ids` and `amounts` don't match."""
        if len(self.ids) != len(self.amounts):
            raise UserError(f"amounts: {len(self.amounts)} amounts for {len(self.ids)} ids")
        if not self.ids:
            raise UserError("ids: a batch of nothing")
        return self


@struct
class Lock(Struct):
    """The owner lets `world` hold `amount` of item class `id` in place until `until`."""

    owner: Address = signed(ADDRESS)
    world: Address = signed(ADDRESS)
    id: int = signed(UINT256)
    amount: int = signed(UINT256)
    until: int = signed(UINT64)
    """Seconds since the epoch; from then on anyone may release the lock."""
    nonce: int = signed(UINT256)
    deadline: int = signed(UINT256)

    @property
    def signers(self) -> Signers:
        """The owner."""
        return ((self.owner, self.nonce),)


@struct
class Unlock(Struct):
    """The world releases what it holds of the owner's class `id`, before the time is over."""

    owner: Address = signed(ADDRESS)
    world: Address = signed(ADDRESS)
    """Who must sign."""
    id: int = signed(UINT256)
    nonce: int = signed(UINT256)
    """Of the world's nonces."""
    deadline: int = signed(UINT256)

    @property
    def signers(self) -> Signers:
        """The world."""
        return ((self.world, self.nonce),)


@struct
class Spend(Struct):
    """The owner lets `world` take up to `max` of item class `id` until `until`.

    It replaces what the world was allowed of this class before; 0 takes it back.
    """

    owner: Address = signed(ADDRESS)
    world: Address = signed(ADDRESS)
    id: int = signed(UINT256)
    max: int = signed(UINT256)
    until: int = signed(UINT64)
    """Seconds since the epoch; from then on the world may no longer."""
    nonce: int = signed(UINT256)
    deadline: int = signed(UINT256)

    @property
    def signers(self) -> Signers:
        """The owner."""
        return ((self.owner, self.nonce),)


@struct
class Item(Struct):
    """Some of one class, in a swap."""

    id: int = signed(UINT256)
    amount: int = signed(UINT256)


@struct
class Swap(Struct):
    """Two people exchange items, both sides or neither. Both sign the same struct."""

    first: Address = signed(ADDRESS)
    second: Address = signed(ADDRESS)
    first_gives: tuple[Item, ...] = signed(array_of(struct_of(Item)), "firstGives")
    """Up to `MAX_ITEMS`; one side may give nothing."""
    second_gives: tuple[Item, ...] = signed(array_of(struct_of(Item)), "secondGives")
    first_nonce: int = signed(UINT256, "firstNonce")
    second_nonce: int = signed(UINT256, "secondNonce")
    deadline: int = signed(UINT256)

    @property
    def signers(self) -> Signers:
        """Both, the first first."""
        return ((self.first, self.first_nonce), (self.second, self.second_nonce))

    def sound(self) -> Self:
        """Itself. Raises UserError where nothing is exchanged, or somebody would swap with themselves."""
        if not self.first_gives and not self.second_gives:
            raise UserError("firstGives: neither side gives anything")
        if self.first == self.second:
            raise UserError("second: nobody swaps with themselves")
        return self


Signable: TypeAlias = Transfer | BatchTransfer | Lock | Unlock | Spend | Swap

TYPES: dict[str, type[Signable]] = {
    kind.__name__: kind for kind in (Transfer, BatchTransfer, Lock, Unlock, Spend, Swap)
}
"""By the name that an intent file states."""


def digest(domain: Domain, struct: Signable) -> bytes:
    """The 32 bytes that each signer's key signs (EIP-712: keccak of 0x19 0x01, the domain and the struct)."""
    return keccak(b"\x19\x01" + domain.separator() + struct.struct_hash())


def as_typed_data(domain: Domain, struct: Signable) -> dict[str, Any]:
    """The JSON that other software signs: EIP-712's form, which `eth_signTypedData_v4` and Clef take."""
    types = {"EIP712Domain": _rows(_DOMAIN_FIELDS)}
    for kind in (type(struct), *{codec.inner for _, _, codec in struct.ROW if codec.inner}):
        types[kind.__name__] = _rows([(codec.solidity, name) for _, name, codec in kind.ROW])
    return {
        "types": types,
        "primaryType": type(struct).__name__,
        "domain": {
            "name": NAME,
            "version": VERSION,
            "chainId": domain.chain_id,
            "verifyingContract": domain.contract,
        },
        "message": struct.message(),
    }


_DOMAIN_FIELDS = [("string", "name"), ("string", "version"), ("uint256", "chainId"), ("address", "verifyingContract")]


def _rows(fields: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"name": name, "type": solidity} for solidity, name in fields]
