"""What a transaction does, in words, read from the very bytes that are to be signed. Pure.

A command says what it means to do; this says what the chain will do. Who signs agrees to the latter. Start reading
at `told`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address

from p2pos.ledger import plain_words
from p2pos.ledger.contracts import artifact
from p2pos.ledger.terms import Policy
from p2pos.ledger.typed_data import TYPES
from p2pos.types import Address, Wei

POLICIES = {
    Policy.FROZEN: "nobody, ever",
    Policy.ISSUER: "the issuer at any time",
    Policy.DELAYED: "the issuer after a delay",
}
"""Who may change a class's descriptor."""

_SIGNED = {
    "transferWithSignature": "Transfer",
    "batchTransferWithSignature": "BatchTransfer",
    "lockWithSignature": "Lock",
    "unlockWithSignature": "Unlock",
    "allowSpendWithSignature": "Spend",
    "swapWithSignatures": "Swap",
}
"""The type of struct that each function carries out."""


@dataclass(frozen=True, slots=True)
class Told:
    """What signing a transaction would do."""

    sentence: str
    fee: Wei
    """The most that it can cost, gas limit × fee cap."""
    cautions: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    """Those that it names, each once."""

    def __str__(self) -> str:
        return f"{self.sentence}; the fee is at most {coin(self.fee)} of the chain's coin"


@dataclass(frozen=True, slots=True)
class _Function:
    name: str
    inputs: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class _Words:
    """How people and classes are called."""

    sender: str
    names: Mapping[Address, str]
    items: Mapping[int, str]
    met: list[Address] = field(default_factory=list)

    def who(self, address: str) -> str:
        checksummed = Address(to_checksum_address(address))
        self.met.append(checksummed)
        return self.names.get(checksummed, checksummed)

    def item(self, id_: int) -> str:
        return self.items.get(id_, f"item {hex(id_)}")


def told(
    fields: Mapping[str, Any], sender: Address, contract: str, names: Mapping[Address, str], items: Mapping[int, str]
) -> Told:
    """Say what a transaction does.

    Args:
        fields: as `Chain.transaction_fields` makes them.
        sender: whose transaction it is.
        contract: the asset contract of the settings, "" where none is set.
        names: of addresses that are known.
        items: of classes that are known, by id.

    """
    fee = Wei(int(fields["gas"]) * int(fields["maxFeePerGas"]))
    value, data = int(fields.get("value") or 0), bytes(fields.get("data") or b"")
    target = fields.get("to")
    words = _Words(names.get(sender, sender), names, items)
    cautions = [f"it also sends {coin(Wei(value))} of the chain's coin"] if value else []
    if not target:
        ours = data == artifact().bytecode
        what = "the asset contract" if ours else f"a contract of {len(data)} bytes that is not the asset contract"
        return Told(f"{words.sender} puts {what} on the chain", fee, tuple(cautions))
    if not contract or str(target).lower() != contract.lower():
        cautions.append(f"{target} is not the asset contract of the settings")
    lines = tuple(cautions + _call_cautions(data, words))
    return Told(_call(data, str(target), words), fee, lines, tuple(dict.fromkeys(words.met)))


def coin(wei: Wei) -> str:
    """An amount of the chain's coin, exact, in units of 10¹⁸ wei."""
    digits = f"{Decimal(wei) / Decimal(10**18):f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _call(data: bytes, target: str, words: _Words) -> str:
    function = _functions().get(data[:4])
    if function is None:
        selector = data[:4].hex()
        return f"{words.sender} calls {target} with {len(data)} bytes that can't be read (selector 0x{selector})"
    arguments = _arguments(function, data)
    if arguments is None:
        return f"{words.sender} calls {function.name} of {target} with arguments that can't be read"
    if function.name in _SIGNED:
        return f"{words.sender} pays for what others signed: {_signed(function.name, arguments, words)}"
    sentence = _SENTENCES.get(function.name)
    if sentence is None:
        listed = ", ".join(f"{name} {value}" for name, value in arguments.items())
        return f"{words.sender} calls {function.name} ({listed})"
    return f"{words.sender} {sentence(arguments, words)}"


def _call_cautions(data: bytes, words: _Words) -> list[str]:
    function = _functions().get(data[:4])
    arguments = _arguments(function, data) if function else None
    if function is None or arguments is None:
        return ["what it does can't be told from its data"]
    if function.name == "setApprovalForAll" and arguments["approved"]:
        return [f"{words.who(arguments['operator'])} could move every item of yours, now and later, without asking"]
    return []


def _signed(name: str, arguments: Mapping[str, Any], words: _Words) -> str:
    struct = TYPES[_SIGNED[name]].from_message(_message(next(iter(arguments.values()))))
    return plain_words.sentence(struct, names=words.names, items=words.items)


