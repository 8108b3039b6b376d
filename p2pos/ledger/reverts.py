"""Why a contract refused, from its revert data, in words for a person. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from p2pos.ledger.intents import Refusal
from p2pos.ledger.plain_words import when

Fields = Mapping[str, Any]

_TERMS: dict[int, str] = {
    # by BadTerms' number
    1: "a delay of 1 second to 365 days belongs to the policy DELAYED alone",
    2: "a royalty is at most 50 %, and has a receiver exactly if it is more than nothing",
}

SENTENCES: dict[str, Callable[[Fields], str]] = {
    # by the error's name; the fields are those of contracts/src/Assets.sol and OpenZeppelin's IERC1155Errors
    "IntentExpired": lambda f: f"the intent expired at {when(f['deadline'])}",
    "NonceAlreadyUsed": lambda f: f"nonce {f['nonce']} of {f['owner']} was already used or cancelled",
    "BadSignature": lambda f: f"the signature is not by {f['signer']}",
    "NotIssuer": lambda f: f"{f['caller']} is not the issuer of class {hex(f['id'])}",
    "NotMinter": lambda f: (
        f"{f['caller']} is not the issuer of class {hex(f['id'])}, and as a minter may make {f['allowance']} more"
    ),
    "Soulbound": lambda f: f"class {hex(f['id'])} is soulbound: it never changes hands",
    "BadTerms": lambda f: f"the terms of the class don't hold together: {_TERMS.get(f['what'], 'unknown fault')}",
    "ClassFrozen": lambda f: f"class {hex(f['id'])} is frozen: its descriptor never changes",
    "NoUpdate": lambda f: f"no update of class {hex(f['id'])} is waiting",
    "UpdateNotDue": lambda f: f"the update of class {hex(f['id'])} may take effect from {when(f['from'])} on",
    "SpendNotAllowed": lambda f: (
        f"world {f['world']} may take {f['left']} of class {hex(f['id'])} from {f['owner']}, not more"
    ),
    "EmptySwap": lambda _: "a swap needs two different people, and something that is given",
    "NotRelayable": lambda f: f"a batch carries signed intents only, not a call of 0x{f['selector'].hex()}",
    "TooManyItems": lambda f: f"{f['items']} items are too many: a batch or one side of a swap has at most {f['most']}",
    "CapExceeded": lambda f: f"class {hex(f['id'])} is capped at {f['cap']}; this would make {f['wanted']}",
    "ClassExists": lambda f: f"class {hex(f['id'])} exists already",
    "UnknownClass": lambda f: f"there is no class {hex(f['id'])}",
    "ItemLocked": lambda f: f"{f['owner']} has only {f['free']} of class {hex(f['id'])} that are not locked",
    "EmptyLock": lambda _: "a lock needs a world and an amount above 0",
    "LockTimeOutOfRange": lambda f: f"a lock must end in the future, by {when(f['latest'])}, not at {when(f['until'])}",
    "AlreadyLocked": lambda f: f"{f['owner']} already has class {hex(f['id'])} locked for world {f['world']}",
    "NotLocked": lambda f: f"{f['owner']} has nothing of class {hex(f['id'])} locked for world {f['world']}",
    "StillLocked": lambda f: f"only world {f['world']} may release the lock before {when(f['until'])}",
    "LengthMismatch": lambda f: f"{f['intents']} intents came with {f['signatures']} signatures",
    "GasPerIntentTooLow": lambda f: f"a batch must grant each intent {f['least']} gas, not {f['gasPerIntent']}",
    "NotEnoughGas": lambda f: f"the batch had {f['left']} gas left where an intent was promised {f['needed']}",
    "ERC1155InsufficientBalance": lambda f: (
        f"{f['sender']} has {f['balance']} of class {hex(f['tokenId'])}, not the {f['needed']} wanted"
    ),
    "ERC1155InvalidReceiver": lambda f: f"{f['receiver']} does not take items",
    "ERC1155InvalidSender": lambda f: f"{f['sender']} can't send items",
    "ERC1155MissingApprovalForAll": lambda f: f"{f['operator']} may not move items of {f['owner']}",
    "Error": lambda f: f"the contract says: {f['message'][:200]}",
    "Panic": lambda f: f"the contract failed with panic {hex(f['code'])}",
}

HINTS = {
    # what to do about it, where there is something to do
    "IntentExpired": "ask its owner to sign again",
    "NonceAlreadyUsed": "nothing moves twice; to give again, sign again",
    "BadSignature": "only the owner's wallet can sign it",
    "NotIssuer": "only the issuer can; p2pos asset show names it",
    "NotMinter": "the issuer can allow it, with p2pos asset minter",
    "Soulbound": "its holder can only burn it",
    "CapExceeded": "mint fewer",
    "ClassFrozen": "make a new class",
    "UpdateNotDue": "apply it then",
    "SpendNotAllowed": "ask the owner to allow more, or in time",
    "ItemLocked": "see p2pos asset list",
    "ERC1155InsufficientBalance": "see p2pos asset list",
    "ERC1155InvalidReceiver": "give it to another address",
}

REFUSALS = {
    "IntentExpired": Refusal.EXPIRED,
    "NonceAlreadyUsed": Refusal.REPLAYED,
    "BadSignature": Refusal.WRONG_SIGNER,
    "ERC1155InsufficientBalance": Refusal.BALANCE,
    "ItemLocked": Refusal.BALANCE,
    "SpendNotAllowed": Refusal.BALANCE,
}
"""What an error means for an intent; the rest are `Refusal.REVERTED`."""

_BUILT_IN = (
    # solidity.readthedocs.io, "Panic via assert and Error via require"
    {"type": "error", "name": "Error", "inputs": [{"name": "message", "type": "string"}]},
    {"type": "error", "name": "Panic", "inputs": [{"name": "code", "type": "uint256"}]},
)


@dataclass(frozen=True, slots=True)
class Revert:
    """A contract's refusal."""

    name: str
    """Of the custom error; "" where the data names none that we know."""
    text: str
    """One line for a person."""
    fields: Fields = field(default_factory=dict)

    @property
    def hint(self) -> str:
        """What to do about it, or ""."""
        return HINTS.get(self.name, "")

    @property
    def refusal(self) -> Refusal:
        """What it means for an intent."""
        return REFUSALS.get(self.name, Refusal.REVERTED)


