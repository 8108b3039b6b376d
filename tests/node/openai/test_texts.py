import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from p2pos.models import DEFAULT
from p2pos.node.openai.texts import LEAST, Piece, Spelled, Spelling, Writer
from p2pos.shard.effects import Emit
from p2pos.wire.messages import Logprobs

TOKENIZER = Tokenizer.from_file(str(DEFAULT / "tokenizer.json"))
SPELLING = Spelling(TOKENIZER)
EOS = 1


def ids(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False).ids)


def write(tokens: list[int], *stops: str) -> list[Piece]:
    writer = Writer(TOKENIZER, SPELLING, stops, [EOS])
    pieces = []
    for token in tokens:
        pieces.append(writer.push(Emit((token,), Logprobs(-0.5, [(token, -0.5)]))))
        if writer.stopped:
            break
    return [*pieces, writer.end()]


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=30))
def test_the_bytes_of_tokens_are_those_of_the_text(text: str) -> None:
    """Joined, they are the text's UTF-8, whatever its script."""
    tokens = ids(text)
    assert b"".join(SPELLING.bytes_of(token) for token in tokens).decode() == TOKENIZER.decode(tokens)


def test_a_sentencepiece_token_is_spelled_with_its_space() -> None:
    """▁ is a space, <0x41> a byte, and a token that isn't there is nothing."""
    from tokenizers import decoders, models

    vocabulary = {"▁lamp": 0, "<0x41>": 1, "lamp": 2}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    spelling = Spelling(tokenizer)
    assert [spelling.bytes_of(token) for token in range(4)] == [b" lamp", b"A", b"lamp", b""]


def test_part_of_a_character_is_written_as_bytes() -> None:
    """As OpenAI does, so that two such tokens are told apart."""
    assert Spelled(b"\xe7\x81", -1.0).text == "bytes:\\xe7\\x81"
    assert Spelled("灯".encode(), -1.0).text == "灯"


def test_tokens_come_with_the_text_that_they_make() -> None:
    """Each token once, in order, and its offset is where its text begins."""
    tokens = ids("The bronze lantern")
    scored = [each for piece in write(tokens) for each in piece.scored]
    assert [each.chosen.data for each in scored] == [SPELLING.bytes_of(token) for token in tokens]
    assert [each.offset for each in scored] == [len(TOKENIZER.decode(tokens[:count])) for count in range(len(tokens))]


def test_tokens_of_a_stop_string_are_not_part_of_the_text() -> None:
    """What was held back for a stop string that came is shown in neither form."""
    tokens = ids("one two three four")
    pieces = write(tokens, " three")
    assert "".join(piece.text for piece in pieces) == "one two"
    shown = b"".join(each.chosen.data for piece in pieces for each in piece.scored)
    assert shown.decode() == "one two"


def test_tokens_that_were_held_back_come_with_their_text() -> None:
    """A stop string that only began is text after all."""
    tokens = ids("one two thr")
    pieces = write(tokens, " three")
    assert "".join(piece.text for piece in pieces) == "one two thr"
    assert sum(len(piece.scored) for piece in pieces) == len(tokens)


def test_the_end_token_is_no_text() -> None:
    """It counts as a token, and is shown in neither form."""
    writer = Writer(TOKENIZER, SPELLING, (), [EOS])
    assert writer.push(Emit((EOS,), Logprobs(-0.1, []))) == Piece()
    assert writer.end() == Piece()
    assert writer.tokens == 1


@pytest.mark.parametrize(
    ("sent", "shown"), [(-math.inf, LEAST), (math.nan, LEAST), (math.inf, 0.0), (3.0, 0.0), (-2.5, -2.5)]
)
def test_a_logprob_is_always_a_number(sent: float, shown: float) -> None:
    """JSON has no infinity, and a peer may send anything."""
    writer = Writer(TOKENIZER, SPELLING, (), [EOS])
    piece = writer.push(Emit((ids("a")[0],), Logprobs(sent, [(5, sent)])))
    assert piece.scored[0].chosen.logprob == shown
    assert piece.scored[0].top[0].logprob == shown
