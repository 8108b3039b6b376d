"""The devnet's directory."""

import json
import os
import random
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from p2pos import config
from p2pos.devnet.home import Alive, Home, Record, is_free
from p2pos.errors import UserError


def test_record_is_read_as_written_and_private(tmp_path: Path) -> None:
    """The record survives, and nobody else can read the token in it."""
    home = Home(tmp_path)
    record = Record(Alive(1, 2.5), "http://x", "secret", {"chain": Alive(3, 4.25)}, {"chain": 5}, {"31337": "0xab"})
    home.write(record)
    assert home.read() == record
    assert stat.S_IMODE(home.record_file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["devnet.json"]


def test_no_record_is_an_empty_one(tmp_path: Path) -> None:
    """A home that never ran has nothing to remember."""
    assert Home(tmp_path).read() == Record()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"supervisor": 3}', "\0"])
def test_a_damaged_record(tmp_path: Path, text: str) -> None:
    """A damaged record is one line that says to remove it."""
    home = Home(tmp_path)
    home.record_file.write_text(text)
    with pytest.raises(UserError, match="remove it"):
        home.read()


def test_one_supervisor_at_a_time(tmp_path: Path) -> None:
    """A second supervisor is refused while the first holds the home, and not after."""
    home = Home(tmp_path / "new")
    with home.locked(), pytest.raises(UserError, match="already runs"), Home(home.path).locked():
        pass
    with Home(home.path).locked():
        pass
    assert list(home.path.iterdir()) == []


def test_somebody_elses_settings_are_kept(tmp_path: Path) -> None:
    """A p2pos.toml that the devnet did not write is not overwritten."""
    (tmp_path / "p2pos.toml").write_text('rpc_url = "https://mine"\n')
    with pytest.raises(UserError, match="was not written by the devnet"), Home(tmp_path).locked():
        pass


def test_a_file_is_no_home(tmp_path: Path) -> None:
    """A home that is a file is one clear line."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--home"), Home(tmp_path / "file").locked():
        pass


def test_settings_are_read_by_every_command(tmp_path: Path) -> None:
    """What is written is what `config.load` reads, whatever characters a path has."""
    home = Home(tmp_path / '灯笼 "q" \\ é')
    home.path.mkdir()
    values = {"rpc_url": "http://x", "chain_id": 5, "model": str(home.path), "bootstrap": ["/ip4/a", "/ip4/b"]}
    home.write_settings(values)
    settings = config.load(home=home.path)
    assert (settings.rpc_url, settings.chain_id, settings.model) == (("http://x",), 5, str(home.path))
    assert settings.bootstrap == ("/ip4/a", "/ip4/b")


def test_a_port_is_kept_while_it_is_free(tmp_path: Path) -> None:
    """A name gets the port it had before; another one where somebody else listens there now."""
    home, record = Home(tmp_path), Record()
    first = home.port(record, "relayer", set())
    assert home.port(record, "relayer", set()) == first
    assert home.port(record, "relayer", {first}) != first
    record.ports["relayer"] = first
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", first))
        listener.listen()
        assert not is_free(first)
        assert home.port(record, "relayer", set()) != first


def test_all_ports_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no port is free, one line says so."""
    monkeypatch.setattr(random, "sample", lambda ports, count: [ports[0]] * count)
    home = Home(tmp_path)
    with pytest.raises(UserError, match="no free port"):
        home.port(Record(), "chain", {20_000})


def test_a_process_is_not_mistaken_for_a_later_one() -> None:
    """A pid counts only together with the time of birth."""
    me = Alive.me()
    assert me.find() is not None
    assert Alive(os.getpid(), me.born_s - 1000).find() is None


def test_a_dead_process_is_not_found() -> None:
    """Neither a process that is gone nor a zombie is alive."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        alive = Alive(process.pid, psutil.Process(process.pid).create_time())
        assert alive.find() is not None
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped
        assert alive.find() is None
        process.wait()
        assert alive.find() is None


def test_passphrase_is_made_once_and_private(tmp_path: Path) -> None:
    """The wallets' passphrase stays the same, and only the owner can read it."""
    home = Home(tmp_path)
    passphrase = home.passphrase()
    assert len(passphrase) >= 32
    assert home.passphrase() == passphrase
    assert stat.S_IMODE(home.passphrase_file.stat().st_mode) == 0o600


def test_record_holds_no_more_than_it_says(tmp_path: Path) -> None:
    """The file is JSON with the fields of `Record`."""
    home = Home(tmp_path)
    home.write(Record())
    assert set(json.loads(home.record_file.read_text())) == {
        "supervisor", "control_url", "token", "processes", "ports", "contracts",
    }  # fmt: skip
