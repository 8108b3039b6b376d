"""Tokens into text as they come, and a stop at the first stop string. Needs no torch."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class TextStream:
    """Decodes a session's tokens one by one.

    Text that may yet become a stop string is held back, so that none of it is ever shown. A character that spans tokens
    is held back until it is whole.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False
        """Whether a stop string was seen; nothing comes after it."""

    @property
    def held(self) -> int:
        """Characters that are held back."""
        return len(self._held)

    def push(self, token: int) -> str:
        """Take a token; give the text that can now be shown, or ""."""
        if self.stopped:
            return ""
        self._held += self._decoder.step(self._tokenizer, token) or ""
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._take(min(found))
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        return self._take(len(self._held) - keep)

    def end(self) -> str:
        """No more tokens will come: give what was held back."""
        return "" if self.stopped else self._take(len(self._held))

    def _take(self, count: int) -> str:
        shown, self._held = self._held[:count], "" if self.stopped else self._held[count:]
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with, short of all of it."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
