"""What classes of items are called, in a file: for a machine that never sees a chain. Pure.

A signer off line shows “1 × Bronze Lantern” in place of a number of 64 digits only if somebody told it the name. The
file tells it, with each class's whole descriptor. Nothing proves it there: who imports it trusts where it came from,
and is shown the class's id beside the name.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from p2pos.assets.descriptor import Descriptor
from p2pos.content import strict_json
from p2pos.errors import P2posError, UserError
from p2pos.ledger.typed_data import Domain, address, unsigned

FORMAT = "p2pos-bundle-1"
MAX_CLASSES = 10_000
MAX_BYTES = 64 << 20
"""Of a bundle's file: 10,000 descriptors of a few KiB."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A class as a bundle tells of it."""

    descriptor: Descriptor
    soulbound: bool


@dataclass(frozen=True, slots=True)
class Bundle:
    """Classes of one contract, by id."""

    domain: Domain
    classes: Mapping[int, Carried]

    def dumps(self) -> bytes:
        """The file's content."""
        value = {
            "format": FORMAT,
            "chainId": str(self.domain.chain_id),
            "contract": self.domain.contract,
            "classes": [
                {
                    "id": f"0x{id_:064x}",
                    "soulbound": one.soulbound,
                    "descriptor": json.loads(one.descriptor.canonical()),
                }
                for id_, one in sorted(self.classes.items())
            ],
        }
        return json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"

    def with_more(self, other: "Bundle") -> Self:
        """These classes and the other's, whose word is the later one. Raises UserError for another contract's."""
        if other.domain != self.domain:
            raise UserError(
                f"the bundle is of contract {other.domain.contract} on chain {other.domain.chain_id}, "
                f"not of {self.domain.contract} on chain {self.domain.chain_id}",
                hint="check --contract and --chain-id",
            )
        return type(self)(self.domain, {**self.classes, **other.classes})

    @classmethod
    def parse(cls, data: bytes, what: str) -> Self:
        """Read a bundle. Raises UserError with the class and its fault."""
        if len(data) > MAX_BYTES:
            raise UserError(f"{what} is longer than {MAX_BYTES} bytes")
        value = _json(data, what)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise UserError(f"{what} is not a bundle: its “format” is not {FORMAT}")
        listed = value.get("classes")
        if not isinstance(listed, list) or len(listed) > MAX_CLASSES:
            raise UserError(f"{what} is not a bundle of at most {MAX_CLASSES} classes")
        domain = Domain(unsigned(value.get("chainId"), f"{what}: chainId"), address(value.get("contract"), what))
        classes = {}
        for place, entry in enumerate(listed, 1):
            id_, carried = _class(entry, f"{what}: class {place}")
            classes[id_] = carried
        return cls(domain, classes)


def _class(entry: Any, what: str) -> tuple[int, Carried]:
    if not isinstance(entry, dict) or not isinstance(entry.get("soulbound"), bool):
        raise UserError(f"{what} is damaged")
    text, descriptor = entry.get("id"), entry.get("descriptor")
    if not isinstance(descriptor, dict):
        raise UserError(f"{what} has no descriptor")
    if not isinstance(text, str) or len(text) != 66 or not text.startswith("0x") or not text[2:].isalnum():
        raise UserError(f"{what} has no id")
    try:
        id_ = int(text, 16)
        found = Descriptor.make(**descriptor)
    except ValueError as exc:
        raise UserError(f"{what} has no id") from exc
    except P2posError as exc:
        raise UserError(f"{what}: {exc.message}", hint=exc.hint) from exc
    return id_, Carried(found, entry["soulbound"])


def _json(data: bytes, what: str) -> Any:
    try:
        return strict_json.loads(data, unique_keys=True)
    except ValueError as exc:
        raise UserError(f"{what} is not JSON") from exc
