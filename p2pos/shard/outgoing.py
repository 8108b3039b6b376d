"""What a stage sends to the next one: in order, within a window, and kept, so that another can be sent it all again.

Pure. A stage that takes the place of one that was lost needs everything that was ever sent to that one. Hidden states
are small beside a cache: kept until the session ends, or until there are too many of all sessions.
"""

from collections import deque
from dataclasses import dataclass, replace

from p2pos.wire.messages import BLOCK_TOKENS, TensorHeader

WINDOW = 4
"""Chunks that may be with the next stage unacknowledged: enough to keep it busy over a wide-area round trip.

Decode steps don't count and aren't acknowledged: the token that comes round the ring says that they were computed.
"""
SMALL_ROWS = 64
"""Rows that may be under way in more pieces than that: a text that is sent again a step at a time would crawl else."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Hidden states of positions `position … end-1`, as they go over the wire."""

    position: int
    header: TensorHeader
    """Shape (rows, hidden size)."""
    payload: bytes | memoryview
    keys: tuple[bytes, ...] = ()
    """Of the blocks that these rows fill; none where they aren't shared."""

    @property
    def rows(self) -> int:
        """How many."""
        return self.header.shape[0]

    @property
    def end(self) -> int:
        """The position after the last."""
        return self.position + self.rows

    def since(self, position: int) -> "Rows":
        """Those from this position on, which lies among them."""
        skip = position - self.position
        if skip <= 0:
            return self
        payload = memoryview(self.payload)[len(self.payload) // self.rows * skip :]
        passed = position // BLOCK_TOKENS - self.position // BLOCK_TOKENS if self.keys else 0
        header = replace_rows(self.header, self.rows - skip)
        return Rows(position, header, payload, self.keys[passed:])

    def joined(self, other: "Rows") -> "Rows":
        """These and those that follow them, as one piece."""
        header = replace_rows(self.header, self.rows + other.rows)
        return Rows(self.position, header, bytes(self.payload) + bytes(other.payload), self.keys + other.keys)


def replace_rows(header: TensorHeader, rows: int) -> TensorHeader:
    """The header of more or fewer rows of the same kind."""
    return TensorHeader(header.dtype, [rows, *header.shape[1:]])


class Outgoing:
    """The rows of one session on their way to the next stage.

    Args:
        windowed: positions before this one count in the window, and are acknowledged.
        forward_from: the next stage has those before this one already.

    """

    def __init__(self, *, windowed: int, forward_from: int = 0) -> None:
        self._windowed = windowed
        self._forward_from = forward_from
        self._kept: deque[Rows] = deque()
        self._waiting: deque[Rows] = deque()
        self._in_flight: deque[Rows] = deque()  # without their payload
        self._keeping = True
        self._paused = False
        self._end = 0
        self.acked = 0
        """Positions that the next stage has in its cache, as far as it was asked to say so."""
        self.kept_from = 0
        """From this position on, everything that was sent is here still."""
        self.nbytes = 0
        """Of what is kept."""

    @property
    def full(self) -> bool:
        """Whether the next stage has enough to do, so that no more need be computed."""
        return bool(self._waiting) or not self._fits(1)

    def begin(self, position: int) -> None:
        """The session begins at this position."""
        self._end = self.acked = self.kept_from = position

    def add(self, rows: Rows) -> None:
        """The next rows are computed."""
        self._end = rows.end
        rows = replace(rows, payload=bytes(rows.payload))  # a view would keep the whole batch's memory
        if self._keeping:
            self._kept.append(rows)
            self.nbytes += len(rows.payload)
        else:
            self.kept_from = rows.end
        self._waiting.append(rows)

    def take(self) -> list[Rows]:
        """What is to leave now."""
        taken = []
        while self._waiting and not self._paused:
            rows = self._waiting[0]
            counts = rows.position < self._windowed
            if rows.end > self._forward_from and counts and not self._fits(rows.rows):
                break
            self._waiting.popleft()
            if rows.end <= self._forward_from:
                continue
            if counts:
                self._in_flight.append(replace(rows, payload=b""))
            taken.append(rows.since(self._forward_from))
        return taken

    def acknowledge(self, position: int) -> bool:
        """The next stage has all before this position. False where it wasn't sent that."""
        sent = self._waiting[0].position if self._waiting else self._end
        if not self.acked <= position <= sent:
            return False
        self.acked = position
        while self._in_flight and self._in_flight[0].end <= position:
            self._in_flight.popleft()
        return True

    def pause(self) -> None:
        """Send nothing more until `replay`: the next stage is lost, or another is to take its place."""
        self._paused = True

    def replay(self, position: int, *, windowed: int, join_rows: int) -> bool:
        """Send a new next stage all from this position on. False where that isn't here any more.

        Args:
            position: where the next stage's cache ends.
            windowed: positions before this one count in the window from now on.
            join_rows: pieces are joined to so many rows at most; 1 leaves them as they were computed.

        """
        if position < self.kept_from:
            return False
        self._windowed = windowed
        self._forward_from = 0
        self._in_flight.clear()
        self.acked = position
        if join_rows > 1:
            self._kept = _joined(self._kept, join_rows, windowed)
        self._waiting = deque(rows.since(position) for rows in self._kept if rows.end > position)
        self._paused = False
        return True

    def unname(self) -> None:
        """Take the keys from what is kept and what waits: the blocks that they name are not to be shared."""
        self._kept = deque(replace(rows, keys=()) for rows in self._kept)
        self._waiting = deque(replace(rows, keys=()) for rows in self._waiting)

    def forget(self) -> None:
        """Keep nothing any more."""
        self._keeping = False
        self._kept.clear()
        self.nbytes = 0
        self.kept_from = self._end

    def _fits(self, rows: int) -> bool:
        if len(self._in_flight) < WINDOW:
            return True
        return sum(each.rows for each in self._in_flight) + rows <= SMALL_ROWS


def _joined(pieces: deque[Rows], most: int, before: int) -> deque[Rows]:
    """The same in pieces of so many rows at most. After each row beyond `before` a token is to be sampled."""
    found: deque[Rows] = deque()
    for piece in pieces:
        if found and found[-1].rows + piece.rows <= most and piece.end <= before:
            found[-1] = found[-1].joined(piece)
        else:
            found.append(piece)
    return found
