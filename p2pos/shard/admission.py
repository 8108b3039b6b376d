"""Who is let in next when a stage is full: whose owner would hold the least room then, then who came first. Pure."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

MAX_WAITING = 64
"""Sessions that may wait for room at one stage; those beyond hear at once that it is busy."""
MAX_WAITING_PER_OWNER = 32
"""Of one owner, so that a crowd from one peer leaves places to wait in for others."""
WAIT_S = 10.0
"""Seconds that a session waits for room before its owner hears that the stage is busy: less than the owner waits."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A session that waits for room."""

    session: bytes
    owner: str
    size: int
    """Tokens that it may come to hold."""
    deadline_s: float


class Admission:
    """The queue before a stage. It knows who is inside as well, to be fair among owners."""

    def __init__(self) -> None:
        self._queue: list[Waiting] = []
        self._inside: dict[bytes, Waiting] = {}

    def __len__(self) -> int:
        return len(self._queue)

    def wait(self, session: bytes, owner: str, size: int, now_s: float) -> bool:
        """Queue a session; False where too many wait."""
        if len(self._queue) >= MAX_WAITING or sum(each.owner == owner for each in self._queue) >= MAX_WAITING_PER_OWNER:
            return False
        self._queue.append(Waiting(session, owner, size, now_s + WAIT_S))
        return True

    def leave(self, session: bytes) -> None:
        """A session is over, inside or waiting."""
        self._inside.pop(session, None)
        self._queue = [each for each in self._queue if each.session != session]

    def let_in(self, try_: Callable[[bytes], bool]) -> list[bytes]:
        """Let in who can be, in turn, and give their sessions.

        The first in turn that finds no room keeps those behind it waiting, else a large session would wait for ever
        behind small ones.

        Args:
            try_: makes room for a session, or says that there is none.

        """
        entered: list[bytes] = []
        while self._queue:
            held: Counter[str] = Counter()
            for inside in self._inside.values():
                held[inside.owner] += inside.size
            # the earliest of equals; who asks for all that there is goes after those who ask for little
            first = min(self._queue, key=lambda each: held[each.owner] + each.size)
            if not try_(first.session):
                break
            self._queue.remove(first)
            self._inside[first.session] = first
            entered.append(first.session)
        return entered

    def overdue(self, now_s: float) -> list[bytes]:
        """The sessions that have waited too long."""
        return [each.session for each in self._queue if each.deadline_s <= now_s]
