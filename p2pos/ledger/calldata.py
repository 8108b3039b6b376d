"""The contract's functions as call data. Pure; a test compares each with the ABI."""

from collections.abc import Callable, Sequence
from typing import Any

from eth_abi.abi import encode
from eth_hash.auto import keccak

from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.typed_data import Transfer
from p2pos.types import Address

GAS_PER_INTENT = 100_000
"""The least that the contract lets a batch grant (`MIN_GAS_PER_INTENT`); a plain transfer takes at most 70,000."""

_TRANSFER = "(address,address,uint256,uint256,uint256,uint256)"
_TERMS = "(uint128,bool,uint8,uint32,address,uint16)"
_LOCK = "(address,address,uint256,uint256,uint64,uint256,uint256)"


def _function(name: str, *types: str) -> Callable[..., bytes]:
    selector = keccak(f"{name}({','.join(types)})".encode())[:4]

    def call(*arguments: Any) -> bytes:
        return selector + encode(types, arguments)

    return call


_create_class = _function("createClass", "bytes32", _TERMS, "bytes32")
mint = _function("mint", "address", "uint256", "uint256")
cancel = _function("cancel", "uint256")
unlock = _function("unlock", "address", "address", "uint256")
balance_of = _function("balanceOf", "address", "uint256")
safe_transfer_from = _function("safeTransferFrom", "address", "address", "uint256", "uint256", "bytes")

_transfer = _function("transferWithSignature", _TRANSFER, "bytes")
_lock = _function("lockWithSignature", _LOCK, "bytes")
_relay = _function("relay", f"{_TRANSFER}[]", "bytes[]", "uint256")


def create_class(salt: bytes, cap: int, digest: bytes) -> bytes:
    """The call that makes a class of plain terms: transferable, its descriptor fixed for good, no royalty."""
    return _create_class(salt, (cap, False, 0, 0, bytes(20), 0), digest)


def submit(intent: SignedIntent) -> bytes:
    """The call that carries out one intent, or reverts."""
    call = _transfer if isinstance(intent.struct, Transfer) else _lock
    return call(intent.struct.arguments(), intent.signature)


def relay(intents: Sequence[SignedIntent]) -> bytes:
    """The call that carries out transfers and skips those that fail."""
    return _relay(
        [intent.struct.arguments() for intent in intents], [intent.signature for intent in intents], GAS_PER_INTENT
    )


def relay_gas(data: bytes, intents: int) -> int:
    """A gas limit with which a batch can't fail for want of gas, whatever its intents turn out to take.

    21,000 for the transaction and 16 per byte (EIP-2028), or 40 per byte where that is more (EIP-7623); per intent
    what it is granted, plus 10,000 for copying it, its event where it fails and the contract's check of 63/64.
    """
    per_byte = 40
    return 21_000 + per_byte * len(data) + (intents + 1) * (GAS_PER_INTENT + 10_000)


def class_id(issuer: Address, salt: bytes) -> int:
    """The id that a class by this issuer with this salt (32 bytes) has or will have."""
    return int.from_bytes(keccak(encode(("address", "bytes32"), (issuer, salt))), "big")
