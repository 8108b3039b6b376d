"""An item class's descriptor: a small canonical JSON document whose sha2-256 stands on chain. Pure.

Canonical is RFC 8785. A document is only ever accepted in exactly that form, so that one descriptor has one hash.
"""

import json
import re
import unicodedata
from typing import Annotated, Any, Literal, Self

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from p2pos.content import cid
from p2pos.errors import UserError
from p2pos.types import Cid

MAX_BYTES = 16 << 10
"""Of the canonical JSON. Files are named by CID, never held in it."""
MAX_ATTRIBUTES = 64
"""A character sheet has thirty; more belongs in a file."""
MAX_FILES = 64
"""A model, its levels of detail and its pictures."""
MAX_INT = (1 << 53) - 1
"""RFC 8785 writes numbers as IEEE doubles, which are exact up to here."""

MAX_TEXT = 1000
"""Characters of an attribute's text."""

_ATTRIBUTE = re.compile(r"[a-z][a-z0-9_]{0,31}")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FileRef(_Strict):
    """A file that belongs to an item."""

    role: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
    """What it is for: `model`, `image`, `lod-1` …"""
    cid: str
    size: Annotated[int, Field(ge=0, le=1 << 40)]
    """Bytes."""
    media_type: Annotated[str, Field(pattern=r"^[a-z0-9.+-]+/[A-Za-z0-9.+-]+$", max_length=100)]
    licence: Annotated[str, Field(max_length=100)] = ""
    """SPDX identifier or URL."""

    @field_validator("cid")
    @classmethod
    def _is_ours(cls, value: str) -> str:
        try:
            cid.digest(value)
        except UserError as exc:
            raise ValueError(exc.message) from exc
        return value


class Descriptor(_Strict):
    """What a class of items is."""

    format: Literal["p2pos-descriptor-1"] = "p2pos-descriptor-1"
    name: Annotated[str, Field(min_length=1, max_length=80)]
    """What people call it."""
    kind: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")] = "item"
    """`item`, `currency`, or any other word that worlds agree on."""
    description: Annotated[str, Field(max_length=2000)] = ""
    attributes: dict[str, bool | int | str] = Field(default_factory=dict, max_length=MAX_ATTRIBUTES)
    files: list[FileRef] = Field(default_factory=list, max_length=MAX_FILES)

    @field_validator("name", "description")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        return _plain(value)

    @field_validator("attributes", mode="before")
    @classmethod
    def _are_plain(cls, value: Any) -> Any:
        for key, held in value.items() if isinstance(value, dict) else ():
            if not isinstance(key, str) or not _ATTRIBUTE.fullmatch(key):
                raise ValueError(f"“{str(key)[:40]}”: write small letters, digits and _, a letter first")
            if isinstance(held, str) and len(held) <= MAX_TEXT:
                _plain(held)
            elif not isinstance(held, int) or abs(held) > MAX_INT:  # a bool is an int
                raise ValueError(f"“{key}” is not a text up to {MAX_TEXT} long, a whole number up to 2⁵³, or a flag")
        return value

    @classmethod
    def make(cls, **fields: Any) -> Self:
        """A descriptor of these fields. Raises UserError that names the field and its fault."""
        try:
            made = cls(**fields)
        except ValidationError as exc:
            raise UserError(_first_fault(exc)) from exc
        made.canonical()
        return made

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a document, from disk or a stranger.

        Raises UserError where it is too large, not JSON, not a descriptor, or not in canonical form.
        """
        if len(data) > MAX_BYTES:
            raise UserError(f"the descriptor is larger than {MAX_BYTES} bytes")
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise UserError("the descriptor is not JSON") from exc
        if not isinstance(value, dict):
            raise UserError("the descriptor is not a JSON object")
        found = cls.make(**{str(key): held for key, held in value.items()})
        if found.canonical() != data:
            raise UserError("the descriptor is not in canonical form (RFC 8785)")
        return found

    def canonical(self) -> bytes:
        """The document's one form. Raises UserError where it is larger than `MAX_BYTES`."""
        try:
            data = rfc8785.dumps(self.model_dump(mode="json"))
        except (rfc8785.CanonicalizationError, UnicodeEncodeError) as exc:
            raise UserError(f"the descriptor can't be written as canonical JSON: {exc}") from exc
        if len(data) > MAX_BYTES:
            raise UserError(f"the descriptor has {len(data)} bytes, over the limit of {MAX_BYTES}")
        return data

    def cid(self) -> Cid:
        """Its address."""
        return cid.of(self.canonical())

    def digest(self) -> bytes:
        """The 32 bytes that stand on chain."""
        return cid.digest(self.cid())


def _plain(value: str) -> str:
    """Text that shows as what it is: NFC, no control, format or private characters, no blank ends."""
    if unicodedata.normalize("NFC", value) != value:
        raise ValueError("write it in Unicode's composed form (NFC)")
    if value != value.strip():
        raise ValueError("it begins or ends with a blank")
    bad = next((char for char in value if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Cn"}), None)
    if bad is not None:
        raise ValueError(f"it holds the character U+{ord(bad):04X}, which doesn't show")
    return value


def _first_fault(exc: ValidationError) -> str:
    first = exc.errors()[0]
    where = ".".join(str(part) for part in first["loc"][:2])
    text = str(first["msg"]).removeprefix("Value error, ")
    return f"descriptor, {where}: {text}" if where else f"descriptor: {text}"
