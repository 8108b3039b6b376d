import sys

import pytest

from p2pos.cli import swarm
from p2pos.cli.tables import print_table


def test_a_strangers_markup_is_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that looks like rich's markup is shown as it is on a terminal."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(("item",), [("[/red] [bold]x",)])
    assert "[/red] [bold]x" in capsys.readouterr().out


def test_a_strangers_name_does_not_steer_the_terminal() -> None:
    """Escape characters in a model's name, which its node chooses, are replaced."""
    assert swarm._shown("a\x1b[2Jb\n旅") == "a�[2Jb�旅"
