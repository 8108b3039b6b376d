"""What a stage was given and has not computed: rows of the stage before it; at the head tokens, to be cut. Pure."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from p2pos.shard import blocks
from p2pos.wire.messages import BLOCK_TOKENS, TensorHeader


@dataclass(frozen=True, slots=True)
class Piece:
    """Positions `position … position+rows-1`: token ids at the head, elsewhere a header and bytes."""

    position: int
    rows: int
    tokens: tuple[int, ...] = ()
    header: TensorHeader | None = None
    payload: bytes | memoryview = b""
    keys: tuple[bytes, ...] = ()
    """Of the blocks that these rows fill."""


class Incoming:
    """The pieces of one session that wait for their turn.

    Args:
        prompt_length: tokens of the prompt.
        chunk: at the head, how many tokens are to go through at once now.
        exact: what was generated goes through token by token, as it did first, though it is known already.

    """

    def __init__(self, prompt_length: int, *, chunk: Callable[[], int], exact: bool) -> None:
        self._prompt_length = prompt_length
        self._chunk = chunk
        self._exact = exact
        self._pieces: deque[Piece] = deque()
        self._uncut: tuple[int, ...] = ()  # tokens that are in no piece yet
        self._key: bytes | None = None  # at the head: of the last whole block, where this session's blocks have keys
        self._partial: list[int] = []  # and the tokens after it
        self.received = 0
        """Positions that were given."""
        self._generated: list[int] = []  # of the tokens that were given, those after the prompt

    @property
    def pieces(self) -> int:
        """How many wait, of rows."""
        return len(self._pieces)

    @property
    def rows(self) -> int:
        """Rows of these."""
        return sum(piece.rows for piece in self._pieces)

    def generated(self, position: int) -> list[int]:
        """Of the tokens that were given, those from this position on, which lies after the prompt."""
        first = self.received - len(self._generated)
        return self._generated[max(0, position - first) :] if position >= first else []

    def begin(self, position: int, key: bytes | None = None) -> None:
        """What is given begins at this position; `key` is that of the block before, where blocks are to have keys."""
        self.received = position
        self._key = key

    def add_tokens(self, tokens: tuple[int, ...]) -> None:
        """The next tokens."""
        self._generated += tokens[max(0, self._prompt_length - self.received) :]
        self._uncut += tokens
        self.received += len(tokens)

    def add(self, piece: Piece) -> None:
        """The next rows."""
        self.received += piece.rows
        self._pieces.append(piece)

    def take(self) -> Piece | None:
        """The next piece, where there is one."""
        if self._uncut:
            return self._cut()
        return self._pieces.popleft() if self._pieces else None

    def forget(self, position: int) -> None:
        """Nothing from this position on was given."""
        self._pieces.clear()
        self._uncut = ()
        self.received = position

    def _cut(self) -> Piece:
        position = self.received - len(self._uncut)
        size = self._chunk()
        if self._exact:
            size = min(size, max(1, self._prompt_length - position))
        tokens = self._uncut[:size]
        self._uncut = self._uncut[len(tokens) :]
        return Piece(position, len(tokens), tokens, keys=self._file(tokens))

    def _file(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        """The keys of the blocks that these next tokens fill."""
        if self._key is None:
            return ()
        self._partial += tokens
        keys = []
        while len(self._partial) >= BLOCK_TOKENS:
            self._key = blocks.next_key(self._key, self._partial[:BLOCK_TOKENS])
            del self._partial[:BLOCK_TOKENS]
            keys.append(self._key)
        return tuple(keys)
