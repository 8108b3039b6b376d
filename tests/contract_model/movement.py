"""How units move in the model: out of one hand, into another, and what the receiver has to say. Pure."""

from collections.abc import Callable, Sequence

from tests.contract_model import errors, puppets
from tests.contract_model.calls import Call
from tests.contract_model.errors import RefusedError
from tests.contract_model.intents import Item
from tests.contract_model.ledger import Ledger
from tests.contract_model.puppets import Hook

Perform = Callable[[int, Call], bytes]
"""Carries out a call of the contract by this sender, or raises RefusedError and changes nothing."""


class Movement:
    """Moves units in a ledger and tells receivers, which may call the contract again by `perform`."""

    def __init__(self, ledger: Ledger, perform: Perform) -> None:
        self._ledger = ledger
        self._perform = perform

    def faults(self, owner: int, item: Item) -> list[bytes]:
        """The rule that stops an owner's units from moving, if any."""
        id_, amount = item
        balance = self._ledger.balance(owner, id_)
        if amount > balance:
            return [errors.insufficient_balance(owner, balance, amount, id_)]
        if amount and self._ledger.is_soulbound(id_):
            return [errors.soulbound(id_)]
        free = balance - self._ledger.held.get((owner, id_), 0)
        return [errors.item_locked(owner, id_, free)] if amount > free else []

    def move(self, owner: int, to: int, items: Sequence[Item]) -> list[bytes]:
        """Take each item from the owner in turn and give it. Zero stands for nobody. Returns the rules broken.

        The caller takes it all back if there are any.
        """
        faults: list[bytes] = []
        for item in items:
            if owner and (broken := self.faults(owner, item)):
                faults += broken
            else:
                self._shift(owner, to, item)
        return faults

    def burn(self, owner: int, item: Item) -> list[bytes]:
        """An owner destroys units of their own, soulbound ones too. Returns the rules broken."""
        covered = item.amount <= self._ledger.balance(owner, item.id)
        faults = [] if covered and self._ledger.is_soulbound(item.id) else self.faults(owner, item)
        if not faults:
            self._shift(owner, 0, item)
        return faults

    def _shift(self, owner: int, to: int, item: Item) -> None:
        ledger, (id_, amount) = self._ledger, item
        if owner:
            ledger.put(ledger.balances, (owner, id_), ledger.balance(owner, id_) - amount)
        if to:
            ledger.put(ledger.balances, (to, id_), ledger.balance(to, id_) + amount)
        elif known := ledger.classes.get(id_):
            ledger.put(ledger.classes, id_, known._replace(burned=known.burned + amount))

    def tell_one(self, operator: int, sender: int, to: int, item: Item, data: bytes = b"") -> None:
        """Ask a receiver that is a contract to accept one item. Raises RefusedError."""
        if to in self._ledger.puppets:
            self._tell(to, puppets.received(operator, sender, item.id, item.amount, data))

    def tell_many(self, operator: int, sender: int, to: int, items: Sequence[Item], data: bytes = b"") -> None:
        """The same for several."""
        if to in self._ledger.puppets:
            ids, amounts = [item.id for item in items], [item.amount for item in items]
            self._tell(to, puppets.batch_received(operator, sender, ids, amounts, data))

    def _tell(self, to: int, hook_call: bytes) -> None:
        ledger = self._ledger
        state = ledger.puppets[to]
        state = state._replace(chain=puppets.chained(state.chain, hook_call))
        ledger.put(ledger.puppets, to, state)
        not_accepted = errors.invalid_receiver(to)
        match state.hook:
            case Hook.ACCEPT:
                return
            case Hook.WRONG_VALUE | Hook.REFUSE | Hook.BURN:
                raise RefusedError(not_accepted)
            case Hook.REFUSE_AT_LENGTH:
                raise RefusedError(puppets.refusal())
            case Hook.SILENT:
                raise RefusedError(errors.ILL_TYPED, not_accepted)
        ledger.put(ledger.puppets, to, state._replace(hook=Hook.ACCEPT))
        try:
            self._perform(to, state.programme)
        except RefusedError as refused:
            if state.hook is Hook.REENTER_OR_REFUSE:
                # a refusal without a word becomes the contract's own
                raise RefusedError(*(reason or not_accepted for reason in refused.reasons)) from None
