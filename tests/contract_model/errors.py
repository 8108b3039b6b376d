"""The contract's refusals as revert data, and the exception that carries those that a call deserves. Pure."""

from functools import partial
from typing import NamedTuple

from tests.contract_model.abi import error, selector


class Starting(NamedTuple):
    """Revert data of which only the beginning can be foretold."""

    head: bytes


Reason = bytes | Starting


class RefusedError(Exception):
    """The call breaks a rule. `reasons`: the revert data it gets, or several where any of them will do."""

    def __init__(self, *reasons: Reason) -> None:
        self.reasons = reasons


def refuse(faults: list[bytes]) -> None:
    """Raise RefusedError with the first of the rules broken, if any."""
    if faults:
        raise RefusedError(faults[0])


class_exists = partial(error, "ClassExists(uint256)")
unknown_class = partial(error, "UnknownClass(uint256)")
not_issuer = partial(error, "NotIssuer(uint256,address)")
not_minter = partial(error, "NotMinter(uint256,address,uint256)")
cap_exceeded = partial(error, "CapExceeded(uint256,uint128,uint256)")
bad_terms = partial(error, "BadTerms(uint8)")
class_frozen = partial(error, "ClassFrozen(uint256)")
no_update = partial(error, "NoUpdate(uint256)")
update_not_due = partial(error, "UpdateNotDue(uint256,uint64)")
soulbound = partial(error, "Soulbound(uint256)")
intent_expired = partial(error, "IntentExpired(uint256)")
nonce_already_used = partial(error, "NonceAlreadyUsed(address,uint256)")
bad_signature = partial(error, "BadSignature(address)")
item_locked = partial(error, "ItemLocked(address,uint256,uint256)")
empty_lock = partial(error, "EmptyLock(address,uint256)")
lock_time_out_of_range = partial(error, "LockTimeOutOfRange(uint64,uint256)")
already_locked = partial(error, "AlreadyLocked(address,address,uint256)")
not_locked = partial(error, "NotLocked(address,address,uint256)")
still_locked = partial(error, "StillLocked(address,address,uint256,uint64)")
spend_not_allowed = partial(error, "SpendNotAllowed(address,address,uint256,uint256)")
empty_swap = partial(error, "EmptySwap()")
too_many_items = partial(error, "TooManyItems(uint256,uint256)")
not_relayable = partial(error, "NotRelayable(bytes4)")
length_mismatch = partial(error, "LengthMismatch(uint256,uint256)")
gas_per_intent_too_low = partial(error, "GasPerIntentTooLow(uint256,uint256)")
insufficient_balance = partial(error, "ERC1155InsufficientBalance(address,uint256,uint256,uint256)")
invalid_receiver = partial(error, "ERC1155InvalidReceiver(address)")
invalid_operator = partial(error, "ERC1155InvalidOperator(address)")
invalid_array_length = partial(error, "ERC1155InvalidArrayLength(uint256,uint256)")
missing_approval = partial(error, "ERC1155MissingApprovalForAll(address,address)")

NOT_ENOUGH_GAS = Starting(selector("NotEnoughGas(uint256,uint256)"))
"""How much gas is left depends on the compiler."""

ILL_TYPED = b""
"""What a number gets that doesn't fit its type."""
