import pytest
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.errors import UserError
from p2pos.ledger import mnemonic

JUNK = "test test test test test test test test test test test junk"
"""The phrase of every development chain."""
ABOUT = "abandon " * 11 + "about"
"""The first of BIP-39's test vectors."""
WINNER = "legal winner thank year wave sausage worth useful legal winner thank yellow"
"""The second."""


def address(phrase: str, **options) -> str:
    return Account.from_key(mnemonic.key(phrase, **options)).address


@pytest.mark.parametrize(
    ("phrase", "path", "expected"),
    [
        (JUNK, "m/44'/60'/0'/0/0", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
        (JUNK, "m/44'/60'/0'/0/1", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
        (JUNK, "m/44'/60'/0'/0/9", "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720"),
        (ABOUT, "m/44'/60'/0'/0/0", "0x9858EfFD232B4033E47d90003D41EC34EcaEda94"),
        (WINNER, "m/44'/60'/0'/0/0", "0x58A57ed9d8d624cBD12e2C467D34787555bB1b25"),
    ],
)
def test_known_phrases(phrase, path, expected):
    """Public phrases give the addresses that every other wallet gives for them."""
    assert address(phrase, path=path) == expected


def test_the_passphrase_counts():
    """BIP-39's passphrase (here its vectors' own) gives another account, composed or decomposed the same one."""
    assert address(ABOUT, extra="TREZOR") == "0x9c32F71D4DB8Fb9e1A58B0a80dF79935e7256FA6"
    assert address(ABOUT, extra="caf\u00e9") == address(ABOUT, extra="cafe\u0301") != address(ABOUT)


def test_a_phrase_however_it_is_typed():
    """Capitals, tabs and more blanks than one don't matter."""
    assert mnemonic.checked("  Test\tTEST " + JUNK[10:] + "\n") == JUNK


@pytest.mark.parametrize("words", mnemonic.WORDS)
def test_a_new_phrase(words):
    """New phrases have the length asked for, a right checksum, and are never the same."""
    one, other = mnemonic.new_phrase(words), mnemonic.new_phrase(words)
    assert len(one.split()) == words
    assert mnemonic.checked(one) == one != other


@pytest.mark.parametrize(
    ("phrase", "line"),
    [
        ("", "has 0 words"),
        (JUNK[5:], "has 11 words"),
        (JUNK + " junk", "has 13 words"),
        (JUNK.replace("junk", "hunk"), "word 12 is not in"),
        ("tset tset" + JUNK[9:], "words 1, 2 are not in"),
        (JUNK.replace("junk", "test"), "the checksum fails"),
        ("junk " + JUNK[:-5], "the checksum fails"),
    ],
)
def test_a_wrong_phrase_is_named_by_place(phrase, line):
    """What is wrong is said by the word's place; no word of the phrase is shown."""
    with pytest.raises(UserError, match=line) as caught:
        mnemonic.key(phrase)
    assert not {"test", "junk", "hunk", "tset"} & set(str(caught.value).split())


@settings(max_examples=50)
@given(st.lists(st.sampled_from(mnemonic.Mnemonic().wordlist), min_size=12, max_size=12))
def test_words_at_random(words):
    """Of words at random one set in sixteen is a phrase; the others are refused."""
    try:
        assert mnemonic.checked(" ".join(words)) == " ".join(words)
    except UserError as exc:
        assert "the checksum fails" in str(exc)  # noqa: PT017 - either is right


@pytest.mark.parametrize(
    "path", ["", "m", "44'/60'", "m/", "m/x", "m/-1", "m/2147483648", "m/0''", "m/" + "/".join("0" * 11), "m/٣"]
)
def test_what_is_no_path(path):
    """A path that BIP-32 doesn't know is refused."""
    with pytest.raises(UserError, match="is not a derivation path"):
        mnemonic.key(JUNK, path=path)


def test_paths_by_number():
    """The account with a number is the path that ends with it; h and H harden as ' does."""
    assert mnemonic.path_of(0) == mnemonic.DEFAULT_PATH
    assert mnemonic.path_of(7) == "m/44'/60'/0'/0/7"
    assert mnemonic.key(JUNK, path="m/44h/60H/0'/0/0") == mnemonic.key(JUNK)
