"""Accounts, amounts, nonces and times for the calls of a run: at random, but near what matters. Pure.

`flawed` decides once per value whether it is to be one that the contract must refuse.
"""

from collections import defaultdict
from collections.abc import Sequence
from random import Random
from typing import TypeVar

from tests.contract_model.abi import WORD_MAX
from tests.contract_model.contract import MAX_LOCK_S, Contract
from tests.contract_model.intents import Item
from tests.contract_model.people import People

T = TypeVar("T")

FAR_S = 1 << 50
UINT128_OVER = 1 << 128
UINT64_MAX = (1 << 64) - 1
_UNKNOWN_ID = 7
_NONCE_WORDS = (0, 1, 1 << 100, (1 << 248) - 1)
"""Few words of nonces, so that neighbours meet in one; the last of all included."""
_REFRESH = 8
"""Calls after which the list of holdings is made anew; a holding that is gone by then makes a flaw."""


class Values:
    """Draws values that suit the model's state, or flawed ones."""

    def __init__(self, random: Random, model: Contract, people: People) -> None:
        self.random = random
        self.model = model
        self.people = people
        self.flaw_share = random.choice((0.01, 0.03, 0.06, 0.12))
        """How often a value is flawed; a call has a handful of them."""
        self._bound: list[tuple[int, int]] = []
        self._movable: list[tuple[int, int]] = []
        self._focus: tuple[int, int] | None = None
        self._focus_share = random.choice((0.0, 0.1, 0.4))
        """How often a run comes back to one holding, so that much happens to it."""
        self._stale = 0
        self._drawn: dict[int, list[int]] = defaultdict(list)

    def flawed(self) -> bool:
        return self.random.random() < self.flaw_share

    def one(self, options: Sequence[T]) -> T:
        return options[int(self.random.random() * len(options))]

    def up_to(self, most: int) -> int:
        """1 … most."""
        return 1 + int(self.random.random() * most)

    def account(self) -> int:
        return self.one(self.people.all)

    def receiver(self) -> int:
        return 0 if self.flawed() else self.account()

    def world(self) -> int:
        return self.one(self.people.worlds) if self.random.random() < 0.8 else self.account()

    def class_id(self) -> int:
        known = self.model.ledger.classes
        return self.one(tuple(known)) if known and not self.flawed() else _UNKNOWN_ID

    def holding(self, *, soulbound: bool = False) -> tuple[int, int]:
        """An owner and what class they have units of; seldom a soulbound one, or only that."""
        self._stale -= 1
        if self._stale <= 0:
            ledger = self.model.ledger
            self._bound, self._movable = [], []
            for key, balance in ledger.balances.items():
                if balance:
                    (self._bound if ledger.is_soulbound(key[1]) else self._movable).append(key)
            self._stale = _REFRESH
            if self._focus and (not self._movable or self._focus not in self._movable):
                self._focus = None
        if self.random.random() < self._focus_share and self._movable and not soulbound:
            self._focus = self._focus or self.one(self._movable)
            return self._focus
        holdings = self._bound if soulbound or self.random.random() < 0.03 else self._movable
        if holdings and self.random.random() > 0.02:
            return self.one(holdings)
        return self.account(), self.class_id()

    def free(self, owner: int, id_: int) -> int:
        ledger = self.model.ledger
        return ledger.balance(owner, id_) - ledger.held.get((owner, id_), 0)

    def amount(self, owner: int, id_: int) -> int:
        free = self.free(owner, id_)
        balance = self.model.ledger.balance(owner, id_)
        if free < balance and self.random.random() < 0.1:
            return free + 1  # there, but locked
        if self.flawed():
            return self.one((free + 1, balance, balance + 1, WORD_MAX, UINT128_OVER, free + UINT128_OVER))
        roll = self.random.random()
        if roll < 0.05 or free <= 0:
            return 0
        return free if roll < 0.25 else self.up_to(min(free, 4))

    def items_of(self, owner: int, most: int) -> tuple[Item, ...]:
        """Up to so many items that the owner has, one class twice now and then."""
        held = [id_ for holder, id_ in self._movable if holder == owner]
        count = int(self.random.random() * (most + 1))
        ids = [self.one(held) if held else self.class_id() for _ in range(count)]
        if self.random.random() < 0.6:
            ids = list(dict.fromkeys(ids))
        return tuple(Item(id_, self.amount(owner, id_)) for id_ in ids)

    def nonce(self, signer: int) -> int:
        used, drawn = self.model.ledger.nonces, self._drawn[signer]
        if drawn and self.flawed():
            return self.one(drawn)
        for _ in range(4):
            nonce = self.one(_NONCE_WORDS) << 8 | int(self.random.random() * 256)
            if (signer, nonce) not in used:
                break
        else:
            nonce = self.random.getrandbits(256)
        drawn.append(nonce)
        return nonce

    def deadline(self) -> int:
        now = self.model.now_s
        if self.flawed():
            return self.one((now - 1, 0))
        return self.one((now, now + self.up_to(200), FAR_S, FAR_S, WORD_MAX))

    def lock_until(self) -> int:
        now = self.model.now_s
        if self.flawed():
            return self.one((now, now + MAX_LOCK_S + 1, 0, UINT64_MAX))
        return self.one((now + 1, now + MAX_LOCK_S, now + self.up_to(300), now + self.up_to(MAX_LOCK_S)))

    def spend_until(self) -> int:
        now = self.model.now_s
        return self.one((now, now + 1, now + self.up_to(300), now + self.up_to(7200), FAR_S, UINT64_MAX))
