"""Files that only their owner may read: keystores, contacts, passphrases.

A file is written whole or not at all, with mode 0600 from its first byte on, in a directory of mode 0700. One that
others could read or write is refused, with the command that mends it.
"""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2pos.errors import UserError


def read(path: Path, most: int, what: str) -> bytes:
    """The bytes of a file of mode 0600, at most `most`.

    Args:
        path: where it is.
        most: more bytes than this are refused.
        what: what to call it in an error.

    Raises:
        FileNotFoundError: there is none.
        UserError: others can read or write it, it is too long, or it can't be read.

    """
    try:
        # a pipe or a device in place of the file must not hang us
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise UserError(f"{what}: {path} is not a file")
            if stat.S_IMODE(mode) & 0o077:
                raise UserError(f"{what}: others can read {path}", hint=f"chmod 600 {path}")
            data = file.read(most + 1)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise UserError(f"{what}: {path} can't be read: {exc.strerror}") from exc
    if len(data) > most:
        raise UserError(f"{what}: {path} is longer than {most} bytes")
    return data


def write_new(path: Path, data: bytes) -> None:
    """Make a file. Raises FileExistsError where there is one already, UserError where it can't be written."""
    with _written_beside(path, data) as temporary:
        os.link(temporary, path)  # unlike a rename, fails where the name is taken
    _sync(path.parent)


def replace(path: Path, data: bytes) -> None:
    """Put other bytes in place of a file's: at every moment it has the old ones or the new. Raises UserError."""
    with _written_beside(path, data) as temporary:
        temporary.replace(path)
    _sync(path.parent)


@contextmanager
def _written_beside(path: Path, data: bytes) -> Iterator[Path]:
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise
    except OSError as exc:
        raise UserError(f"{path} can't be written: {exc.strerror}") from exc


def _sync(directory: Path) -> None:
    """Make a new name outlast a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
