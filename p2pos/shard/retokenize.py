"""Text into the tokens that say exactly it, for engines that give and take text alone. Needs no torch.

A model's tokens have one text, but a text may be written in many ways. What is asked of the tokens here is that they
decode to the text, in the place where it stands; most often they are also the ones that the model chose, since models
write as their tokenizer would.
"""

from collections.abc import Sequence

from tokenizers import Encoding, Tokenizer

from p2pos.errors import PeerError
from p2pos.shard.text import guarded

CONTEXT = 16
"""Tokens before a text that have a say in how it is written. Decoders look at the one before, at most."""
UNSETTLED_WORDS = 2
"""Pieces of the tokenizer's own splitting that are held back: what comes next may join the last one, or move the
boundary before it, as with runs of spaces."""
UNSETTLED_TOKENS = 16
"""Tokens that are held back of a text that its tokenizer doesn't split, such as SentencePiece's."""
MAX_BACK = 16
"""Tokens by which the end of what is given may be moved to lie between characters."""
MAX_UNSETTLED = 4096
"""Characters that may wait for tokens that say them; what is held back of any real text is under a hundred."""


def plain(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that takes the names of special tokens, where a text has them, for the text that they are."""
    copy: Tokenizer = guarded(lambda: Tokenizer.from_str(tokenizer.to_str()))
    copy.encode_special_tokens = True
    return copy


def prompt_text(tokenizer: Tokenizer, prompt: Sequence[int], *, adds_special: bool) -> str | None:
    """The text that an engine's tokenizer makes exactly these tokens of, or None where there's none.

    Args:
        tokenizer: the model's.
        prompt: token ids.
        adds_special: whether the engine puts before a text what the tokenizer says belongs there.

    """

    def said() -> str | None:
        first = list(tokenizer.encode("", add_special_tokens=True).ids) if adds_special else []
        if list(prompt[: len(first)]) != first:
            return None
        text: str = tokenizer.decode(list(prompt[len(first) :]), skip_special_tokens=False)
        again = tokenizer.encode(text, add_special_tokens=adds_special).ids
        return text if list(again) == list(prompt) else None

    return guarded(said)


class Retokenizer:
    """Makes tokens of a text that comes in pieces.

    Args:
        tokenizer: the model's, as `plain` makes it.
        before: the tokens before the text; the last few count.

    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._before = list(before[-CONTEXT:])
        self._text = ""
        """What came and is not given as tokens yet."""

    def push(self, text: str) -> tuple[int, ...]:
        """Take a piece; give the tokens that no further piece can change.

        Raises PeerError where no tokens say exactly what has come.
        """
        self._text += text
        tokens = guarded(lambda: self._settle(final=False)) if text else ()
        if len(self._text) > MAX_UNSETTLED:
            raise self._unsayable()
        return tokens

    def end(self) -> tuple[int, ...]:
        """No more will come: the tokens of the rest. Raises PeerError where no tokens say exactly this text."""
        tokens: list[int] = []
        while self._text:  # a rest that is written otherwise than in the whole gets its tokens by itself
            more = guarded(lambda: self._settle(final=True))
            if not more:
                raise self._unsayable()
            tokens += more
        return tuple(tokens)

    def _unsayable(self) -> PeerError:
        return PeerError("", f"no tokens of the model say exactly {self._text[:40]!r}")

    def _settle(self, *, final: bool) -> tuple[int, ...]:
        base = self._decode(self._before)
        for tokens, words in self._ways(base):
            cut = len(tokens) if final else _settled(words)
            for end in range(cut, max(0, cut - MAX_BACK), -1):
                said = self._decode([*self._before, *tokens[:end]])
                if said.startswith(base) and len(said) > len(base) and self._text.startswith(said[len(base) :]):
                    self._text = self._text[len(said) - len(base) :]
                    self._before = [*self._before, *tokens[:end]][-CONTEXT:]
                    return tuple(tokens[:end])
        return ()

    def _ways(self, base: str) -> list[tuple[list[int], list[int | None]]]:
        """How the text may be written: by itself, and as it follows what is before it. Tokens, and the word of each."""
        if not self._text:
            return []
        alone: Encoding = self._tokenizer.encode(self._text, add_special_tokens=False)
        joined: Encoding = self._tokenizer.encode(base + self._text, add_special_tokens=False)
        ways = [(list(alone.ids), list(alone.word_ids))]
        first = next((at for at, (start, _) in enumerate(joined.offsets) if start >= len(base)), None)
        if first is not None and all(end <= len(base) for _, end in joined.offsets[:first]):
            ways.append((list(joined.ids[first:]), list(joined.word_ids[first:])))
        return ways

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True)) if tokens else ""


def _settled(words: list[int | None]) -> int:
    """How many of the tokens, each with its word, come before the words that may yet change."""
    changes = [at for at in range(1, len(words)) if words[at] is None or words[at] != words[at - 1]]
    by_words = changes[-UNSETTLED_WORDS] if len(changes) >= UNSETTLED_WORDS else 0
    return max(by_words, len(words) - UNSETTLED_TOKENS)
