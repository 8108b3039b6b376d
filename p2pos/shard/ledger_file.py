"""A file to which several processes append lines, each reading what is new: what is here of a checkpoint in parts."""

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path


class LedgerFile:
    """One such file. It need not exist before the first line. May be used by several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_to = 0
        self._reading = threading.Lock()

    def append(self, lines: Iterable[bytes]) -> None:
        """Append these lines, each with its end, in one write: another process's come before or after them."""
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, b"".join(lines))
        finally:
            os.close(handle)

    def read(self, take: Callable[[bytes], None]) -> None:
        """Have `take` called with each line that was appended since, without its end, before any other thread reads on.

        After a power cut, two halves of lines may stand as one.
        """
        with self._reading:
            try:
                with self._path.open("rb") as file:
                    file.seek(self._read_to)
                    data = file.read()
            except FileNotFoundError:
                return
            whole = data.rfind(b"\n") + 1  # half a line is another process's, or a power cut's
            self._read_to += whole
            for line in data[:whole].splitlines():
                take(line)
