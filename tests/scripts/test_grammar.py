import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.train.grammar import choose, read_sections
from scripts.train.story import PLOTS, TELLERS

PLAIN = st.text(alphabet="abc 灯", max_size=6)
TEMPLATES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"[{'|'.join(parts)}]")
        | st.lists(inner, max_size=3).map("".join)
    ),
    max_leaves=12,
)


@given(TEMPLATES, st.integers())
def test_choosing_leaves_no_choice_open(template, seed):
    """Every choice is made, however deep, and equal generators make it alike."""
    text = choose(template, random.Random(seed))
    assert not set("[|]") & set(text)
    assert text == choose(template, random.Random(seed))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a line", "before the first section"),
        ("== a\nx\n== a\ny", "comes twice"),
        ("== a\n== b\ny", "without a line"),
        ("== a\n[x|y", "without its partner"),
        ("== a\n{x", "without its partner"),
    ],
)
def test_a_faulty_grammar_is_refused(text, fault):
    """A grammar file with a fault is refused, and the fault is named."""
    with pytest.raises(ValueError, match=fault):
        read_sections(text)


def test_both_languages_tell_the_same_events():
    """The two grammars have the same sections, and the plots name no other."""
    english, chinese = (set(teller.sections) for teller in TELLERS.values())
    assert english == chinese
    named = {name for _, steps in PLOTS.values() for name in re.findall(r"[a-z_]+", steps)}
    assert named <= english
