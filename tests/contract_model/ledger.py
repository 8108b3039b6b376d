"""What the model remembers: tables whose changes can be taken back, because a call that fails changes nothing. Pure."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.contract_model.calls import Call, Terms
from tests.contract_model.puppets import Hook, Wallet

_ABSENT = object()


class ItemClass(NamedTuple):
    """A class of items, as it stands."""

    issuer: int
    terms: Terms
    digest: int
    minted: int = 0
    """Units ever made."""
    burned: int = 0
    version: int = 1
    pending: tuple[int, int] | None = None
    """The proposed digest and when it may take effect, in seconds."""


class Hold(NamedTuple):
    amount: int
    until: int


class Allowance(NamedTuple):
    left: int
    until: int


class PuppetState(NamedTuple):
    """How a contract that receives and signs behaves at the moment."""

    hook: Hook = Hook.ACCEPT
    wallet: Wallet = Wallet.HONEST
    programme: Call | None = None
    chain: bytes = bytes(32)
    """Of the hooks it saw; see `puppets.chained`."""


class Event(NamedTuple):
    """A log of the contract's. Where a rule lets it say one of several things, `data` holds each that it may say."""

    topics: list[bytes]
    data: bytes | tuple[bytes, ...]


@dataclass(slots=True)
class Ledger:
    """The tables, and a journal of what was there before."""

    classes: dict[int, ItemClass] = field(default_factory=dict)
    balances: dict[tuple[int, int], int] = field(default_factory=dict)
    """By (owner, id)."""
    holds: dict[tuple[int, int, int], Hold] = field(default_factory=dict)
    """By (owner, id, world); of no units where it was released."""
    held: dict[tuple[int, int], int] = field(default_factory=dict)
    """The sum of the holds by (owner, id)."""
    allowances: dict[tuple[int, int, int], Allowance] = field(default_factory=dict)
    """What a world may spend, by (owner, id, world)."""
    mint_allowances: dict[tuple[int, int], int] = field(default_factory=dict)
    """By (id, minter)."""
    nonces: dict[tuple[int, int], bool] = field(default_factory=dict)
    """Those used or cancelled, by (owner, nonce)."""
    approvals: dict[tuple[int, int], bool] = field(default_factory=dict)
    """Whether (owner, operator)."""
    puppets: dict[int, PuppetState] = field(default_factory=dict)
    """By address: every account that has code."""
    events: list[Event] = field(default_factory=list)
    _journal: list[tuple[dict[Any, Any], Hashable, Any]] = field(default_factory=list)

    def put(self, table: dict[Any, Any], key: Hashable, value: Any) -> None:
        self._journal.append((table, key, table.get(key, _ABSENT)))
        table[key] = value

    def here(self) -> tuple[int, int]:
        """A place to go back to."""
        return len(self._journal), len(self.events)

    def back_to(self, place: tuple[int, int]) -> None:
        """Take back every change and event since."""
        changes, events = place
        while len(self._journal) > changes:
            table, key, before = self._journal.pop()
            if before is _ABSENT:
                table.pop(key, None)
            else:
                table[key] = before
        del self.events[events:]

    def settle(self) -> None:
        """Forget how to go back: the call is over. Its events have been read."""
        self._journal.clear()
        self.events.clear()

    def balance(self, owner: int, id_: int) -> int:
        return self.balances.get((owner, id_), 0)

    def hold(self, owner: int, id_: int, world: int) -> Hold:
        return self.holds.get((owner, id_, world), Hold(0, 0))

    def locked(self, owner: int, id_: int) -> int:
        """Units that can't move: those held for a world, and all of a soulbound class."""
        if self.is_soulbound(id_):
            return self.balance(owner, id_)
        return self.held.get((owner, id_), 0)

    def is_soulbound(self, id_: int) -> bool:
        known = self.classes.get(id_)
        return known is not None and known.terms.soulbound
