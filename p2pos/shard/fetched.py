"""A checkpoint that came from peers: which of its chunks are here.

Its directory, `CACHE/peers/MODEL_ID`, is a checkpoint like any other, with one weight file that has holes where no
chunk has come yet. Beside it lie:

- `p2pos-manifest.json`: the model's manifest, whose CID is its id, and `p2pos-leaves`: the digests of the chunks;
- `p2pos-peers.json`: what others call it;
- `p2pos-chunks`: a line for each chunk that came, its number, and a line with `-` before it for each that turned out to
  be damaged. The last line of a chunk counts.

A line is written after its bytes, so that a process killed at any moment leaves no claim of what isn't there. What a
power cut may still lose is found by the manifest's digest when the tensor is loaded. Several processes may write at
once: lines are appended whole, and equal bytes to equal places.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from p2pos.content import strict_json
from p2pos.content.chunks import Chunks, has, pack
from p2pos.errors import UserError
from p2pos.shard.ledger_file import LedgerFile

PEERS, LEDGER, MANIFEST, LEAVES = "p2pos-peers.json", "p2pos-chunks", "p2pos-manifest.json", "p2pos-leaves"
FORMAT = "p2pos-peers/1"

_LINE = re.compile(rb"(-?)(\d{1,9})")


@dataclass(slots=True)
class Fetched:
    """A directory of this kind."""

    directory: Path
    name: str
    """What those who served it call it; it may be a repository on a hub."""
    chunks: Chunks
    _have: bytearray
    _ledger: LedgerFile = field(init=False)

    def __post_init__(self) -> None:
        self._ledger = LedgerFile(self.directory / LEDGER)

    @classmethod
    def open(cls, directory: Path, sizes: dict[str, int]) -> Self | None:
        """The directory, or None where it is a checkpoint like any other.

        Args:
            directory: it.
            sizes: bytes of each of its tensors, by the header of its weight file.

        Raises:
            UserError: it is damaged.

        """
        path = directory / PEERS
        if not path.is_file():
            return None
        try:
            value = strict_json.loads(path.read_bytes())
            name = {FORMAT: str(value["name"])}[value["format"]]
        except (ValueError, KeyError, TypeError, OSError) as exc:
            raise UserError(f"{path} can't be read", hint=f"remove {directory} and fetch the model again") from exc
        chunks = Chunks(sizes)
        return cls(directory, name, chunks, bytearray(pack((), chunks.total)))

    def have(self) -> bytes:
        """The bitmap of the chunks that are here."""
        self._ledger.read(self._take)
        return bytes(self._have)

    def lacking(self, tensors: Iterable[str]) -> list[int]:
        """The chunks of these tensors that aren't here."""
        have = self.have()
        return sorted(chunk for name in set(tensors) for chunk in self.chunks.of(name) if not has(have, chunk))

    def add(self, chunk: int) -> None:
        """Say that a chunk is here."""
        self._ledger.append([b"%d\n" % chunk])

    def forget(self, chunks: Iterable[int]) -> None:
        """Say that chunks are not here after all."""
        self._ledger.append(b"-%d\n" % chunk for chunk in chunks)

    def _take(self, line: bytes) -> None:
        match = _LINE.fullmatch(line)
        if match is None or (chunk := int(match[2])) >= self.chunks.total:
            return  # two halves of lines, after a power cut: the chunk counts as not there
        if match[1]:
            self._have[chunk >> 3] &= ~(1 << (chunk & 7))
        else:
            self._have[chunk >> 3] |= 1 << (chunk & 7)
