"""Many stories, and their split into what is trained on and what is held out."""

import itertools
import random
from collections.abc import Iterator

from scripts.train.story import tell

LANGUAGES = ("en", "zh")


def stories(seed: str) -> Iterator[tuple[str, str]]:
    """Stories without end, as (language, text), the languages in turn. Equal seeds give equal stories.

    Each story has a generator of its own, so that a change to one plot leaves the others as they were.
    """
    for number in itertools.count():
        language = LANGUAGES[number % len(LANGUAGES)]
        yield language, tell(random.Random(f"{seed}/{number}"), language)


def training_set(seed: int, count: int) -> list[str]:
    """The first `count` stories of the seed."""
    return [text for _, text in itertools.islice(stories(f"train/{seed}"), count)]


def held_out_set(seed: int, count: int, seen: set[str]) -> dict[str, list[str]]:
    """`count` stories of each language that are not in `seen`.

    They stay the same when the training set grows, unless a story comes in both, as the shortest plots could.
    """
    kept: dict[str, list[str]] = {language: [] for language in LANGUAGES}
    for language, text in stories(f"held out/{seed}"):
        if text not in seen and len(kept[language]) < count:
            kept[language].append(text)
        if all(len(texts) == count for texts in kept.values()):
            break
    return kept
