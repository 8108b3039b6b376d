import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from p2pos.errors import PeerError
from p2pos.shard.text import TextStream, guarded

_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENIZER = Tokenizer(models.BPE({symbol: index for index, symbol in enumerate(_BYTES)}, []))
TOKENIZER.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
TOKENIZER.decoder = decoders.ByteLevel()


def pieces(text: str, stops: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """What a stream shows for a text, token by token (each a byte), and whether it stopped."""
    stream = TextStream(TOKENIZER, stops)
    shown = []
    for token in TOKENIZER.encode(text).ids:
        shown.append(stream.push(token))
        if stream.stopped:
            break
    return [*shown, stream.end()], stream.stopped


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_all_text_comes_through(text: str) -> None:
    """Without stop strings the pieces join to the text, whatever its script."""
    assert "".join(pieces(text)[0]) == text


def test_a_character_that_spans_tokens_is_held_until_whole() -> None:
    """A Chinese character of three byte tokens is shown once, at the third."""
    assert pieces("灯")[0] == ["", "", "灯", ""]


_PIECES = models.BPE({"▁lamp": 0, "<0xE7>": 1, "<0x81>": 2, "<0xAF>": 3, "x": 4, "▁": 5}, [], byte_fallback=True)
SENTENCEPIECE = Tokenizer(_PIECES)
SENTENCEPIECE.decoder = decoders.Sequence(
    [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
)


def test_characters_of_fallback_bytes_are_shown_when_whole() -> None:
    """A run of bytes that is two characters, and the space between two words but not before the first."""
    stream = TextStream(SENTENCEPIECE)
    assert [stream.push(token) for token in (0, 0, 1, 2, 3, 1, 2, 3)] == ["lamp", " lamp", "", "", "灯", "", "", "灯"]


@given(st.lists(st.integers(0, 7) | st.just((1 << 31) - 1), max_size=60))
def test_tokens_that_make_no_text_harm_nothing(tokens: list[int]) -> None:
    """Bytes that are no character, and tokens that there aren't, become marks or nothing; the rest is shown."""
    stream = TextStream(SENTENCEPIECE)
    shown = "".join(stream.push(token) for token in tokens) + stream.end()
    assert shown.count("x") == tokens.count(4)
    assert shown.count("lamp") == tokens.count(0)


def test_what_is_held_back_for_a_character_is_bounded() -> None:
    """A thousand bytes that are no character are not looked at again with each that follows."""
    stream = TextStream(SENTENCEPIECE)
    shown = [stream.push(1) for _ in range(1000)]
    assert sum(map(len, shown)) > 900
    assert len(stream.end()) < 20


def test_nothing_of_a_stop_string_is_shown() -> None:
    """The text ends right before the stop string, even when that spans tokens."""
    shown, stopped = pieces("one two END three", ("END",))
    assert ("".join(shown), stopped) == ("one two ", True)


def test_what_only_looked_like_a_stop_string_is_shown() -> None:
    """A beginning of a stop string that goes on otherwise is shown after all."""
    shown, stopped = pieces("the EN is near EN", ("END",))
    assert ("".join(shown), stopped) == ("the EN is near EN", False)


def test_the_earliest_stop_string_wins() -> None:
    """Of several stop strings, the first in the text ends it."""
    assert "".join(pieces("a, b. c", (".", ","))[0]) == "a"


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_a_stream_stops_where_the_whole_text_would(text: str, stops: list[str]) -> None:
    """Cut token by token or all at once, the text shown is that before the first stop string."""
    found = [at for stop in stops if (at := text.find(stop)) >= 0]
    shown, stopped = pieces(text, tuple(stops))
    assert stopped == bool(found)
    if not found:
        assert "".join(shown) == text
    else:
        assert text.startswith("".join(shown))
        assert not any(stop in "".join(shown) for stop in stops)


def test_no_text_after_the_stop() -> None:
    """A stream that stopped shows nothing more."""
    stream = TextStream(TOKENIZER, ("x",))
    ids = TOKENIZER.encode("axb").ids
    assert [stream.push(token) for token in ids] == ["a", "", ""]
    assert not stream.end()


@pytest.mark.parametrize("stops", [(), ("",)])
def test_an_empty_stop_string_stops_nothing(stops: tuple[str, ...]) -> None:
    """ "" is in every text, so it is passed over."""
    assert "".join(pieces("abc", stops)[0]) == "abc"


def test_a_tokenizer_that_panics_is_an_error_of_ours() -> None:
    """A panic in Rust is no Exception, and would end more than the text; here it's the model's fault."""
    broken = Tokenizer.from_buffer(TOKENIZER.to_str().encode())
    broken.pre_tokenizer = pre_tokenizers.FixedLength(0)
    with pytest.raises(PeerError, match="tokenizer failed: chunk size must be non-zero"):
        guarded(lambda: broken.encode("Hello"))
    with pytest.raises(KeyboardInterrupt):
        guarded(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
