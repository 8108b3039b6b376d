"""One process at a time: a lock that the kernel lets go of when its holder dies, however it dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2pos.errors import UserError


@contextmanager
def held(directory: Path, refusal: UserError) -> Iterator[None]:
    """Hold a directory, making it where it isn't there. Raises `refusal` where another process holds it.

    Raises UserError where the directory can't be made or opened.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as exc:
        raise UserError(f"{directory} can't be used: {exc.strerror}", hint="choose another with --home") from exc
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield
    finally:
        os.close(handle)
