"""The contract, by its documentation: each function, its rules, its events. Pure; time is an attribute.

A function lists every rule that a call breaks, in the order in which the documentation names them, and the contract
must answer with the first; a call that breaks none must take effect.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from eth_hash.auto import keccak

from tests.contract_model import errors, events
from tests.contract_model.abi import WORD_MAX, word
from tests.contract_model.calls import CALLS, SELECTORS, Call, Junk, Member, Terms
from tests.contract_model.errors import NOT_ENOUGH_GAS, Reason, RefusedError, refuse
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
    domain_separator,
)
from tests.contract_model.ledger import Allowance, Event, Hold, ItemClass, Ledger
from tests.contract_model.movement import Movement
from tests.contract_model.puppets import Wallet
from tests.contract_model.signatures import Signatures

MAX_DELAY_S = 365 * 24 * 3600
MAX_LOCK_S = 7 * 24 * 3600
MAX_ROYALTY_BPS = 5000
MAX_ITEMS = 32
MIN_GAS_PER_INTENT = 100_000
MAX_REASON_BYTES = 256
UINT128_MAX = (1 << 128) - 1
FROZEN, ISSUER, DELAYED = range(3)
_SIGNED = frozenset(ENTRY_POINTS.values())
RELAYABLE = frozenset(SELECTORS[name] for name in ENTRY_POINTS.values())

LIMITS = {
    # the argument at this place is below this power of two
    "setMinter": ((1, 160), (2, 128)),
    "mint": ((0, 160),),
    "spend": ((0, 160), (3, 160)),
    "setApprovalForAll": ((0, 160), (1, 1)),
}


class Outcome(NamedTuple):
    """What a call answers: with `reasons` it changed nothing and says one of them."""

    reasons: tuple[Reason, ...]
    value: bytes
    events: tuple[Event, ...]


class Contract:
    """The model of one deployed contract."""

    def __init__(self, address: int, chain_id: int) -> None:
        self.ledger = Ledger()
        self.signatures = Signatures(domain_separator(chain_id, address))
        self.now_s = 0
        self._movement = Movement(self.ledger, self.perform)
        self._functions: dict[str, Callable[..., bytes | None]] = {
            name: getattr(self, "_" + _in_snake_case(name)) for name in CALLS
        }

    def call(self, sender: int, call: Member) -> Outcome:
        """Carry out a transaction."""
        try:
            value = self.perform(sender, call)
        except RefusedError as refused:
            outcome = Outcome(refused.reasons, b"", ())
        else:
            outcome = Outcome((), value, tuple(self.ledger.events))
        self.ledger.settle()
        return outcome

    def perform(self, sender: int, call: Member) -> bytes:
        """Carry out a call, within a transaction. Returns its value, or raises RefusedError and changes nothing."""
        place = self.ledger.here()
        try:
            _check_types(call)
            return self._functions[call.name](sender, *call.arguments) or b""
        except RefusedError:
            self.ledger.back_to(place)
            raise

    def _emit(self, event: Event) -> None:
        self.ledger.events.append(event)

    # ---------------------------------------------------------------------------------------------------- classes

    def _create_class(self, sender: int, salt: int, terms: Terms, digest: int) -> bytes:
        id_ = int.from_bytes(keccak(word(sender) + word(salt)), "big")
        faults = []
        if (terms.delay > 0) != (terms.policy == DELAYED) or terms.delay > MAX_DELAY_S:
            faults.append(errors.bad_terms(1))
        if (terms.royalty_bps == 0) != (terms.royalty_receiver == 0) or terms.royalty_bps > MAX_ROYALTY_BPS:
            faults.append(errors.bad_terms(2))
        if id_ in self.ledger.classes:
            faults.append(errors.class_exists(id_))
        if terms.policy > DELAYED or terms.delay >> 32 or terms.royalty_bps >> 16 or terms.cap >> 128:
            raise RefusedError(errors.ILL_TYPED, *faults)  # each field is looked at when it is needed
        refuse(faults)
        self.ledger.put(self.ledger.classes, id_, ItemClass(sender, terms, digest))
        self._emit(events.class_created(id_, sender, terms, digest))
        return word(id_)

    def _class(self, id_: int) -> ItemClass:
        known = self.ledger.classes.get(id_)
        if known is None:
            raise RefusedError(errors.unknown_class(id_))
        return known

    def _class_of_issuer(self, sender: int, id_: int) -> ItemClass:
        known = self._class(id_)
        if known.issuer != sender:
            raise RefusedError(errors.not_issuer(id_, sender))
        return known

    def _set_minter(self, sender: int, id_: int, minter: int, allowance: int) -> None:
        self._class_of_issuer(sender, id_)
        self.ledger.put(self.ledger.mint_allowances, (id_, minter), allowance)
        self._emit(events.minter_set(id_, minter, allowance))

    def _mint(self, sender: int, to: int, id_: int, amount: int) -> None:
        known, faults = self._class(id_), []
        if sender != known.issuer:
            left = self.ledger.mint_allowances.get((id_, sender), 0)
            if left == 0 or amount > left:
                faults.append(errors.not_minter(id_, sender, left))
            self.ledger.put(self.ledger.mint_allowances, (id_, sender), left - amount)
        cap = known.terms.cap or UINT128_MAX
        minted = min(known.minted + amount, WORD_MAX)
        if minted > cap:
            faults.append(errors.cap_exceeded(id_, cap, minted))
        if to == 0:
            faults.append(errors.invalid_receiver(0))
        self.ledger.put(self.ledger.classes, id_, known._replace(minted=minted))
        self._give(sender, 0, to, Item(id_, amount), b"", faults)

    def _burn(self, sender: int, id_: int, amount: int) -> None:
        """Soulbound units too: `move` binds them only to those whom others may take from."""
        refuse(self._movement.burn(sender, Item(id_, amount)))
        self._emit(events.transfer_single(sender, sender, 0, id_, amount))

    def _update_class(self, sender: int, id_: int, digest: int) -> None:
        known = self._class_of_issuer(sender, id_)
        if known.terms.policy == FROZEN:
            raise RefusedError(errors.class_frozen(id_))
        if known.terms.policy == ISSUER:
            self._update(id_, known, digest)
            return
        due = self.now_s + known.terms.delay
        self.ledger.put(self.ledger.classes, id_, known._replace(pending=(digest, due)))
        self._emit(events.update_proposed(id_, known.version + 1, digest, due))

    def _apply_update(self, sender: int, id_: int) -> None:
        known = self.ledger.classes.get(id_)
        if known is None or known.pending is None:
            raise RefusedError(errors.no_update(id_))
        digest, due = known.pending
        if self.now_s < due:
            raise RefusedError(errors.update_not_due(id_, due))
        self._update(id_, known, digest)

    def _update(self, id_: int, known: ItemClass, digest: int) -> None:
        version = known.version + 1
        self.ledger.put(self.ledger.classes, id_, known._replace(digest=digest, version=version, pending=None))
        self._emit(events.class_updated(id_, version, digest, known.digest))
        self._emit(events.uri(id_, digest))

    def _withdraw_update(self, sender: int, id_: int) -> None:
        known = self._class_of_issuer(sender, id_)
        if known.pending is None:
            raise RefusedError(errors.no_update(id_))
        self.ledger.put(self.ledger.classes, id_, known._replace(pending=None))
        self._emit(events.update_withdrawn(id_, known.version + 1))

    # ---------------------------------------------------------------------------------------------------- intents

    def _use(self, intent: Intent, *signatures: bytes) -> list[bytes]:
        """An intent counts once, in time, and by the will of its signers. Returns the rules broken."""
        ledger, faults = self.ledger, []
        if self.now_s > intent.deadline:
            faults.append(errors.intent_expired(intent.deadline))
        for (signer, nonce), signature in zip(intent.signers, signatures, strict=True):
            if (signer, nonce) in ledger.nonces:
                faults.append(errors.nonce_already_used(signer, nonce))
            if not self._is_signed(signer, intent, signature):
                faults.append(errors.bad_signature(signer))
            ledger.put(ledger.nonces, (signer, nonce), True)
            self._emit(events.nonce_used(signer, nonce))
        return faults

    def _is_signed(self, signer: int, intent: Intent, signature: bytes) -> bool:
        if self.signatures.is_by_key(signer, intent, signature):
            return True
        puppet = self.ledger.puppets.get(signer)
        honest = puppet is not None and puppet.wallet is Wallet.HONEST
        return honest and self.signatures.suits_a_puppet(intent, signature)

    def _transfer_with_signature(self, sender: int, intent: Transfer, signature: bytes) -> None:
        self._transfer(sender, intent.sender, intent.to, intent.items[0], b"", self._use(intent, signature))

    def _batch_transfer_with_signature(self, sender: int, intent: BatchTransfer, signature: bytes) -> None:
        if len(intent.ids) > MAX_ITEMS:
            raise RefusedError(errors.too_many_items(len(intent.ids), MAX_ITEMS))
        _check_lengths(intent.ids, intent.amounts, [])
        faults = self._use(intent, signature)
        self._give_many(sender, intent.sender, intent.to, intent.items, b"", faults)

    def _lock_with_signature(self, sender: int, intent: Lock, signature: bytes) -> None:
        ledger, faults = self.ledger, self._use(intent, signature)
        owner, world, id_, amount, until = intent[:5]
        if world == 0 or amount == 0:
            faults.append(errors.empty_lock(world, amount))
        latest = self.now_s + MAX_LOCK_S
        if not self.now_s < until <= latest:
            faults.append(errors.lock_time_out_of_range(until, latest))
        if ledger.hold(owner, id_, world).amount:
            faults.append(errors.already_locked(owner, world, id_))
        faults += self._movement.faults(owner, Item(id_, amount))
        refuse(faults)
        ledger.put(ledger.holds, (owner, id_, world), Hold(amount, until))
        ledger.put(ledger.held, (owner, id_), ledger.held.get((owner, id_), 0) + amount)
        self._emit(events.locked(owner, world, id_, amount, until))

    def _unlock_with_signature(self, sender: int, intent: Unlock, signature: bytes) -> None:
        faults = self._use(intent, signature)
        self._release(intent.owner, intent.world, intent.id, faults)

    def _unlock(self, sender: int, owner: int, world: int, id_: int) -> None:
        hold, faults = self.ledger.hold(owner, id_, world), []
        if hold.amount and sender != world and self.now_s < hold.until:
            faults.append(errors.still_locked(owner, world, id_, hold.until))
        self._release(owner, world, id_, faults)

    def _release(self, owner: int, world: int, id_: int, faults: list[bytes]) -> None:
        ledger = self.ledger
        hold = ledger.hold(owner, id_, world)
        if not hold.amount:
            faults.append(errors.not_locked(owner, world, id_))
        refuse(faults)
        ledger.put(ledger.holds, (owner, id_, world), Hold(0, 0))
        ledger.put(ledger.held, (owner, id_), ledger.held[owner, id_] - hold.amount)
        self._emit(events.unlocked(owner, world, id_, hold.amount))

    def _allow_spend_with_signature(self, sender: int, intent: Spend, signature: bytes) -> None:
        faults = self._use(intent, signature)
        if intent.most > UINT128_MAX:
            faults.append(errors.cap_exceeded(intent.id, UINT128_MAX, intent.most))
        refuse(faults)
        self._allow(intent.owner, intent.world, intent.id, Allowance(intent.most, intent.until))

    def _revoke_spend(self, sender: int, world: int, id_: int) -> None:
        self._allow(sender, world, id_, Allowance(0, 0))

    def _allow(self, owner: int, world: int, id_: int, allowance: Allowance) -> None:
        kept = self._keep(owner, world, id_, allowance)
        self._emit(events.spend_allowed(owner, world, id_, *kept))

    def _keep(self, owner: int, world: int, id_: int, allowance: Allowance) -> Allowance:
        """What is all taken is as if it never was."""
        kept = allowance if allowance.left else Allowance(0, 0)
        self.ledger.put(self.ledger.allowances, (owner, id_, world), kept)
        return kept

    def _spend(self, sender: int, owner: int, id_: int, amount: int, to: int) -> None:
        faults = []
        allowance = self.ledger.allowances.get((owner, id_, sender), Allowance(0, 0))
        left = allowance.left if self.now_s < allowance.until else 0
        if left == 0 or amount > left:
            faults.append(errors.spend_not_allowed(owner, sender, id_, left))
        self._keep(owner, sender, id_, allowance._replace(left=allowance.left - amount))
        self._emit(events.spent(owner, sender, id_, amount, to))
        self._give(sender, owner, to, Item(id_, amount), b"", faults)

    def _swap_with_signatures(self, sender: int, intent: Swap, first_signature: bytes, second_signature: bytes) -> None:
        first, second, firsts, seconds = intent[:4]
        faults = []
        if first == second or not (firsts or seconds):
            faults.append(errors.empty_swap())
        faults += [errors.too_many_items(len(side), MAX_ITEMS) for side in (firsts, seconds) if len(side) > MAX_ITEMS]
        faults += self._use(intent, first_signature, second_signature)
        self._emit(events.swapped(first, second, intent.first_nonce, intent.second_nonce))
        ways = [way for way in ((first, second, firsts), (second, first, seconds)) if way[2]]
        for giver, taker, items in ways:
            faults += self._movement.move(giver, taker, items)
            self._emit_moved(sender, giver, taker, items)
        refuse(faults)
        for giver, taker, items in ways:
            if len(items) == 1:
                self._movement.tell_one(sender, giver, taker, items[0])
            else:
                self._movement.tell_many(sender, giver, taker, items)

    def _emit_moved(self, operator: int, giver: int, taker: int, items: Sequence[Item]) -> None:
        if len(items) == 1:
            self._emit(events.transfer_single(operator, giver, taker, *items[0]))
        else:
            self._emit(events.transfer_batch(operator, giver, taker, items))

    def _cancel(self, sender: int, nonce: int) -> None:
        if (sender, nonce) in self.ledger.nonces:
            raise RefusedError(errors.nonce_already_used(sender, nonce))
        self.ledger.put(self.ledger.nonces, (sender, nonce), True)
        self._emit(events.nonce_cancelled(sender, nonce))

    # ---------------------------------------------------------------------------------------------------- batches

    def _relay(self, sender: int, intents: Sequence[Transfer], signatures: Sequence[bytes], gas_each: int) -> bytes:
        if len(intents) != len(signatures):
            raise RefusedError(errors.length_mismatch(len(intents), len(signatures)))
        _check_grant(gas_each)
        succeeded = 0
        for intent, signature in zip(intents, signatures, strict=True):
            try:
                self._member(sender, Call("transferWithSignature", (intent, signature)), gas_each)
                succeeded += 1
            except _FailedError as failed:
                self._emit(events.intent_failed(intent.sender, intent.nonce, failed.reported))
        return word(succeeded)

    def _relay_calls(self, sender: int, calls: Sequence[Member], gas_each: int) -> bytes:
        _check_grant(gas_each)
        succeeded = 0
        for index, call in enumerate(calls):
            try:
                head = call.data()[:4] if isinstance(call, Junk) else SELECTORS[call.name]
                if head not in RELAYABLE:
                    raise _FailedError([errors.not_relayable(head.ljust(32, b"\0"))])  # noqa: TRY301
                self._member(sender, call, gas_each)
                succeeded += 1
            except _FailedError as failed:
                self._emit(events.call_failed(index, failed.reported))
        return word(succeeded)

    def _member(self, sender: int, call: Member, gas_each: int) -> None:
        """Carry out one of a batch. Raises _FailedError if it breaks a rule, RefusedError if the whole batch does."""
        if gas_each > AMPLE_GAS:
            raise RefusedError(NOT_ENOUGH_GAS)
        try:
            self.perform(sender, call)
        except RefusedError as refused:
            reported = [reason[:MAX_REASON_BYTES] for reason in refused.reasons if isinstance(reason, bytes)]
            raise _FailedError(reported) from None

    # ------------------------------------------------------------------------------------------- the ERC-1155 standard

    def _set_approval_for_all(self, sender: int, operator: int, approved: int) -> None:
        if operator == 0:
            raise RefusedError(errors.invalid_operator(0))
        self.ledger.put(self.ledger.approvals, (sender, operator), bool(approved))
        self._emit(events.approval_for_all(sender, operator, bool(approved)))

    def _safe_transfer_from(self, sender: int, owner: int, to: int, id_: int, amount: int, data: bytes) -> None:
        self._transfer(sender, owner, to, Item(id_, amount), data, self._approval(sender, owner))

    def _safe_batch_transfer_from(
        self, sender: int, owner: int, to: int, ids: Sequence[int], amounts: Sequence[int], data: bytes
    ) -> None:
        faults = self._approval(sender, owner)
        _check_lengths(ids, amounts, faults)
        self._give_many(sender, owner, to, tuple(map(Item, ids, amounts)), data, faults)

    def _approval(self, sender: int, owner: int) -> list[bytes]:
        if sender == owner or self.ledger.approvals.get((owner, sender)):
            return []
        return [errors.missing_approval(sender, owner)]

    def _transfer(self, operator: int, owner: int, to: int, item: Item, data: bytes, faults: list[bytes]) -> None:
        self._give(operator, owner, to, item, data, faults + _nobody(to))

    def _give(self, operator: int, owner: int, to: int, item: Item, data: bytes, faults: list[bytes]) -> None:
        """Out of one hand into another, where zero makes or burns; nothing if any rule is broken by now."""
        refuse(faults + self._movement.move(owner, to, (item,)))
        self._emit(events.transfer_single(operator, owner, to, *item))
        self._movement.tell_one(operator, owner, to, item, data)

    def _give_many(
        self, operator: int, owner: int, to: int, items: Sequence[Item], data: bytes, faults: list[bytes]
    ) -> None:
        refuse(faults + _nobody(to) + self._movement.move(owner, to, items))
        self._emit(events.transfer_batch(operator, owner, to, items))
        self._movement.tell_many(operator, owner, to, items, data)


def _check_types(call: Member) -> None:
    if isinstance(call, Junk) or any(call.arguments[place] >> bits for place, bits in LIMITS.get(call.name, ())):
        raise RefusedError(errors.ILL_TYPED)
    if call.name in _SIGNED and is_ill_typed(call.arguments[0]):
        raise RefusedError(errors.ILL_TYPED)


def is_ill_typed(intent: Intent) -> bool:
    """Whether an address in it has more than 20 bytes, or a time more than 8."""
    return bool(intent[0] >> 160 or intent[1] >> 160 or (isinstance(intent, Lock | Spend) and intent.until >> 64))


def _in_snake_case(name: str) -> str:
    return re.sub(r"(?=[A-Z])", "_", name).lower()


def _check_lengths(ids: Sequence[int], amounts: Sequence[int], faults: list[bytes]) -> None:
    if len(ids) != len(amounts):
        refuse([*faults, errors.invalid_array_length(len(ids), len(amounts))])


def _nobody(to: int) -> list[bytes]:
    """The rule broken where nobody is to get it."""
    return [] if to else [errors.invalid_receiver(0)]


def _check_grant(gas_each: int) -> None:
    if gas_each < MIN_GAS_PER_INTENT:
        raise RefusedError(errors.gas_per_intent_too_low(gas_each, MIN_GAS_PER_INTENT))


class _FailedError(Exception):
    """A member of a batch changed nothing; `reported` is what the batch may say of it."""

    def __init__(self, reported: list[bytes]) -> None:
        self.reported = reported


AMPLE_GAS = 1 << 34
"""More than any call here needs, less than a batch asks for that is meant to ask for too much."""
