"""Tokens into text with their log-probabilities, as clients see them."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer, pre_tokenizers

from p2pos.shard.effects import Emit
from p2pos.shard.text import TextStream
from p2pos.wire.messages import Logprobs

LEAST = -9999.0
"""What OpenAI gives for a token whose probability is nothing; JSON has no infinity."""

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE writes each byte as one character: those of printable bytes as they are, others from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(rest)}
    if set(table) != set(pre_tokenizers.ByteLevel.alphabet()):  # the library's own, which has no order
        raise RuntimeError("the byte alphabet of tokenizers has changed")
    return table


_ALPHABET = _byte_alphabet()


class Spelling:
    """What single tokens of a tokenizer say."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        decoder = "" if tokenizer.decoder is None else json.loads(tokenizer.decoder.__getstate__())
        names = json.dumps(decoder, ensure_ascii=False)
        self._byte_level = '"ByteLevel"' in names
        self._metaspace = "▁" in names

    def bytes_of(self, token: int) -> bytes:
        """A token's bytes, which may be part of a character."""
        name = self._tokenizer.id_to_token(token)
        if name is None:
            return b""
        if self._byte_level and all(character in _ALPHABET for character in name):
            return bytes(_ALPHABET[character] for character in name)
        if (match := _BYTE.fullmatch(name)) is not None:
            return bytes([int(match[1], 16)])
        return (name.replace("▁", " ") if self._metaspace else name).encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Spelled:
    """A token and how likely it was."""

    data: bytes
    logprob: float

    @property
    def text(self) -> str:
        """Its text, or its bytes as OpenAI writes them where it's part of a character."""
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in self.data)


@dataclass(frozen=True, slots=True)
class Scored:
    """A token of a text, with the likeliest ones in its place."""

    chosen: Spelled
    top: tuple[Spelled, ...]
    offset: int
    """Characters of the text before it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that can be shown, and the tokens that it was made of, where they were asked for."""

    text: str = ""
    scored: tuple[Scored, ...] = field(default=())


class Writer:
    """Turns one session's tokens into pieces. Text that may yet become a stop string is held back, with its tokens."""

    def __init__(self, tokenizer: Tokenizer, spelling: Spelling, stops: Sequence[str], eos: Sequence[int]) -> None:
        self._text = TextStream(tokenizer, stops)
        self._spelling = spelling
        self._eos = frozenset(eos)
        self._shown = 0
        self._waiting: list[Scored] = []
        self.tokens = 0
        """How many came, the one that ended the text included."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was seen."""
        return self._text.stopped

    def push(self, emitted: Emit) -> Piece:
        """Take a token."""
        token = emitted.tokens[0]
        self.tokens += 1
        if token in self._eos:
            return Piece()  # it says nothing but that the text is over
        if emitted.logprobs is not None:
            self._waiting.append(self._score(token, emitted.logprobs, self._shown + self._text.held))
        return self._piece(self._text.push(token))

    def end(self) -> Piece:
        """No more tokens will come."""
        return self._piece(self._text.end(), last=True)

    def _piece(self, text: str, *, last: bool = False) -> Piece:
        self._shown += len(text)
        if self._text.stopped:  # what comes after the cut was never part of the text
            ready, self._waiting = [each for each in self._waiting if each.offset < self._shown], []
        elif last or not self._text.held:
            ready, self._waiting = self._waiting, []
        else:
            ready = [each for each in self._waiting if each.offset < self._shown]
            self._waiting = self._waiting[len(ready) :]
        return Piece(text, tuple(ready))

    def _score(self, token: int, logprobs: Logprobs, offset: int) -> Scored:
        top = tuple(self._spelled(each, value) for each, value in logprobs.top)
        return Scored(self._spelled(token, logprobs.chosen), top, offset)

    def _spelled(self, token: int, logprob: float) -> Spelled:
        # a peer may send anything: a number is at most 0, and not a number is as unlikely as can be
        value = min(logprob, 0.0) if logprob > LEAST else LEAST
        return Spelled(self._spelling.bytes_of(token), value)
