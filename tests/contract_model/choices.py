"""Which calls a run makes. Pure, given its random numbers.

Most calls would take effect but for one flaw, if any: so each rule gets to be the only one that is broken.
"""

from collections.abc import Callable
from operator import itemgetter
from random import Random

from tests.contract_model.abi import WORD_MAX
from tests.contract_model.calls import SELECTORS, Call, Junk, Member, Terms
from tests.contract_model.contract import (
    AMPLE_GAS,
    DELAYED,
    FROZEN,
    ISSUER,
    MAX_DELAY_S,
    MAX_ROYALTY_BPS,
    MIN_GAS_PER_INTENT,
    UINT128_MAX,
    Contract,
)
from tests.contract_model.intents import SAMPLES, Lock, Spend
from tests.contract_model.people import People
from tests.contract_model.puppets import Hook, Wallet
from tests.contract_model.signing import Signing
from tests.contract_model.values import FAR_S, Values

MOST_CLASSES = 10
STASH = 40
"""Signed intents remembered to be submitted later, or again."""
GENEROUS_GAS = 1 << 26
"""For each member of a batch: what a receiver that burns 63/64 of it leaves is enough to say so."""
NESTED_GAS = 1 << 21
"""For each member of a batch inside a hook, itself inside a batch."""

Draft = tuple[int, Member]
"""Who calls, and what."""


