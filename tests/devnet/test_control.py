"""The channel between commands and the supervisor."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio

from p2pos.devnet import control
from p2pos.devnet.home import Alive, Home, Record
from p2pos.devnet.status import Devnet, Row
from p2pos.errors import InternalError, P2posError, UnavailableError, UserError
from tests.devnet.trios import run

SEEN = Devnet("/h", "http://x", 1, "0xc", 7, [Row("node-1", "ready", 12, None, "http://n")])


class Controlled:
    """What stands behind the channel: notes what it was told, and refuses one name."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def status(self) -> Devnet:
        return SEEN

    async def kill(self, name: str) -> None:
        if name == "nobody":
            raise UserError("no such process", hint="look again")
        self.told.append(f"kill {name}")

    async def start(self, name: str) -> None:
        raise ExceptionGroup("tasks", [ExceptionGroup("more", [UnavailableError(f"{name} is not ready")])])

    def leave(self) -> None:
        self.told.append("leave")


def with_remote(tmp_path: Path, then: Callable[[control.Remote], None], *, token: str = "") -> Controlled:
    """Serve, and run `then` with the other end in a thread."""
    devnet, home = Controlled(), Home(tmp_path)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            url, right = await nursery.start(control.serve, devnet)
            home.write(Record(Alive.me(), url, token or right))
            await trio.to_thread.run_sync(then, control.Remote(home))
            nursery.cancel_scope.cancel()

    run(main)
    return devnet


def test_commands_arrive(tmp_path: Path) -> None:
    """Status comes back as it was given, and a name arrives whatever it is made of."""

    def then(remote: control.Remote) -> None:
        assert remote.status() == SEEN
        remote.kill("no/de?&1")

    assert with_remote(tmp_path, then).told == ["kill no/de?&1"]


def test_errors_come_back_as_they_were(tmp_path: Path) -> None:
    """An error keeps its kind, its message and its hint; one inside groups of tasks too."""

    def then(remote: control.Remote) -> None:
        with pytest.raises(UserError, match="no such process: look again"):
            remote.kill("nobody")
        with pytest.raises(UnavailableError, match="node-9 is not ready"):
            remote.start("node-9")

    with_remote(tmp_path, then)


def test_a_wrong_token_moves_nothing(tmp_path: Path) -> None:
    """Somebody who can reach the port but can't read the home is refused."""

    def then(remote: control.Remote) -> None:
        with pytest.raises(P2posError, match="wrong token"):
            remote.kill("node-1")
        bare = httpx.post(remote.record.control_url + "/down")
        assert bare.status_code == 401

    assert with_remote(tmp_path, then, token="guess").told == []


def test_nothing_runs(tmp_path: Path) -> None:
    """Where no devnet runs, or its supervisor was killed, one line says how to start one."""
    home = Home(tmp_path)
    with pytest.raises(UserError, match="devnet up"):
        control.Remote(home)
    home.write(Record(Alive(2**22 - 1, 1.0), "http://127.0.0.1:1", "t"))
    with pytest.raises(UserError, match="devnet up"):
        control.Remote(home)


def test_a_supervisor_that_does_not_answer(tmp_path: Path) -> None:
    """A port that is closed is an unavailable devnet, not a traceback."""
    home = Home(tmp_path)
    home.write(Record(Alive.me(), "http://127.0.0.1:1", "t"))
    with pytest.raises(UnavailableError, match="does not answer"):
        control.Remote(home).status()


def test_a_fault_of_ours_is_not_hidden() -> None:
    """Of a group that holds something else than our errors, nothing is made into a refusal."""
    assert control._first(BaseExceptionGroup("g", [InternalError("x")])) is not None
    assert control._first(BaseExceptionGroup("g", [InternalError("x"), KeyError("y")])) is None
