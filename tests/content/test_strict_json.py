import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.content import strict_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None)
@given(VALUES)
def test_values_are_those_of_the_standard_parser(value: object) -> None:
    """What nests little is parsed as ever, brackets and quotes inside strings included."""
    assert strict_json.loads(json.dumps(value).encode()) == value


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'["[",'])
def test_deep_nesting_is_refused_whatever_the_recursion_limit(opening: bytes) -> None:
    """A document that would overflow the stack is refused before it is parsed."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000_000)
    try:
        with pytest.raises(ValueError, match="nests more than"):
            strict_json.loads(opening * 1_000_000)
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize("end", [b"", b"\\", b"["])
def test_a_string_that_never_ends_is_looked_at_once(end: bytes) -> None:
    """Half a megabyte of escaped quotes costs no more than its length: quadratic, it would be looked at for minutes."""
    tokens = list(strict_json._TOKENS.finditer(b"[" * 65 + b'"' + b'\\"' * 250_000 + end))
    assert len(tokens) == 66


def test_the_first_key_that_comes_twice_is_named() -> None:
    """Of many keys, the one that is named twice is told."""
    with pytest.raises(strict_json.RepeatedKeyError, match="k7777"):
        strict_json.loads(
            json.dumps({f"k{n}": n for n in range(9999)})[:-1].encode() + b',"k7777":0}', unique_keys=True
        )


def test_brackets_in_strings_do_not_nest() -> None:
    """A string of brackets is one level deep."""
    assert strict_json.loads(b'["' + b"[" * 1000 + b'\\""]') == ["[" * 1000 + '"']


EXACT = st.recursive(
    st.none() | st.booleans() | st.integers(-strict_json.MAX_INT, strict_json.MAX_INT) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None)
@given(EXACT)
def test_documents_of_one_meaning_are_read(value: object) -> None:
    """Whole numbers up to 2⁵³ and anything else come back as they were."""
    assert strict_json.loads_exact(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "names “c” twice"),
        (b"[1.5]", "1.5, which is no whole number"),
        (b"[1e3]", "no whole number"),
        (b"[NaN]", "no whole number"),
        (b"[-Infinity]", "no whole number"),
        (b"[9007199254740992]", "no whole number up to"),
        (b"[" + b"9" * 100_000 + b"]", "no whole number up to"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ('["ü"]'.encode("latin-1"), "utf-8"),
        ("{}".encode("utf-16"), "utf-8"),
        (b"[" * 65 + b"]" * 65, "nests more than"),
        (b"[1] []", "Extra data"),
    ],
)
def test_documents_of_several_meanings_are_refused(document: bytes, fault: str) -> None:
    """What two readers could take for two things is refused, and said."""
    with pytest.raises(ValueError, match=fault):
        strict_json.loads_exact(document)
