"""A checkpoint of which only a part lies here: sparse weight files, and a ledger of the bytes that came.

The directory of one commit of one repository holds, besides the side files:

- the weight files, each as long as it is on the hub, its header in place, and holes where no byte has come yet;
- `p2pos-hub.json`: the repository, the commit, and of each file its size and the digest that the hub gives of it;
- `p2pos-ledger`: a line `FILE BEGIN END SHA256` for each piece that came, and one with `-` as its digest for each that
  turned out to be damaged. The last line of a piece counts. A line for all of a file has the hub's digest of it: it was
  compared once all of it had come.

A line is written after its bytes, so that a process killed at any moment leaves no claim of what isn't there. What a
power cut may still lose is found by the digest when the piece is read. Several processes may write at once: lines are
appended whole, and equal bytes to equal places.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from p2pos.content import strict_json
from p2pos.errors import UserError
from p2pos.shard.ledger_file import LedgerFile

ORIGIN, LEDGER = "p2pos-hub.json", "p2pos-ledger"
FORMAT = "p2pos-hub/1"

PIECE = 32 << 20
"""Bytes. A larger tensor comes in several pieces, so that a killed download loses at most this much."""

_BROKEN = "-"
"""A piece's digest where it is known not to be there."""

Piece = tuple[str, int, int]
"""File name; offsets of the first byte and of the one after the last."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a checkpoint comes from, as the hub says."""

    repo: str
    """`ORG/NAME`."""
    commit: str
    """40 hexadecimal digits."""
    files: dict[str, tuple[int, str]]
    """Name → size in bytes and digest: `lfs:` with a sha256, or `git:` with the sha1 of a git blob."""

    def to_json(self) -> dict[str, Any]:
        """What `p2pos-hub.json` holds."""
        files = {name: {"size": size, "digest": digest} for name, (size, digest) in self.files.items()}
        return {"format": FORMAT, "repo": self.repo, "commit": self.commit, "files": files}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Raises ValueError where it isn't one of ours."""
        try:
            if value["format"] != FORMAT:
                raise ValueError("another format")
            files = {str(name): (int(each["size"]), str(each["digest"])) for name, each in value["files"].items()}
            return cls(str(value["repo"]), str(value["commit"]), files)
        except (KeyError, TypeError, AttributeError) as exc:
            raise ValueError("not an origin") from exc


@dataclass(slots=True)
class Partial:
    """A directory of this kind."""

    directory: Path
    origin: Origin
    _have: dict[Piece, str] = field(default_factory=dict)
    _ledger: LedgerFile = field(init=False)

    def __post_init__(self) -> None:
        self._ledger = LedgerFile(self.directory / LEDGER)

    @classmethod
    def open(cls, directory: Path) -> Self | None:
        """The directory, or None where it is a checkpoint like any other. Raises UserError where it is damaged."""
        path = directory / ORIGIN
        if not path.is_file():
            return None
        try:
            return cls(directory, Origin.from_json(strict_json.loads(path.read_bytes())))
        except (ValueError, OSError) as exc:
            raise UserError(f"{path} can't be read", hint=f"remove {directory} and fetch the model again") from exc

    def check_names(self, files: Iterable[str]) -> None:
        """Raise UserError where one of these weight files is none that the hub named."""
        unknown = sorted(set(files) - set(self.origin.files))
        if unknown:
            raise UserError(
                f"{self.directory / ORIGIN} does not name {unknown[0]}",
                hint=f"remove {self.directory} and fetch the model again",
            )

    def lacking(self, ranges: Iterable[tuple[Path, int, int]]) -> list[Piece]:
        """The pieces of these ranges (file, offset, size) that aren't here, in the order of their places."""
        self._ledger.read(self._take)
        return sorted(piece for each in ranges for piece in pieces(*each) if self._have.get(piece, _BROKEN) == _BROKEN)

    def check(self, file: Path, offset: int, data: memoryview) -> None:
        """Raise UserError where these bytes of a file did not come from the hub, or are no longer what came."""
        self._ledger.read(self._take)
        for piece in pieces(file, offset, len(data)):
            _, begin, end = piece
            known = self._have.get(piece, _BROKEN)
            if known == _BROKEN:
                raise UserError(
                    f"{file} lacks the bytes {begin} to {end}, which have not been fetched",
                    hint=f"p2pos model fetch {self.origin.repo}@{self.origin.commit}",
                )
            if hashlib.sha256(data[begin - offset : end - offset]).hexdigest() != known:
                self.forget([piece])
                raise UserError(
                    f"{file} is damaged on disk between the bytes {begin} and {end}",
                    hint="run this again without --offline: that part is fetched again",
                )

    def add(self, piece: Piece, sha256: str) -> None:
        """Say that a piece is here."""
        self._append([(piece, sha256)])

    def forget(self, broken: Iterable[Piece]) -> None:
        """Say that pieces are not here after all."""
        broken = list(broken)
        wholes = [(name, 0, self.origin.files[name][0]) for name in sorted({name for name, _, _ in broken})]
        self._append((piece, _BROKEN) for piece in (*broken, *wholes))

    def forget_files(self, names: Iterable[str]) -> None:
        """Say of all that came of some files that it is not here after all."""
        gone = set(names)
        self._ledger.read(self._take)
        broken = [piece for piece, digest in self._have.items() if piece[0] in gone and digest != _BROKEN]
        if broken:
            self.forget(broken)

    def is_checked(self, name: str) -> bool:
        """Whether all of a file came, and was found to be the hub's."""
        size, digest = self.origin.files[name]
        self._ledger.read(self._take)
        return self._have.get((name, 0, size)) == digest

    def set_checked(self, name: str) -> None:
        """Say so."""
        size, digest = self.origin.files[name]
        self._append([((name, 0, size), digest)])

    def _append(self, entries: Iterable[tuple[Piece, str]]) -> None:
        self._ledger.append(f"{name} {begin} {end} {digest}\n".encode() for (name, begin, end), digest in entries)

    def _take(self, line: bytes) -> None:
        match line.decode("utf-8", "replace").rsplit(" ", 3):  # a file's name may have spaces
            case [name, begin, end, digest] if begin.isdecimal() and end.isdecimal():
                self._have[name, int(begin), int(end)] = digest
            case _:
                pass  # two halves of lines, after a power cut: its piece counts as not there


def pieces(file: Path, offset: int, size: int) -> Iterator[Piece]:
    """A tensor's bytes, cut into pieces; a tensor without any has none."""
    for begin in range(offset, offset + size, PIECE):
        yield file.name, begin, min(begin + PIECE, offset + size)
