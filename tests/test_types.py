import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import UserError
from p2pos.types import LayerSpan


@given(st.integers(0, 1000), st.integers(1, 1000))
def test_a_span_survives_its_text(start: int, size: int) -> None:
    """What is printed is read back."""
    span = LayerSpan(start, start + size)
    assert LayerSpan.parse(str(span)) == span
    assert len(span) == size


@pytest.mark.parametrize("text", ["", "3", "a:b", "3:", ":3", "-1:3", "3:3", "4:3", "1:2:3", "１:２x"])
def test_text_that_is_no_span_is_the_users_mistake(text: str) -> None:
    """Anything but two growing numbers is refused."""
    with pytest.raises(UserError):
        LayerSpan.parse(text)


def test_a_span_holds_its_layers() -> None:
    """The end is not part of it."""
    assert [layer for layer in range(6) if layer in LayerSpan(2, 4)] == [2, 3]
