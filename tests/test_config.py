from pathlib import Path

import pytest

from p2pos import config
from p2pos.errors import UserError


def test_flags_beat_environment_beats_file_beats_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source gives way to the stronger one."""
    assert config.load(home=tmp_path).confirmations == 1
    (tmp_path / "p2pos.toml").write_text("confirmations = 2\n")
    assert config.load(home=tmp_path).confirmations == 2
    monkeypatch.setenv("P2POS_CONFIRMATIONS", "3")
    assert config.load(home=tmp_path).confirmations == 3
    assert config.load(home=tmp_path, confirmations=4).confirmations == 4


def test_the_file_is_that_of_the_home_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2POS_HOME says where p2pos.toml is."""
    (tmp_path / "p2pos.toml").write_text('rpc_url = "http://127.0.0.1:1"\n')
    monkeypatch.setenv("P2POS_HOME", str(tmp_path))
    assert config.load().rpc_url == ("http://127.0.0.1:1",)


def test_bootstrap_is_split_at_commas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Several addresses fit one environment variable."""
    monkeypatch.setenv("P2POS_BOOTSTRAP", "/a,/b")
    assert config.load(home=tmp_path).bootstrap == ("/a", "/b")


@pytest.mark.parametrize(
    ("text", "named"),
    [("confirmations = 0", "confirmations"), ("nonsense = 1", "nonsense"), ("confirmations = ", "not valid TOML")],
)
def test_a_wrong_setting_is_named(tmp_path: Path, text: str, named: str) -> None:
    """The refusal says which setting, in which file."""
    (tmp_path / "p2pos.toml").write_text(text)
    with pytest.raises(UserError, match=named):
        config.load(home=tmp_path)


def test_settings_are_frozen(tmp_path: Path) -> None:
    """What was read once is not changed later."""
    from pydantic import ValidationError

    with pytest.raises(ValidationError):
        config.load(home=tmp_path).rpc_url = "x"
