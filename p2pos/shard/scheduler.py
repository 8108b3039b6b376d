"""Which waiting runs go through the span together. Pure.

A step has room for so many rows. Decode steps come first, then chunks of prompts as far as there is room. A chunk takes
as long as many decode steps, so one rule more: a decode step that has waited for a chunk once goes next without
another. With it no session waits longer than one chunk and one step at a stage, however many prompts arrive.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

LIGHT_ROWS = 16
"""Runs of so few rows count as decode steps: reading the weights takes longer than the arithmetic."""

Job = TypeVar("Job", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Stepped:
    """One step that was computed, for who counts."""

    prefill_rows: int
    decode_rows: int
    """Positions whose tokens were sampled before, those that are computed again after a repair among them."""
    sampled: int
    """Tokens chosen after it."""
    failed: int
    """Runs of it that could not be done."""
    seconds: float
    """In the worker thread, and on the way there and back."""


@dataclass(slots=True)
class _Waiting(Generic[Job]):
    job: Job
    rows: int
    delayed: bool
    """A step with a chunk was under way when it came."""


class Scheduler(Generic[Job]):
    """Holds what waits and forms steps of it.

    Args:
        rows: that one step holds. One chunk goes with the decode steps even where it has more.

    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._light: deque[_Waiting[Job]] = deque()
        self._heavy: deque[_Waiting[Job]] = deque()
        self._chunk_under_way = False

    def __len__(self) -> int:
        return len(self._light) + len(self._heavy)

    def add(self, job: Job, rows: int) -> None:
        """A run waits from now on."""
        queue = self._light if rows <= LIGHT_ROWS else self._heavy
        queue.append(_Waiting(job, rows, self._chunk_under_way))

    def remove(self, job: Job) -> None:
        """A run is not wanted any more; one that isn't waiting is passed over."""
        for queue in (self._light, self._heavy):
            for waiting in [each for each in queue if each.job == job]:
                queue.remove(waiting)

    def next(self, *, light: int | None = None) -> list[Job]:
        """The runs of the next step, those that go first first; empty where nothing waits.

        Args:
            light: no more decode steps than this, so that the others are under way at another stage meanwhile. Those
                that have waited for a chunk go all the same.

        """
        step: list[Job] = []
        room = self._rows
        delayed = False
        while self._light and self._light[0].rows <= room:
            if light is not None and len(step) >= light and not self._light[0].delayed:
                break
            waiting = self._light.popleft()
            delayed |= waiting.delayed
            room -= waiting.rows
            step.append(waiting.job)
        self._chunk_under_way = False
        if not delayed:
            # the first chunk goes whatever its size: another kind of machine may cut larger ones
            while self._heavy and (self._heavy[0].rows <= room or not self._chunk_under_way):
                waiting = self._heavy.popleft()
                room -= waiting.rows
                step.append(waiting.job)
                self._chunk_under_way = True
        if self._chunk_under_way:
            for left in self._light:  # those that found no place wait for this chunk as well
                left.delayed = True
        return step

    def done(self) -> None:
        """The step that was formed last has been computed."""
        self._chunk_under_way = False
