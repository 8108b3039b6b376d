from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer

from p2pos.errors import UnavailableError
from p2pos.models import DEFAULT
from p2pos.node.engine_api import TEXT_SLACK, Abilities, Make, Piece
from p2pos.node.engine_text import MAX_REQUESTS, EngineText, Spelling
from p2pos.wire.messages import Logprobs, Sampling

TOKENIZER = Tokenizer.from_file(str(DEFAULT / "tokenizer.json"))
SPELLING = Spelling(TOKENIZER)
PROMPT = TOKENIZER.encode("The traveller asked").ids
EOS = 1
REST = " the price of the lantern."


def text(*, tokens: bool, wanted: int = 20, given: int = 0, eos: Sequence[int] = (EOS,), **changes: Any) -> EngineText:
    can = Abilities(Make.VLLM if tokens else Make.TRANSFORMERS, "m", tokens, 2048, 4, **changes)
    return EngineText(
        can,
        sampling=Sampling(),
        eos=eos,
        prompt=PROMPT,
        given=given,
        wanted=wanted,
        vocabulary=3538,
        spelling=SPELLING,
    )


def ids(writing: EngineText, *pieces: Piece) -> list[int]:
    writing.wish()
    return [token.id for piece in pieces for token in writing.take(piece)]


def test_tokens_are_the_engines_own() -> None:
    """Where tokens pass, those that come are given, until the one that ends the text."""
    writing = text(tokens=True)
    assert writing.wish().prompt == tuple(PROMPT)
    came = writing.take(Piece("a", (5,))) + writing.take(Piece("b", (6, EOS, 7), "stop"))
    assert [token.id for token in came] == [5, 6, EOS]
    assert writing.over


def test_an_end_that_an_engine_keeps_to_itself_is_added() -> None:
    """An engine that stops without the token that ended the text is given the first that may."""
    writing = text(tokens=True)
    assert ids(writing, Piece("a", (5,)), Piece(finish="stop")) == [5, EOS]
    assert writing.over


def test_no_more_tokens_come_than_are_wanted() -> None:
    """An engine that goes on is cut off at the last token that was asked for."""
    writing = text(tokens=True, wanted=3)
    assert ids(writing, Piece("", (5, 6, 7, 8)), Piece("", (9,))) == [5, 6, 7]
    assert writing.over


def test_text_becomes_tokens_that_say_it() -> None:
    """Where text passes, a little more is asked for than is wanted, and what comes is said in the model's tokens."""
    writing = text(tokens=False)
    wish = writing.wish()
    assert (wish.prompt, wish.max_tokens) == ("The traveller asked", 20 + TEXT_SLACK)
    pieces = [Piece(word) for word in (" the", " price", " of", " the", " lantern", ".")]
    came = [token.id for piece in (*pieces, Piece(finish="stop")) for token in writing.take(piece)]
    assert came == [*TOKENIZER.encode(REST, add_special_tokens=False).ids, EOS]


def test_an_engine_that_stops_short_is_asked_again() -> None:
    """Where its tokens were more than those that its text is said in, it goes on from that text."""
    writing = text(tokens=False, wanted=20)
    said = ids(writing, Piece(REST, finish="length"))
    assert not writing.over
    assert writing.asking
    again = writing.wish()
    assert (again.prompt, again.given) == ("The traveller asked" + REST, len(said))
    assert again.max_tokens == 20 - len(said) + TEXT_SLACK


def test_an_engine_that_stops_short_for_ever_is_given_up() -> None:
    """One that writes nothing, or a little each time, ends the text with an error."""
    with pytest.raises(UnavailableError, match="nothing written"):
        ids(text(tokens=False), Piece(finish="length"))
    writing = text(tokens=True, wanted=100)
    for number in range(MAX_REQUESTS):
        assert ids(writing, Piece("", (number + 5,), "length")) == [number + 5]
    with pytest.raises(UnavailableError, match="stopped short"):
        writing.wish()


def test_tokens_of_another_model_end_the_text() -> None:
    """A token outside the vocabulary, or a prompt that was taken for another, is never passed on."""
    with pytest.raises(UnavailableError, match="another model's"):
        ids(text(tokens=True), Piece("", (5, 3538)))
    with pytest.raises(UnavailableError, match="other tokens"):
        ids(text(tokens=True), Piece("", (5,), prompt=(1, 2, 3)))


def test_an_end_that_was_not_asked_for_is_an_error() -> None:
    """A text that nothing is to end doesn't end because an engine says so."""
    with pytest.raises(UnavailableError, match="nothing was to end"):
        ids(text(tokens=True, eos=()), Piece("", (5,), "stop"))


def test_a_prompt_that_no_text_says_is_not_sent() -> None:
    """Tokens that the tokenizer would not make of their own text can't pass as text."""
    writing = text(tokens=False, adds_special=False)
    writing._tokens = [TOKENIZER.token_to_id(letter) for letter in "The"]
    with pytest.raises(UnavailableError, match="no text says exactly"):
        writing.wish()


def test_log_probabilities_are_as_many_as_were_asked_for() -> None:
    """Of each token the likeliest few come along, and tokens without any end the text."""
    can = Abilities(Make.VLLM, "m", tokens=True, context=2048, places=4, logprobs=True)

    def asked() -> EngineText:
        return EngineText(
            can,
            sampling=Sampling(logprobs=2),
            eos=(EOS,),
            prompt=PROMPT,
            given=0,
            wanted=5,
            vocabulary=3538,
            spelling=None,
        )

    writing = asked()
    writing.wish()
    scores = (Logprobs(-0.5, [(5, -0.5), (6, -1.0)]),)
    assert [token.logprobs for token in writing.take(Piece("a", (5,), logprobs=scores))] == [
        Logprobs(-0.5, [(5, -0.5)])
    ]
    with pytest.raises(UnavailableError, match="without their log-probabilities"):
        ids(asked(), Piece("a", (5,)))


def test_an_engines_context_bounds_what_is_asked_for() -> None:
    """Slack and all, no more is asked for than the engine has positions."""
    writing = text(tokens=False, wanted=20)
    writing._can = Abilities(Make.TRANSFORMERS, "m", tokens=False, context=len(PROMPT) + 21, places=1)
    assert writing.wish().max_tokens == 21
