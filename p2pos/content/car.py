"""CAR files, version 1: blocks one after the other, each under its CID, behind a header that names the roots. Pure.

Read over any binary file that can seek, one block in memory at a time. Nothing in a CAR is believed: every block is
hashed, and a fault is told with the byte at which it lies. The format: https://ipld.io/specs/transport/car/carv1/
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

from p2pos.content import cid as cids
from p2pos.content.unixfs import MAX_BLOCK, read_varint
from p2pos.errors import UserError
from p2pos.types import Cid

MAX_ROOTS = 256
"""Of one CAR: an item's descriptor and its files are at most 65."""
MAX_HEADER = 64 + 48 * MAX_ROOTS
"""Bytes: a root takes 41."""
MAX_BLOCKS = 1 << 18
"""Of one CAR, 256 GiB of whole chunks; their index takes some 60 MB."""
_VARINT = 9
"""Bytes of the longest length."""


class CarError(UserError):
    """A CAR is damaged, or not one that is read here."""


class Section(NamedTuple):
    """Where a block lies in a CAR."""

    cid: Cid
    offset: int
    """Of the block's first byte."""
    length: int


# ---- the header: a map of two in dag-cbor


def header(roots: Sequence[Cid]) -> bytes:
    """The first bytes of a CAR with these roots."""
    named = b"".join(b"\xd8\x2a\x58\x25\x00" + cids.encode(root) for root in roots)  # tag 42, 37 bytes, multibase 0
    body = b"\xa2\x65roots" + _head(0x80, len(roots)) + named + b"\x67version\x01"
    return _varint(len(body)) + body


def _roots(body: bytes) -> list[Cid]:
    """The roots in a header. Raises ValueError where it isn't exactly what `header` gives for them."""
    at = body.find(b"\xd8\x2a")
    if at < 0:
        raise ValueError("names no roots of CIDv1")
    named = body[at : -len(b"\x67version\x01")]
    found = [cids.decode(named[at + 5 : at + 41]) for at in range(0, len(named), 41)]
    if header(found).removeprefix(_varint(len(body))) != body:
        raise ValueError("is not a header of version 1")
    return found


def _head(kind: int, count: int) -> bytes:
    if count < 24:
        return bytes((kind | count,))
    return bytes((kind | 24, count)) if count < 256 else bytes((kind | 25,)) + count.to_bytes(2, "big")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# ---- writing


def write(file: BinaryIO, roots: Sequence[Cid], blocks: Iterable[tuple[Cid, bytes]]) -> int:
    """Write a CAR. Returns its bytes. A block that came before is not written twice."""
    total = file.write(header(roots))
    written: set[Cid] = set()
    for name, data in blocks:
        if name in written:
            continue
        written.add(name)
        total += file.write(_varint(cids.BYTES + len(data)) + cids.encode(name))
        total += file.write(data)
    return total


# ---- reading


class Car:
    """A CAR that was read through once, and whose blocks all hash to their names.

    Args:
        file: the CAR, which can seek. It is to stay open and unchanged while blocks are asked for.

    Raises:
        CarError: it is damaged, cut off, or of a kind that isn't read here.

    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sections: dict[Cid, Section] = {}
        file.seek(0)
        length = self._length("its header")
        if not 0 < length <= MAX_HEADER:
            raise CarError(f"it is not a CAR: a header of {length} bytes")
        body = self._exactly(length, "its header")
        try:
            self.roots = _roots(body)
        except ValueError as exc:
            raise CarError(f"it is not a CAR of version 1 with CIDs by sha2-256: its header {exc}") from exc
        if not 0 < len(self.roots) <= MAX_ROOTS:
            raise CarError(f"it names {len(self.roots)} roots; 1 to {MAX_ROOTS} are read")
        self.nbytes = 0
        """Of all blocks."""
        for section, data in self._read():
            if not cids.is_of(section.cid, data):
                raise CarError(f"{self._where(section)} does not hash to its name {section.cid}")
            self._sections[section.cid] = section
            self.nbytes += len(data)

    def __len__(self) -> int:
        return len(self._sections)

    def __contains__(self, name: object) -> bool:
        return name in self._sections

    def get(self, name: Cid) -> bytes | None:
        """A block that hashes to this name; None where there is none. Raises CarError where the file has changed."""
        section = self._sections.get(name)
        if section is None:
            return None
        self._file.seek(section.offset)
        data = self._file.read(section.length)
        if not cids.is_of(name, data):
            raise CarError(f"the block at byte {section.offset} has changed since it was read")
        return data

    def _read(self) -> Iterator[tuple[Section, bytes]]:
        count = 0
        while (length := self._length(f"block {count + 1}", last=True)) >= 0:
            count += 1
            if count > MAX_BLOCKS:
                raise CarError(f"it has more than {MAX_BLOCKS} blocks")
            at = self._file.tell()
            if not cids.BYTES <= length <= cids.BYTES + MAX_BLOCK:
                raise CarError(
                    f"block {count}, at byte {at}, is said to have {length} bytes; up to {MAX_BLOCK} with the CID's"
                    f" {cids.BYTES} are read"
                )
            try:
                name = cids.decode(self._exactly(cids.BYTES, f"block {count}"))
            except ValueError as exc:
                raise CarError(f"block {count}, at byte {at}, has a CID that is {exc}") from exc
            offset = self._file.tell()
            section = Section(name, offset, length - cids.BYTES)
            yield section, self._exactly(section.length, f"block {count}")

    def _where(self, section: Section) -> str:
        return f"block {len(self._sections) + 1}, at byte {section.offset},"

    def _length(self, what: str, *, last: bool = False) -> int:
        """The length that is written here; -1 at the end, where it may be. Raises CarError."""
        at = self._file.tell()
        data = self._file.read(_VARINT)
        if not data and last:
            return -1
        try:
            value, used = read_varint(data, 0)
        except ValueError as exc:
            raise CarError(f"{what} has no length, at byte {at}") from exc
        self._file.seek(at + used, io.SEEK_SET)
        return value

    def _exactly(self, count: int, what: str) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise CarError(f"it ends within {what}, at byte {self._file.tell()}")
        return data
