"""A run: some thousands of random calls to the model and to a contract, by one seed. The same seed, the same run."""

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from tests.contract_model.calls import Call, Member
from tests.contract_model.choices import Choices
from tests.contract_model.contract import Outcome
from tests.contract_model.errors import Starting
from tests.contract_model.invariants import BrokenError
from tests.contract_model.pair import Build, DiffersError, Pair
from tests.contract_model.people import people

EPISODE = 1000
"""Calls to one contract before the next is deployed: the EVM's journal grows with them, and so does a state."""
CHECK_EVERY = 250
"""Calls between two comparisons of all that can be asked."""
_START_S = 1_700_000_000
_TIME_PASSES, _PUPPET_CHANGES, _STARVED = 0.05, 0.07, 0.015
"""How often, per call: time passes before it, a puppet is told to behave otherwise, it is a batch with little gas."""
_REASON_AT = slice(64, 68)
"""Where the selector of a member's error lies in the data of IntentFailed and CallFailed."""


@dataclass
class Tally:
    """What runs did."""

    operations: int = 0
    """Transactions to the contract."""
    members: int = 0
    """Intents and calls inside of batches, which come on top."""
    taken: Counter[str] = field(default_factory=Counter)
    """Transactions that took effect, by function."""
    refused: Counter[str] = field(default_factory=Counter)
    errors: Counter[bytes] = field(default_factory=Counter)
    """By selector: why transactions were refused and members of batches skipped."""
    starved: int = 0
    """Batches with too little gas, refused as a whole."""

    def count(self, call: Member, outcome: Outcome | None) -> None:
        """Take in one transaction, and what the model says of it (None: starved)."""
        self.operations += 1
        name = call.name if isinstance(call, Call) else ""
        if outcome is None:
            self.starved += 1
        elif outcome.reasons:
            self.refused[name] += 1
            reason = outcome.reasons[0]
            self.errors[reason.head if isinstance(reason, Starting) else reason[:4]] += 1
        else:
            self.taken[name] += 1
            if name in {"relay", "relayCalls"}:
                self.members += len(call.arguments[0])
                self.errors.update(event.data[0][_REASON_AT] for event in outcome.events if type(event.data) is tuple)

    def add(self, other: "Tally") -> None:
        self.operations += other.operations
        self.members += other.members
        self.starved += other.starved
        for mine, theirs in ((self.taken, other.taken), (self.refused, other.refused), (self.errors, other.errors)):
            mine.update(theirs)


def run(build: Build, seed: int, operations: int) -> Tally:
    """Make so many calls. Raises DiffersError or BrokenError at the first fault, with what it takes to see it again."""
    tally = Tally()
    for first in range(0, operations, EPISODE):
        _episode(build, f"{seed}/{first // EPISODE}", min(EPISODE, operations - first), tally)
    return tally


def _episode(build: Build, seed: str, operations: int, tally: Tally) -> None:
    random, crowd = Random(seed), people()
    pair = Pair(build, crowd.all, crowd.puppets, _START_S)
    choices = Choices(random, pair.model, crowd)
    number, step = 0, None
    try:
        for draft in [choices.create_class] * 6 + [choices.mint] * 24:
            step = draft()
            pair.call(*step)
        for number in range(operations):
            if random.random() < _TIME_PASSES:
                pair.set_time(choices.later())
            if random.random() < _PUPPET_CHANGES:
                pair.programme(*choices.behaviour())
            step = choices.starved() if random.random() < _STARVED else choices.call()
            tally.count(step[1], pair.call(*step))
            if number % CHECK_EVERY == CHECK_EVERY - 1:
                pair.check()
        pair.check()
    except (DiffersError, BrokenError) as problem:
        raise type(problem)(f"episode {seed!r}, call {number}, {step}: {problem}") from problem
