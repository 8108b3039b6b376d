"""Stories in Chinese: measure words, numerals, pronouns without case."""

from typing_extensions import override

from scripts.train.cast import Pair, Person
from scripts.train.english import DIGITS_SHARE
from scripts.train.teller import Teller, load_sections

DIGITS = "零一二三四五六七八九"


def numeral(value: int) -> str:
    """A number from 1 to 99 as it is said before a measure word: 两, not 二."""
    if value == 2:
        return "两"
    tens, ones = divmod(value, 10)
    if not tens:
        return DIGITS[ones]
    return ("" if tens == 1 else DIGITS[tens]) + "十" + (DIGITS[ones] if ones else "")


class Chinese(Teller):
    """Tells a story in Chinese."""

    sections = load_sections("chinese.txt")
    joiner = ""

    @override
    def pick(self, pair: Pair) -> str:
        return pair.zh

    @override
    def word(self, slot: str) -> str:
        if slot == "folk1":
            return self.cast.word("folk").zh.removesuffix("们")
        return self.cast.word(slot).zh

    @override
    def first_mention(self, person: Person) -> str:
        role = person.role.zh
        if person.name is None:
            return self.rng.choice((role, role, f"一位{role}", f"一位{person.age.zh}{role}", f"{person.age.zh}{role}"))
        name = person.name.zh
        return self.rng.choice((name, name, f"{role}{name}", f"名叫{name}的{role}", f"一位叫{name}的{role}"))

    @override
    def role(self, person: Person) -> str:
        return person.role.zh

    @override
    def introduce(self, person: Person) -> str:
        noun = f"{person.age.zh}{person.role.zh}" if self.rng.random() < 0.6 else person.role.zh
        return f"一位名叫{person.name.zh}的{noun}" if person.name else f"一位{noun}"

    @override
    def pronoun(self, form: str, person: Person) -> str:
        return ("她" if person.is_woman else "他") + ("的" if form == "his" else "")

    @override
    def owner(self, name: str, form: str) -> str:
        return f"{name}的" if form == "his" else name

    @override
    def pronoun_fits(self, before: str) -> bool:
        return not before.endswith("的")

    @override
    def thing(self, slot: str, *, known: bool) -> str:
        item = self.cast.gift if "gift" in slot else self.cast.item
        full = item.quality.zh + item.noun.zh
        match slot:
            case "item_noun":
                return item.noun.zh
            case "item_measure":
                return item.measure
            case "item":
                return full
            case "the_item":
                forms = (
                    (item.noun.zh, f"那{item.measure}{item.noun.zh}", full)
                    if known
                    else (full, f"那{item.measure}{full}")
                )
                return self.rng.choice(forms)
            case "the_gift":
                return f"那{item.measure}{full}"
            case _:
                return f"一{item.measure}{full}"

    @override
    def place(self, slot: str, *, known: bool) -> str:
        del known  # Chinese repeats the name
        place = self.cast.place2 if slot == "place2" else self.cast.place
        return place.name.zh + place.kind.zh

    @override
    def number(self, value: int) -> str:
        return str(value) if self.rng.random() < DIGITS_SHARE else numeral(value)

    @override
    def finish(self, text: str) -> str:
        return text
