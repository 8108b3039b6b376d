"""EIP-712: a struct is described once, field by field, and all its forms follow from that. Pure.

`@struct` makes a frozen dataclass of a class whose attributes are `signed(…)` fields. Its type string, its struct
hash, its call data, and the JSON message with its checks all come from the same row of fields. `typed_data` has the
structs that are signed.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, TypeVar, dataclass_transform

from eth_hash.auto import keccak

from p2pos.errors import UserError
from p2pos.ledger import abi
from p2pos.ledger.abi import MAX_UINT64, MAX_UINT256, address, unsigned
from p2pos.types import Address

NAME = "p2pos"
VERSION = "1"
"""Name and version of the signing domain, fixed in the contract's constructor."""

MAX_ITEMS = 32
"""Items in a batch or on one side of a swap; the contract's own limit."""

_DOMAIN_TYPE = b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
_DOMAIN_HEAD = keccak(_DOMAIN_TYPE) + keccak(NAME.encode()) + keccak(VERSION.encode())


@dataclass(frozen=True, slots=True)
class Domain:
    """Where a signature counts: one contract on one chain."""

    chain_id: int
    contract: Address

    def separator(self) -> bytes:
        """32 bytes that differ for every chain and contract."""
        return _separator(self.chain_id, self.contract)


@functools.lru_cache(maxsize=256)  # a relayer meets its own domain, and now and then a stranger's
def _separator(chain_id: int, contract: Address) -> bytes:
    return keccak(_DOMAIN_HEAD + abi.word(chain_id) + abi.address_word(contract))


@dataclass(frozen=True, slots=True)
class Codec:
    """One Solidity type: how its values are hashed, sent, and written in JSON."""

    solidity: str
    hashed: Callable[[Any], bytes]
    """The 32 bytes that stand for a value in its struct's hash."""
    encoded: Callable[[Any], bytes]
    """A value in call data."""
    dynamic: bool
    """It has no fixed size in call data."""
    to_json: Callable[[Any], Any]
    from_json: Callable[[object, str], Any]
    """Reads `to_json` back; told what the field is called. Raises UserError."""
    inner: "type[Struct] | None" = None
    """The struct that it refers to."""


def _uint(bits: int, most: int) -> Codec:
    return Codec(
        f"uint{bits}", abi.word, abi.word, dynamic=False, to_json=str, from_json=lambda v, what: unsigned(v, what, most)
    )


ADDRESS = Codec("address", abi.address_word, abi.address_word, dynamic=False, to_json=str, from_json=address)
UINT256 = _uint(256, MAX_UINT256)
UINT64 = _uint(64, MAX_UINT64)


def array_of(inner: Codec) -> Codec:
    """`T[]`, a tuple of up to `MAX_ITEMS` values."""

    def from_json(value: object, what: str) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise UserError(f"{what}: want a list")
        if len(value) > MAX_ITEMS:
            raise UserError(f"{what}: {len(value)} are more than {MAX_ITEMS}", hint="sign several intents")
        return tuple([inner.from_json(one, f"{what}[{at}]") for at, one in enumerate(value)])

    return Codec(
        f"{inner.solidity}[]",
        lambda values: keccak(b"".join(map(inner.hashed, values))),
        lambda values: abi.array([abi.Part(inner.encoded(one), inner.dynamic) for one in values]),
        dynamic=True,
        to_json=lambda values: [inner.to_json(one) for one in values],
        from_json=from_json,
        inner=inner.inner,
    )


def struct_of(kind: "type[Struct]") -> Codec:
    """A struct inside another."""
    return Codec(
        kind.__name__,
        lambda value: value.struct_hash(),
        lambda value: value.encoded(),
        dynamic=kind.DYNAMIC,
        to_json=lambda value: value.message(),
        from_json=lambda value, what: kind.from_message(as_object(value, what), what),
        inner=kind,
    )


