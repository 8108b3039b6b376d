"""Files cut into blocks as IPFS cuts them, so that a file's CID is the one that IPFS tools give and find it by. Pure.

A file of up to `CHUNK` bytes is one raw block. A larger one is raw blocks of `CHUNK` bytes under nodes (dag-pb) of up
to `WIDTH` links each, as many levels of them as it takes: the profile `unixfs-v1-2025` of IPIP-499, which is
`ipfs add --cid-version 1 --raw-leaves --chunker size-1048576 --max-file-links 1024`. A node says how many bytes each of
its links leads to. So a CID fixes every block of the file, and each can be believed by itself, whoever sent it.

What others cut into smaller blocks or narrower nodes is read too; only raw leaves, CIDv1, and nodes in the one form
that they are written in are.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from p2pos.content import cid as cids
from p2pos.content.cid import Codec
from p2pos.errors import UnavailableError, UserError
from p2pos.types import Cid

CHUNK = 1 << 20
"""Bytes of a raw block."""
WIDTH = 1024
"""Links of a node."""
MAX_BLOCK = 2 << 20
"""Bytes of a block: no more passes between IPFS nodes. A node of 1024 links has some 50 KB."""
MAX_DEPTH = 3
"""Levels of nodes above the leaves. Ours need two for 1 TiB, others' of 174 links and 256 KiB three."""
MIN_PIECE = 1 << 10
"""Bytes of every piece but a node's last: else a small file could be endless work."""
_EMPTY_NAME = b"\x12\x00"
_FILE = b"\x08\x02"
"""UnixFS: the type is a file."""

Get = Callable[[Cid], bytes | None]
"""Gives a block that hashes to its name, or None where it isn't here."""
Put = Callable[[bytes, Codec], Cid]
"""Keeps a block."""


class NoFileError(UserError):
    """Blocks that hash to their names, and are no file, or one of another size."""


class Link(NamedTuple):
    """From a node to what is below it."""

    cid: Cid
    size: int
    """Bytes of the file that lie below."""
    stored: int
    """Bytes of all blocks that lie below, nodes included."""


def node(links: list[Link]) -> bytes:
    """The block of a node with these links."""
    unixfs = _FILE + _number(3, sum(link.size for link in links)) + b"".join(_number(4, link.size) for link in links)
    parts = []
    for link in links:
        inner = _bytes(1, cids.encode(link.cid)) + _EMPTY_NAME + _number(3, link.stored)
        parts.append(_bytes(2, inner))
    return b"".join(parts) + _bytes(1, unixfs)


def links_of(block: bytes) -> list[Link]:
    """The links of a node. Raises ValueError where it is no node of a file, or not in the form that `node` gives."""
    links: list[tuple[Cid, int]] = []
    sizes: list[int] = []
    for field, value in _fields(block):
        if field == 2 and isinstance(value, bytes):
            links.append(_link(value))
        elif field == 1 and isinstance(value, bytes):
            sizes = [size for inner, size in _fields(value) if inner == 4 and isinstance(size, int)]
        else:
            raise ValueError("not a node of a file")
    if len(links) != len(sizes) or not links:
        raise ValueError("not a node of a file")
    found = [Link(name, size, stored) for (name, stored), size in zip(links, sizes, strict=True)]
    if node(found) != block:
        raise ValueError("a node of a file in another form than ours")
    return found


def add(chunks: Iterable[bytes], put: Put, *, chunk: int = CHUNK, width: int = WIDTH) -> tuple[Cid, int]:
    """Cut a file into blocks and keep them. At most one chunk and `width` links of each level are held.

    Args:
        chunks: the file's bytes, in pieces of any length.
        put: keeps a block.
        chunk: bytes of a raw block.
        width: links of a node.

    Returns:
        The file's CID and its bytes.

    """
    levels: list[list[Link]] = [[]]

    def lift(level: int) -> None:
        links = levels[level]
        block = node(links)
        if level + 1 == len(levels):
            levels.append([])
        levels[level] = []
        below = len(block) + sum(link.stored for link in links)
        push(level + 1, Link(put(block, "dag-pb"), sum(link.size for link in links), below))

    def push(level: int, link: Link) -> None:
        if len(levels[level]) == width:  # only now is it known that this is not the last one
            lift(level)
        levels[level].append(link)

    for piece in _cut(chunks, chunk):
        push(0, Link(put(piece, "raw"), len(piece), len(piece)))
    if not levels[0]:
        return put(b"", "raw"), 0
    level = 0
    while level + 1 < len(levels) or len(levels[level]) > 1:
        lift(level)
        level += 1
    (root,) = levels[level]
    return root.cid, root.size


