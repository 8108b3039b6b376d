"""What a person should think twice about before signing. Pure.

A sentence says what is signed; these lines say what is unusual about it: an amount without an end, a date far away,
an address that only looks like a known one. None of them forbids anything. Start reading at `of`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from p2pos.ledger.plain_words import item_name, when
from p2pos.ledger.typed_data import BatchTransfer, Domain, Lock, Signable, Spend, Swap, Transfer, Unlock
from p2pos.types import Address

FAR_S = 31 * 86_400
"""Seconds. Commands give a signature a day; what is good for more than a month is easily forgotten."""
UNLIMITED = 1 << 127
"""Of one class. The contract keeps balances in 128 bits, so half of that is more than there will be of anything."""
ALIKE = 3
"""Hex digits at each end of an address. Wallets show three or four, and who forges an address makes those equal."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a home knows, to compare with."""

    names: Mapping[Address, str]
    """Of wallets and contacts."""
    received: frozenset[Address] = frozenset()
    """Whom something was signed for before."""
    items: Mapping[int, str] = field(default_factory=dict)
    """Names of classes by id."""
    soulbound: frozenset[int] = frozenset()
    """Classes that never change hands."""
    domain: Domain | None = None
    """The chain and contract of the settings, where they name both."""


def of(domain: Domain, struct: Signable, known: Known, *, now_s: int) -> list[str]:
    """Lines to show before `struct` is signed for `domain`; the gravest first.

    Args:
        domain: where the signature would count.
        struct: what would be signed.
        known: what this home knows.
        now_s: seconds since the epoch.

    """
    lines: list[str] = []
    if known.domain is not None and domain != known.domain:
        lines.append(
            f"this counts on chain {domain.chain_id} at contract {domain.contract}, "
            f"not on chain {known.domain.chain_id} at {known.domain.contract} as the settings say"
        )
    for other in _others(struct):
        lines += about_address(other, known)
        if other == domain.contract:
            lines.append(f"{other} is the asset contract itself; what is given to it is lost")
    lines += _amounts(struct)
    lines += _dates(struct, now_s)
    for id_ in classes(struct):
        if id_ in known.soulbound and not isinstance(struct, Unlock):
            lines.append(f"{item_name(id_, known.items)} is soulbound: it can't change hands, nor be lent")
        if id_ not in known.items:
            lines.append(f"nothing is known here of class {hex(id_)}; make sure that it is what you think")
    return lines


def about_address(address: Address, known: Known) -> list[str]:
    """What is suspicious about an address that a person meets: that it looks like a known one and is not."""
    if address in known.names:
        return []
    lines = [
        f"{address} only LOOKS like {name} {other}: it begins and ends alike and is ANOTHER address"
        for other, name in known.names.items()
        if alike(address, other)
    ]
    if address not in known.received:
        lines += [
            f"{address} only LOOKS like {other}, for which something was signed before, and is ANOTHER address"
            for other in sorted(known.received - set(known.names))
            if alike(address, other)
        ]
    return lines


def alike(one: Address, other: Address) -> bool:
    """Whether two different addresses begin and end with the same digits, as shortened ones are compared."""
    a, b = one.lower(), other.lower()
    return a != b and a[2 : 2 + ALIKE] == b[2 : 2 + ALIKE] and a[-ALIKE:] == b[-ALIKE:]


def receivers(struct: Signable) -> list[Address]:
    """Who would get something, or power over it."""
    return _others(struct)


def classes(struct: Signable) -> list[int]:
    """The classes that it is about, in order; none of a cancellation."""
    match struct:
        case Transfer() if struct.owner == struct.to and not struct.amount:
            ids: set[int] = set()
        case BatchTransfer():
            ids = set(struct.ids)
        case Swap():
            ids = {one.id for one in (*struct.first_gives, *struct.second_gives)}
        case _:
            ids = {struct.id}
    return sorted(ids)


def _others(struct: Signable) -> list[Address]:
    match struct:
        case Transfer() | BatchTransfer():
            return [struct.to] if struct.to != struct.owner else []
        case Lock() | Spend():
            return [struct.world]
        case Swap():
            return [struct.first, struct.second]
        case _:
            return [struct.owner]


def _amounts(struct: Signable) -> list[str]:
    if isinstance(struct, Spend) and struct.max >= UNLIMITED:
        return ["this is WITHOUT LIMIT: the world could take all of it, now and whatever comes later"]
    if isinstance(struct, Swap):
        amounts = [one.amount for one in (*struct.first_gives, *struct.second_gives)]
    elif isinstance(struct, BatchTransfer):
        amounts = list(struct.amounts)
    else:
        amounts = [getattr(struct, "amount", 0)]
    return [f"{amount} is more than there is of anything" for amount in amounts if amount >= UNLIMITED]


def _dates(struct: Signable, now_s: int) -> list[str]:
    lines = []
    if struct.deadline < now_s:
        lines.append(f"its time was over at {when(struct.deadline)}; the contract will refuse this")
    elif struct.deadline - now_s > FAR_S:
        lines.append(f"anyone can submit this until {when(struct.deadline)}, {_days(struct.deadline - now_s)} from now")
    if isinstance(struct, Lock | Spend) and struct.until - now_s > FAR_S:
        lines.append(f"the world has this power until {when(struct.until)}, {_days(struct.until - now_s)} from now")
    return lines


def _days(seconds: int) -> str:
    return f"{seconds // 86_400} days"
