"""One child process, with tiny programs in place of nodes."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import trio

from p2pos.devnet import processes
from p2pos.devnet.home import Alive, outlive
from p2pos.devnet.processes import Command, Process, describe_exit, last_line
from p2pos.errors import P2posError, UnavailableError, UserError
from tests.devnet.trios import run

READY = "import sys, json, os; print(json.dumps({'ready': True, 'x': 1}), flush=True)\n"
UNTIL_LET_GO = READY + "sys.stdin.read()\n"
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "signal.pause()\n"
WITH_A_CHILD = (
    "import subprocess, sys\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
    'print(\'{"ready": true, "child": %d}\' % child.pid, flush=True)\n'
    "sys.stdin.read()\n"
)


def command(program: str, *, ready_within_s: float = 30, stop_within_s: float = 30) -> Command:
    return Command((sys.executable, "-c", program), ready_within_s, stop_within_s)


class Changes:
    """What a process told its owner, in order."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool]] = []

    def __call__(self, process: Process) -> None:
        self.seen.append((process.state, process.pid is not None))


def with_process(tmp_path: Path, program: Command, then: Callable, changes: Callable = lambda _: None) -> Process:
    """Start the program, run `then(process)`, stop what is left, and return the process."""
    process = Process("child", tmp_path / "logs" / "child.log", changes)

    async def main() -> None:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                await nursery.start(process.run, program)
                await then(process)
                nursery.cancel_scope.cancel()

    run(main)
    return process


def test_ready_line_and_orderly_stop(tmp_path: Path) -> None:
    """The ready line's facts are kept while it lives, and stopping it leaves no process."""
    pids = []
    changes = Changes()

    async def then(process: Process) -> None:
        assert (process.state, process.ready["x"], process.alive) == ("ready", 1, True)
        assert process.resident_bytes() > 1 << 20
        pids.append(process.pid)
        await process.stop()

    process = with_process(tmp_path, command(UNTIL_LET_GO), then, changes)
    assert (process.state, process.alive) == ("dead", False)
    assert not psutil.pid_exists(pids[0])
    assert changes.seen == [("starting", True), ("dead", False)]


def test_cancelling_stops_it(tmp_path: Path) -> None:
    """A process whose owner is cancelled is gone when the owner is."""
    pids = []

    async def then(process: Process) -> None:
        pids.append(process.pid)
        await trio.lowlevel.checkpoint()

    with_process(tmp_path, command(UNTIL_LET_GO), then)
    assert not psutil.pid_exists(pids[0])


def test_death_is_seen(tmp_path: Path) -> None:
    """A process that dies by itself is dead, with its exit code."""

    async def then(process: Process) -> None:
        psutil.Process(process.pid).terminate()
        await process._gone.wait()

    process = with_process(tmp_path, command(UNTIL_LET_GO), then)
    assert describe_exit(process.exit_code or 0) == "SIGTERM"


def test_kill_takes_grandchildren_along(tmp_path: Path) -> None:
    """SIGKILL goes to the whole group, so nothing that the process had started stays."""
    child = []

    async def then(process: Process) -> None:
        grandchild = psutil.Process(process.ready["child"])
        child.append(Alive(grandchild.pid, grandchild.create_time()))
        await process.kill()

    process = with_process(tmp_path, command(WITH_A_CHILD), then)
    assert describe_exit(process.exit_code or 0) == "SIGKILL"
    assert outlive(child, 10) == []


def test_death_is_seen_past_a_grandchild(tmp_path: Path) -> None:
    """A grandchild that still holds the pipe hides its parent's death from nobody, and is killed after it."""
    child = []

    async def then(process: Process) -> None:
        grandchild = psutil.Process(process.ready["child"])
        child.append(Alive(grandchild.pid, grandchild.create_time()))
        os.kill(process.pid, signal.SIGKILL)  # not the group
        await process._gone.wait()

    process = with_process(tmp_path, command(WITH_A_CHILD), then)
    assert describe_exit(process.exit_code or 0) == "SIGKILL"
    assert outlive(child, 10) == []


def test_a_stubborn_process_is_killed(tmp_path: Path) -> None:
    """One that ignores SIGTERM is killed after the time it was given."""

    async def then(process: Process) -> None:
        await process.stop()

    process = with_process(tmp_path, command(STUBBORN, stop_within_s=0.2), then)
    assert describe_exit(process.exit_code or 0) == "SIGKILL"


@pytest.mark.parametrize(
    ("program", "error", "says"),
    [
        ("import sys; sys.exit('p2pos: no such model: give --model')", P2posError, "no such model: give --model"),
        ("import sys; print('port in use', file=sys.stderr); sys.exit(2)", UserError, "exit code 2: port in use"),
        ("import sys; print('no chain', file=sys.stderr); sys.exit(3)", UnavailableError, "no chain"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", P2posError, "SIGKILL"),
        ("print('hello', flush=True); input()", P2posError, "hello"),
        ("print('[1]', flush=True); input()", P2posError, "in place of being ready"),
        ("import sys; sys.stdout.write('x' * 200000); sys.stdout.flush(); input()", P2posError, "in place of"),
    ],
)
def test_a_child_that_does_not_get_ready(tmp_path: Path, program: str, error: type[P2posError], says: str) -> None:
    """The error quotes the child's last word, and is of the kind that its exit code stands for."""

    async def then(process: Process) -> None:
        raise AssertionError("never ready")

    with pytest.raises(error, match=says) as caught:
        with_process(tmp_path, command(program), then)
    assert caught.type is error


def test_silence_has_a_limit(tmp_path: Path) -> None:
    """A child that never says that it is ready is given up and ended."""

    async def then(process: Process) -> None:
        raise AssertionError("never ready")

    with pytest.raises(UnavailableError, match="not ready after 0 s"):
        with_process(tmp_path, command("input()", ready_within_s=0.2), then)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """A command that can't be started is one line."""

    async def then(process: Process) -> None:
        raise AssertionError("never ready")

    with pytest.raises(UserError, match="can't be started"):
        with_process(tmp_path, Command(("/no/such/program",), 1, 1), then)


def test_much_output_blocks_nobody(tmp_path: Path) -> None:
    """What a child prints after its ready line is drained."""
    program = READY + "print('x' * 1_000_000, flush=True)\nprint('written', file=sys.stderr, flush=True)\n"

    async def then(process: Process) -> None:
        await process._gone.wait()

    process = with_process(tmp_path, command(program), then)
    assert process.exit_code == 0
    assert last_line(process.log_file) == "written"


def test_last_line_of_a_json_log(tmp_path: Path) -> None:
    """Of a JSON line the event is quoted; of an earlier life nothing."""
    log = tmp_path / "x.log"
    log.write_text('old\n{"event": "gave up", "error": "no peers", "level": "error"}\n\n')
    assert last_line(log) == "gave up no peers"
    assert last_line(log, start=log.stat().st_size) == ""
    assert last_line(tmp_path / "none.log") == ""


def test_a_long_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log grows to a limit and one before it is kept."""
    monkeypatch.setattr(processes, "ROTATE_BYTES", 10)
    log = tmp_path / "logs" / "child.log"
    log.parent.mkdir()
    log.write_text("a line that is long\n")

    async def then(process: Process) -> None:
        await process.stop()

    with_process(tmp_path, command(UNTIL_LET_GO), then)
    assert log.with_suffix(".log.1").read_text() == "a line that is long\n"
    assert log.read_text() == ""
