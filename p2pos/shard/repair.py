"""Where the new stages of a repaired route begin, and whose word on who failed counts. Pure: what `owner` reckons."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from p2pos.types import PeerId
from p2pos.wire.messages import BLOCK_TOKENS, Progress, StageRef

MAX_ACCUSED = 2
"""Peers that one stage may accuse without anything else to show for it; with the next it is replaced itself."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A run of new stages."""

    peers: tuple[PeerId, ...]
    before: StageRef | None
    """The stage before them, which stays; None where the first of them is the head."""
    begin: int | None
    """The position from which they need all; None where nobody has it any more, so that all must begin anew."""
    end: int
    """The position that the stage before has come to."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the stages of a route are, while some of them are new.

    Args:
        stages: the route, head first.
        new: who begins with nothing.
        progress: of those that stay.
        start: the position at which a stage that stays and has nothing yet will begin.

    """

    stages: Sequence[StageRef]
    new: AbstractSet[PeerId]
    progress: Mapping[PeerId, Progress]
    start: int

    def forward_from(self, index: int) -> int:
        """The position from which the stage after this one lacks what this one sends; 0 where that is new as well."""
        after = self._stays(index + 1)
        return 0 if after is None else after.received or self.start

    def gaps(self, cached: Mapping[PeerId, int], known: int) -> Iterator[Gap]:
        """The runs of new stages, in order.

        Args:
            cached: positions that each new stage holds already.
            known: positions whose tokens are known.

        """
        for first, last in self._runs():
            peers = tuple(PeerId(each.peer) for each in self.stages[first : last + 1])
            # the last token goes through in any case: what it gives is the text's next one
            begin = min(*(cached[peer] for peer in peers), known - 1)
            if self._stays(last + 1) is not None:
                begin = min(begin, self.forward_from(last))
            kept = self._stays(first - 1) if first else None
            if kept is None:
                yield Gap(peers, None, begin // BLOCK_TOKENS * BLOCK_TOKENS, 0)
                continue
            begin = min(begin, kept.computed if kept.received else self.start) // BLOCK_TOKENS * BLOCK_TOKENS
            kept_from = kept.kept_from if kept.received else self.start
            after = self._stays(last + 1)
            torn = kept_from > begin or (after is not None and after.received > kept.computed)
            yield Gap(peers, self.stages[first - 1], None if torn else begin, kept.computed)

    def _stays(self, index: int) -> Progress | None:
        """How far the stage of this index is; None where it is new, or there is none."""
        return self.progress.get(PeerId(self.stages[index].peer)) if index < len(self.stages) else None

    def _runs(self) -> Iterator[tuple[int, int]]:
        """First and last index of each run of new stages."""
        first: int | None = None
        for index, stage in enumerate(self.stages):
            if stage.peer in self.new:
                first = index if first is None else first
                if index + 1 == len(self.stages) or self.stages[index + 1].peer not in self.new:
                    yield first, index
                    first = None


def apart(route: Sequence[PeerId], one: PeerId, other: PeerId) -> bool:
    """Whether two stages of a route send one another nothing. Head and tail do."""
    return abs(route.index(one) - route.index(other)) not in {0, 1, len(route) - 1}


@dataclass(slots=True)
class Accusations:
    """Whom each stage says to have failed, where nobody else has noticed."""

    _accused: dict[PeerId, set[PeerId]] = field(default_factory=dict)

    def heard(self, accuser: PeerId, accused: PeerId) -> bool:
        """One more. Whether it is to be believed."""
        known = self._accused.setdefault(accuser, set())
        known.add(accused)
        return len(known) <= MAX_ACCUSED

    def seen(self, peer: PeerId) -> None:
        """It did fail: whoever said so was right."""
        for accused in self._accused.values():
            accused.discard(peer)
