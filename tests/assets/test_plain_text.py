import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.assets.plain_text import plain, warnings


@pytest.mark.parametrize("text", ["Bronze Lantern", "青銅のランタン", "Łódź", "شمعدان", "🏮", ""])
def test_names_of_any_script_are_plain(text):
    """What shows as it is, in whatever script, is taken."""
    assert plain(text) == text


@pytest.mark.parametrize(
    "char",
    "\u202e\u2066\u200b\u200d\u2060\ufeff\u00ad\x00\x1b\n\x85\u2028\u3164\u2800\ud800\ue000\u0378",
)
def test_what_does_not_show_is_refused(char):
    """Bidi, zero-width, control, blank, private and unassigned characters are refused by their number."""
    with pytest.raises(ValueError, match="which doesn't show|NFC"):
        plain(f"a{char}b")


@settings(deadline=None)
@given(st.text())
def test_plain_text_is_composed_and_visible(text):
    """Whatever is taken is in composed form and begins and ends with something."""
    try:
        plain(text)
    except ValueError:
        return
    assert unicodedata.is_normalized("NFC", text)
    assert text == text.strip()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Вrоnze Lantern", ["mixes letters of Cyrillic and Latin", "looks like “Bronze Lantern” of alice"]),
        ("Bronze Lantern", []),
        ("bronze lantern", ["looks like “Bronze Lantern” of alice"]),
        ("Br0nze Lantern", ["looks like “Bronze Lantern” of alice"]),
        ("Бронзовый фонарь", []),
        ("Bronze фонарь", []),
        ("Silver Lantern", []),
    ],
)
def test_look_alikes_are_warned_of(name, told):
    """A name is warned of where a word mixes scripts, or where it looks like one that is known."""
    found = warnings(name, {"Bronze Lantern": "alice"})
    assert len(found) == len(told)
    assert all(part in line for part, line in zip(told, found, strict=True))
