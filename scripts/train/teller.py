"""How a story's people and things are named as it goes on: fully at first, then by a shorter name or a pronoun."""

from abc import ABC, abstractmethod

from scripts.train.cast import Cast, Pair, Person
from scripts.train.grammar import DATA, SLOT, choose, read_sections

ROLE_SHARE = 0.3
"""Later mentions by the role, once the reader knows it, instead of the name."""


class Teller(ABC):
    """Tells one story in one language. It remembers who and what has been mentioned, and when."""

    sections: dict[str, tuple[str, ...]]
    """The language's grammar."""
    joiner: str
    """What stands between two sentences."""

    def __init__(self, cast: Cast) -> None:
        self.cast = cast
        self.rng = cast.rng
        self._used: set[str] = set()
        self._event = 0
        self._last_named: dict[str, int] = {}
        self._role_told: set[Person] = set()

    def recast(self, cast: Cast) -> None:
        """Go on with another plot: the hero and the place stay known, the friend and the things are new."""
        self.cast = cast
        self._last_named = {who: event for who, event in self._last_named.items() if who in {"hero", "place"}}

    def tell(self, event: str) -> str:
        """One event as text, by a line that this story has not used yet; "" where all its lines are used."""
        lines = [line for line in self.sections[event] if line not in self._used]
        if not lines:
            return ""
        line = self.rng.choice(lines)
        self._used.add(line)
        self._event += 1
        self.cast.next_event()
        text, end = "", 0
        template = choose(line, self.rng)
        for match in SLOT.finditer(template):
            text += template[end : match.start()]
            text += self.fill(match[1], text)
            end = match.end()
        return self.finish(text + template[end:])

    def fill(self, slot: str, before: str) -> str:
        """What stands in the slot, given the text before it. Raises KeyError for a slot that nothing fills."""
        match slot:
            case "hero" | "friend":
                return self._mention(slot, before)
            case "hero_name" | "friend_name":
                return self._mention(slot.removesuffix("_name"), before, pronoun=False)
            case "hero_first" | "friend_first":
                return self._first_name(self._person(slot.removesuffix("_first")))
            case "he" | "him" | "his":
                return self.pronoun(slot, self.cast.hero)
            case "fhe" | "fhim" | "fhis":
                return self.pronoun(slot.removeprefix("f"), self.cast.friend)
            case "him_hero" | "his_hero":
                known = "hero" in self._last_named
                form = slot.removesuffix("_hero")
                return self.pronoun(form, self.cast.hero) if known else self.owner(self._mention("hero", before), form)
            case "an_item" | "the_item" | "gift" | "the_gift" | "item" | "item_noun" | "item_measure":
                which = "gift" if "gift" in slot else "item"
                text = self.thing(slot, known=which in self._last_named)
                self._last_named[which] = self._event
                return text
            case "place" | "place2":
                text = self.place(slot, known=slot in self._last_named)
                self._last_named[slot] = self._event
                return text
            case "intro":
                self._last_named["hero"] = self._event
                self._role_told.add(self.cast.hero)
                return self.introduce(self.cast.hero)
            case "price" | "offer":
                return self.number(self.cast.price if slot == "price" else self.cast.offer)
            case _:
                return self.word(slot)

    def _person(self, who: str) -> Person:
        return self.cast.hero if who == "hero" else self.cast.friend

    def _first_name(self, person: Person) -> str:
        return self.pick(person.name or person.role)

    def _mention(self, who: str, before: str, *, pronoun: bool = True) -> str:
        """Name a person: in full at first, by a pronoun where the last mention is near and the sentence allows it."""
        person, last = self._person(who), self._last_named.get(who)
        self._last_named[who] = self._event
        if last is None:
            text = self.first_mention(person)
            if self.pick(person.role) in text:
                self._role_told.add(person)
            return text
        if pronoun and self._event - last <= 1 and self.pronoun_fits(before) and self.rng.random() < 0.6:
            return self.pronoun("he", person)
        if person.name is None or (person in self._role_told and self.rng.random() < ROLE_SHARE):
            return self.role(person)
        return self.pick(person.name)

    @abstractmethod
    def pick(self, pair: Pair) -> str:
        """The pair's word in this language."""

    @abstractmethod
    def word(self, slot: str) -> str:
        """A word of the lexicon."""

    @abstractmethod
    def first_mention(self, person: Person) -> str:
        """A person who has not been named before."""

    @abstractmethod
    def role(self, person: Person) -> str:
        """A person whom the reader knows, by the role."""

    @abstractmethod
    def introduce(self, person: Person) -> str:
        """The person as after "there was"."""

    @abstractmethod
    def pronoun(self, form: str, person: Person) -> str:
        """`he`, `him` or `his` for the person."""

    @abstractmethod
    def owner(self, name: str, form: str) -> str:
        """A name in place of `him` or `his`."""

    @abstractmethod
    def pronoun_fits(self, before: str) -> bool:
        """Whether a pronoun as subject may follow this text."""

    @abstractmethod
    def thing(self, slot: str, *, known: bool) -> str:
        """The item or the gift."""

    @abstractmethod
    def place(self, slot: str, *, known: bool) -> str:
        """A place by its name."""

    @abstractmethod
    def number(self, value: int) -> str:
        """A number of coins."""

    @abstractmethod
    def finish(self, text: str) -> str:
        """The text of one event with its spelling put right."""


def load_sections(file_name: str) -> dict[str, tuple[str, ...]]:
    """The grammar in `data/`."""
    return read_sections((DATA / file_name).read_text(encoding="utf-8"))
