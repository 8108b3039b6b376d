import json
import os
import stat

import pytest
from eth_account import Account

from tests.cli.homes import Home
from tests.ledger.chains import ALICE


@pytest.fixture
def home(tmp_path, capsys) -> Home:
    return Home(tmp_path / "home", capsys)


def test_a_new_wallet(home):
    """`wallet new` makes a keystore of mode 0600 that `list` shows."""
    made = home.json("wallet", "new", "alice", "--passphrase-file", str(home.passphrase))
    path = home.path / "wallets" / "alice.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made == {"name": "alice", "address": made["address"], "path": str(path)}
    entry = {"name": "alice", "address": made["address"], "kind": "keystore"}
    assert home.json("wallet", "list") == {"wallets": [entry], "refused": []}
    assert home.run("wallet", "list") == 0
    assert home.out == f"alice\t{made['address']}\tkeystore\n"


def test_a_wallet_is_not_replaced(home):
    """A name that is taken is refused before a passphrase is asked for."""
    home.wallet("alice")
    assert "already there" in home.fails(2, "wallet", "new", "alice")


def test_import_of_a_key_and_of_a_keystore(home, tmp_path):
    """A hex key and a V3 keystore both come in; `export` gives a keystore that opens elsewhere."""
    key = "11" * 32
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(key + "\n")
    address = home.json("wallet", "import", "bob", str(file), "--passphrase-file", str(home.passphrase))["address"]
    assert address == Account.from_key(key).address
    out = tmp_path / "bob.json"
    assert home.run("wallet", "export", "bob", "--out", str(out)) == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert bytes(Account.decrypt(json.loads(out.read_text()), "secret")).hex() == key
    assert "choose a new file" in home.fails(2, "wallet", "export", "bob", "--out", str(out))
    copy = home.json("wallet", "import", "copy", str(out), "--passphrase-file", str(home.passphrase))
    assert copy["address"] == address


def test_the_passphrase_by_a_descriptor(home):
    """A descriptor can bring the passphrase."""
    reading, writing = os.pipe()
    os.write(writing, b"secret\n")
    os.close(writing)
    home.json("wallet", "new", "alice", "--passphrase-fd", str(reading))
    os.close(reading)
    keystore = json.loads((home.path / "wallets" / "alice.json").read_text())
    assert len(bytes(Account.decrypt(keystore, "secret"))) == 32


def test_bad_input(home):
    """No passphrase, an unknown name, a wrong kind of file, loose permissions: each one line and exit code 2."""
    assert "no passphrase" in home.fails(2, "wallet", "new", "alice")
    assert "there is no wallet “bob”" in home.fails(2, "wallet", "export", "bob")
    home.passphrase.chmod(0o644)
    options = ("--passphrase-file", str(home.passphrase))
    assert f"chmod 600 {home.passphrase}" in home.fails(2, "wallet", "new", "alice", *options)
    assert not (home.path / "wallets").exists()


def test_an_error_as_json(home):
    """With --json the error is an object on standard output, too."""
    home.fails(2, "wallet", "new", "../x", "--json")
    assert json.loads(home.out)["error"]["fault"] == "user"


def test_an_empty_home(home):
    """Without wallets `list` says how to make one."""
    assert home.run("wallet", "list") == 0
    assert "p2pos wallet new NAME" in home.out
    assert ALICE.address not in home.out


def test_a_key_file_that_is_not_text(home, tmp_path):
    """Bytes that are no UTF-8 are refused in a line, and no wallet is made."""
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_bytes(b"\xff\xfe")
    assert "is not text" in home.fails(2, "wallet", "import", "carol", str(file))
    assert home.json("wallet", "list")["wallets"] == []
