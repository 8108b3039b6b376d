"""An item class's descriptor: a small canonical JSON document whose sha2-256 stands on chain. Pure.

Canonical is RFC 8785. A document is only ever accepted in exactly that form, so that one descriptor has one hash.

It is ERC-1155 metadata as it stands: a wallet that follows the contract's `uri` finds `name`, `description`, `image`
and `animation_url` where it looks for them. The last two are not the author's to write: they name the files that have
these roles.
"""

import hashlib
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.config import JsonDict

from p2pos.assets.plain_text import plain
from p2pos.content import cid, strict_json
from p2pos.errors import UserError
from p2pos.types import Cid

MAX_BYTES = 16 << 10
"""Of the canonical JSON. Files are named by CID, never held in it."""
MAX_ATTRIBUTES = 64
"""A character sheet has thirty; more belongs in a file."""
MAX_FILES = 64
"""A model, its levels of detail and its pictures."""
MAX_FILE = 1 << 40
"""Bytes of one file: what two levels of nodes name, see `content.unixfs`."""
MAX_INT = strict_json.MAX_INT
"""RFC 8785 writes numbers as IEEE doubles, which are exact up to here."""
MAX_TEXT = 1000
"""Characters of an attribute's text."""

WORD = r"^[a-z][a-z0-9-]{0,31}$"
"""A role or a kind."""
ATTRIBUTE = r"^[a-z][a-z0-9_]{0,31}$"
"""An attribute's name. As the fields' own names ASCII, so that RFC 8785's order, which is UTF-16's, is Python's."""
MEDIA_TYPE = r"^[a-z0-9.+-]+/[A-Za-z0-9.+-]+$"

VALUE: JsonDict = {
    "anyOf": [
        {"type": "boolean"},
        {"type": "integer", "minimum": -MAX_INT, "maximum": MAX_INT},
        {"type": "string", "maxLength": MAX_TEXT},
    ]
}
"""An attribute's, as JSON Schema has it."""

SHOWN_BY = {"image": ("image",), "animation_url": ("animation", "model", "audio")}
"""Roles of the files that the field names: the first role that there is."""


class _Strict(BaseModel):
    # fields stand in the order of their names, and so they are written: see `Descriptor.canonical`
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class FileRef(_Strict):
    """A file that belongs to an item."""

    cid: Annotated[str, Field(json_schema_extra={"pattern": "^b[a-z2-7]{58}$"})]
    """As `ipfs add --cid-version 1 --raw-leaves --chunker size-1048576 --max-file-links 1024` gives it."""
    licence: Annotated[str, Field(max_length=100)] = ""
    """SPDX identifier or URL."""
    media_type: Annotated[str, Field(pattern=MEDIA_TYPE, max_length=100)]
    role: Annotated[str, Field(pattern=WORD)]
    """What it is for: `model`, `image`, `lod-1` …"""
    size: Annotated[int, Field(ge=0, le=MAX_FILE)]
    """Bytes."""

    @field_validator("cid")
    @classmethod
    def _is_ours(cls, value: str) -> str:
        try:
            cid.encode(value)
        except UserError as exc:
            raise ValueError(exc.message) from exc
        return value

    @field_validator("licence")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        return plain(value)


def _uri(default: str = "") -> Any:
    """A field that is made of `files`."""
    return Field(default, json_schema_extra={"pattern": "^(ipfs://b[a-z2-7]{58})?$"})


