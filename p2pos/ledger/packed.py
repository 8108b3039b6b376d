"""A signed intent in a few hundred bytes, as the relayer's queue keeps it: made in 5 µs, where JSON takes 30. Pure.

One byte for the kind, the domain, the struct's fields in order, then the signatures, each behind its length in two
bytes. An address is 20 bytes, a number 32, an array one byte for its length and then its members. What is packed was
parsed and checked before; what is unpacked was packed by this code, so a fault in it is a damaged file.
"""

from collections.abc import Callable
from typing import Any

from p2pos.errors import InternalError
from p2pos.ledger.abi import checksummed
from p2pos.ledger.eip712 import Domain, Struct
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.typed_data import TYPES, Item, Signable
from p2pos.types import Address

_KINDS: tuple[type[Signable], ...] = tuple(TYPES.values())
_KIND_BYTE: dict[type[Struct], bytes] = {kind: bytes([index]) for index, kind in enumerate(_KINDS)}


def pack(intent: SignedIntent) -> bytes:
    """The bytes that stand for an intent, save its stated digest."""
    parts = [_KIND_BYTE[type(intent.struct)], _number(intent.domain.chain_id), _address(intent.domain.contract)]
    parts += [_WRITERS[type_](getattr(intent.struct, name)) for name, type_ in _ROWS[type(intent.struct)]]
    for signature in intent.signatures:
        parts += (len(signature).to_bytes(2, "big"), signature)
    return b"".join(parts)


def unpack(data: bytes, digest: bytes) -> SignedIntent:
    """Read `pack` back. Raises InternalError where these are no such bytes."""
    reader = _Reader(data)
    try:
        kind = _KINDS[reader.take(1)[0]]
        domain = Domain(reader.number(), reader.address())
        values = {name: _READERS[type_](reader) for name, type_ in _ROWS[kind]}
        signatures = []
        while not reader.ended():
            signatures.append(reader.take(int.from_bytes(reader.take(2), "big")))
    except IndexError as exc:
        raise InternalError("an intent in the queue's file is damaged") from exc
    return SignedIntent(domain, kind(**values), tuple(signatures), digest)


class _Reader:
    """Takes one value after another. Raises IndexError at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def ended(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) != size:
            raise IndexError(size)
        self._at += size
        return found

    def number(self) -> int:
        return int.from_bytes(self.take(32), "big")

    def address(self) -> Address:
        return checksummed(self.take(20).hex())

    def many(self, read: Callable[[], Any]) -> tuple[Any, ...]:
        return tuple([read() for _ in range(self.take(1)[0])])

    def item(self) -> Item:
        return Item(self.number(), self.number())


def _number(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _address(value: str) -> bytes:
    return bytes.fromhex(value[2:])


def _items(values: tuple[Item, ...]) -> bytes:
    return bytes([len(values)]) + b"".join([_number(one.id) + _number(one.amount) for one in values])


_WRITERS: dict[str, Callable[[Any], bytes]] = {
    # by the field's Solidity type
    "address": _address,
    "uint256": _number,
    "uint64": _number,
    "uint256[]": lambda values: bytes([len(values)]) + b"".join(map(_number, values)),
    "Item[]": _items,
}
_READERS: dict[str, Callable[[_Reader], Any]] = {
    "address": _Reader.address,
    "uint256": _Reader.number,
    "uint64": _Reader.number,
    "uint256[]": lambda reader: reader.many(reader.number),
    "Item[]": lambda reader: reader.many(reader.item),
}
_ROWS: dict[type[Struct], tuple[tuple[str, str], ...]] = {
    kind: tuple((attribute, codec.solidity) for attribute, _, codec in kind.ROW) for kind in _KINDS
}
