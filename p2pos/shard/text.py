"""Tokens into text as they come, and a stop at the first stop string. Needs no torch."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from tokenizers import Tokenizer

from p2pos.errors import PeerError

MAX_UNFINISHED = 16
"""Tokens that may be held back for a character to be whole. Four bytes make one; some decoders give up a whole run of
bytes for one that is wrong, and runs in real text are two or three characters."""

_UNFINISHED = "\ufffd"
"""What decoders write for bytes that are no character, or not yet."""


T = TypeVar("T")


def guarded(work: Callable[[], T]) -> T:
    """Call a tokenizer, which came with a model and may be anyone's. Raises PeerError for whatever it raises."""
    try:
        return work()
    except BaseException as exc:
        # tokenizers raises bare Exceptions, and where its Rust panics what is no Exception and known by its name alone
        if isinstance(exc, Exception) or type(exc).__name__ == "PanicException":
            line = str(exc).partition("\n")[0][:200]
            raise PeerError("", f"the model's tokenizer failed: {line}") from exc
        raise


class TextStream:
    """Decodes a session's tokens one by one.

    Text that may yet become a stop string is held back, so that none of it is ever shown. A character that spans tokens
    is held back until it is whole.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        """Those whose text is not out, after those just before them, which have a say in how a token is written."""
        self._known = 0
        """How many of `_tokens` are the ones before."""
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
        self._held += self._decoded(token)
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            return self._take(min(found))
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        return self._take(len(self._held) - keep)

    def end(self) -> str:
        """No more tokens will come: give what was held back."""
        if self.stopped:
            return ""
        self._held += self._fresh()
        self._tokens, self._known = [], 0
        return self._take(len(self._held))

    def _decoded(self, token: int) -> str:
        """The text that a token adds, or "" as long as it ends within a character."""
        self._tokens.append(token)
        fresh = self._fresh()
        waiting = len(self._tokens) - self._known
        if not fresh or (fresh.endswith(_UNFINISHED) and waiting <= MAX_UNFINISHED):
            if waiting > MAX_UNFINISHED:  # special tokens, which have no text
                del self._tokens[self._known :]
            return ""
        del self._tokens[: self._known]
        self._known = len(self._tokens)
        return fresh

    def _fresh(self) -> str:
        """The text of the tokens after the known ones."""
        before = self._decode(self._tokens[: self._known])
        return self._decode(self._tokens)[len(before) :]

    def _decode(self, tokens: list[int]) -> str:
        return guarded(lambda: str(self._tokenizer.decode(tokens, skip_special_tokens=True))) if tokens else ""

    def _take(self, count: int) -> str:
        shown, self._held = self._held[:count], "" if self.stopped else self._held[count:]
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with, short of all of it."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
