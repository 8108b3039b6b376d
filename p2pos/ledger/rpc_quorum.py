"""Which of several end points is believed and asked: state, answers and time in, decisions out. Pure.

The head is what a majority of all end points agrees on. With n of them and m = n // 2 + 1, the m-th highest number that
was named can't be above every honest one while m are honest; where m then name the same block at that height, at least
one of them is honest. Where they don't, because the newest block is contested, agreement is looked for deeper.
Of two end points the lower block that both have counts, and either is believed while the other is away.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

DEPTHS = (0, 1, 2, 4, 8, 16, 32, 64)
"""Blocks below the height of the majority at which agreement is looked for. Ethereum finalises after 64."""
MAX_AHEAD = 8
"""Blocks that one may be ahead of the majority: two seconds of the fastest chains. Beyond, it makes them up."""
MAX_BEHIND = 8
"""Blocks that one may be behind before it is said to lag; it serves no reads until it has caught up in any case."""
FIRST_ASIDE_S = 1.0
"""For which one is put aside at its first fault; twice as long at each further one."""
MAX_ASIDE_S = 60.0
"""At most so long; then it is tried again."""


class Tip(NamedTuple):
    """The head as one end point names it."""

    number: int
    block: str
    """What identifies the block: its hash and the fields that are used, as text."""


@dataclass(frozen=True, slots=True)
class Member:
    """What is known of one end point."""

    strikes: int = 0
    """Faults in a row."""
    until_s: float = 0.0
    """Put aside until then, by the caller's clock."""
    why: str = ""
    """What was wrong last; "" when nothing is."""
    number: int | None = None
    """The height that it named last."""
    agrees: bool = False
    """It had the agreed block when it was asked last, so that it may serve reads."""


@dataclass(frozen=True, slots=True)
class State:
    """All of them, in the order in which they were given."""

    members: tuple[Member, ...]
    in_use: int = 0
    """The one that serves reads."""
    head: Tip | None = None
    """What was agreed last."""

    @classmethod
    def fresh(cls, count: int) -> "State":
        """Nothing is known of `count` end points."""
        return cls((Member(),) * count)

    @property
    def needed(self) -> int:
        """How many make a majority."""
        return len(self.members) // 2 + 1

    def votes_needed(self, answering: int) -> int:
        """How many must agree when so many answer: of two, one does while the other is away."""
        return 1 if len(self.members) <= 2 and answering == 1 else self.needed

    def due(self, now_s: float) -> list[int]:
        """Whom to ask about the head: who isn't put aside, and where that is no majority, who was for longest."""
        order = sorted(range(len(self.members)), key=lambda index: max(self.members[index].until_s - now_s, 0.0))
        good = sum(member.until_s <= now_s for member in self.members)
        return sorted(order[: max(good, self.needed)])

    def readers(self, now_s: float) -> list[int]:
        """Whom to ask about anything else, in this order: the one in use first, none that is put aside."""
        good = [
            index
            for index, member in enumerate(self.members)
            if member.until_s <= now_s and (member.agrees or self.head is None)
        ]
        return sorted(good, key=lambda index: (index != self.in_use, index))

    def writers(self, now_s: float) -> list[int]:
        """Whom to hand transactions: every one that isn't put aside, even if it lags; all where none is left."""
        good = [index for index, member in enumerate(self.members) if member.until_s <= now_s]
        good = good or list(range(len(self.members)))
        return sorted(good, key=lambda index: (index != self.in_use, index))

    def struck(self, index: int, why: str, now_s: float) -> "State":
        """It erred, hung, answered nonsense or lied: put it aside, for longer each time."""
        old = self.members[index]
        aside_s = min(FIRST_ASIDE_S * 2 ** min(old.strikes, 16), MAX_ASIDE_S)
        member = replace(old, strikes=old.strikes + 1, until_s=now_s + aside_s, why=why, agrees=False)
        return self._with(index, member)._choose(now_s)

    def judged(
        self, tips: Mapping[int, Tip], top: int, height: int, blocks: Mapping[int, str], agreed: str, now_s: float
    ) -> "State":
        """Take in what was agreed.

        Args:
            tips: what each one that answered names as its head.
            top: the height that a majority has reached.
            height: the number of the agreed block.
            blocks: what each one that has a block of that height says it is.
            agreed: the block that enough of them say it is.
            now_s: the caller's clock, in seconds.

        """
        state = replace(self, head=Tip(height, agreed))
        for index, tip in tips.items():
            state = state._with(index, replace(state.members[index], number=tip.number))
            if tip.number > top + MAX_AHEAD:
                fault = f"it says that block {tip.number} is the newest, the others say {top}"
                state = state.struck(index, fault, now_s)
            elif blocks.get(index, agreed) != agreed:
                state = state.struck(index, f"its block {height} is not the others'", now_s)
            else:
                behind = height - tip.number
                member = replace(
                    state.members[index],
                    strikes=0,
                    until_s=0.0,
                    agrees=index in blocks,
                    why=f"it is {behind} blocks behind" if behind > MAX_BEHIND else "",
                )
                state = state._with(index, member)
        return state._choose(now_s)

    def _choose(self, now_s: float) -> "State":
        """Stay with the one in use while it is good."""
        readers = self.readers(now_s)
        return replace(self, in_use=readers[0]) if readers else self

    def _with(self, index: int, member: Member) -> "State":
        return replace(self, members=(*self.members[:index], member, *self.members[index + 1 :]))


def height(numbers: Sequence[int], needed: int) -> int | None:
    """The greatest height that `needed` of these have reached, or None where there are not so many."""
    return sorted(numbers, reverse=True)[needed - 1] if len(numbers) >= needed else None


def heights(top: int) -> list[int]:
    """Where to look for agreement, highest first, down to the first block where it is that near."""
    return sorted({max(top - depth, 0) for depth in DEPTHS}, reverse=True)


def agreed(blocks: Mapping[int, str], needed: int) -> str:
    """The block that `needed` of these name, or ""."""
    named = Counter(block for block in blocks.values() if block).most_common(1)
    return named[0][0] if named and named[0][1] >= needed else ""
