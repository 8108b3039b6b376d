"""One child process: started, waited for until it says that it is ready, watched, ended.

A child prints one JSON object on standard output when it is ready, logs to standard error, and ends on SIGTERM or
at the end of its standard input. It leads a process group of its own, so that Ctrl-C in a terminal reaches the
supervisor alone, and a SIGKILL of the group leaves no grandchild.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
import trio
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import P2posError, UnavailableError, UserError

READY_LINE_BYTES = 64 << 10
"""Of the ready line; a node's has about 300."""
LOG_TAIL_BYTES = 8 << 10
"""How much of a log is read to find its last line."""
QUOTE_CHARACTERS = 300
"""Of that line, in an error."""
ROTATE_BYTES = 10 << 20
"""A log that is larger when its process starts is put aside as NAME.log.1, in place of the one put aside before."""
REAPED_S = 5.0
"""A process that was sent SIGKILL is gone in milliseconds; one in uninterruptible I/O is given this long."""

State = Literal["starting", "ready", "stopping", "dead"]

FAULTS: Mapping[int, type[P2posError]] = {2: UserError, 3: UnavailableError}
"""What a child's exit code says of who is at fault; see the command line's exit codes."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to start."""

    argv: tuple[str, ...]
    ready_within_s: float
    stop_within_s: float
    """From SIGTERM to SIGKILL."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The whole of it."""


