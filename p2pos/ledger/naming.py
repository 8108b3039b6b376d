"""What a wallet or a contact may be called, so that no name passes for another. Pure.

Any script will do. A name is one word of letters, digits, - and _, in the one form that Unicode holds as composed and
plain (NFKC), and of scripts that people write together (Unicode TR 39's “highly restrictive”). Two names that look
alike share one of their `skeletons`: bill and bi11, bob and b0b.
"""

import unicodedata
from functools import cache

from confusable_homoglyphs import categories, confusables

from p2pos.errors import UserError

MAX_CHARACTERS = 64
MAX_BYTES = 200
"""In UTF-8. A name becomes a file's, which most file systems limit to 255 bytes, and backups lengthen it."""
MAX_MARKS = 2
"""Accents on one letter. Vietnamese has two; more are drawn over the lines above and below."""

_TOGETHER = (
    frozenset({"LATIN", "HAN", "HIRAGANA", "KATAKANA"}),
    frozenset({"LATIN", "HAN", "BOPOMOFO"}),
    frozenset({"LATIN", "HAN", "HANGUL"}),
)
"""Scripts that one word may mix: Japanese, Chinese and Korean are written with Latin letters among theirs."""
_ANY = frozenset({"COMMON", "INHERITED"})
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0") | {
    chr(code) for code in range(0xFE00, 0xFE10)
}
"""Letters and marks that draw nothing (Unicode's Default_Ignorable among them, and the blank Braille pattern)."""


def require_fit(name: str, what: str = "name") -> None:
    """Raise UserError, which says why, where a wallet or contact can't be called this."""
    fault = _fault(name)
    if fault:
        raise UserError(f"“{_shown(name)}” can't be a {what}: {fault}", hint=_HINT)


_HINT = "use one word of up to 64 letters, digits, - and _, the first a letter or digit"


def is_fit(name: str) -> bool:
    """Whether a wallet or contact may be called this."""
    return not _fault(name)


def skeletons(name: str) -> frozenset[str]:
    """What a name looks like, read as it is and in small letters: names that share one of these look alike."""
    return frozenset({_skeleton(name).casefold(), _skeleton(name.casefold()).casefold()})


def look_alike(one: str, other: str) -> bool:
    """Whether a person could take one name for the other."""
    return not skeletons(one).isdisjoint(skeletons(other))


def _fault(name: str) -> str:
    if not name:
        return "it is empty"
    if len(name) > MAX_CHARACTERS or len(name.encode(errors="replace")) > MAX_BYTES:
        return f"it has more than {MAX_CHARACTERS} characters or {MAX_BYTES} bytes"
    marks, zeros, scripts = 0, set(), set()
    for at, character in enumerate(name):
        category = unicodedata.category(character)
        if character in _UNSEEN or category in {"Cc", "Cf", "Cs", "Cn", "Co"}:
            return f"character {at + 1} (U+{ord(character):04X}) can't be seen"
        if category[0] not in "LMN" and character not in "-_":
            return f"character {at + 1} (“{character}”) is not a letter or digit"
        if category in {"Nl", "No"}:
            return f"character {at + 1} (“{character}”) is not a letter or digit"
        if at == 0 and category[0] not in "LN":
            return "it does not begin with a letter or digit"
        marks = marks + 1 if category[0] == "M" else 0
        if marks > MAX_MARKS:
            return f"more than {MAX_MARKS} marks stand on one letter"
        if category == "Nd":
            zeros.add(ord(character) - unicodedata.decimal(character))
        scripts.add(categories.alias(character))
    if unicodedata.normalize("NFKC", name) != name:
        return "it has letters in an unusual form; plainly written it is “" + unicodedata.normalize("NFKC", name) + "”"
    if name[:2] in {"0x", "0X"}:
        return "it begins like an address"
    scripts -= _ANY
    if len(scripts) > 1 and not any(scripts <= group for group in _TOGETHER):
        return f"it mixes the scripts {', '.join(sorted(script.title() for script in scripts))}"
    if len(zeros) > 1:
        return "it mixes digits of several scripts"
    return ""


def _shown(name: str) -> str:
    return "".join(each if each.isprintable() else "\ufffd" for each in name[:MAX_CHARACTERS])


def _skeleton(name: str) -> str:
    """Unicode TR 39's: decomposed, each character replaced by the prototype of those that look like it."""
    mapped = "".join(map(_prototype, unicodedata.normalize("NFD", name)))
    return unicodedata.normalize("NFD", mapped)


@cache
def _prototype(character: str) -> str:
    """What stands for all characters that look like this one.

    The library's table has each pair of Unicode's confusables.txt both ways. There every character has one prototype
    and a prototype has many characters, so the one with more neighbours is the prototype.
    """
    table = confusables.confusables_data
    around = [entry["c"] for entry in table.get(character, ())]
    if len(around) != 1:
        return character
    other: str = around[0]
    if len(table[other]) == 1 and len(other) == 1:
        return min(character, other)
    return other.replace("\u200e", "")  # a mark that only sets the direction
