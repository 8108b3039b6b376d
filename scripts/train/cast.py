"""Who and what one story is about, in both languages at once."""

import random
import tomllib
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from scripts.train.grammar import DATA

NAMELESS_SHARE = 0.3
"""Heroes that are only "the traveller", as in the prompts that people try first."""
LIGHT_SHARE = 0.4
"""Things that are a lantern, a lamp or a candle: the field's favourite."""
AGAIN_AT_EACH_EVENT = frozenset({"food", "animal", "folk", "flower", "colour"})
"""Words that colour one sentence; all others hold for the whole story."""


class Pair(NamedTuple):
    """One word or name in both languages."""

    en: str
    zh: str


@dataclass(frozen=True, slots=True)
class Person:
    """A traveller or a friend. `name` is None for one who is known by the role alone."""

    name: Pair | None
    role: Pair
    age: Pair
    is_woman: bool


@dataclass(frozen=True, slots=True)
class Thing:
    """An item: a quality and a noun, with the measure word that Chinese counts it by."""

    quality: Pair
    noun: Pair
    measure: str


@dataclass(frozen=True, slots=True)
class Place:
    """A named place, with the preposition that English puts before it."""

    name: Pair
    kind: Pair
    preposition: str


@cache
def lexicon() -> dict[str, tuple[tuple[str, ...], ...]]:
    """The word lists of `data/lexicon.toml`, each entry split at its bars."""
    lists = tomllib.loads((DATA / "lexicon.toml").read_text(encoding="utf-8"))
    return {
        name: tuple(tuple(part.strip() for part in entry.split("|")) for entry in entries)
        for name, entries in lists.items()
    }


def _pair(rng: random.Random, name: str) -> Pair:
    return Pair(*rng.choice(lexicon()[name])[:2])


def draw_person(rng: random.Random, *, is_woman: bool, named: bool, role: Pair | None = None) -> Person:
    """A person with a role, and a name where one is wanted."""
    name = _pair(rng, "women" if is_woman else "men") if named else None
    return Person(name, role or _pair(rng, "roles"), _pair(rng, "ages"), is_woman)


def draw_thing(rng: random.Random, *, light: bool) -> Thing:
    """An item whose quality suits it: no glass cloaks."""
    kind = "lights" if light else rng.choices(("hard_things", "soft_things", "paper_things"), (5, 2, 2))[0]
    english, chinese, measure = rng.choice(lexicon()[kind])
    stuffs = {"lights": "hard_stuffs", "hard_things": "hard_stuffs", "soft_things": "soft_stuffs"}
    quality = "looks" if kind not in stuffs or english == "candle" or rng.random() < 0.3 else stuffs[kind]
    return Thing(_pair(rng, quality), Pair(english, chinese), measure)


def draw_place(rng: random.Random) -> Place:
    """A place such as Amber Harbour."""
    english, chinese, preposition = rng.choice(lexicon()["place_kinds"])
    return Place(_pair(rng, "place_names"), Pair(english, chinese), preposition)


@dataclass(slots=True)
class Cast:
    """The people, things and places of one story.

    Hero and friend differ in gender, so that "he" and "she" are never in doubt. `price` and `offer` are gold coins.
    """

    rng: random.Random
    hero: Person
    friend: Person
    item: Thing
    gift: Thing
    place: Place
    place2: Place
    price: int
    offer: int
    _words: dict[str, Pair] = field(default_factory=dict)

    @classmethod
    def draw(cls, rng: random.Random, *, light: bool, named: bool, like: "Cast | None" = None) -> "Cast":
        """A cast for one plot.

        Args:
            rng: the story's own.
            light: the item must give light.
            named: the hero must have a name.
            like: the cast of the plot before, whose hero and place come back.

        """
        item = draw_thing(rng, light=light or rng.random() < LIGHT_SHARE)
        gift = draw_thing(rng, light=False)
        while gift.noun == item.noun:
            gift = draw_thing(rng, light=False)
        if like:
            hero, place = like.hero, like.place
        else:
            is_named = named or rng.random() >= NAMELESS_SHARE
            is_traveller = rng.random() < (0.35 if is_named else 0.6)
            role = Pair("traveller", "旅人") if is_traveller else None
            hero, place = draw_person(rng, is_woman=rng.random() < 0.5, named=is_named, role=role), draw_place(rng)
        friend = draw_person(rng, is_woman=not hero.is_woman, named=True)
        while friend.role == hero.role:
            friend = draw_person(rng, is_woman=not hero.is_woman, named=True)
        place2 = draw_place(rng)
        while place2.name == place.name:
            place2 = draw_place(rng)
        price = rng.randint(3, 40)
        words = {"world": like.word("world")} if like else {}
        return cls(rng, hero, friend, item, gift, place, place2, price, max(2, price * rng.randint(4, 8) // 10), words)

    def next_event(self) -> None:
        """Forget the words that are drawn again at each event."""
        self._words = {slot: word for slot, word in self._words.items() if slot.rstrip("2") not in AGAIN_AT_EACH_EVENT}

    def word(self, slot: str) -> Pair:
        """The word for a slot such as `goods` or `world2`; another than its namesake without the 2.

        Raises KeyError where no word list has that name.
        """
        if slot not in self._words:
            base = slot.rstrip("2")
            taken = {word for other, word in self._words.items() if other.rstrip("2") == base}
            word = _pair(self.rng, base + "s" if base + "s" in lexicon() else base)
            while word in taken:
                word = _pair(self.rng, base + "s" if base + "s" in lexicon() else base)
            self._words[slot] = word
        return self._words[slot]
