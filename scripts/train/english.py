"""Stories in English: articles, possessives, capitals."""

import re

from typing_extensions import override

from scripts.train.cast import Pair, Person
from scripts.train.teller import Teller, load_sections

NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = {20: "twenty", 30: "thirty", 40: "forty"}
DIGITS_SHARE = 0.15
"""Prices written in digits, so that both ways of writing are learned."""
PRONOUNS = {"he": ("he", "she"), "him": ("him", "her"), "his": ("his", "her")}
SENTENCE_START = re.compile(r'(^"?|[.!?] "?|\." "?|[?!]" "|[,:] ")([a-z])')
"""Where a capital belongs. Not after a question in quotes: `"Is it far?" she asked`."""
OBJECT_OF = re.compile(r"\b(said|asked|answered|promised|of|for|with|to|by|behind|before|watched|told)\s$")
"""Words after which "he" would be wrong or quaint."""


def with_article(noun: str) -> str:
    """`a` or `an` and the noun, by its first letter; the lexicon has no word where the sound differs from it."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


class English(Teller):
    """Tells a story in English."""

    sections = load_sections("english.txt")
    joiner = " "

    @override
    def pick(self, pair: Pair) -> str:
        return pair.en

    @override
    def word(self, slot: str) -> str:
        if slot == "at":
            return self.cast.place.preposition
        return self.cast.word(slot).en

    @override
    def first_mention(self, person: Person) -> str:
        role = person.role.en
        if person.name is None:
            return self.rng.choice(
                (f"the {role}", f"the {role}", with_article(role), with_article(f"{person.age.en} {role}"))
            )
        name = person.name.en
        forms = (name, name, f"{name} the {role}", f"the {role} {name}", f"{with_article(role)} named {name}")
        return self.rng.choice(forms)

    @override
    def role(self, person: Person) -> str:
        return f"the {person.role.en}"

    @override
    def introduce(self, person: Person) -> str:
        noun = with_article(f"{person.age.en} {person.role.en}" if self.rng.random() < 0.6 else person.role.en)
        return f"{noun} named {person.name.en}" if person.name else noun

    @override
    def pronoun(self, form: str, person: Person) -> str:
        return PRONOUNS[form][person.is_woman]

    @override
    def owner(self, name: str, form: str) -> str:
        return f"{name}'s" if form == "his" else name

    @override
    def pronoun_fits(self, before: str) -> bool:
        return not OBJECT_OF.search(before)

    @override
    def thing(self, slot: str, *, known: bool) -> str:
        item = self.cast.gift if "gift" in slot else self.cast.item
        full = f"{item.quality.en} {item.noun.en}"
        match slot:
            case "item_noun" | "item_measure":
                return item.noun.en
            case "item":
                return full
            case "the_item" if known and self.rng.random() < 0.6:
                return f"the {item.noun.en}"
            case "the_item" | "the_gift":
                return f"the {full}"
            case _:
                return with_article(full)

    @override
    def place(self, slot: str, *, known: bool) -> str:
        place = self.cast.place2 if slot == "place2" else self.cast.place
        if known and self.rng.random() < 0.4:
            return f"the {place.kind.en}"
        return f"{place.name.en} {place.kind.en.capitalize()}"

    @override
    def number(self, value: int) -> str:
        if self.rng.random() < DIGITS_SHARE:
            return str(value)
        if value < len(NUMBERS):
            return NUMBERS[value]
        tens, ones = value - value % 10, value % 10
        return TENS[tens] + (f"-{NUMBERS[ones]}" if ones else "")

    @override
    def finish(self, text: str) -> str:
        text = text.replace("  ", " ")  # where an empty choice stood
        return SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)
