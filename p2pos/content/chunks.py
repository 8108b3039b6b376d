"""A model's tensors cut into chunks, so that each can come from another peer and be believed by itself. Pure.

A tensor's digest, in a manifest, is the sha256 of its bytes where they are one chunk, and else of its leaves: the
sha256s of its chunks, one after the other. So a manifest fixes every chunk, and whoever has the leaves of a tensor,
32 bytes for each 2 MiB, can tell of any chunk whether it is the right one.

The chunks of a model are numbered through all its tensors in the order of their names. A set of them is a bitmap: chunk
`n` is bit `n % 8`, from the lowest, of byte `n // 8`.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from p2pos.errors import PeerError

CHUNK = 2 << 20
"""Bytes. Large enough that a request costs little beside it, small enough that losing or refusing one does too."""
MAX_CHUNKS = 1 << 20
"""Of one model: 2 TiB, a trillion parameters in bf16. Their leaves are 32 MiB, half of what a frame holds."""
LEAF = 32
"""Bytes of a sha256."""


def cut(nbytes: int) -> int:
    """How many chunks so many bytes are; none for a tensor without any."""
    return -(-nbytes // CHUNK)


def digest(data: memoryview) -> bytes:
    """The digest, 32 bytes, that a manifest has of a tensor with these bytes."""
    return digest_of([hashlib.sha256(data[at : at + CHUNK]).digest() for at in range(0, len(data), CHUNK)])


def digest_of(leaves: list[bytes]) -> bytes:
    """A tensor's digest from the sha256s of its chunks."""
    if len(leaves) == 1:
        return leaves[0]
    return hashlib.sha256(b"".join(leaves)).digest()


class Place(NamedTuple):
    """Where a chunk lies."""

    tensor: str
    offset: int
    """Of its first byte, from the start of the tensor."""
    nbytes: int


class Chunks:
    """The chunks of a model.

    Args:
        sizes: of each tensor, by name, its bytes.
        peer: at whose fault there are too many.

    Raises:
        PeerError: there are more than `MAX_CHUNKS`.

    """

    def __init__(self, sizes: Mapping[str, int], *, peer: str = "") -> None:
        self._names = sorted(sizes)
        self._sizes = [sizes[name] for name in self._names]
        self._starts = [0]
        """Of each tensor the number of its first chunk; and after the last what would follow."""
        for size in self._sizes:
            self._starts.append(self._starts[-1] + cut(size))
        self.total = self._starts[-1]
        if self.total > MAX_CHUNKS:
            raise PeerError(peer, f"has a model of {self.total:,} chunks, more than {MAX_CHUNKS:,}")
        self._numbers = {name: number for number, name in enumerate(self._names)}

    def of(self, tensor: str) -> range:
        """The numbers of a tensor's chunks."""
        number = self._numbers[tensor]
        return range(self._starts[number], self._starts[number + 1])

    def place(self, chunk: int) -> Place:
        """Where a chunk lies; its number is at least 0 and below `total`."""
        number = bisect_right(self._starts, chunk) - 1
        offset = (chunk - self._starts[number]) * CHUNK
        return Place(self._names[number], offset, min(CHUNK, self._sizes[number] - offset))

    def size(self, chunk: int) -> int:
        """Bytes of a chunk."""
        return self.place(chunk).nbytes

    def long(self) -> Iterator[tuple[str, int]]:
        """The tensors of more than one chunk, by name, and how many they are: those that have leaves."""
        for number, name in enumerate(self._names):
            count = self._starts[number + 1] - self._starts[number]
            if count > 1:
                yield name, count


class Leaves:
    """The sha256 of each chunk of a model.

    Args:
        chunks: of the model.
        digests: the manifest's digest of each tensor, 32 bytes.
        blob: the leaves of the tensors of more than one chunk, in the order of their names.
        peer: at whose fault they are not those of the manifest.

    Raises:
        PeerError: they aren't.

    """

    def __init__(self, chunks: Chunks, digests: Mapping[str, bytes], blob: bytes, *, peer: str = "") -> None:
        self.blob = blob
        self._chunks = chunks
        self._digests = digests
        self._at: dict[str, int] = {}
        """Of each such tensor where its leaves begin."""
        at = 0
        for name, count in chunks.long():
            self._at[name] = at
            end = at + count * LEAF
            if hashlib.sha256(blob[at:end]).digest() != digests[name]:
                raise PeerError(peer, f"sent digests of chunks that are not those of {name[:200]}")
            at = end
        if at != len(blob):
            raise PeerError(peer, f"sent {len(blob)} bytes of digests of chunks where there are {at}")

    def of(self, chunk: int) -> bytes:
        """The sha256 of a chunk, 32 bytes."""
        place = self._chunks.place(chunk)
        at = self._at.get(place.tensor)
        if at is None:
            return self._digests[place.tensor]
        at += place.offset // CHUNK * LEAF
        return self.blob[at : at + LEAF]


def pack(chunks: Iterable[int], total: int) -> bytes:
    """The bitmap of these chunks, of `total` there are."""
    bits = bytearray(-(-total // 8))
    for chunk in chunks:
        bits[chunk >> 3] |= 1 << (chunk & 7)
    return bytes(bits)


def everything(total: int) -> bytes:
    """The bitmap of all chunks."""
    return ((1 << total) - 1).to_bytes(-(-total // 8), "little")


def has(bits: bytes | bytearray, chunk: int) -> bool:
    """Whether a chunk is in a bitmap."""
    return bool(bits[chunk >> 3] >> (chunk & 7) & 1)
