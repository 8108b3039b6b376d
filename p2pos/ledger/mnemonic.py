"""A wallet's recovery phrase: BIP-39 words, the BIP-32 key at a BIP-44 path. Pure, but for new phrases' randomness.

eth-account does the arithmetic. Its own checks are not used, because their errors quote the phrase. No error of this
module shows a word, only its place.
"""

import re
import secrets
import unicodedata

from eth_account.hdaccount import key_from_seed
from eth_account.hdaccount.mnemonic import Mnemonic
from eth_utils.exceptions import ValidationError

from p2pos.errors import UserError

DEFAULT_PATH = "m/44'/60'/0'/0/0"
"""BIP-44's first Ethereum account, as MetaMask, Ledger Live's legacy and Frame derive it."""
WORDS = (12, 15, 18, 21, 24)
"""Lengths that BIP-39 knows."""
MAX_DEPTH = 10
"""Steps of a path. BIP-44 has five."""
MAX_BYTES = 4096
"""Of a phrase's text. Twenty-four words take under 250."""

_STEP = re.compile(r"([0-9]{1,10})(['hH]?)")


def new_phrase(words: int = 12) -> str:
    """A phrase of new randomness: 12 words have 128 bits, 24 have 256."""
    return str(Mnemonic().to_mnemonic(secrets.token_bytes(words * 4 // 3)))


def checked(text: str) -> str:
    """A phrase in its plain form: small letters, one blank between words.

    Raises UserError, which names a wrong word by its place alone: not in the English list, a wrong number of words,
    or words whose checksum fails.
    """
    words = unicodedata.normalize("NFKD", text).lower().split()
    if len(words) not in WORDS:
        raise UserError(f"the phrase has {len(words)} words", hint="a recovery phrase has 12, 15, 18, 21 or 24")
    known = set(_list())
    wrong = [str(place) for place, word in enumerate(words, 1) if word not in known]
    if wrong:
        which = f"word {wrong[0]} is" if len(wrong) == 1 else f"words {', '.join(wrong)} are"
        raise UserError(
            f"{which} not in BIP-39's English list of words", hint="look at its spelling where the phrase is written"
        )
    phrase = " ".join(words)
    if not Mnemonic().is_mnemonic_valid(phrase):
        raise UserError(
            "every word is in BIP-39's list, but together they are not a phrase: the checksum fails",
            hint="a word is another one, or two have changed places",
        )
    return phrase


def key(phrase: str, *, extra: str = "", path: str = DEFAULT_PATH) -> bytes:
    """The private key, 32 bytes, at a path of a phrase.

    Args:
        phrase: as typed; checked here.
        extra: BIP-39's passphrase, a word of one's own besides those of the list; "" for none.
        path: BIP-32's, such as m/44'/60'/0'/0/0.

    Raises UserError.

    """
    seed = Mnemonic.to_seed(checked(phrase), extra)
    plain = _plain_path(path)
    try:
        return bytes(key_from_seed(seed, plain))
    except ValidationError:  # one in 2¹²⁷ paths has no key (BIP-32)
        raise UserError(f"the phrase has no key at {path}", hint="give another --path") from None


def path_of(index: int) -> str:
    """The path of the account with this number, from 0, as wallets count them."""
    return f"{DEFAULT_PATH.rpartition('/')[0]}/{index}"


def require_path(path: str) -> None:
    """Raise UserError where this is no derivation path."""
    _plain_path(path)


def _plain_path(path: str) -> str:
    fault = UserError(f"“{path[:100]}” is not a derivation path", hint=f"for example {DEFAULT_PATH}")
    head, *steps = path.strip().split("/")
    if head != "m" or not 1 <= len(steps) <= MAX_DEPTH:
        raise fault
    plain = [head]
    for step in steps:
        match = _STEP.fullmatch(step)
        if match is None or int(match[1]) >= 1 << 31:
            raise fault
        plain.append(match[1] + ("'" if match[2] else ""))
    return "/".join(plain)


def _list() -> list[str]:
    return list(Mnemonic().wordlist)
