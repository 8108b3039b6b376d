"""What a person is about to sign, in one sentence of plain English. Pure."""

import datetime as dt
from collections.abc import Mapping, Sequence

from p2pos.errors import InternalError
from p2pos.ledger.typed_data import BatchTransfer, Lock, Signable, Spend, Swap, Transfer, Unlock
from p2pos.types import Address

_LAST_DATE = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second that datetime can write

Names = Mapping[Address, str]
Items = Mapping[int, str]


def sentence(struct: Signable, *, names: Names, items: Items) -> str:
    """What is signed, in one sentence that a person can agree to.

    Args:
        struct: what is to be signed.
        names: of addresses that are known; others are shown whole, because a shortened one can be imitated.
        items: of classes that are known, by id.

    """
    return f"{deed(struct, names=names, items=items)}; anyone may submit this until {when(struct.deadline)}"


def deed(struct: Signable, *, names: Names, items: Items) -> str:
    """What would happen, without who may submit it and until when."""

    def who(address: Address) -> str:
        return names.get(address, address)

    match struct:
        case Transfer():
            if struct.owner == struct.to and not struct.amount:
                owner = who(struct.owner)
                return f"{owner} uses up nonce {struct.nonce}, so that nothing else signed with it takes effect"
            given = some([(struct.id, struct.amount)], items)
            return f"{who(struct.owner)} gives {who(struct.to)} {given}"
        case BatchTransfer():
            given = some(list(zip(struct.ids, struct.amounts, strict=True)), items)
            return f"{who(struct.owner)} gives {who(struct.to)} {given}, all or none"
        case Lock():
            held = some([(struct.id, struct.amount)], items)
            return f"{who(struct.owner)} lets world {who(struct.world)} hold {held} in place until {when(struct.until)}"
        case Unlock():
            item = item_name(struct.id, items)
            return f"world {who(struct.world)} releases all of {who(struct.owner)}'s {item} that it holds in place"
        case Spend():
            owner, world = who(struct.owner), who(struct.world)
            if not struct.max:
                return f"{owner} no longer lets world {world} take any {item_name(struct.id, items)}"
            taken = some([(struct.id, struct.max)], items)
            return (
                f"{owner} lets world {world} take up to {taken} for good, until {when(struct.until)}, in place of what"
                " it might take of them before"
            )
        case Swap():
            first = [(item.id, item.amount) for item in struct.first_gives]
            second = [(item.id, item.amount) for item in struct.second_gives]
            return (
                f"{who(struct.first)} gives {who(struct.second)} {some(first, items)}, and {who(struct.second)} gives"
                f" {who(struct.first)} {some(second, items)}, both or neither"
            )
    raise InternalError(f"no sentence for a {type(struct).__name__}")


def some(pairs: Sequence[tuple[int, int]], items: Items) -> str:
    """Amounts of classes: “1 × Bronze Lantern and 20 × Coin”."""
    said = [f"{amount} × {item_name(id_, items)}" for id_, amount in pairs]
    if not said:
        return "nothing"
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def item_name(id_: int, items: Items) -> str:
    """A class's name, or its id whole."""
    return items.get(id_, f"item {hex(id_)}")


def when(second: int) -> str:
    """A second since the epoch as a person reads it, in UTC."""
    if second > _LAST_DATE:
        return "the end of time"
    return dt.datetime.fromtimestamp(second, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
