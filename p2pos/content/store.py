"""Blocks on disk by their CID: written whole or not at all, and believed only where they still hash to their name.

A block's file is `DIRECTORY/<last two letters of the CID>/<CID>`; the last, because all our CIDs begin alike.
"""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from p2pos.content import cid
from p2pos.content.cid import Codec
from p2pos.content.unixfs import MAX_BLOCK
from p2pos.errors import UnavailableError, UserError
from p2pos.types import Cid

MAX_READ = MAX_BLOCK + 1
"""Bytes that are read of a file at most: one that was damaged into a larger one is not taken into memory."""


class DamagedError(UnavailableError):
    """A block's file no longer has the bytes that its name says."""


class Store:
    """The blocks under one directory. Several processes may share it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, data: bytes, codec: Codec = "raw") -> Cid:
        """Keep a block and return its CID. On return it is on disk.

        Raises UserError where it is too large, or the disk won't have it.
        """
        if len(data) > MAX_BLOCK:
            raise UserError(f"a block of {len(data)} bytes is over the limit of {MAX_BLOCK}")
        name = cid.of(data, codec)
        path = self._path(name)
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            if path.exists() and _read(path) == data:
                return name
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as exc:
            raise UserError(
                f"{self.directory} can't hold a block: {exc.strerror or exc}", hint="free some room"
            ) from exc
        finally:
            temporary.unlink(missing_ok=True)
        return name

    def get(self, name: Cid) -> bytes | None:
        """A block, verified; None where it isn't here.

        Raises UserError where the name is not a CID of ours; DamagedError where the file was damaged.
        """
        cid.encode(name)
        path = self._path(name)
        try:
            data = _read(path)
        except FileNotFoundError:
            return None
        if not cid.is_of(name, data):
            raise DamagedError(f"the block {name} is damaged on disk", hint=f"remove {path} and fetch it again")
        return data

    def __contains__(self, name: object) -> bool:
        try:
            cid.encode(str(name))
        except UserError:
            return False
        return self._path(Cid(str(name))).is_file()

    def __iter__(self) -> Iterator[Cid]:
        for path in sorted(self.directory.glob("??/b*")):
            yield Cid(path.name)

    def sound(self, name: Cid) -> bytes | None:
        """A block, verified; None where it isn't here or was damaged. Raises UserError as `get`."""
        try:
            return self.get(name)
        except DamagedError:
            return None

    def _path(self, name: Cid) -> Path:
        return self.directory / name[-2:] / name


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_READ)
