"""A file's bytes, read forward once and never more of them at a time than asked for. Pure."""

from collections.abc import Iterable

from p2pos.errors import UserError

PIECE = 64 << 10
"""Bytes that a check looks at together, at most."""
MAX_DOCUMENT = 16 << 20
"""Bytes of a text that is parsed whole, such as a scene's JSON: a large one has some MB."""


class FormatError(UserError):
    """A file is not what it is said to be."""


class Reader:
    """What the checks read from.

    Args:
        pieces: the file, in pieces of any length.
        size: bytes that it is said to have.

    """

    def __init__(self, pieces: Iterable[bytes], size: int) -> None:
        self._pieces = iter(pieces)
        self._held = b""
        self._at = 0
        self.size = size
        self.position = 0
        """Bytes that were read."""

    @property
    def left(self) -> int:
        """Bytes that are still to be read, as the file's size says."""
        return self.size - self.position

    def some(self, most: int) -> bytes:
        """At least one byte and at most `most`; b"" at the end.

        Raises FormatError where the file ends before its size, or goes on after it.
        """
        while self._at == len(self._held):
            piece = next(self._pieces, None)
            if piece is None:
                if self.position != self.size:
                    raise FormatError(f"it has {self.position} bytes, not {self.size}")
                return b""
            self._held, self._at = piece, 0
            if self.position + len(piece) > self.size:
                raise FormatError(f"it has more than the {self.size} bytes that it is said to have")
        data = self._held[self._at : self._at + most]
        self._at += len(data)
        self.position += len(data)
        return data

    def exactly(self, count: int, what: str) -> bytes:
        """So many bytes of `what`; at most `MAX_DOCUMENT`. Raises FormatError as `some`, and where there are fewer."""
        if count > MAX_DOCUMENT:
            raise FormatError(f"its {what} has {count} bytes, more than {MAX_DOCUMENT}")
        if count > self.left:
            raise FormatError(f"it ends within its {what}")
        parts = []
        while count:
            data = self.some(count)
            if not data:
                raise FormatError(f"it ends within its {what}")
            parts.append(data)
            count -= len(data)
        return b"".join(parts)

    def pieces(self, count: int, what: str) -> Iterable[bytes]:
        """So many bytes in pieces. Raises FormatError as `exactly`."""
        if count > self.left:
            raise FormatError(f"it ends within its {what}")
        while count:
            data = self.exactly(min(count, PIECE), what)
            count -= len(data)
            yield data

    def skip(self, count: int, what: str) -> None:
        """Pass over so many bytes. Raises FormatError as `exactly`."""
        for _ in self.pieces(count, what):
            pass

    def drain(self) -> None:
        """Read to the end. Raises FormatError as `some`."""
        while self.some(PIECE):
            pass

    def end(self, what: str) -> None:
        """Make sure that nothing follows. Raises FormatError."""
        if self.some(1):
            raise FormatError(f"{self.left + 1} bytes follow its {what}")
