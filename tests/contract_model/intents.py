"""The six things that people sign: their calldata and their EIP-712 digests, from the type strings alone. Pure.

Deliberately none of `p2pos.ledger.typed_data`: the contract is held against a second reading of its documentation.
"""

from typing import NamedTuple

from eth_hash.auto import keccak

from tests.contract_model.abi import Tail, encode, row, word, words

_ITEM_TYPE = "Item(uint256 id,uint256 amount)"
TYPES = {
    "Transfer": "Transfer(address from,address to,uint256 id,uint256 amount,uint256 nonce,uint256 deadline)",
    "BatchTransfer": (
        "BatchTransfer(address from,address to,uint256[] ids,uint256[] amounts,uint256 nonce,uint256 deadline)"
    ),
    "Lock": "Lock(address owner,address world,uint256 id,uint256 amount,uint64 until,uint256 nonce,uint256 deadline)",
    "Unlock": "Unlock(address owner,address world,uint256 id,uint256 nonce,uint256 deadline)",
    "Spend": "Spend(address owner,address world,uint256 id,uint256 max,uint64 until,uint256 nonce,uint256 deadline)",
    "Swap": (
        "Swap(address first,address second,Item[] firstGives,Item[] secondGives,"
        "uint256 firstNonce,uint256 secondNonce,uint256 deadline)" + _ITEM_TYPE
    ),
}
_HASHES = {name: keccak(text.encode()) for name, text in TYPES.items()}
_ITEM_HASH = keccak(_ITEM_TYPE.encode())
_DOMAIN_HEAD = (
    keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
    + keccak(b"p2pos")
    + keccak(b"1")
)


def domain_separator(chain_id: int, contract: int) -> bytes:
    return keccak(_DOMAIN_HEAD + word(chain_id) + word(contract))


def digest(separator: bytes, intent: "Intent") -> bytes:
    """The 32 bytes that a signer signs."""
    return keccak(b"\x19\x01" + separator + intent.struct_hash())


class Transfer(NamedTuple):
    sender: int
    """The `from` of the signed struct."""
    to: int
    id: int
    amount: int
    nonce: int
    deadline: int

    @property
    def signers(self) -> tuple[tuple[int, int], ...]:
        """Who must sign, and with which nonce of theirs."""
        return ((self.sender, self.nonce),)

    @property
    def items(self) -> tuple["Item", ...]:
        return (Item(self.id, self.amount),)

    def encoded(self) -> bytes:
        return b"".join(map(word, self))

    def struct_hash(self) -> bytes:
        return keccak(_HASHES["Transfer"] + self.encoded())


class BatchTransfer(NamedTuple):
    sender: int
    to: int
    ids: tuple[int, ...]
    amounts: tuple[int, ...]
    nonce: int
    deadline: int

    @property
    def signers(self) -> tuple[tuple[int, int], ...]:
        return ((self.sender, self.nonce),)

    @property
    def items(self) -> tuple["Item", ...]:
        """Meaningful where there are as many amounts as ids."""
        return tuple(map(Item, self.ids, self.amounts))

    def encoded(self) -> Tail:
        sender, to, ids, amounts, nonce, deadline = self
        return Tail(encode((sender, to, words(ids), words(amounts), nonce, deadline)))

    def struct_hash(self) -> bytes:
        sender, to, ids, amounts, nonce, deadline = self
        ids_hash, amounts_hash = (keccak(b"".join(map(word, values))) for values in (ids, amounts))
        return keccak(encode((_HASHES["BatchTransfer"], sender, to, ids_hash, amounts_hash, nonce, deadline)))


class Lock(NamedTuple):
    owner: int
    world: int
    id: int
    amount: int
    until: int
    nonce: int
    deadline: int

    @property
    def signers(self) -> tuple[tuple[int, int], ...]:
        return ((self.owner, self.nonce),)

    def encoded(self) -> bytes:
        return b"".join(map(word, self))

    def struct_hash(self) -> bytes:
        return keccak(_HASHES["Lock"] + self.encoded())


class Unlock(NamedTuple):
    owner: int
    world: int
    id: int
    nonce: int
    deadline: int

    @property
    def signers(self) -> tuple[tuple[int, int], ...]:
        return ((self.world, self.nonce),)

    def encoded(self) -> bytes:
        return b"".join(map(word, self))

    def struct_hash(self) -> bytes:
        return keccak(_HASHES["Unlock"] + self.encoded())


class Spend(NamedTuple):
    owner: int
    world: int
    id: int
    most: int
    """The `max` of the signed struct."""
    until: int
    nonce: int
    deadline: int

    @property
    def signers(self) -> tuple[tuple[int, int], ...]:
        return ((self.owner, self.nonce),)

    def encoded(self) -> bytes:
        return b"".join(map(word, self))

    def struct_hash(self) -> bytes:
        return keccak(_HASHES["Spend"] + self.encoded())


class Item(NamedTuple):
    id: int
    amount: int

    def encoded(self) -> bytes:
        return word(self.id) + word(self.amount)

    def struct_hash(self) -> bytes:
        return keccak(_ITEM_HASH + self.encoded())


class Swap(NamedTuple):
    first: int
    second: int
    first_gives: tuple[Item, ...]
    second_gives: tuple[Item, ...]
    first_nonce: int
    second_nonce: int
    deadline: int

    @property
    def signers(self) -> tuple[tuple[int, int], ...]:
        return (self.first, self.first_nonce), (self.second, self.second_nonce)

    def encoded(self) -> Tail:
        first, second, first_gives, second_gives, *rest = self
        gives = (row(item.encoded() for item in side) for side in (first_gives, second_gives))
        return Tail(encode((first, second, *gives, *rest)))

    def struct_hash(self) -> bytes:
        first, second, first_gives, second_gives, *rest = self
        gives = (keccak(b"".join(item.struct_hash() for item in side)) for side in (first_gives, second_gives))
        return keccak(encode((_HASHES["Swap"], first, second, *gives, *rest)))


Intent = Transfer | BatchTransfer | Lock | Unlock | Spend | Swap

ENTRY_POINTS: dict[type, str] = {
    Transfer: "transferWithSignature",
    BatchTransfer: "batchTransferWithSignature",
    Lock: "lockWithSignature",
    Unlock: "unlockWithSignature",
    Spend: "allowSpendWithSignature",
    Swap: "swapWithSignatures",
}
"""By which function of the contract each takes effect."""

_A_DAY = 1 << 40
SAMPLES: tuple[Intent, ...] = (
    Transfer(1, 2, 3, 4, 5, _A_DAY),
    BatchTransfer(1, 2, (3, 4, 5), (6, 7, 8), 9, _A_DAY),
    Lock(1, 2, 3, 4, 5, 6, _A_DAY),
    Unlock(1, 2, 3, 4, _A_DAY),
    Spend(1, 2, 3, 4, 5, 6, _A_DAY),
    Swap(1, 2, (Item(3, 4), Item(5, 6)), (Item(7, 8),), 9, 10, _A_DAY),
)
"""One of each kind, of people that nobody is, good for a long time."""
