"""One call to the model and to the compiled contract, and what differs between their answers."""

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from tests.contract_model import errors, puppets
from tests.contract_model.abi import encode, text, word, words
from tests.contract_model.calls import Call, Member
from tests.contract_model.contract import Contract, Outcome
from tests.contract_model.errors import NOT_ENOUGH_GAS, Reason, Starting
from tests.contract_model.events import uri_of
from tests.contract_model.intents import SAMPLES, digest
from tests.contract_model.invariants import Invariants
from tests.contract_model.ledger import ItemClass, PuppetState
from tests.contract_model.machine import CHAIN_ID, CONTRACT, TRANSACTION_GAS, Answer, Machine, as_text
from tests.contract_model.puppets import Hook, Wallet

_INTERFACES = {
    0x01FFC9A7: True,  # ERC-165
    0xD9B67A26: True,  # ERC-1155
    0x0E89341C: True,  # its metadata
    0x2A55205A: True,  # ERC-2981
    0xFFFFFFFF: False,  # which ERC-165 keeps for this
    0x80AC58CD: False,  # ERC-721
}
_NO_CLASS = 9
BASIS = 10_000
"""ERC-2981's royalties here are in 1/10000 of a price."""


class Build(NamedTuple):
    """A compiled contract, and in blocks of which number it runs: that chooses a mutant, see `mutants`."""

    bytecode: bytes
    block: int = 1


class DiffersError(AssertionError):
    """The model and the contract disagree, or the contract breaks an invariant."""


