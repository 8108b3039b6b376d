"""The contract's functions as call data. Pure; a test compares each with the ABI."""

from collections.abc import Callable, Sequence
from typing import Any

from eth_abi.abi import encode
from eth_hash.auto import keccak

from p2pos.errors import InternalError
from p2pos.ledger import abi
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.terms import Terms
from p2pos.ledger.typed_data import BatchTransfer, Lock, Signable, Spend, Swap, Transfer, Unlock
from p2pos.types import Address

GAS_PER_INTENT = 100_000
"""The least that the contract lets a batch grant (`MIN_GAS_PER_INTENT`); a plain transfer takes at most 70,000."""

_TERMS = "(uint128,bool,uint8,uint32,address,uint16)"


def _selector(name: str, *types: str) -> bytes:
    return keccak(f"{name}({','.join(types)})".encode())[:4]


def _function(name: str, *types: str) -> Callable[..., bytes]:
    selector = _selector(name, *types)

    def call(*arguments: Any) -> bytes:
        return selector + encode(types, arguments)

    return call


_create_class = _function("createClass", "bytes32", _TERMS, "bytes32")
mint = _function("mint", "address", "uint256", "uint256")
set_minter = _function("setMinter", "uint256", "address", "uint128")
burn = _function("burn", "uint256", "uint256")
update_class = _function("updateClass", "uint256", "bytes32")
apply_update = _function("applyUpdate", "uint256")
withdraw_update = _function("withdrawUpdate", "uint256")
cancel = _function("cancel", "uint256")
unlock = _function("unlock", "address", "address", "uint256")
spend = _function("spend", "address", "uint256", "uint256", "address")
revoke_spend = _function("revokeSpend", "address", "uint256")
safe_transfer_from = _function("safeTransferFrom", "address", "address", "uint256", "uint256", "bytes")


def create_class(salt: bytes, terms: Terms, digest: bytes) -> bytes:
    """Make a class: 32 bytes that tell the issuer's classes apart, its terms, the descriptor's sha2-256."""
    return _create_class(salt, terms.arguments(), digest)


_BALANCE_OF = _selector("balanceOf", "address", "uint256")


def balance_of(account: str, id_: int) -> bytes:
    """How many of a class an account holds. By hand: an index asks it by the ten thousand."""
    return _BALANCE_OF + abi.address_word(account) + abi.word(id_)


# ---- intents

_TRANSFER = "(address,address,uint256,uint256,uint256,uint256)"
_SUBMIT: dict[type[Signable], bytes] = {
    Transfer: _selector("transferWithSignature", _TRANSFER, "bytes"),
    BatchTransfer: _selector(
        "batchTransferWithSignature", "(address,address,uint256[],uint256[],uint256,uint256)", "bytes"
    ),
    Lock: _selector("lockWithSignature", "(address,address,uint256,uint256,uint64,uint256,uint256)", "bytes"),
    Unlock: _selector("unlockWithSignature", "(address,address,uint256,uint256,uint256)", "bytes"),
    Spend: _selector("allowSpendWithSignature", "(address,address,uint256,uint256,uint64,uint256,uint256)", "bytes"),
    Swap: _selector(
        "swapWithSignatures",
        "(address,address,(uint256,uint256)[],(uint256,uint256)[],uint256,uint256,uint256)",
        "bytes",
        "bytes",
    ),
}
_RELAY = _selector("relay", f"{_TRANSFER}[]", "bytes[]", "uint256")
_RELAY_CALLS = _selector("relayCalls", "bytes[]", "uint256")


def submit(intent: SignedIntent) -> bytes:
    """The call that carries out one intent, or reverts."""
    struct = intent.struct
    parts = [abi.Part(struct.encoded(), struct.DYNAMIC)]
    parts += [abi.dynamic(abi.byte_string(signature)) for signature in intent.signatures]
    return _SUBMIT[type(struct)] + abi.join(parts)


def relay(intents: Sequence[SignedIntent], gas_per_intent: int = GAS_PER_INTENT) -> bytes:
    """The call that carries out transfers and skips those that fail. Raises InternalError for another kind."""
    rows = []
    for intent in intents:
        if not isinstance(intent.struct, Transfer):
            raise InternalError(f"relay of a {intent.kind}; relay_calls takes all kinds")
        rows.append(intent.struct.encoded())
    structs = abi.word(len(rows)) + b"".join(rows)  # each is six words, so none needs an offset
    signatures = abi.array([abi.dynamic(abi.byte_string(intent.signatures[0])) for intent in intents])
    return _RELAY + abi.join([abi.dynamic(structs), abi.dynamic(signatures), abi.static(abi.word(gas_per_intent))])


def relay_calls(calls: Sequence[bytes], gas_per_call: int) -> bytes:
    """The call that carries out intents of any kinds, each as `submit` gives it, and skips those that fail."""
    inner = abi.array([abi.dynamic(abi.byte_string(call)) for call in calls])
    return _RELAY_CALLS + abi.join([abi.dynamic(inner), abi.static(abi.word(gas_per_call))])


def relay_gas(data: bytes, intents: int, gas_per_intent: int = GAS_PER_INTENT) -> int:
    """A gas limit with which a batch can't fail for want of gas, whatever its intents turn out to take.

    21,000 for the transaction and 16 per byte (EIP-2028), or 40 per byte where that is more (EIP-7623); per intent
    what it is granted, plus 10,000 for copying it, its event where it fails and the contract's check of 63/64.
    """
    per_byte = 40
    return 21_000 + per_byte * len(data) + (intents + 1) * (gas_per_intent + 10_000)


def class_id(issuer: Address, salt: bytes) -> int:
    """The id that a class by this issuer with this salt (32 bytes) has or will have."""
    return int.from_bytes(keccak(abi.address_word(issuer) + salt), "big")
