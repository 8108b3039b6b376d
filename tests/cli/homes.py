"""The command line in this process, and a home that has wallets."""

import json
from pathlib import Path
from typing import Any

from eth_account import Account

from p2pos.cli.main import main
from tests.ledger.chains import person

NAME = "Bronze Lantern"
"""The class that `conftest.home` begins with."""


class Home:
    """Runs `p2pos --home HERE …` and keeps what it printed."""

    def __init__(self, path: Path, capsys: Any) -> None:
        self.path = path
        self._capsys = capsys
        self.out = self.err = ""
        path.mkdir(exist_ok=True)
        self.passphrase = path / "passphrase"
        self.passphrase.touch(mode=0o600)
        self.passphrase.write_text("secret\n")

    def configure(self, **values: Any) -> None:
        """Write p2pos.toml."""
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items()]
        (self.path / "p2pos.toml").write_text("".join(lines))

    def wallet(self, name: str) -> None:
        """The wallet of `chains.person(name)`, stretched lightly."""
        key = bytes(person(name)._key.secret)
        keystore = Account.encrypt(key, "secret", kdf="scrypt", iterations=2)
        path = self.path / "wallets" / f"{name}.json"
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(json.dumps(keystore))

    def run(self, *arguments: str) -> int:
        """The exit code."""
        self._capsys.readouterr()
        try:
            main(["--home", str(self.path), *arguments])
        except SystemExit as exc:
            code = exc.code
        self.out, self.err = self._capsys.readouterr()
        return int(code or 0)

    def json(self, *arguments: str) -> Any:
        """What a command that must succeed prints with --json."""
        code = self.run(*arguments, "--json")
        if code != 0:
            raise AssertionError(f"exit code {code}: {self.err}")
        return json.loads(self.out)

    def fails(self, code: int, *arguments: str) -> str:
        """The one line of a command that must fail with this code."""
        found = self.run(*arguments)
        lines = [line for line in self.err.splitlines() if line.startswith("p2pos: ")]
        if found != code or len(lines) != 1 or "Traceback" in self.err:
            raise AssertionError(f"exit code {found}, not {code}: {self.err}")
        return lines[0]


def held(home: Home, who: str, name: str = NAME) -> int:
    items = home.json("asset", "list", who)["items"]
    return sum(item["amount"] for item in items if item["name"] == name)


def give(home: Home, tmp_path: Path, *options: str) -> str:
    """Alice signs one lantern for bob into a file."""
    file = str(tmp_path / "gift.json")
    home.json("asset", "sign", "transfer", NAME, "--to", "bob", "--wallet", "alice", "--out", file, "--yes", *options)
    return file
