"""Whether the stages of a running session are alive, and whether it gets on. Pure.

A dead process closes its connections, and that is heard at once. One that hangs, or that is cut off, says nothing: so
when the next token is late every stage is asked how far it is, which it answers whatever it computes meanwhile. Who
doesn't answer is gone. Where all answer and nothing moves for a long time, their answers show where it is stuck.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from p2pos.types import PeerId
from p2pos.wire.messages import Progress

FIRST_S = 1.0
"""Seconds without a word after which a session that has no token yet is looked after; a prompt may take minutes."""
SOONEST_S = 0.3
"""A token is never late sooner than this: a garbage collection, or another process's turn, is no fault."""
LATEST_S = 2.0
"""And always later than this."""
LATE = 4.0
"""Times the usual gap between tokens, after which the next one is late."""
ANSWER_S = 1.0
"""Seconds that a stage has to answer: several round trips across the planet."""
AGAIN_S = 1.0
"""Seconds between two such questions while all is well."""
ASLEEP_S = 0.25
"""Seconds past a deadline after which it was ourselves who slept: what came meanwhile has not been read yet."""
STUCK_S = 60.0
"""Seconds in which some stage must have computed something: the longest chunk on the slowest machine."""
IDLE_S = 20.0
"""The same where no stage has anything to compute: the largest chunk, 8 MiB, takes 13 s over a link of 5 Mbit/s."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask every stage how far it is."""

    number: int


@dataclass(frozen=True, slots=True)
class Silent:
    """These have not answered."""

    peers: frozenset[PeerId]


@dataclass(frozen=True, slots=True)
class Stuck:
    """All answer, and this one is where nothing moves."""

    peer: PeerId


class Watch:
    """Looks after one session's stages.

    Args:
        peers: the stages' peers, head first.
        now_s: the time, in seconds of any steady clock.
        patience: how many times longer than usual to wait for an answer, after false alarms.
        number: questions are numbered from here on, so that no answer to an earlier one is taken for theirs.

    """

    def __init__(self, peers: Sequence[PeerId], now_s: float, *, patience: float = 1.0, number: int = 0) -> None:
        self._peers = list(peers)
        self._answer_s = ANSWER_S * patience
        self._gap_s = 0.0
        self._token_s: float | None = None
        self._number = number
        self._silent: set[PeerId] = set()
        self._seen: dict[PeerId, Progress] = {}
        self._moved_s = self._heard_s = now_s
        self.deadline_s = now_s + FIRST_S * patience
        """When to call `due`, at the latest."""

    @property
    def asking(self) -> bool:
        """Whether an answer is awaited."""
        return bool(self._silent)

    def token(self, now_s: float) -> None:
        """A token came: everyone is well."""
        if self._token_s is not None:
            gap_s = now_s - self._token_s
            # the slowest of late counts, and fades
            self._gap_s = max(gap_s, 0.9 * self._gap_s)
        self._token_s = self._moved_s = now_s
        self._silent.clear()
        self.deadline_s = now_s + min(max(LATE * self._gap_s, SOONEST_S), LATEST_S)

    def answer(self, peer: PeerId, progress: Progress, now_s: float) -> None:
        """A stage says how far it is."""
        if progress.number != self._number:
            return
        before = self._seen.get(peer)
        if before is None or progress.received > before.received or progress.computed > before.computed:
            self._moved_s = now_s
        self._seen[peer] = progress
        self._silent.discard(peer)
        if not self._silent:
            self._heard_s = now_s
            self.deadline_s = now_s + AGAIN_S

    def due(self, now_s: float) -> Ask | Silent | Stuck | None:
        """What is to be done now."""
        if now_s < self.deadline_s:
            return None
        if self._silent and now_s - self.deadline_s < ASLEEP_S:
            return Silent(frozenset(self._silent))
        if not self._silent and self._heard_s - self._moved_s >= (
            IDLE_S if self._idle else STUCK_S
        ):  # by their answers, not by our own pause
            return Stuck(self._where())
        self._number += 1
        self._silent = set(self._peers)
        self.deadline_s = now_s + self._answer_s
        return Ask(self._number)

    @property
    def _idle(self) -> bool:
        """Whether all have answered, and none has anything to compute."""
        return len(self._seen) == len(self._peers) and all(
            each.received == each.computed for each in self._seen.values()
        )

    def _where(self) -> PeerId:
        """The first stage that has rows and computes none, else that lacks what the one before it has computed."""
        for index, peer in enumerate(self._peers):
            mine = self._seen[peer]
            if mine.received > mine.computed:
                return peer
            if index and self._seen[self._peers[index - 1]].computed > mine.received:
                return peer
        return self._peers[-1]
