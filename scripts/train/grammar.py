"""Lines of text with choices: `[a|b]` is one of its parts, which may hold choices too; `{slot}` is filled later."""

import random
import re
from pathlib import Path

DATA = Path(__file__).parent / "data"
SLOT = re.compile(r"\{(\w+)\}")
INNERMOST_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def read_sections(text: str) -> dict[str, tuple[str, ...]]:
    """The templates of each section of a grammar file, in the file's order.

    Raises ValueError where a line stands before the first section, a section is empty or comes twice, or a bracket
    has no partner.
    """
    sections: dict[str, list[str]] = {}
    name = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("== "):
            name = line.removeprefix("== ").strip()
            if name in sections:
                raise ValueError(f"line {number}: section {name} comes twice")
            sections[name] = []
        elif line.strip() and not line.startswith("#"):
            if not name:
                raise ValueError(f"line {number}: text before the first section")
            if line.count("[") != line.count("]") or line.count("{") != line.count("}"):
                raise ValueError(f"line {number}: a bracket without its partner")
            sections[name].append(line)
    empty = [name for name, lines in sections.items() if not lines]
    if empty:
        raise ValueError(f"sections without a line: {', '.join(empty)}")
    return {name: tuple(lines) for name, lines in sections.items()}


def choose(template: str, rng: random.Random) -> str:
    """The template with every choice made; its slots stay."""
    while match := INNERMOST_CHOICE.search(template):
        template = template[: match.start()] + rng.choice(match[1].split("|")) + template[match.end() :]
    return template
