"""Intents of all kinds, signed as their signers would, or not quite. Pure, given its random numbers."""

from collections.abc import Callable

from tests.contract_model.abi import WORD_MAX
from tests.contract_model.calls import Call
from tests.contract_model.contract import MAX_ITEMS
from tests.contract_model.intents import (
    ENTRY_POINTS,
    BatchTransfer,
    Intent,
    Item,
    Lock,
    Spend,
    Swap,
    Transfer,
    Unlock,
    digest,
    domain_separator,
)
from tests.contract_model.machine import CHAIN_ID, CONTRACT
from tests.contract_model.signatures import Key
from tests.contract_model.values import UINT128_OVER, Values

_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Of secp256k1 (SEC 2, 2.4.1)."""
_ELSEWHERE = (domain_separator(CHAIN_ID + 1, CONTRACT), domain_separator(CHAIN_ID, CONTRACT + 1))


class Signing:
    """Drafts intents and signs them."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._random = values.random
        self._ledger = values.model.ledger
        self._signatures = values.model.signatures
        self._keys = values.people.keys
        self._plain = frozenset(values.people.plain)

    def draft(self) -> Intent:
        """An intent of any kind."""
        roll = self._random.random() * 52
        for kind, share in (
            (self.transfer, 14),
            (self.batch, 8),
            (self.lock, 12),
            (self.unlock, 4 if self._lock_in_force() else 1),
            (self.spend, 6),
        ):
            if (roll := roll - share) < 0:
                return kind()
        return self.swap()

    def signed(self, intent: Intent) -> Call:
        """The call that submits an intent, signed by whom it concerns, unless a flaw came in."""
        signatures = [self._sign(signer, intent) for signer, _ in intent.signers]
        if len(signatures) == 2 and self._values.flawed():
            signatures.reverse()
        return Call(ENTRY_POINTS[type(intent)], (intent, *signatures))

    # ---------------------------------------------------------------------------------------------------- intents

    def transfer(self) -> Transfer:
        values = self._values
        owner, id_ = values.holding()
        if self._random.random() < 0.004:
            owner = 0
        amount = values.amount(owner, id_)
        return Transfer(owner, values.receiver(), id_, amount, values.nonce(owner), values.deadline())

    def plain_transfer(self) -> Transfer | None:
        """A transfer between accounts without code, which the least gas of a batch is enough for."""
        transfer = self.transfer()
        return transfer if self._plain.issuperset(transfer[:2]) else None

    def batch(self) -> BatchTransfer:
        values = self._values
        owner, id_ = values.holding()
        items = values.items_of(owner, 4)
        if self._random.random() < 0.06:
            items = (Item(id_, 0),) * values.one((MAX_ITEMS, MAX_ITEMS + 1))
        ids, amounts = (tuple(item[part] for item in items) for part in (0, 1))
        if values.flawed():
            amounts = values.one((amounts[1:], (*amounts, 0)))
        return BatchTransfer(owner, values.receiver(), ids, amounts, values.nonce(owner), values.deadline())

    def lock(self) -> Lock:
        values = self._values
        owner, id_ = values.holding()
        world = values.world()
        if (other := self._lock_in_force()) and self._random.random() < 0.5:
            owner, id_, _ = other  # several worlds lock of one holding
        if values.flawed():
            owner, id_, world = values.one((self._lock_in_force() or (owner, id_, 0), (owner, id_, 0)))
        amount = values.amount(owner, id_) or (0 if values.flawed() else 1)
        return Lock(owner, world, id_, amount, values.lock_until(), values.nonce(owner), values.deadline())

    def unlock(self) -> Unlock:
        values = self._values
        in_force = None if values.flawed() else self._lock_in_force()
        owner, id_, world = in_force or (*values.holding(), values.world())
        return Unlock(owner, world, id_, values.nonce(world), values.deadline())

    def _lock_in_force(self) -> tuple[int, int, int] | None:
        inside = [key for key, hold in self._ledger.holds.items() if hold.amount]
        return self._values.one(inside) if inside else None

    def spend(self) -> Spend:
        values = self._values
        owner, id_ = values.holding()
        most = values.one((0, 1, values.up_to(10), UINT128_OVER - 1))
        if values.flawed():
            most = values.one((UINT128_OVER, WORD_MAX))
        return Spend(owner, values.world(), id_, most, values.spend_until(), values.nonce(owner), values.deadline())

    def swap(self) -> Swap:
        values = self._values
        first, id_ = values.holding()
        second, _ = values.holding()
        if first == second and not values.flawed():
            second = values.account()
        sides = [values.items_of(first, 3), values.items_of(second, 3)]
        if self._random.random() < 0.05:
            sides[values.one((0, 1))] = (Item(id_, 0),) * values.one((MAX_ITEMS, MAX_ITEMS + 1))
        if self._random.random() < 0.1 and len(sides[0]) == 1:
            sides[1] = (*sides[1], *sides[0])  # give back what one has just got
        return Swap(first, second, *sides, values.nonce(first), values.nonce(second), values.deadline())

    # ------------------------------------------------------------------------------------------------- signatures

    def _sign(self, signer: int, intent: Intent) -> bytes:
        key = self._keys.get(signer)
        if self._values.flawed():
            return self._values.one(_FLAWS)(self, key or self._someone(), intent)
        if key is None or (signer not in self._plain and self._random.random() < 0.5):
            return self._signatures.sign_as_puppet(intent)
        return self._signatures.sign(key, intent)

    def _someone(self) -> Key:
        return self._values.one(tuple(self._keys.values()))

    def _by_another(self, key: Key, intent: Intent) -> bytes:
        return self._signatures.sign(self._someone(), intent)

    def _of_another_intent(self, key: Key, intent: Intent) -> bytes:
        """The same but for one number, which is a unit more."""
        numbers = [place for place, value in enumerate(intent) if isinstance(value, int) and value < WORD_MAX]
        place = self._values.one(numbers)
        changed = intent._replace(**{intent._fields[place]: intent[place] + 1})
        return self._sign_altered(key, changed)

    def _of_another_kind(self, key: Key, intent: Intent) -> bytes:
        """The same words under another type, where there is one of the same shape."""
        twin = {Lock: Spend, Spend: Lock}.get(type(intent))
        return self._sign_altered(key, twin(*intent)) if twin else b""

    def _sign_altered(self, key: Key, intent: Intent) -> bytes:
        if self._random.random() < 0.2:
            return self._signatures.sign_as_puppet(intent)
        return self._signatures.sign(key, intent)

    def _elsewhere(self, key: Key, intent: Intent) -> bytes:
        return key.sign(digest(self._values.one(_ELSEWHERE), intent))

    def _twin(self, key: Key, intent: Intent) -> bytes:
        """The other signature that the curve's arithmetic takes for the same message."""
        signature = self._signatures.sign(key, intent)
        s = _ORDER - int.from_bytes(signature[32:64], "big")
        return signature[:32] + s.to_bytes(32, "big") + bytes((55 - signature[64],))  # 27 ↔ 28

    def _bent(self, key: Key, intent: Intent) -> bytes:
        """Nearly right: a byte short or long, v from 0, or a bit flipped."""
        signature = self._signatures.sign(key, intent)
        at = int(self._random.random() * 64)
        flipped = signature[:at] + bytes((signature[at] ^ 1,)) + signature[at + 1 :]
        low = signature[:64] + bytes((signature[64] - 27,))
        return self._values.one((signature[:64], signature + b"\0", low, flipped))

    def _as_a_puppet(self, key: Key, intent: Intent) -> bytes:
        return self._signatures.sign_as_puppet(intent)

    def _none(self, key: Key, intent: Intent) -> bytes:
        return self._values.one((b"", bytes(65), bytes(64) + b"\x1b"))


_FLAWS: tuple[Callable[[Signing, Key, Intent], bytes], ...] = (
    Signing._by_another,
    Signing._of_another_intent,
    Signing._of_another_kind,
    Signing._elsewhere,
    Signing._twin,
    Signing._bent,
    Signing._as_a_puppet,
    Signing._none,
)
