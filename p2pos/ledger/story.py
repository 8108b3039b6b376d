"""An item's story in sentences: one for each thing that happened. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from p2pos.content import cid
from p2pos.ledger.abi import ZERO
from p2pos.ledger.index_history import Happening
from p2pos.ledger.plain_words import item_name, some, when
from p2pos.ledger.terms import Policy
from p2pos.types import Address


@dataclass(frozen=True, slots=True)
class Words:
    """How people, classes and failures are called."""

    names: Mapping[Address, str]
    """Of addresses that are known; others are told whole."""
    items: Mapping[int, str]
    """Of classes that are known, by id."""
    why: Callable[[bytes], str]
    """What revert data means."""

    def who(self, address: str) -> str:
        """A person, a world or a contract."""
        return self.names.get(Address(address), address)

    def some(self, one: Happening) -> str:
        """How many of what."""
        return some([(one.id or 0, one.amount or 0)], self.items)

    def item(self, one: Happening) -> str:
        """Of what class."""
        return item_name(one.id or 0, self.items)


def told(one: Happening, words: Words) -> str:
    """What happened, in a sentence without its full stop."""
    return _SENTENCES[kind(one)](one, words)


def kind(one: Happening) -> str:
    """`one.kind`; but `cancelled` for what uses up a nonce through a relayer: nothing of class 0, given to oneself."""
    emptied = one.kind == "moved" and one.one == one.other and not one.id and not one.amount
    return "cancelled" if emptied else one.kind


def _made(one: Happening, words: Words) -> str:
    return f"{words.who(one.operator)} made {words.some(one)} for {words.who(one.other)}"


def _moved(one: Happening, words: Words) -> str:
    return f"{words.who(one.one)} gave {words.who(one.other)} {words.some(one)}"


def _burned(one: Happening, words: Words) -> str:
    return f"{words.who(one.one)} destroyed {words.some(one)}"


def _spent(one: Happening, words: Words) -> str:
    taken = f"world {words.who(one.operator)} took {words.some(one)} from {words.who(one.one)}, as allowed"
    if one.other == ZERO:
        return f"{taken}, and destroyed it"
    return taken if one.other == one.operator else f"{taken}, for {words.who(one.other)}"


def _swapped(one: Happening, words: Words) -> str:
    first, second = (some(side, words.items) for side in one.sides)
    return f"{words.who(one.one)} swapped {first} for {second} with {words.who(one.other)}"


def _locked(one: Happening, words: Words) -> str:
    until = f"to stay until {when(one.until or 0)} at the latest"
    return f"{words.who(one.one)} carried {words.some(one)} into world {words.who(one.other)}, {until}"


def _released(one: Happening, words: Words) -> str:
    return f"{words.some(one)} of {words.who(one.one)}'s came back from world {words.who(one.other)}"


def _allowed(one: Happening, words: Words) -> str:
    until = when(one.until or 0)
    return f"{words.who(one.one)} let world {words.who(one.other)} take up to {words.some(one)}, until {until}"


def _revoked(one: Happening, words: Words) -> str:
    return f"{words.who(one.one)} no longer let world {words.who(one.other)} take any {words.item(one)}"


def _class(one: Happening, words: Words) -> str:
    terms = one.terms
    said = [f"at most {terms['cap']} ever" if terms["cap"] else "without a limit"]
    said += ["never to change hands"] if terms["soulbound"] else []
    said += {
        Policy.FROZEN: ["never to be changed"],
        Policy.ISSUER: ["to be changed by the issuer"],
        Policy.DELAYED: [f"to be changed by the issuer, {terms['delay']} s after saying so"],
    }[Policy(terms["policy"])]
    said += [f"with {terms['royalty_bps'] / 100:g} % owed of each sale"] if terms["royalty_bps"] else []
    return f"{words.who(one.one)} made the class {words.item(one)}: {', '.join(said)}"


def _minter(one: Happening, words: Words) -> str:
    if not one.amount:
        return f"{words.who(one.one)} no longer let {words.who(one.other)} make {words.item(one)}"
    return f"{words.who(one.one)} let {words.who(one.other)} make up to {words.some(one)}"


def _proposed(one: Happening, words: Words) -> str:
    due = when(one.starts or 0)
    return f"{words.who(one.one)} proposed version {one.version} of {words.item(one)}, to hold from {due} on"


def _withdrawn(one: Happening, words: Words) -> str:
    return f"{words.who(one.one)} withdrew version {one.version} of {words.item(one)}"


def _updated(one: Happening, words: Words) -> str:
    described = f", described by {cid.from_digest(one.digest)}" if one.digest else ""
    return f"version {one.version} of {words.item(one)} came into force{described}"


def _cancelled(one: Happening, words: Words) -> str:
    which = "a nonce" if one.nonce is None else f"nonce {one.nonce}"
    return f"{words.who(one.one)} used up {which}, so that nothing else signed with it takes effect"


def _failed(one: Happening, words: Words) -> str:
    why = words.why(one.reason or b"")
    return f"what {words.who(one.one)} signed with nonce {one.nonce} had no effect: {why}"


def _call_failed(one: Happening, words: Words) -> str:
    return f"something in a batch had no effect: {words.why(one.reason or b'')}"


def _approved(one: Happening, words: Words) -> str:
    return f"{words.who(one.one)} let {words.who(one.other)} move every item, now and later"


def _disapproved(one: Happening, words: Words) -> str:
    return f"{words.who(one.one)} no longer let {words.who(one.other)} move every item"


_SENTENCES: Mapping[str, Callable[[Happening, Words], str]] = {
    "class": _class,
    "minter": _minter,
    "made": _made,
    "moved": _moved,
    "burned": _burned,
    "spent": _spent,
    "swapped": _swapped,
    "locked": _locked,
    "released": _released,
    "allowed": _allowed,
    "revoked": _revoked,
    "proposed": _proposed,
    "withdrawn": _withdrawn,
    "updated": _updated,
    "cancelled": _cancelled,
    "failed": _failed,
    "call failed": _call_failed,
    "approved": _approved,
    "disapproved": _disapproved,
}

COLUMNS = (
    "block",
    "time",
    "transaction",
    "log",
    "position",
    "kind",
    "from",
    "to",
    "operator",
    "class",
    "name",
    "amount",
    "story",
)
"""Of a line of CSV."""


def row(one: Happening, words: Words) -> Sequence[str]:
    """A line of CSV, in the order of `COLUMNS`. Of a swap, the class and the amount are in the story alone."""
    return [
        str(one.block),
        when(one.timestamp),
        one.transaction,
        str(one.log),
        str(one.position),
        kind(one),
        one.one,
        one.other,
        one.operator,
        "" if one.id is None else f"0x{one.id:064x}",
        inert(words.items.get(one.id, "")) if one.id is not None else "",
        "" if one.amount is None else str(one.amount),
        inert(told(one, words)),
    ]


def inert(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: whoever makes a class may call it “=…”."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
