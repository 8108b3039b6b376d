from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from p2pos.errors import PeerError
from p2pos.models import DEFAULT
from p2pos.shard.retokenize import MAX_UNSETTLED, Retokenizer, plain, prompt_text

BYTES = Tokenizer.from_file(str(DEFAULT / "tokenizer.json"))
PLAIN = plain(BYTES)
_METASPACE = pre_tokenizers.Metaspace(prepend_scheme="first")
_WORDS = {"▁": 0, "a": 1, "b": 2, "▁a": 3, "▁ab": 4, "<s>": 5}
SPACES = Tokenizer(models.BPE({**_WORDS, "ab": 6}, [("▁", "a"), ("▁a", "b"), ("a", "b")]))
SPACES.pre_tokenizer = _METASPACE
SPACES.decoder = decoders.Metaspace(prepend_scheme="first")

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
PROMPT = BYTES.encode("The traveller asked").ids


def tokens_of(tokenizer: Tokenizer, pieces: Sequence[str], before: Sequence[int]) -> list[int]:
    stream = Retokenizer(tokenizer, before)
    tokens = [token for piece in pieces for token in stream.push(piece)]
    return [*tokens, *stream.end()]


def said(tokenizer: Tokenizer, before: Sequence[int], tokens: Sequence[int]) -> str:
    return tokenizer.decode([*before, *tokens])[len(tokenizer.decode(list(before))) :]


@given(TEXTS, st.lists(st.integers(0, 60), max_size=6))
def test_the_tokens_say_exactly_the_text(text: str, cuts: list[int]) -> None:
    """Whatever text comes, in whatever pieces, the tokens decode to it, in the place where it stands."""
    edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[start:end] for start, end in pairwise(edges)]
    assert said(BYTES, PROMPT, tokens_of(PLAIN, pieces, PROMPT)) == text


@pytest.mark.parametrize(
    "text", [" the way.  Then he slept,\n\nand woke.", "，旅人走了12里路。", " unlucky lanterns' keepers—“so”"]
)
def test_real_text_gets_the_tokens_of_the_tokenizer(text: str) -> None:
    """Of text that comes character by character, the tokens are those that the tokenizer makes of the whole."""
    assert tokens_of(PLAIN, list(text), PROMPT) == BYTES.encode(text, add_special_tokens=False).ids


def test_tokens_come_before_the_text_ends() -> None:
    """No more is held back than the last words, which what follows could still change."""
    stream = Retokenizer(PLAIN, PROMPT)
    given_ = [stream.push(piece) for piece in (" the", " price", " of", " the", " lantern")]
    assert [BYTES.decode(list(tokens)) for tokens in given_] == ["", "", " the", " price", " of"]


def test_the_name_of_a_special_token_is_plain_text() -> None:
    """A text that has `</s>` in it ends nothing: it is said in ordinary tokens."""
    tokens = tokens_of(PLAIN, ["a </s> b"], PROMPT)
    assert 1 not in tokens
    assert said(BYTES, PROMPT, tokens) == "a </s> b"


def test_a_space_that_a_tokenizer_puts_first_is_not_doubled() -> None:
    """Where a tokenizer begins every text with a space, a text that goes on within a word gets none."""
    before = SPACES.encode("ab").ids
    assert before == [4]
    for text in ("b", "ab ab", " ab"):
        assert said(SPACES, before, tokens_of(SPACES, [text], before)) == text


def test_text_that_no_tokens_say_is_refused() -> None:
    """A character outside the vocabulary ends the text with an error, at its end or once too much is held."""
    stream = Retokenizer(SPACES, [4])
    assert stream.push("zz") == ()
    with pytest.raises(PeerError, match="say exactly 'zz'"):
        stream.end()
    with pytest.raises(PeerError, match="say exactly"):
        Retokenizer(SPACES, [4]).push("z" * (MAX_UNSETTLED + 1))


def test_a_prompt_has_its_text_only_where_it_comes_back() -> None:
    """A prompt that the tokenizer would write so is said as text; one that it would not has none."""
    assert prompt_text(BYTES, PROMPT, adds_special=True) == "The traveller asked"
    assert prompt_text(BYTES, PROMPT[1:], adds_special=True) is None  # the engine would put the first token before it
    assert prompt_text(BYTES, PROMPT[1:], adds_special=False) == "The traveller asked"
    assert prompt_text(BYTES, PROMPT, adds_special=False) == "<s>The traveller asked"
    letters = [BYTES.token_to_id(letter) for letter in "The"]
    assert prompt_text(BYTES, [0, *letters], adds_special=True) is None


@given(st.lists(st.integers(0, BYTES.get_vocab_size() - 1), max_size=12), st.booleans())
def test_no_prompt_is_said_as_another(prompt: list[int], special: bool) -> None:
    """Whatever the tokens, a text that is given for them makes exactly them again."""
    text = prompt_text(BYTES, prompt, adds_special=special)
    assert text is None or BYTES.encode(text, add_special_tokens=special).ids == prompt
