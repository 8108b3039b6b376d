"""One text as it comes from an engine that others run: what to ask for, and the tokens that came. Pure.

Where tokens pass they are the engine's own. Where text passes, the prompt's text is one that the engine's tokenizer
makes exactly the prompt's tokens of, and the tokens given are ones that say exactly the text that came
(`shard.retokenize`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from p2pos.errors import P2posError, UnavailableError
from p2pos.node.engine_api import TEXT_SLACK, Abilities, Piece, Wish
from p2pos.shard.retokenize import Retokenizer, plain, prompt_text
from p2pos.wire.messages import Logprobs, Open, Sampling

MAX_REQUESTS = 8
"""Of one text. A further one is only due where an engine wrote fewer tokens than it was asked for, as where it counts
those of a character that it does not show."""


@dataclass(frozen=True, slots=True)
class Token:
    """The next token of a text."""

    id: int
    logprobs: Logprobs | None = None


class Spelling:
    """A model's tokenizer, for both ways.

    Args:
        tokenizer: the model's.

    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.plain = plain(tokenizer)


class EngineText:
    """One text.

    Args:
        can: the engine's abilities.
        sampling: how to choose.
        eos: token ids that end the text.
        prompt: all tokens so far, those of the text included.
        given: how many of these are of the text.
        wanted: tokens that are to come, at most.
        vocabulary: how many ids there are.
        spelling: for an engine that takes text.

    """

    def __init__(
        self,
        can: Abilities,
        *,
        sampling: Sampling,
        eos: Sequence[int],
        prompt: Sequence[int],
        given: int,
        wanted: int,
        vocabulary: int,
        spelling: Spelling | None,
    ) -> None:
        self._can = can
        self._sampling = sampling
        self._eos = tuple(eos)
        self._tokens = list(prompt)
        self._given = given
        self._left = wanted
        self._vocabulary = vocabulary
        self._spelling = spelling
        self._spelled: Retokenizer | None = None
        self._requests = 0
        self._fresh = 0
        self.over = False
        """Whether no more tokens will come."""
        self.asking = True
        """Whether a request is due: at first, and where the engine stopped short."""

    @classmethod
    def of(
        cls, can: Abilities, order: Open, tokens: Sequence[int], *, vocabulary: int, spelling: Spelling | None
    ) -> "EngineText":
        """Of a session that asks for it, whose tokens so far are these."""
        given = len(tokens) - order.prompt_length
        return cls(
            can,
            sampling=order.sampling,
            eos=order.eos,
            prompt=tokens,
            given=given,
            wanted=order.max_tokens - given,
            vocabulary=vocabulary,
            spelling=spelling,
        )

    def wish(self) -> Wish:
        """What to ask the engine for now. Raises UnavailableError where that can't be said to it."""
        self._requests += 1
        if self._requests > MAX_REQUESTS:
            raise UnavailableError(f"stopped short {MAX_REQUESTS} times in one text")
        self.asking = False
        self._fresh = 0
        left = self._left
        prompt: tuple[int, ...] | str = tuple(self._tokens)
        if not self._can.tokens:
            left += TEXT_SLACK
            prompt = self._text()
        if self._can.context:
            left = min(left, self._can.context - len(self._tokens))
        if left < 1:
            raise UnavailableError(f"has a context of {self._can.context} tokens, and the text has come to its end")
        return Wish(prompt, left, self._eos, self._sampling, self._given)

    def take(self, piece: Piece) -> list[Token]:
        """What a piece adds. Raises UnavailableError where it is none that the engine may send."""
        if self.over or self.asking:
            return []
        if piece.prompt is not None and self._can.tokens and list(piece.prompt) != self._tokens[: len(piece.prompt)]:
            raise UnavailableError("took the prompt for other tokens than it was sent")
        came: list[Token] = []
        if self._can.tokens:
            self._add(came, piece.tokens, piece.logprobs)
        else:
            self._add(came, self._spell(piece.text, last=bool(piece.finish)))
        if piece.finish and not self.over:
            self._finish(piece.finish, came)
        return came

    def _add(self, came: list[Token], tokens: Sequence[int], scores: Sequence[Logprobs] = ()) -> None:
        if self._sampling.logprobs and len(scores) != len(tokens):
            raise UnavailableError("sent tokens without their log-probabilities")
        for at, token in enumerate(tokens):
            if self.over:
                return
            if not 0 <= token < self._vocabulary:
                raise UnavailableError(f"sent token {token} of a vocabulary of {self._vocabulary}: another model's")
            score = None
            if self._sampling.logprobs:
                score = Logprobs(scores[at].chosen, scores[at].top[: self._sampling.logprobs - 1])
            came.append(Token(token, score))
            self._tokens.append(token)
            self._given += 1
            self._fresh += 1
            self._left -= 1
            self.over = not self._left or token in self._eos

    def _finish(self, finish: str, came: list[Token]) -> None:
        """The engine says that it is done, and the text isn't."""
        if finish == "stop":
            if not self._eos:
                raise UnavailableError("ended a text that nothing was to end")
            if self._sampling.logprobs:
                raise UnavailableError("didn't tell the token that ended the text")
            # it keeps the token to itself, or one that shows as text can't say it
            self._add(came, self._eos[:1])
        elif not self._fresh:
            raise UnavailableError("stopped short with nothing written")
        else:
            self.asking = True

    def _text(self) -> str:
        text = None
        if self._spelling is not None:
            text = prompt_text(self._spelling.tokenizer, self._tokens, adds_special=self._can.adds_special)
        if text is None:
            raise UnavailableError("takes text alone, and no text says exactly these tokens")
        self._spelled = Retokenizer(self._spelling.plain, self._tokens) if self._spelling is not None else None
        return text

    def _spell(self, text: str, *, last: bool) -> tuple[int, ...]:
        if self._spelled is None:
            return ()
        try:
            tokens = self._spelled.push(text)
            return (*tokens, *self._spelled.end()) if last else tokens
        except P2posError as exc:
            raise UnavailableError(f"wrote what can't be said in tokens: {exc.message}") from exc