def leaves(root: Cid, size: int, get: Get) -> Iterator[tuple[Link, bytes | None]]:
    """Each raw block of a file in order, and its bytes, or None where `get` has none.

    Args:
        root: the file's CID.
        size: the bytes that it is said to have.
        get: gives blocks.

    Raises:
        UnavailableError: a node isn't here; it carries its `cid`.
        NoFileError: the blocks are not a file, or not one of `size` bytes.

    """
    yield from _below(Link(root, size, 0), get, MAX_DEPTH)


def blocks(root: Cid, size: int, get: Get) -> Iterator[tuple[Link, bytes | None]]:
    """Each block of a file once, nodes before what is below them, and its bytes, or None where `get` has none.

    What takes these has as much work as there are blocks; a file may name one of them a million times.

    Raises NoFileError as `leaves`.
    """
    seen: set[Cid] = set()

    def look(link: Link, depth: int) -> Iterator[tuple[Link, bytes | None]]:
        if link.cid in seen:
            return
        seen.add(link.cid)
        data = get(link.cid)
        yield link, data
        if data is not None and cids.codec(link.cid) == "dag-pb":
            for each in _open(link, data, depth):
                yield from look(each, depth - 1)

    yield from look(Link(root, size, 0), MAX_DEPTH)


def read(root: Cid, size: int, get: Get) -> Iterator[bytes]:
    """A file's bytes, block by block. Raises as `leaves`, and UnavailableError where a leaf isn't here."""
    for link, data in leaves(root, size, get):
        if data is None:
            raise UnavailableError(f"block {link.cid} is not here", cid=link.cid)
        yield data


def lacking(root: Cid, size: int, has: Callable[[Cid], bool], get: Get) -> list[Link]:
    """Blocks of a file that are to be fetched next; none where all are here.

    Nodes are fetched before what they link to is known. Raises NoFileError as `leaves`.
    """

    def look(name: Cid) -> bytes | None:
        if not has(name):
            return None
        return get(name) if cids.codec(name) == "dag-pb" else b""  # what is in a leaf doesn't matter

    return [link for link, data in blocks(root, size, look) if data is None]


def _below(link: Link, get: Get, depth: int) -> Iterator[tuple[Link, bytes | None]]:
    data = get(link.cid)
    if cids.codec(link.cid) == "raw":
        if data is not None and len(data) != link.size:
            raise NoFileError(f"block {link.cid} has {len(data)} bytes where the file is said to have {link.size}")
        yield link, data
        return
    for each in _open(link, data, depth):
        yield from _below(each, get, depth - 1)


def _open(link: Link, data: bytes | None, depth: int) -> list[Link]:
    """What a node links to, where it is what it is said to be."""
    if data is None:
        raise UnavailableError(f"block {link.cid} is not here", cid=link.cid)
    if depth == 0:
        raise NoFileError(f"block {link.cid} nests more than {MAX_DEPTH} levels of nodes")
    try:
        links = links_of(data)
    except ValueError as exc:
        raise NoFileError(f"block {link.cid} is {exc}") from exc
    total = sum(each.size for each in links)
    if total != link.size:
        raise NoFileError(f"block {link.cid} lists {total} bytes where the file is said to have {link.size}")
    if links[-1].size == 0 or any(each.size < MIN_PIECE for each in links[:-1]):
        raise NoFileError(f"block {link.cid} cuts the file into pieces of less than {MIN_PIECE} bytes")
    return links


def _cut(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    held = bytearray()
    for piece in chunks:
        held += piece
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


# ---- protobuf, as much as a node needs of it


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of up to 63 bits at `at`, and where it ends. Raises ValueError where there is none."""
    value = shift = 0
    for position in range(at, min(at + 9, len(data))):
        value |= (data[position] & 0x7F) << shift
        if data[position] < 0x80:
            return value, position + 1
        shift += 7
    raise ValueError("a number that doesn't end")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        value, at = read_varint(data, at)
        if tag & 7 == 2:
            if at + value > len(data):
                raise ValueError("a node that is cut off")
            yield tag >> 3, data[at : at + value]
            at += value
        elif tag & 7 == 0:
            yield tag >> 3, value
        else:
            raise ValueError("not a node of a file")


def _link(data: bytes) -> tuple[Cid, int]:
    fields = dict(_fields(data))
    name, stored = fields.get(1), fields.get(3)
    if isinstance(name, bytes) and isinstance(stored, int):
        return cids.decode(name), stored
    raise ValueError("not a node of a file")
