import sys

import pytest

from p2pos.cli.tables import print_table


def test_a_strangers_markup_is_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that looks like rich's markup is shown as it is on a terminal."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(("item",), [("[/red] [bold]x",)])
    assert "[/red] [bold]x" in capsys.readouterr().out
