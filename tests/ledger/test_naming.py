import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import UserError
from p2pos.ledger import naming


@pytest.mark.parametrize(
    "name",
    [
        *("bob", "Bob-2", "a_b", "7"),
        *("José", "Ångström", "Nguyễn", "Иван", "Ελένη", "王小明", "小明2号", "みどりABC", "民수"),
        *("민수", "מיכאל", "محمد", "สมชาย", "प्रिया"),
    ],
)
def test_names_of_any_script(name):
    """Names as people write them are taken, in whichever script."""
    naming.require_fit(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("a" * 65, "more than 64"),
        ("王" * 64 + "王", "more than 64"),
        ("𠀀" * 51, "200 bytes"),
        ("bob smith", "is not a letter"),
        ("../bob", "is not a letter"),
        ("-bob", "does not begin"),
        ("\u0301bob", "does not begin"),
        ("bo\u200bb", "can't be seen"),
        ("bo\u202eb", "can't be seen"),
        ("bo\x00b", "can't be seen"),
        ("bo\u3164b", "can't be seen"),
        ("bo\ufe0fb", "can't be seen"),
        ("bo\ud800b", "can't be seen"),
        ("Jose\u0301", "plainly written it is “José”"),
        ("ｂｏｂ", "plainly written it is “bob”"),
        ("ﬁn", "plainly written it is “fin”"),
        ("Ⅷ", "is not a letter"),
        ("x²", "is not a letter"),
        ("😀", "is not a letter"),
        ("0xbob", "begins like an address"),
        ("аlice", "mixes the scripts Cyrillic, Latin"),
        ("Ηans", "mixes the scripts Greek, Latin"),
        ("1٢", "digits of several scripts"),
        ("a\u0316\u0317\u0318", "marks"),
    ],
)
def test_what_is_no_name(name, why):
    """A name that can't be seen, read aloud, or told from another is refused in one line that says why."""
    with pytest.raises(UserError, match=why) as caught:
        naming.require_fit(name, "contact's name")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("one", "other"),
    [("bill", "biII"), ("bill", "bi11"), ("bob", "b0b"), ("bob", "BOB"), ("tom", "torn"), ("ace", "асе"), ("Αα", "Aa")],
)
def test_names_that_look_alike(one, other):
    """Capital i and small l, one and l, zero and o, rn and m, Cyrillic and Latin: they look alike, and we know it."""
    assert naming.look_alike(one, other)


@pytest.mark.parametrize(("one", "other"), [("alice", "alicia"), ("bob", "rob"), ("小明", "大明"), ("Иван", "Ivan")])
def test_names_that_do_not(one, other):
    """Names that differ to the eye are two names."""
    assert not naming.look_alike(one, other)


@given(st.text(max_size=70))
def test_any_text_is_judged(text):
    """No text breaks the judgement; a name that is taken is in NFC, printable, one word, and like itself."""
    if naming.is_fit(text):
        assert unicodedata.normalize("NFC", text) == text
        assert text.isprintable()
        assert len(text.split()) == 1
        assert "/" not in text
        assert naming.look_alike(text, text)
    else:
        with pytest.raises(UserError):
            naming.require_fit(text)


@given(st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=10))
def test_likeness_has_no_sides(text):
    """A name and its reading in small letters look alike, whichever is asked first."""
    assert naming.look_alike(text, text.casefold()) == naming.look_alike(text.casefold(), text)
