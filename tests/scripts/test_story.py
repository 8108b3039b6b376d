import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.train.cast import Cast
from scripts.train.chinese import Chinese, numeral
from scripts.train.corpus import held_out_set, training_set
from scripts.train.english import English
from scripts.train.story import TELLERS, tell

SEEDS = st.integers(min_value=0, max_value=2**32)
HAN = re.compile(r"[\u4e00-\u9fff]")


@given(SEEDS, st.sampled_from(sorted(TELLERS)))
def test_equal_seeds_tell_equal_stories(seed, language):
    """A story is decided by its seed alone."""
    assert tell(random.Random(seed), language) == tell(random.Random(seed), language)


@given(SEEDS, st.sampled_from(sorted(TELLERS)))
def test_no_slot_or_choice_is_left(seed, language):
    """Nothing of the grammar's own signs is left in a story, and no double space."""
    text = tell(random.Random(seed), language)
    assert not set("{}[]|") & set(text)
    assert "  " not in text
    assert text == text.strip()


@given(SEEDS)
def test_each_language_is_itself(seed):
    """English stories hold no Han character, Chinese stories no Latin letter."""
    assert not HAN.search(tell(random.Random(seed), "en"))
    assert not re.search(r"[A-Za-z]", tell(random.Random(seed), "zh"))


@given(SEEDS)
def test_english_sentences_start_with_a_capital(seed):
    """No line starts in lower case, nor a sentence after a full stop."""
    text = tell(random.Random(seed), "en")
    assert not re.search(r'(^|\. |\." )"?[a-z]', text, re.MULTILINE)


@pytest.mark.parametrize("teller", [English, Chinese])
def test_every_line_can_be_told(teller):
    """Each line of the grammar has only slots that are filled."""
    slots = {slot for lines in teller.sections.values() for line in lines for slot in re.findall(r"{(\w+)}", line)}
    for seed in range(20):
        random_numbers = random.Random(seed)
        told = teller(Cast.draw(random_numbers, light=False, named=False))
        assert all(told.fill(slot, "") for slot in slots)


def test_the_held_out_stories_are_not_trained_on():
    """Held-out stories are none of the training set, and stay the same when it grows."""
    small, large = training_set(5, 50), training_set(5, 400)
    assert large[:50] == small
    held_out = held_out_set(5, 40, set(large))
    assert held_out == held_out_set(5, 40, set(small))
    assert not set(large) & {text for texts in held_out.values() for text in texts}


def test_half_of_the_stories_are_chinese():
    """The two languages take turns."""
    assert [bool(HAN.search(text)) for text in training_set(1, 20)] == [False, True] * 10


@pytest.mark.parametrize(
    ("value", "text"), [(2, "两"), (3, "三"), (10, "十"), (12, "十二"), (20, "二十"), (35, "三十五")]
)
def test_numerals_are_said_as_in_chinese(value, text):
    """Numbers before a measure word are written as they are said."""
    assert numeral(value) == text