class Descriptor(_Strict):
    """What a class of items is."""

    animation_url: str = _uri()
    """Of the file with the role `animation`, else `model`, else `audio`; "" where there is none."""
    attributes: dict[str, bool | int | str] = Field(
        default_factory=dict,
        max_length=MAX_ATTRIBUTES,
        json_schema_extra={"propertyNames": {"pattern": ATTRIBUTE}, "additionalProperties": VALUE},
    )
    """What worlds read."""
    description: Annotated[str, Field(max_length=2000)] = ""
    files: list[FileRef] = Field(default_factory=list, max_length=MAX_FILES)
    format: Literal["p2pos-descriptor-1"] = "p2pos-descriptor-1"
    image: str = _uri()
    """Of the file with the role `image`; "" where there is none."""
    kind: Annotated[str, Field(pattern=WORD)] = "item"
    """`item`, `currency`, or any other word that worlds agree on."""
    name: Annotated[str, Field(min_length=1, max_length=80)]
    """What people call it."""
    units: dict[str, Annotated[str, Field(min_length=1, max_length=16)]] = Field(
        default_factory=dict, max_length=MAX_ATTRIBUTES, json_schema_extra={"propertyNames": {"pattern": ATTRIBUTE}}
    )
    """In what attributes that are whole numbers are counted: `g`, `mm`, `1/100`."""

    @field_validator("name", "description")
    @classmethod
    def _is_plain(cls, value: str) -> str:
        return plain(value)

    @field_validator("attributes", mode="before")
    @classmethod
    def _are_plain(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for key, held in value.items():
            if not isinstance(key, str) or not re.fullmatch(ATTRIBUTE, key):
                raise ValueError(f"“{str(key)[:40]}”: write small letters, digits and _, a letter first")
            if isinstance(held, str) and len(held) <= MAX_TEXT:
                plain(held)
            elif not isinstance(held, int) or abs(held) > MAX_INT:  # a bool is an int
                raise ValueError(f"“{key}” is not a text up to {MAX_TEXT} long, a whole number up to 2⁵³, or a flag")
        return dict(sorted(value.items()))

    @field_validator("units")
    @classmethod
    def _are_units(cls, value: dict[str, str]) -> dict[str, str]:
        return {key: plain(unit) for key, unit in sorted(value.items())}

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for key in self.units:
            if type(self.attributes.get(key)) is not int:
                raise ValueError(f"units: “{key}” is no attribute that is a whole number")
        for field, uri in shown(self.files).items():
            if getattr(self, field) != uri:
                raise ValueError(f"{field} is not {uri or 'empty'}, as the files say")
        return self

    @classmethod
    def make(cls, /, **fields: Any) -> Self:
        """A descriptor of these fields. Raises UserError that names the field and its fault."""
        try:
            made = cls(**{**_shown(fields.get("files")), **fields})
        except UnicodeEncodeError:
            raise UserError("descriptor: it holds half a character (a lone surrogate)") from None
        except ValidationError as exc:
            raise UserError(_first_fault(exc)) from exc
        made.canonical()
        return made

    @classmethod
    def parse(cls, data: bytes, digest: bytes | None = None) -> Self:
        """Read a document, from disk or a stranger.

        Args:
            data: the document.
            digest: the 32 bytes that stand on chain; None believes whatever is a descriptor.

        Raises:
            UserError: it is too large, has another digest, is not JSON, not a descriptor, or not in canonical form.

        """
        if len(data) > MAX_BYTES:
            raise UserError(f"the descriptor is larger than {MAX_BYTES} bytes")
        if digest is not None and hashlib.sha256(data).digest() != digest:
            raise UserError("the descriptor's digest is not the one on chain")
        found = cls.of_json(data)
        if found.canonical() != data:
            raise UserError("the descriptor is not in canonical form (RFC 8785)")
        return found

    @classmethod
    def of_json(cls, data: bytes) -> Self:
        """Read an author's document, which may leave out what has a default and have any form of JSON.

        Raises UserError where it is not JSON of one meaning, or not a descriptor.
        """
        try:
            value = strict_json.loads_exact(data)
        except ValueError as exc:
            raise UserError(f"the descriptor is not JSON that has one meaning only: it {_why(exc)}") from exc
        if not isinstance(value, dict):
            raise UserError("the descriptor is not a JSON object")
        return cls.make(**value)

    def canonical(self) -> bytes:
        """The document's one form. Raises UserError where it is larger than `MAX_BYTES`.

        This is RFC 8785 because fields and attributes stand in the order of their names, which are ASCII; because no
        number is beyond 2⁵³ or has a fraction; and because the serialiser escapes what the RFC escapes and nothing
        else. A test holds it to the `rfc8785` package.
        """
        data = self.model_dump_json().encode()
        if len(data) > MAX_BYTES:
            raise UserError(f"the descriptor has {len(data)} bytes, over the limit of {MAX_BYTES}")
        return data

    def cid(self) -> Cid:
        """Its address."""
        return cid.of(self.canonical())

    def digest(self) -> bytes:
        """The 32 bytes that stand on chain."""
        return hashlib.sha256(self.canonical()).digest()

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(file.size for file in self.files)


def shown(files: Iterable[FileRef]) -> dict[str, str]:
    """The fields of a descriptor that wallets look at, made of its files."""
    first: dict[str, str] = {}
    for file in files:
        first.setdefault(file.role, f"ipfs://{file.cid}")
    return {field: next((first[role] for role in roles if role in first), "") for field, roles in SHOWN_BY.items()}


def _shown(files: Any) -> dict[str, str]:
    """The same of files that are yet to be checked; nothing where one of them is wrong, which is then found."""
    try:
        return shown([FileRef.model_validate(each) for each in files[:MAX_FILES]]) if isinstance(files, list) else {}
    except ValidationError:
        return {}


def _why(exc: ValueError) -> str:
    if isinstance(exc, UnicodeDecodeError):
        return "is not UTF-8"
    text = str(exc)
    return text if text.startswith(("holds", "names", "nests", "begins")) else f"can't be read ({text[:100]})"


def _first_fault(exc: ValidationError) -> str:
    first = exc.errors()[0]
    where = ".".join(str(part)[:40] for part in first["loc"][:2])
    text = str(first["msg"]).removeprefix("Value error, ")
    return f"descriptor, {where}: {text}" if where else f"descriptor: {text}"
