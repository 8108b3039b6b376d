"""Text that shows as what it is, and names that only look like another. Pure.

What people read before they sign or buy is refused where it can't be read off the screen: characters that don't show,
that turn the direction, or that have two spellings. Letters that look like others can't be refused, for most who write
them mean no harm; they are warned of.
"""

import unicodedata
from collections.abc import Mapping

from confusable_homoglyphs import categories

from p2pos.ledger import naming

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories that don't show or break a line: control, format (bidi and zero-width ones are), surrogates, private use,
unassigned, separators of lines and paragraphs."""
BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5")
"""Letters and marks whose picture is empty."""

_SHARED = frozenset({"LATIN", "CYRILLIC", "GREEK"})
"""Scripts that share letters' pictures; others are mixed honestly, as kana and kanji."""


def plain(value: str) -> str:
    """Return the text where it shows as what it is.

    Raises ValueError where it is not in composed form (NFC), has blank ends, or a character that doesn't show.
    """
    if not unicodedata.is_normalized("NFC", value):
        raise ValueError("write it in Unicode's composed form (NFC)")
    if value != value.strip():
        raise ValueError("it begins or ends with a blank")
    for char in value:
        if unicodedata.category(char) in HIDDEN or char in BLANK_LETTERS:
            raise ValueError(f"it holds the character U+{ord(char):04X}, which doesn't show")
    return value


def warnings(name: str, others: Mapping[str, str]) -> list[str]:
    """What a person should be told of a name before it is believed.

    Args:
        name: the name.
        others: names that are known already, and whose each is.

    """
    found = []
    for word in name.split():
        scripts = _SHARED & {categories.alias(char) for char in word}
        if len(scripts) > 1:
            found.append(f"“{word}” mixes letters of {' and '.join(sorted(each.title() for each in scripts))}")
    for other, whose in others.items():
        if other != name and naming.look_alike(name, other):
            found.append(f"“{name}” looks like “{other}” of {whose}")
    return found
