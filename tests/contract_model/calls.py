"""A call of the contract as a value, and its calldata. Pure."""

from typing import Any, NamedTuple

from tests.contract_model.abi import Part, Tail, array, encode, row, selector, text, words
from tests.contract_model.intents import Intent

_TRANSFER = "(address,address,uint256,uint256,uint256,uint256)"
_BATCH = "(address,address,uint256[],uint256[],uint256,uint256)"
_LOCK = "(address,address,uint256,uint256,uint64,uint256,uint256)"
_UNLOCK = "(address,address,uint256,uint256,uint256)"
_ITEM = "(uint256,uint256)"
_SWAP = f"(address,address,{_ITEM}[],{_ITEM}[],uint256,uint256,uint256)"
_TERMS = "(uint128,bool,uint8,uint32,address,uint16)"

CALLS = {
    "createClass": f"bytes32,{_TERMS},bytes32",
    "mint": "address,uint256,uint256",
    "setMinter": "uint256,address,uint128",
    "burn": "uint256,uint256",
    "updateClass": "uint256,bytes32",
    "applyUpdate": "uint256",
    "withdrawUpdate": "uint256",
    "transferWithSignature": f"{_TRANSFER},bytes",
    "batchTransferWithSignature": f"{_BATCH},bytes",
    "lockWithSignature": f"{_LOCK},bytes",
    "unlockWithSignature": f"{_UNLOCK},bytes",
    "allowSpendWithSignature": f"{_LOCK},bytes",
    "swapWithSignatures": f"{_SWAP},bytes,bytes",
    "unlock": "address,address,uint256",
    "spend": "address,uint256,uint256,address",
    "revokeSpend": "address,uint256",
    "cancel": "uint256",
    "relay": f"{_TRANSFER}[],bytes[],uint256",
    "relayCalls": "bytes[],uint256",
    "safeTransferFrom": "address,address,uint256,uint256,bytes",
    "safeBatchTransferFrom": "address,address,uint256[],uint256[],bytes",
    "setApprovalForAll": "address,bool",
}
"""Functions that change something, and their parameters."""

VIEWS = {
    "classOf": "uint256",
    "pendingUpdateOf": "uint256",
    "mintAllowance": "uint256,address",
    "totalSupply": "uint256",
    "lockedOf": "address,uint256",
    "lockOf": "address,uint256,address",
    "spendAllowance": "address,uint256,address",
    "isNonceUsed": "address,uint256",
    "royaltyInfo": "uint256,uint256",
    "uri": "uint256",
    "balanceOf": "address,uint256",
    "balanceOfBatch": "address[],uint256[]",
    "isApprovedForAll": "address,address",
    "supportsInterface": "bytes4",
    "hashTransfer": _TRANSFER,
    "hashBatchTransfer": _BATCH,
    "hashLock": _LOCK,
    "hashUnlock": _UNLOCK,
    "hashSpend": _LOCK,
    "hashSwap": _SWAP,
}

SIGNATURES = {name: f"{name}({parameters})" for name, parameters in (CALLS | VIEWS).items()}
SELECTORS = {name: selector(signature) for name, signature in SIGNATURES.items()}


class Terms(NamedTuple):
    """What the issuer fixes for good; see ABI.md's `Terms`."""

    cap: int
    soulbound: bool
    policy: int
    delay: int
    royalty_receiver: int
    royalty_bps: int


class Call(NamedTuple):
    """A function of the contract and its arguments: words, structs, bytes, tuples."""

    name: str
    arguments: tuple[Any, ...]

    def data(self) -> bytes:
        """The calldata."""
        return SELECTORS[self.name] + encode(map(_part, self.arguments))


class Junk(NamedTuple):
    """Calldata that names no function of the contract's, as a member of a batch."""

    content: bytes

    def data(self) -> bytes:
        return self.content


Member = Call | Junk


def _part(value: Any) -> Part:
    if isinstance(value, int):
        return value
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, Intent):
        return value.encoded()
    if isinstance(value, Terms):
        return encode(map(int, value))
    return _array(value)


def _array(values: tuple[Any, ...]) -> Tail:
    """An argument that is an array, by what it holds; an empty one looks the same whatever it would hold."""
    if not values or isinstance(values[0], int):
        return words(values)
    if isinstance(values[0], bytes):
        return array(map(text, values))
    if isinstance(values[0], Call | Junk):
        return array(text(member.data()) for member in values)
    return row(intent.encoded() for intent in values)
