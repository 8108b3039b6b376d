import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.content import strict_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


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


def test_brackets_in_strings_do_not_nest() -> None:
    """A string of brackets is one level deep."""
    assert strict_json.loads(b'["' + b"[" * 1000 + b'\\""]') == ["[" * 1000 + '"']
