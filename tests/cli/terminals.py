"""A person at a terminal: a process on a pseudo-terminal, and what it shows."""

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Sequence
from typing import Self

LIMIT_S = 60.0
"""For anything to be shown. A command starts within 2 s, on a busy machine within 20."""


class Terminal:
    """`p2pos` run on a terminal of its own."""

    def __init__(self, arguments: Sequence[str], *, error: int | None = None) -> None:
        """`error` is a descriptor that gets its standard error in place of the terminal."""
        self.shown = ""
        self._read_to = 0
        self.pid, self._handle = pty.fork()
        if self.pid == 0:
            if error is not None:
                os.dup2(error, 2)
            os.execv(sys.executable, [sys.executable, "-m", "p2pos", *arguments])

    def until(self, text: str) -> str:
        """Wait until it shows this, after what was waited for before. Returns what came up to there."""
        ends_s = time.monotonic() + LIMIT_S
        while (at := self.shown.find(text, self._read_to)) < 0:
            if not self._more(ends_s - time.monotonic()):
                raise AssertionError(f"no “{text}” in {self.shown[self._read_to :]!r}")
        found = self.shown[self._read_to : at]
        self._read_to = at + len(text)
        return found

    def enter(self, line: str) -> None:
        os.write(self._handle, line.encode() + b"\n")

    def end(self) -> int:
        """Read to the end. Returns the exit code."""
        while self._more(LIMIT_S):
            pass
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        return code

    def _more(self, limit_s: float) -> bool:
        ready, _, _ = select.select([self._handle], [], [], max(limit_s, 0))
        try:
            data = os.read(self._handle, 65536) if ready else b""
        except OSError:  # Linux says EIO when the other side is gone
            data = b""
        self.shown += data.decode(errors="replace")
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