class Reverts:
    """Reads revert data by the errors of an ABI."""

    def __init__(self, abi: Sequence[Mapping[str, Any]]) -> None:
        self._errors: dict[bytes, tuple[str, list[str], list[str]]] = {}
        for entry in (*abi, *_BUILT_IN):
            if entry["type"] == "error":
                names = [str(item["name"]) for item in entry["inputs"]]
                types = [str(item["type"]) for item in entry["inputs"]]
                selector = keccak(f"{entry['name']}({','.join(types)})".encode())[:4]
                self._errors[selector] = (str(entry["name"]), names, types)

    def read(self, data: bytes) -> Revert:
        """Decode revert data. Never raises: a contract may return anything, and it may have been cut short."""
        if not data:
            return Revert("", "the contract gave no reason; it may have run out of gas")
        known = self._errors.get(data[:4])
        if known is None:
            return Revert("", f"the contract refused with unknown error 0x{data[:4].hex()}")
        name, names, types = known
        try:
            values = [
                to_checksum_address(value) if type_ == "address" else value
                for type_, value in zip(types, decode(types, data[4:]), strict=True)
            ]
        except (DecodingError, UnicodeDecodeError, OverflowError):
            return Revert(name, f"the contract refused: {name}")
        fields = dict(zip(names, values, strict=True))
        say = SENTENCES.get(name)
        said = ", ".join(f"{key}={value}" for key, value in fields.items())
        return Revert(name, say(fields) if say else f"the contract refused: {name}({said})", fields)
