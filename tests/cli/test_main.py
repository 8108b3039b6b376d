import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from p2pos.cli import main
from p2pos.errors import InternalError, UnavailableError, UserError


def test_every_noun_can_be_loaded() -> None:
    """Each command of the registry exists where the registry says."""
    context = click.Context(main.root)
    for noun in main.NOUNS:
        command = main.root.get_command(context, noun)
        assert isinstance(command, click.Command), noun


@pytest.mark.parametrize("noun", ["wallet", "asset", "generate", "swarm", "devnet", "relayer"])
def test_only_a_node_loads_torch(noun: str) -> None:
    """Commands that compute nothing start without torch and transformers."""
    script = (
        "import sys; from p2pos.cli import main; import click;"
        f"main.root.get_command(click.Context(main.root), {noun!r});"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [(UserError("a\nb", hint="c"), 2), (UnavailableError("x"), 3), (KeyboardInterrupt(), 130)],
    ids=["user", "unavailable", "interrupt"],
)
def test_an_error_is_one_line_and_a_code(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """However many lines an error has, a person sees one, and the shell its code."""

    def fail(*_args: object, **_kwargs: object) -> None:
        raise error

    monkeypatch.setattr(main.root, "main", fail)
    with pytest.raises(SystemExit) as exit_:
        main.main(["x"])
    assert exit_.value.code == code
    assert capsys.readouterr().err.count("\n") <= 1


def test_with_json_an_error_is_an_object_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that reads standard output gets the facts."""

    def fail(*_args: object, **_kwargs: object) -> None:
        raise UserError("wrong", hint="do this", name="alice")

    monkeypatch.setattr(main.root, "main", fail)
    with pytest.raises(SystemExit):
        main.main(["x", "--json"])
    assert json.loads(capsys.readouterr().out)["error"]["name"] == "alice"


def test_of_many_errors_the_one_that_tells_most_is_shown() -> None:
    """In a group, an error with somebody at fault comes before a fault of ours."""
    user = UserError("mine")
    group = ExceptionGroup("", [ExceptionGroup("", [InternalError("x"), ValueError("y")]), user])
    assert main.root_cause(group) is user


@pytest.mark.parametrize("arguments", [["nonesuch"], ["generate"], ["generate", "x", "--max-tokens", "0"]])
def test_a_wrong_command_ends_2(arguments: list[str]) -> None:
    """What click itself refuses is the user's mistake too."""
    with pytest.raises(SystemExit) as exit_:
        main.main(arguments)
    assert exit_.value.code == 2


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["wallet", "new"], "p2pos: Missing argument 'NAME': see p2pos wallet new --help"),
        (["nope"], "p2pos: No such command 'nope': see p2pos --help"),
        (["generate", "caf\udce9"], "p2pos: the prompt is not UTF-8 text: give text, or token ids with --ids"),
    ],
    ids=["argument", "noun", "prompt"],
)
def test_a_wrong_command_line_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What the parser refuses reads like every other mistake."""
    with pytest.raises(SystemExit) as exit_:
        main.main(["--home", str(tmp_path), *arguments])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f"{line}\n"


def test_a_peers_words_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters of a message that a stranger wrote are shown as what they are."""

    def fail(*_args: object, **_kwargs: object) -> None:
        raise UnavailableError("gone\x1b]0;a title\x07")

    monkeypatch.setattr(main.root, "main", fail)
    with pytest.raises(SystemExit):
        main.main(["x"])
    assert "\x1b" not in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_traceback() -> None:
    """Standard output that is closed inside a nursery ends the command quietly."""
    script = (
        "import sys, trio; from p2pos.cli import main\n"
        "async def write():\n"
        "    async with trio.open_nursery():\n"
        "        sys.stdin.read(); print('late', flush=True)\n"
        "main.root.main = lambda *a, **k: trio.run(write)\n"
        "main.main([])"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    child.stdout.close()
    child.stdout = None
    _, errors = child.communicate("")
    assert (child.returncode, errors) == (1, "")
