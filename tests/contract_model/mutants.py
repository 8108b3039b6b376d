"""Contracts that are wrong in one place each, made from the source, all of them in one compilation. Pure.

A mutant is chosen by the number of the block, which the contract has no other use for: each place in the source where
one may begin is rewritten to read, say, `if ((amount > free) && block.number != 1007) revert …`. In a block of no
mutant's number the contract does what its source says. (Untch, Offutt, Harrold: Mutation analysis using mutant
schemata, 1993.)

Broken are: each condition of an `if` (never, or always where it guards no revert), each of the parts that `&&` and
`||` join there or in a `return`, each `<`, `<=`, `>` and `>=` (off by one), and each statement that does something
(left out).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

_NEEDED = ("class = ",)
"""Statements without which the compiler refuses the source."""

FIRST = 1000
"""The number of the first mutant; no block of an ordinary run has one of theirs."""

_ASIDE = re.compile(r"//(?! SPDX)[^\n]*|/\*.*?\*/|\"[^\"\n]*\"", re.DOTALL)
"""A comment (but for the licence, which the compiler wants) or a string."""
_BODY = re.compile(r"\b(?:function\s+\w+|constructor)\s*\([^{};]*\{")
_DECLARATION = re.compile(
    r"mapping\b|\(?\s*(?:u?int\d*|address|bool|bytes\d*|string|[A-Z]\w*)(?:\[\])*\s+(?:\w+\s+)?\w+"
)
_ORDER = re.compile(r"([\w.]+(?:\(\w*(?:\(\w+\))?\)[\w.]*)?) (<=|>=|<|>) ([\w.]+(?:\(\w*(?:\(\w+\))?\)[\w.]*)?)")
_OFF_BY_ONE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}


class Mutant(NamedTuple):
    """One wrong contract."""

    number: int
    """Of the block in which it shows."""
    place: str
    """File and line."""
    what: str
    """The source, and what is wrong with it."""


class _Edit(NamedTuple):
    start: int
    end: int
    text: str


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])


class _Author:
    """Rewrites one source file."""

    def __init__(self, name: str, source: str, numbers: Iterator[int]) -> None:
        self._name = name
        # comments are blanked, and strings too in what is searched; all places stay the same
        self._source = _ASIDE.sub(lambda found: found[0] if found[0][0] == '"' else _blank(found), source)
        self._bare = _ASIDE.sub(_blank, source)
        self._numbers = numbers
        self.mutants: list[Mutant] = []
        self._edits: list[_Edit] = []

    def rewritten(self) -> str:
        """The source with every mutant of the file in it."""
        for body in _BODY.finditer(self._bare):
            self._statements(body.end(), self._closing(body.end() - 1))
        text = self._source
        for edit in sorted(self._edits, reverse=True):
            text = text[: edit.start] + edit.text + text[edit.end :]
        return re.sub(r"\bpure\b", "view", text)  # reading the block's number is not pure

    def _closing(self, opening: int) -> int:
        """Where the bracket at this place is closed."""
        pairs = {"(": ")", "{": "}", "[": "]"}
        wanted: list[str] = []
        for place in range(opening, len(self._bare)):
            character = self._bare[place]
            if character in pairs:
                wanted.append(pairs[character])
            elif wanted and character == wanted[-1]:
                wanted.pop()
                if not wanted:
                    return place
        raise ValueError(f"{self._name}: a bracket is never closed")

    def _statements(self, place: int, end: int) -> None:
        while place < end:
            rest = self._bare[place:end]
            if rest[0] in "{} \n":
                place += 1
            elif word := re.match(r"(?:else|unchecked|continue;)(?=\W)", rest):
                place += word.end()
            elif rest.startswith("assembly"):
                place = self._closing(place + rest.index("{")) + 1
            elif rest.startswith("for "):
                place = self._closing(place + rest.index("(")) + 1
            elif rest.startswith("if "):
                opening = place + rest.index("(")
                place = self._closing(opening)
                self._condition(opening + 1, place, guards=self._guards_revert(place + 1))
                place += 1
            else:
                stop = place + self._length(place)
                self._statement(place, stop)
                place = stop

    def _guards_revert(self, place: int) -> bool:
        rest = self._bare[place:].lstrip()
        inside = self._bare[place : self._closing(self._bare.index("{", place))] if rest.startswith("{") else rest[:7]
        return "revert " in inside

    def _length(self, place: int) -> int:
        """Of the statement that begins here, with its semicolon; brackets may hold others."""
        at = place
        while self._bare[at] != ";":
            at = self._closing(at) + 1 if self._bare[at] in "({[" else at + 1
        return at + 1 - place

    def _statement(self, start: int, end: int) -> None:
        text = self._bare[start:end]
        if text.startswith("revert"):
            return
        if text.startswith("return "):
            self._edits.append(_Edit(start + 7, end - 1, self._returned(start + 7, end - 1)))
        elif _DECLARATION.match(text):
            self._edits.append(_Edit(start, end, self._orders(start, end)))
        elif not text.startswith(("return", *_NEEDED)):
            number = self._mutant(start, self._source[start:end], "left out")
            self._edits.append(
                _Edit(start, end, f"{{ if (block.number != {number}) {{ {self._source[start:end]} }} }}")
            )

    def _returned(self, start: int, end: int) -> str:
        """What a `return` gives: a choice, or an expression of parts."""
        choice = self._split(start, end, "?")
        if not choice:
            return self._parts(start, end)
        return f"({self._decided(start, choice[0], guards=False)}) {self._source[choice[0] : end]}"

    def _condition(self, start: int, end: int, *, guards: bool) -> None:
        self._edits.append(_Edit(start, end, self._decided(start, end, guards=guards)))

    def _decided(self, start: int, end: int, *, guards: bool) -> str:
        """A condition that can be made to come out as it shouldn't."""
        text = self._parts(start, end)
        source = self._source[start:end]
        if not re.search(r"&&|\|\|", source):
            text = f"({text}) && block.number != {self._mutant(start, source, 'never')}"
        if not guards:
            text = f"({text}) || block.number == {self._mutant(start, source, 'always')}"
        return text

    def _parts(self, start: int, end: int) -> str:
        """An expression whose parts, joined by one kind of operator, can each be left out."""
        joint = next((joint for joint in ("||", "&&") if self._split(start, end, joint)), None)
        if joint is None:
            return self._orders(start, end)
        edges = [start, *(edge for at in self._split(start, end, joint) for edge in (at, at + 2)), end]
        parts = []
        for left, right in zip(edges[::2], edges[1::2], strict=True):
            number = self._mutant(left, self._source[left:right], "left out")
            neutral = f"&& block.number != {number}" if joint == "||" else f"|| block.number == {number}"
            parts.append(f"(({self._orders(left, right)}) {neutral})")
        return f" {joint} ".join(parts)

    def _split(self, start: int, end: int, joint: str) -> list[int]:
        """Where the operator stands outside of brackets."""
        places, at = [], start
        while at < end:
            if self._bare.startswith(joint, at):
                places.append(at)
                at += len(joint)
            else:
                at = self._closing(at) + 1 if self._bare[at] in "({[" else at + 1
        return places

    def _orders(self, start: int, end: int) -> str:
        """The expression with each of its comparisons switchable to one that is off by one."""

        def switchable(found: re.Match[str]) -> str:
            left, operator, right = found.groups()
            wrong = _OFF_BY_ONE[operator]
            number = self._mutant(start, found[0], f"{wrong} instead")
            return f"(block.number == {number} ? {left} {wrong} {right} : {left} {operator} {right})"

        return _ORDER.sub(switchable, self._source[start:end])

    def _mutant(self, place: int, source: str, what: str) -> int:
        number = next(self._numbers)
        line = self._source.count("\n", 0, place) + 1
        shown = " ".join(source.split())
        self.mutants.append(Mutant(number, f"{self._name}:{line}", f"`{shown}` {what}"))
        return number


def with_mutants(sources: dict[str, str]) -> tuple[dict[str, str], list[Mutant]]:
    """The sources, by name, with every mutant in them, and which these are."""
    numbers = iter(range(FIRST, FIRST + 10_000))
    authors = {name: _Author(name, source, numbers) for name, source in sources.items()}
    rewritten = {name: author.rewritten() for name, author in authors.items()}
    return rewritten, [mutant for author in authors.values() for mutant in author.mutants]