class Pair:
    """A model and a contract that have seen the same."""

    def __init__(self, build: Build, people: Iterable[int], with_code: Iterable[int], now_s: int) -> None:
        """`people`: every account that will ever hold anything; `with_code`: those that are puppets."""
        self.model = Contract(CONTRACT, CHAIN_ID)
        self.people = tuple(people)
        self._texts = {address: as_text(address) for address in (*self.people, CONTRACT)}
        code = puppets.puppet_code(CONTRACT)
        self._machine = Machine(build.bytecode, dict.fromkeys(with_code, code), build.block)
        self.model.ledger.puppets.update((address, PuppetState()) for address in with_code)
        self.invariants = Invariants()
        self._nonces_checked = 0
        self.set_time(now_s)

    def set_time(self, now_s: int) -> None:
        self.model.now_s = now_s
        self._machine.set_time(now_s)

    def programme(self, puppet: int, hook: Hook, wallet: Wallet, call: Call | None) -> None:
        """Tell a puppet how to behave from now on."""
        state = self.model.ledger.puppets[puppet]
        self.model.ledger.puppets[puppet] = state._replace(hook=hook, wallet=wallet, programme=call)
        data = puppets.programme(hook, wallet, call.data() if call else b"")
        self._machine.send(self._texts[self.people[0]], self._texts[puppet], data)

    def call(self, sender: int, call: Member, gas: int | None = None) -> Outcome | None:
        """The same transaction to both. Raises DiffersError.

        With little `gas` (less than TRANSACTION_GAS) the contract may also refuse as a whole, by NotEnoughGas or by
        running out. Returns the model's answer, or None where that happened.
        """
        data = call.data()
        if sender in self.model.ledger.puppets:
            to, carrier, data = sender, self.people[0], puppets.forward(data)
        else:
            to, carrier = CONTRACT, sender
        answer = self._machine.send(self._texts[carrier], self._texts[to], data, gas or TRANSACTION_GAS)
        starved = answer.output is None or answer.output.startswith(NOT_ENOUGH_GAS.head)
        if gas and not answer.ok and starved:
            return None
        outcome = self.model.call(sender, call)
        self._compare(outcome, answer)
        self.invariants.see(answer.logs)
        return outcome

    def _compare(self, outcome: Outcome, answer: Answer) -> None:
        if outcome.reasons:
            if answer.ok or not any(_is(reason, answer.output) for reason in outcome.reasons):
                raise DiffersError(f"the model refuses with {_shown(outcome.reasons)}, the contract {_told(answer)}")
            return
        if not answer.ok:
            raise DiffersError(f"the model takes it, the contract {_told(answer)}")
        if answer.output != outcome.value:
            raise DiffersError(f"the model returns {outcome.value.hex()}, the contract {_told(answer)}")
        if len(answer.logs) != len(outcome.events):
            raise DiffersError(f"the model emits {len(outcome.events)} events, the contract {len(answer.logs)}")
        for place, (event, (topics, data)) in enumerate(zip(outcome.events, answer.logs, strict=True)):
            told = data in event.data if isinstance(event.data, tuple) else data == event.data
            if topics != event.topics or not told:
                raise DiffersError(f"event {place}: the model's {event}, the contract's {topics} {data.hex()}")

    # ------------------------------------------------------------------------------------------------------ all of it

    def check(self) -> None:
        """Compare all that can be asked, and hold the contract to its invariants. Raises DiffersError, BrokenError."""
        self._check_interfaces()
        self._check_classes()
        self._check_holdings()
        self._check_permissions()
        self._check_puppets()

    def _expect(self, call: Call, answer: bytes) -> None:
        try:
            real = self._machine.ask(call.data())
        except RuntimeError as problem:
            raise DiffersError(f"{call}: the model says {answer.hex()}, the contract {problem}") from problem
        if real != answer:
            raise DiffersError(f"{call}: the model says {answer.hex()}, the contract {real.hex()}")

    def _expect_refusal(self, call: Call, reason: bytes) -> None:
        answer = self._machine.send(self._texts[self.people[0]], self._texts[CONTRACT], call.data())
        if answer.ok or answer.output != reason:
            raise DiffersError(f"{call}: the model refuses with {reason.hex()}, the contract {_told(answer)}")

    def _check_interfaces(self) -> None:
        for interface, spoken in _INTERFACES.items():
            self._expect(Call("supportsInterface", (interface << 224,)), word(spoken))
        self._expect_refusal(Call("uri", (_NO_CLASS,)), errors.unknown_class(_NO_CLASS))
        for intent in SAMPLES:
            name = "hash" + type(intent).__name__
            self._expect(Call(name, (intent,)), digest(self.model.signatures.separator, intent))
            too_long = intent._replace(**{intent._fields[1]: intent[1] | 1 << 160})
            self._expect_refusal(Call(name, (too_long,)), errors.ILL_TYPED)
        uneven = Call("balanceOfBatch", (self.people[:2], (_NO_CLASS,)))
        self._expect_refusal(uneven, errors.invalid_array_length(1, 2))

    def _check_classes(self) -> None:
        for id_, known in self.model.ledger.classes.items():
            self._expect(Call("classOf", (id_,)), _class_info(known))
            self._expect(Call("pendingUpdateOf", (id_,)), b"".join(map(word, known.pending or (0, 0))))
            self._expect(Call("totalSupply", (id_,)), word(known.minted - known.burned))
            self._expect(Call("uri", (id_,)), encode((text(uri_of(known.digest)),)))
            price = known.digest >> 8
            terms = known.terms
            royalty = price * terms.royalty_bps // BASIS
            self._expect(Call("royaltyInfo", (id_, price)), word(terms.royalty_receiver) + word(royalty))
            cap = terms.cap or (1 << 128) - 1
            if known.minted > cap:
                raise DiffersError(f"class {id_:#x}: {known.minted} units made, the cap is {cap}")

    def _check_holdings(self) -> None:
        ledger = self.model.ledger
        pairs = [(owner, id_) for id_ in ledger.classes for owner in self.people]
        balances = [ledger.balance(*pair) for pair in pairs]
        owners, ids = ([pair[part] for pair in pairs] for part in (0, 1))
        self._expect(Call("balanceOfBatch", (tuple(owners), tuple(ids))), encode((words(balances),)))
        for pair, balance in zip(pairs, balances, strict=True):
            if balance:
                self._expect(Call("lockedOf", pair), word(ledger.locked(*pair)))
        for (owner, id_, world), hold in ledger.holds.items():
            self._expect(Call("lockOf", (owner, id_, world)), b"".join(map(word, hold)))
        self.invariants.check(self.model.ledger)

    def _check_permissions(self) -> None:
        ledger = self.model.ledger
        for (owner, id_, world), allowance in ledger.allowances.items():
            self._expect(Call("spendAllowance", (owner, id_, world)), b"".join(map(word, allowance)))
        for owner, nonce in islice(ledger.nonces, self._nonces_checked, None):
            self._expect(Call("isNonceUsed", (owner, nonce)), word(1))
            neighbour = owner, nonce ^ 1
            self._expect(Call("isNonceUsed", neighbour), word(neighbour in ledger.nonces))
        self._nonces_checked = len(ledger.nonces)
        for key, allowance in ledger.mint_allowances.items():
            self._expect(Call("mintAllowance", key), word(allowance))
        for key, approved in ledger.approvals.items():
            self._expect(Call("isApprovedForAll", key), word(approved))

    def _check_puppets(self) -> None:
        for address, state in self.model.ledger.puppets.items():
            seen = self._machine.send(self._texts[self.people[0]], self._texts[address], puppets.PEEK).output
            if seen != state.chain:
                raise DiffersError(f"the hooks of {address:#x} were called otherwise than the model says")


def _class_info(known: ItemClass) -> bytes:
    """ABI.md's `ClassInfo`."""
    cap, soulbound, policy, delay, receiver, bps = known.terms
    fields = known.issuer, cap, known.minted, known.burned, known.digest, known.version
    return b"".join(map(word, (*fields, soulbound, policy, delay, receiver, bps)))


def _is(reason: Reason, output: bytes | None) -> bool:
    if output is None:
        return False
    return output.startswith(reason.head) if isinstance(reason, Starting) else output == reason


def _shown(reasons: tuple[Reason, ...]) -> str:
    return " or ".join("0x" + (reason.head if isinstance(reason, Starting) else reason).hex() for reason in reasons)


def _told(answer: Answer) -> str:
    if answer.ok:
        return f"returns 0x{answer.output.hex()}"
    return "runs out of gas" if answer.output is None else f"refuses with 0x{answer.output.hex()}"