class Process:
    """One name of the devnet, over the lives of its process.

    Attributes:
        ready: what its ready line said, {} before.
        exit_code: of its last life, negative for a signal; None while it lives or before it first ran.

    """

    def __init__(self, name: str, log_file: Path, on_change: Callable[["Process"], None]) -> None:
        """Args: its name; where its standard error goes; who is called when a process is there, and when it is gone."""
        self.name = name
        self.log_file = log_file
        self._on_change = on_change
        self.state: State = "dead"
        self.ready: dict[str, Any] = {}
        self.exit_code: int | None = None
        self.pid: int | None = None
        self.born_s: float | None = None
        """The kernel's word for when it started: with the pid, it names this process and no later one."""
        self._command: Command | None = None
        self._process: trio.Process | None = None
        self._gone = trio.Event()
        self._life_from = 0
        """Where in the log this life of it begins."""
        self._log = log.get("devnet")

    @property
    def alive(self) -> bool:
        """Whether there is a process now."""
        return self._process is not None

    def resident_bytes(self) -> int:
        """Resident memory of the process and its children; 0 where there is none."""
        total = 0
        with suppress(psutil.Error):
            if self.pid is not None:
                leader = psutil.Process(self.pid)
                for process in (leader, *leader.children(recursive=True)):
                    total += process.memory_info().rss
        return total

    async def run(self, command: Command, *, task_status: TaskStatus[dict[str, Any]]) -> None:
        """Start the process, report its ready line, and stay until it is gone. Cancelling stops it in order.

        Raises:
            P2posError: it ended, spoke nonsense or stayed silent in place of its ready line. Quotes its log, and is
                the class that its exit code stands for.

        """
        self.state, self.ready, self.exit_code = "starting", {}, None
        self._gone, self._command = trio.Event(), command
        try:
            process = await self._open(command)
            try:
                self._on_change(self)
                self.ready = await self._first_line(process, command.ready_within_s)
                self.state = "ready"
                task_status.started(self.ready)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._drain, process)
                    await process.wait()
                    nursery.cancel_scope.cancel()
            finally:
                with trio.CancelScope(shield=True):
                    await self.stop()
                    for pipe in (process.stdin, process.stdout):
                        if pipe is not None:
                            await pipe.aclose()
        finally:
            self.state = "dead"
            self._process = self.pid = self.born_s = None
            self._gone.set()
            self._on_change(self)

    async def stop(self) -> None:
        """End the process politely, then by force, and return when it is gone."""
        process, command = self._process, self._command
        if process is None or command is None:
            return
        if process.returncode is None:
            self.state = "stopping"
            process.terminate()
            if process.stdin is not None:
                await process.stdin.aclose()
        with trio.move_on_after(command.stop_within_s) as patience:
            await process.wait()
        if patience.cancelled_caught:
            self._log.warning("killed: it did not stop", name=self.name, after_s=command.stop_within_s)
        self._end_group(process.pid)
        with trio.move_on_after(REAPED_S):
            self.exit_code = await process.wait()

    async def kill(self) -> None:
        """SIGKILL the process and all of its group, and return when it is gone."""
        self.kill_now()
        if self._process is not None:
            await self._gone.wait()

    def kill_now(self) -> None:
        """SIGKILL the process and all of its group, and don't wait."""
        if self._process is not None:
            self._end_group(self._process.pid)

    async def _open(self, command: Command) -> trio.Process:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        if self.log_file.exists() and self.log_file.stat().st_size > ROTATE_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self.log_file.open("ab") as output:
            self._life_from = output.tell()
            try:
                process = await trio.lowlevel.open_process(
                    list(command.argv),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    env=dict(command.environment),
                    start_new_session=True,
                )
            except OSError as exc:
                raise UserError(f"{self.name}: {command.argv[0]} can't be started: {exc.strerror}") from exc
        self._process, self.pid = process, process.pid
        with suppress(psutil.Error):  # it may be gone already; then _first_line says so
            self.born_s = psutil.Process(process.pid).create_time()
        return process

    async def _first_line(self, process: trio.Process, within_s: float) -> dict[str, Any]:
        line = b""
        stdout = process.stdout
        with trio.move_on_after(within_s) as patience:
            while stdout is not None and b"\n" not in line and len(line) <= READY_LINE_BYTES:
                chunk = await stdout.receive_some()
                if not chunk:
                    raise self._failed(await process.wait())
                line += chunk
        if patience.cancelled_caught:
            raise UnavailableError(f"{self.name} was not ready after {within_s:.0f} s{self._last_words()}")
        try:
            facts = json.loads(line.partition(b"\n")[0])
        except ValueError:
            facts = None
        if not isinstance(facts, dict) or facts.get("ready") is not True:
            raise P2posError(f"{self.name} said {line[:QUOTE_CHARACTERS]!r} in place of being ready")
        return facts

    async def _drain(self, process: trio.Process) -> None:
        """Read and forget what else it says, so that it never blocks on a full pipe."""
        with suppress(trio.BrokenResourceError):
            while process.stdout is not None and await process.stdout.receive_some():
                pass

    def _failed(self, code: int) -> P2posError:
        fault = FAULTS.get(code, P2posError)
        return fault(f"{self.name} ended at its start with {describe_exit(code)}{self._last_words()}", name=self.name)

    def _last_words(self) -> str:
        quote = last_line(self.log_file, self._life_from)
        return f": {quote} (log: {self.log_file})" if quote else f" (log: {self.log_file})"

    @staticmethod
    def _end_group(leader: int) -> None:
        with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM of a group of zombies
            os.killpg(leader, signal.SIGKILL)


def describe_exit(code: int) -> str:
    """An exit code in words, such as `exit code 2` or `SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def last_line(log_file: Path, start: int = 0) -> str:
    """The last line after byte `start` of a log that says something, as a person reads it; "" where there is none."""
    try:
        with log_file.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(start, file.tell() - LOG_TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    text = next((line.strip() for line in reversed(lines) if line.strip()), "")
    try:
        entry = json.loads(text)
    except ValueError:
        entry = None
    if isinstance(entry, dict) and "event" in entry:
        text = " ".join(str(entry[key]) for key in ("event", "error") if entry.get(key))
    return text.removeprefix("p2pos: ")[:QUOTE_CHARACTERS]


def python(*arguments: str) -> tuple[str, ...]:
    """The command line of a module run by this very interpreter."""
    return (sys.executable, "-m", *arguments)


def tied(*arguments: str) -> tuple[str, ...]:
    """The same for a module that is long in starting, and must notice even then that this process is gone."""
    return python("p2pos.devnet.tie", str(os.getpid()), *arguments)