class Choices:
    """Draws calls for a run, looking at the model to find what could take effect."""

    def __init__(self, random: Random, model: Contract, people: People) -> None:
        self._random = random
        self._ledger = model.ledger
        self._people = people
        self.values = Values(random, model, people)
        self._signing = Signing(self.values)
        self._stash: list[Call] = []
        self._gas_each = GENEROUS_GAS
        self._due: Draft | None = None
        self._menu = [
            kind
            for kind, share in self._calls().items()
            for _ in range(max(1, round(share * random.choice((0.5, 1, 1, 2)))))
        ]

    def _calls(self) -> dict[Callable[[], Draft], int]:
        """Kinds of calls, and their shares."""
        return {
            self.create_class: 4,
            self.mint: 10,
            self.set_minter: 2,
            self.burn: 3,
            self.update_class: 3,
            self.apply_update: 2,
            self.withdraw_update: 1,
            self.signed: 42,
            self.again: 6,
            self.unlock: 5,
            self.spend: 7,
            self.revoke_spend: 1,
            self.cancel: 2,
            self.relay: 3,
            self.relay_calls: 4,
            self.transfer_directly: 5,
            self.transfer_many_directly: 4,
            self.approve: 2,
            self.nonsense: 2,
        }

    def call(self) -> Draft:
        """Any call; after time passed, mostly one for which that mattered."""
        due, self._due = self._due, None
        if due and self._random.random() < 0.8:
            return due
        return self.values.one(self._menu)()

    def later(self) -> int:
        """A time from now on: when something ends or becomes due, a second before, or a little later."""
        values, ledger, now = self.values, self._ledger, self.values.model.now_s
        ends = [
            (hold.until, (values.account(), Call("unlock", (owner, world, id_))))
            for (owner, id_, world), hold in ledger.holds.items()
            if hold.amount
        ]
        ends += [
            (given.until, (world, Call("spend", (owner, id_, 0, owner))))
            for (owner, id_, world), given in ledger.allowances.items()
            if given.left
        ]
        ends += [
            (known.pending[1], (values.account(), Call("applyUpdate", (id_,))))
            for id_, known in ledger.classes.items()
            if known.pending
        ]
        near = sorted((end for end in ends if now < end[0] < FAR_S), key=itemgetter(0))
        if not near or self._random.random() < 0.3:
            return now + values.one((1, values.up_to(50), values.up_to(3600)))
        moment, self._due = near[0] if self._random.random() < 0.7 else values.one(near)
        return moment - values.one((0, 0, 1))

    def behaviour(self) -> tuple[int, Hook, Wallet, Call | None]:
        """A puppet, how it is to behave from now on, and what it calls when it re-enters."""
        one = self.values.one
        puppet = one(self._people.puppets)
        hook = Hook.ACCEPT if self._random.random() < 0.35 else one((*Hook, Hook.REENTER, Hook.REENTER_OR_REFUSE))
        wallet = Wallet.HONEST if self._random.random() < 0.8 else one(tuple(Wallet))
        call = None
        if hook >= Hook.REENTER:
            self._gas_each = NESTED_GAS
            call = self._own_call(puppet) if self._random.random() < 0.5 else self.call()[1]
            self._gas_each = GENEROUS_GAS
            if isinstance(call, Junk):
                call = Call("applyUpdate", (0,))
        return puppet, hook, wallet, call

    def _own_call(self, puppet: int) -> Call:
        """Something that a puppet may do with what it is just being given."""
        values = self.values
        id_ = values.class_id()
        amount = min(values.amount(puppet, id_), WORD_MAX - 1) + 1
        return values.one(
            (
                Call("safeTransferFrom", (puppet, values.account(), id_, amount, b"")),
                Call("burn", (id_, amount)),
                Call("mint", (puppet, id_, 1)),
                Call("unlock", (values.account(), puppet, id_)),
                Call("spend", (values.account(), id_, 1, values.receiver())),
            )
        )

    # ---------------------------------------------------------------------------------------------------- classes

    def create_class(self) -> Draft:
        values, issuer = self.values, self.values.account()
        salt = len(self._ledger.classes)
        if salt >= MOST_CLASSES or values.flawed():
            salt = int(self._random.random() * max(1, salt))
            issuer = values.one([known.issuer for known in self._ledger.classes.values()] or [issuer])
        cap = values.one((0, 0, 1, values.up_to(50), values.up_to(50), UINT128_MAX))
        policy = values.one((FROZEN, ISSUER, DELAYED, DELAYED))
        delay = values.one((1, MAX_DELAY_S, values.up_to(500))) if policy == DELAYED else 0
        receiver, bps = values.one(((0, 0), (values.account(), values.one((1, 250, MAX_ROYALTY_BPS)))))
        roll = self._random.random()
        if roll < 0.1:
            delay = values.one((0, MAX_DELAY_S + 1, (1 << 32) - 1)) if policy == DELAYED else 1
        elif roll < 0.25:
            someone = values.account()
            receiver, bps = values.one(((0, 1), (someone, 0), (someone, MAX_ROYALTY_BPS + 1), (someone, 0xFFFF)))
        terms = Terms(cap, self._random.random() < 0.15, policy, delay, receiver, bps)
        return issuer, Call("createClass", (salt, terms, self._random.getrandbits(256)))

    def _issuer(self, id_: int) -> int:
        known = self._ledger.classes.get(id_)
        return known.issuer if known and not self.values.flawed() else self.values.account()

    def mint(self) -> Draft:
        values, id_ = self.values, self.values.class_id()
        minter = self._issuer(id_)
        known = self._ledger.classes.get(id_)
        room = (known.terms.cap or UINT128_MAX) - known.minted if known else 0
        if self._ledger.mint_allowances and self._random.random() < 0.3:
            id_, minter = values.one(tuple(self._ledger.mint_allowances))
            left = self._ledger.mint_allowances[id_, minter]
            amount = values.one((left, 1, 0, left // 2)) + values.flawed()
        else:
            amount = min(room, values.one((0, 1, values.up_to(6), values.up_to(6), room)))
            if room >= UINT128_MAX >> 1 and self._random.random() < 0.95:
                amount = min(amount, 50)  # a class filled to the brim can't be minted again
            if values.flawed():
                amount = values.one((room + 1, WORD_MAX, WORD_MAX - 3))
        return minter, Call("mint", (values.receiver(), id_, amount))

    def set_minter(self) -> Draft:
        values, id_ = self.values, self.values.class_id()
        allowance = values.one((0, 1, values.up_to(20), UINT128_MAX))
        return self._issuer(id_), Call("setMinter", (id_, values.account(), allowance))

    def burn(self) -> Draft:
        owner, id_ = self.values.holding(soulbound=self._random.random() < 0.3)
        return owner, Call("burn", (id_, self.values.amount(owner, id_)))

    def update_class(self) -> Draft:
        id_ = self.values.class_id()
        return self._issuer(id_), Call("updateClass", (id_, self._random.getrandbits(256)))

    def _updated(self) -> int:
        pending = [id_ for id_, known in self._ledger.classes.items() if known.pending]
        return self.values.one(pending) if pending and self._random.random() < 0.8 else self.values.class_id()

    def apply_update(self) -> Draft:
        return self.values.account(), Call("applyUpdate", (self._updated(),))

    def withdraw_update(self) -> Draft:
        id_ = self._updated()
        return self._issuer(id_), Call("withdrawUpdate", (id_,))

    # ---------------------------------------------------------------------------------------------------- intents

    def signed(self) -> Draft:
        """A signed intent, submitted by anyone."""
        return self.values.account(), self._new()

    def _new(self) -> Call:
        call = self._signing.signed(self._signing.draft())
        if self._random.random() < 0.3:
            self._remember(call)
        return call

    def _remember(self, call: Call) -> None:
        if len(self._stash) < STASH:
            self._stash.append(call)
        else:
            self._stash[int(self._random.random() * STASH)] = call

    def _old(self) -> Call:
        if not self._stash or self._random.random() < 0.3:
            self._remember(self._signing.signed(self._signing.draft()))  # to be submitted for the first time later
        return self.values.one(self._stash)

    def again(self) -> Draft:
        """One that was signed before, and submitted or not."""
        return self.values.account(), self._old()

    def unlock(self) -> Draft:
        values = self.values
        flawed = values.flawed() or self._random.random() < 0.1
        inside = [key for key, hold in self._ledger.holds.items() if hold.amount or flawed]
        if not inside:
            return values.account(), self._signing.signed(self._signing.lock())
        owner, id_, world = values.one(inside)
        if flawed:
            world = values.one((world, 0, values.world()))
        return values.one((world or owner, values.account())), Call("unlock", (owner, world, id_))

    def spend(self) -> Draft:
        values, ledger = self.values, self._ledger
        flawed, now = values.flawed(), values.model.now_s
        usable = [key for key, given in ledger.allowances.items() if flawed or (given.left and now <= given.until)]
        if not usable:
            return values.account(), self._signing.signed(self._signing.spend())
        owner, id_, world = values.one(usable)
        left = ledger.allowances[owner, id_, world].left
        if values.flawed():
            amount = values.one((left + 1, values.amount(owner, id_), WORD_MAX))
        else:
            amount = min(left, values.amount(owner, id_))
        if values.flawed():
            world = values.account()
        to = 0 if self._random.random() < 0.3 else values.account()
        return world, Call("spend", (owner, id_, amount, to))

    def revoke_spend(self) -> Draft:
        values = self.values
        allowed = tuple(self._ledger.allowances)
        owner, id_, world = values.one(allowed) if allowed else (*values.holding(), values.world())
        return owner, Call("revokeSpend", (world, id_))

    def cancel(self) -> Draft:
        owner = self.values.account()
        return owner, Call("cancel", (self.values.nonce(owner),))

    # ---------------------------------------------------------------------------------------------------- batches

    def relay(self) -> Draft:
        values = self.values
        transfers = [self._signing.signed(self._signing.transfer()) for _ in range(self._members())]
        if self._random.random() < 0.2:
            transfers = transfers[:1] * 2
        intents = tuple(call.arguments[0] for call in transfers)
        signatures = tuple(call.arguments[1] for call in transfers)
        if values.flawed():
            signatures = values.one((signatures[1:], (*signatures, b"")))
        return values.account(), Call("relay", (intents, signatures, self._gas()))

    def relay_calls(self) -> Draft:
        members = tuple(self._member() for _ in range(self._members()))
        return self.values.account(), Call("relayCalls", (members, self._gas()))

    def starved(self) -> tuple[int, Call, int]:
        """A batch of good transfers between plain accounts, each granted the least, by a sender of little gas."""
        drafts = [self._signing.plain_transfer() for _ in range(3 * self._members())]
        intents = [draft for draft in drafts if draft is not None]
        calls = [self._signing.signed(intent) for intent in intents]
        if self._random.random() < 0.5:
            call = Call("relayCalls", (tuple(calls), MIN_GAS_PER_INTENT))
        else:
            signatures = tuple(call.arguments[1] for call in calls)
            call = Call("relay", (tuple(intents), signatures, MIN_GAS_PER_INTENT))
        gas = 25_000 + int(self._random.random() * (60_000 + 100_000 * len(calls)))
        return self.values.one(self._people.plain), call, gas

    def _members(self) -> int:
        return self.values.one((0, 1, 2, 2, 3, 4, 6))

    def _member(self) -> Member:
        roll = self._random.random()
        if roll < 0.75:
            return self._new()
        if roll < 0.9:
            return self._old()
        return self._unrelayable()

    def _unrelayable(self) -> Member:
        values = self.values
        name = values.one(tuple(SELECTORS))
        junk = values.one((b"", b"\x01", SELECTORS[name][:3], SELECTORS[name], SELECTORS[name] + bytes(70)))
        others = self.cancel()[1], self.mint()[1], self.spend()[1], self._ill_typed(), Call("relayCalls", ((), 0))
        return values.one((Junk(junk), *others))

    def _ill_typed(self) -> Call:
        """A signed intent of which nothing is wrong but that an address or a time is too long for its type."""
        intent = self.values.one(SAMPLES)
        place = self.values.one((0, 1, 4) if isinstance(intent, Lock | Spend) else (0, 1))
        too_long = intent[place] | (1 << 64 if place == 4 else 1 << 160)
        changed = intent._replace(**{intent._fields[place]: too_long})
        return self._signing.signed(changed)

    def _gas(self) -> int:
        if self._random.random() < 0.9:
            return self._gas_each
        too_little = 0, MIN_GAS_PER_INTENT - 1
        too_much = WORD_MAX, AMPLE_GAS + 1  # the refusal tells how much is left, which no model of ours knows
        return self.values.one(too_little if self._gas_each == NESTED_GAS else too_little + too_much)

    # ------------------------------------------------------------------------------------------- the ERC-1155 standard

    def _operator(self, owner: int) -> int:
        friends = [friend for (giver, friend), yes in self._ledger.approvals.items() if giver == owner and yes]
        if friends and self._random.random() < 0.5:
            return self.values.one(friends)
        return self.values.account() if self.values.flawed() else owner

    def transfer_directly(self) -> Draft:
        values = self.values
        owner, id_ = values.holding()
        data = values.one((b"", b"for you"))
        amount = values.amount(owner, id_)
        return self._operator(owner), Call("safeTransferFrom", (owner, values.receiver(), id_, amount, data))

    def transfer_many_directly(self) -> Draft:
        values = self.values
        owner, _ = values.holding()
        items = values.items_of(owner, 4)
        ids, amounts = (tuple(item[part] for item in items) for part in (0, 1))
        if values.flawed():
            amounts = (*amounts, 1)
        arguments = owner, values.receiver(), ids, amounts, values.one((b"", b"for you"))
        return self._operator(owner), Call("safeBatchTransferFrom", arguments)

    def approve(self) -> Draft:
        values = self.values
        return values.account(), Call("setApprovalForAll", (values.receiver(), values.one((0, 1))))

    def nonsense(self) -> Draft:
        """Numbers that don't fit their types, calldata that ends early, functions that aren't there."""
        values, id_ = self.values, self.values.class_id()
        known = self._ledger.classes.get(id_)
        issuer, account = known.issuer if known else values.account(), values.account()
        terms = Terms(0, False, FROZEN, 0, 0, 0)
        calls: tuple[Member, ...] = (
            Call("createClass", (1 << 100, terms._replace(policy=3), 0)),
            Call("createClass", (1 << 100, terms._replace(cap=UINT128_MAX + 1), 0)),
            Call("createClass", (1 << 100, terms._replace(policy=DELAYED, delay=1 << 32), 0)),
            Call("createClass", (1 << 100, terms._replace(royalty_receiver=1, royalty_bps=1 << 16), 0)),
            Call("setMinter", (id_, account, UINT128_MAX + 1)),
            Call("setMinter", (id_, account | 1 << 160, 1)),
            Call("mint", (account | 1 << 160, id_, 1)),
            Call("setApprovalForAll", (account, 2)),
            Call("spend", (account, id_, 0, account | 1 << 200)),
            self._ill_typed(),
            self._ill_typed(),
            Junk(b""),
            Junk(SELECTORS["mint"] + bytes(90)),
            Junk(b"\xde\xad\xbe\xef" + bytes(64)),
        )
        return issuer, values.one(calls)