def _message(value: Any) -> Any:
    """Decoded arguments in the form of an intent's message."""
    if isinstance(value, dict):
        return {key: _message(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_message(inner) for inner in value]
    return str(value) if isinstance(value, int) else value


def _create(arguments: Mapping[str, Any], words: _Words) -> str:
    terms = arguments["terms"]
    parts = [
        f"at most {terms['cap']} ever" if terms["cap"] else "no limit to how many",
        *(["it never changes hands"] if terms["soulbound"] else []),
        f"its descriptor is changed by {POLICIES.get(terms['policy'], 'a policy that is unknown')}"
        + (f" of {terms['delay']} s" if terms["delay"] else ""),
        *(
            [f"{words.who(terms['royaltyReceiver'])} is owed {terms['royaltyBps'] / 100:g} % of each sale"]
            if terms["royaltyBps"]
            else []
        ),
    ]
    described = f"described by 0x{arguments['digest'].hex()}"
    return f"makes a new class of items for good: {'; '.join([*parts, described])}"


def _goods(ids: Sequence[int], amounts: Sequence[int], words: _Words) -> str:
    if len(ids) != len(amounts):
        return "items that don't match their amounts"
    return ", ".join(f"{amount} × {words.item(id_)}" for id_, amount in zip(ids, amounts, strict=True)) or "nothing"


_Sentence = Callable[[Mapping[str, Any], _Words], str]
_SENTENCES: dict[str, _Sentence] = {
    "createClass": _create,
    "mint": lambda a, w: f"makes {a['amount']} × {w.item(a['id'])} for {w.who(a['to'])}",
    "setMinter": lambda a, w: (
        f"lets {w.who(a['minter'])} make up to {a['allowance']} × {w.item(a['id'])}"
        if a["allowance"]
        else f"no longer lets {w.who(a['minter'])} make {w.item(a['id'])}"
    ),
    "burn": lambda a, w: f"destroys {a['amount']} × {w.item(a['id'])} for good",
    "updateClass": lambda a, w: f"gives {w.item(a['id'])} a new descriptor, 0x{a['digest'].hex()}",
    "applyUpdate": lambda a, w: f"puts the proposed descriptor of {w.item(a['id'])} in force",
    "withdrawUpdate": lambda a, w: f"withdraws the proposed descriptor of {w.item(a['id'])}",
    "unlock": lambda a, w: f"releases what world {w.who(a['world'])} holds of {w.who(a['owner'])}'s {w.item(a['id'])}",
    "spend": lambda a, w: (
        f"takes {a['amount']} × {w.item(a['id'])} from {w.who(a['owner'])}, as allowed, "
        + (f"for {w.who(a['to'])}" if int(a["to"], 16) else "and destroys them")
    ),
    "revokeSpend": lambda a, w: f"no longer lets {w.who(a['world'])} take {w.item(a['id'])}",
    "cancel": lambda a, w: (  # noqa: ARG005 - one signature for all
        f"uses up nonce {a['nonce']}, so that nothing signed with it takes effect"
    ),
    "relay": lambda a, w: f"pays for {len(a['intents'])} transfers that others signed",  # noqa: ARG005
    "relayCalls": lambda a, w: f"pays for {len(a['calls'])} acts that others signed",  # noqa: ARG005
    "safeTransferFrom": lambda a, w: (
        f"moves {a['value']} × {w.item(a['id'])} from {w.who(a['from'])} to {w.who(a['to'])}"
    ),
    "safeBatchTransferFrom": lambda a, w: (
        f"moves {_goods(a['ids'], a['values'], w)} from {w.who(a['from'])} to {w.who(a['to'])}"
    ),
    "setApprovalForAll": lambda a, w: (
        f"{'lets' if a['approved'] else 'no longer lets'} {w.who(a['operator'])} move every item"
    ),
}


@cache
def _functions() -> dict[bytes, _Function]:
    """By selector, every function of the asset contract that changes the chain."""
    found = {}
    for entry in artifact().abi:
        if entry["type"] == "function" and entry["stateMutability"] not in {"view", "pure"}:
            signature = f"{entry['name']}({','.join(map(_type, entry['inputs']))})"
            found[keccak(signature.encode())[:4]] = _Function(entry["name"], entry["inputs"])
    return found


def _type(entry: Mapping[str, Any]) -> str:
    kind: str = entry["type"]
    if kind.startswith("tuple"):
        return f"({','.join(map(_type, entry['components']))}){kind.removeprefix('tuple')}"
    return kind


def _arguments(function: _Function, data: bytes) -> dict[str, Any] | None:
    """By name; structs as dicts; None where the data doesn't fit the function."""
    try:
        values = decode([_type(entry) for entry in function.inputs], data[4:])
    except (DecodingError, OverflowError):
        return None
    return {entry["name"]: _named(entry, value) for entry, value in zip(function.inputs, values, strict=True)}


def _named(entry: Mapping[str, Any], value: Any) -> Any:
    if entry["type"] == "address":
        return to_checksum_address(value)
    if not entry["type"].startswith("tuple"):
        return list(value) if isinstance(value, tuple) else value
    if entry["type"].endswith("[]"):
        return [_named({**entry, "type": "tuple"}, each) for each in value]
    return {part["name"]: _named(part, each) for part, each in zip(entry["components"], value, strict=True)}