def signed(codec: Codec, name: str = "") -> Any:
    """A field of a struct. `name` is what it is signed as, where that is not the attribute's own name."""
    return dataclasses.field(metadata={"codec": codec, "name": name})


class Struct:
    """What `@struct` adds."""

    __slots__ = ()

    TYPE: ClassVar[str]
    """EIP-712's encodeType."""
    TYPE_HASH: ClassVar[bytes]
    DYNAMIC: ClassVar[bool]
    """Its call data has no fixed size."""
    ROW: ClassVar[tuple[tuple[str, str, Codec], ...]]
    """(attribute, signed name, codec) of each field, in order."""

    def struct_hash(self) -> bytes:
        """EIP-712's hashStruct."""
        words = [codec.hashed(getattr(self, attribute)) for attribute, _, codec in self.ROW]
        return keccak(self.TYPE_HASH + b"".join(words))

    def encoded(self) -> bytes:
        """The struct as it stands in call data."""
        if not self.DYNAMIC:
            return b"".join([codec.encoded(getattr(self, attribute)) for attribute, _, codec in self.ROW])
        parts = [abi.Part(codec.encoded(getattr(self, name)), codec.dynamic) for name, _, codec in self.ROW]
        return abi.join(parts)

    def message(self) -> dict[str, Any]:
        """The fields under their signed names; numbers as decimal strings, because JSON's end at 2⁵³."""
        return {name: codec.to_json(getattr(self, attribute)) for attribute, name, codec in self.ROW}

    def arguments(self) -> tuple[Any, ...]:
        """The fields as a general ABI encoder takes the contract's struct."""
        return tuple([_plain(getattr(self, attribute)) for attribute, _, _ in self.ROW])

    @classmethod
    def from_message(cls, message: Mapping[str, object], what: str = "the intent's message") -> Self:
        """Read `message()` back.

        Raises UserError at the first field that is missing, unknown or out of range, and where the fields don't make
        sense together. `what` is what the message is called in it.
        """
        names = [name for _, name, _ in cls.ROW]
        exactly(message, names, what)
        prefix = "" if what.startswith("the ") else f"{what}."
        return cls(
            **{attribute: codec.from_json(message[name], prefix + name) for attribute, name, codec in cls.ROW}
        ).sound()

    def sound(self) -> Self:
        """Itself. Raises UserError where the fields don't make sense together."""
        return self


S = TypeVar("S", bound=Struct)


@dataclass_transform(frozen_default=True, field_specifiers=(signed,))
def struct(cls: type[S]) -> type[S]:
    """Make a frozen dataclass of the class, and its EIP-712 type of its fields."""
    made = dataclass(frozen=True, slots=True)(cls)
    row = tuple(
        (field.name, field.metadata["name"] or field.name, field.metadata["codec"])
        for field in dataclasses.fields(made)  # type: ignore[arg-type]  # mypy can't know that `dataclass` made it one
    )
    own = f"{cls.__name__}({','.join(f'{codec.solidity} {name}' for _, name, codec in row)})"
    inner = {codec.inner.__name__: codec.inner.TYPE for _, _, codec in row if codec.inner}
    made.ROW = row
    made.TYPE = own + "".join(inner[name] for name in sorted(inner))
    made.TYPE_HASH = keccak(made.TYPE.encode())
    made.DYNAMIC = any(codec.dynamic for _, _, codec in row)
    return made


def exactly(message: Mapping[str, object], names: list[str], what: str) -> None:
    """Raise UserError where fields are missing or there are others."""
    missing = [name for name in names if name not in message]
    extra = [ascii(str(name)[:40])[1:-1] for name in message if name not in names]
    if missing or extra:
        fault = f"lacks {', '.join(missing)}" if missing else f"has unknown fields {', '.join(extra[:5])}"
        raise UserError(f"{what} {fault}")


def as_object(value: object, what: str) -> Mapping[str, object]:
    """A JSON object. Raises UserError where it is none."""
    if not isinstance(value, dict):
        raise UserError(f"{what} is not a JSON object")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Struct):
        return value.arguments()
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
