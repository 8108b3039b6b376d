import io
import json
import os
import stat

import pytest
from eth_account import Account

from p2pos.ledger import keystore
from tests.cli.homes import Home
from tests.ledger.chains import ALICE, BOB

PHRASE = "test test test test test test test test test test test junk"


@pytest.fixture
def home(tmp_path, capsys, monkeypatch) -> Home:
    """A home whose new keystores open at once: how far a key is stretched is `test_wallet`'s subject."""
    monkeypatch.setattr(keystore, "SCRYPT_N", keystore.LIGHT_SCRYPT_N)
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
    made = json.loads((home.path / "wallets" / "alice.json").read_text())
    assert len(bytes(Account.decrypt(made, "secret"))) == 32


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


def test_one_bad_file_hides_no_other_wallet(home):
    """`list` shows the sound wallets and exits 0; the refused ones are warned of, and a field of the JSON."""
    home.wallet("alice")
    home.wallet("bob")
    path = home.path / "wallets" / "bob.json"
    path.chmod(0o644)
    assert home.run("wallet", "list") == 0
    assert home.out == f"alice\t{ALICE.address}\tkeystore\n"
    assert home.err == f"warning: wallet bob: others can read {path}: chmod 600 {path}\n"
    listed = home.json("wallet", "list")
    assert [one["name"] for one in listed["wallets"]] == ["alice"]
    assert listed["refused"] == [{"name": "bob", "why": f"wallet bob: others can read {path}: chmod 600 {path}"}]


def test_a_phrase_comes_in(home, tmp_path, monkeypatch):
    """A recovery phrase is read from a private file or standard input, with a path or a number."""
    file = tmp_path / "phrase"
    file.touch(mode=0o600)
    file.write_text(PHRASE + "\n")
    options = ("--mnemonic", "--passphrase-file", str(home.passphrase))
    made = home.json("wallet", "import", "one", str(file), *options)
    assert made["address"] == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(PHRASE.encode())))
    made = home.json("wallet", "import", "two", "-", *options, "--index", "1")
    assert made["address"] == "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
    file.chmod(0o640)
    assert "chmod 600" in home.fails(2, "wallet", "import", "four", str(file), *options)


def test_a_phrase_with_a_passphrase_of_its_own(home, tmp_path):
    """BIP-39's passphrase comes by a descriptor and gives another account."""
    file = tmp_path / "phrase"
    file.touch(mode=0o600)
    file.write_text("abandon " * 11 + "about")
    reading, writing = os.pipe()
    os.write(writing, b"TREZOR\n")
    os.close(writing)
    options = ("--mnemonic", "--bip39-passphrase-fd", str(reading), "--passphrase-file", str(home.passphrase))
    made = home.json("wallet", "import", "one", str(file), *options)
    os.close(reading)
    assert made["address"] == "0x9c32F71D4DB8Fb9e1A58B0a80dF79935e7256FA6"


@pytest.mark.parametrize(
    ("text", "options", "line"),
    [
        ("test " * 11 + "jnuk", ("--mnemonic",), "word 12 is not in"),
        ("test " * 12, ("--mnemonic",), "the checksum fails"),
        ("test " * 11, ("--mnemonic",), "has 11 words"),
        ("", ("--mnemonic", "--path", "x"), "is not a derivation path"),
        ("", ("--mnemonic", "--path", "m/0", "--index", "1"), "not both"),
        ("11" * 32, ("--index", "1"), "go with --mnemonic"),
        ("11" * 31, (), "has 31 bytes"),
        ("zz" * 32, (), "is not hex"),
    ],
)
def test_what_is_no_key_or_phrase(home, tmp_path, text, options, line):
    """What is wrong with a key or phrase is said without showing any of it; no wallet is made."""
    file = tmp_path / "secret"
    file.touch(mode=0o600)
    file.write_text(text)
    found = home.fails(2, "wallet", "import", "x", str(file), *options, "--passphrase-file", str(home.passphrase))
    assert line in found
    assert not any(word in home.err + home.out for word in ("test test", "jnuk", "1111", "zzzz"))
    assert home.json("wallet", "list")["wallets"] == []


def test_nobody_types_a_phrase(home):
    """Without a terminal nobody is asked for a phrase, and none is shown."""
    assert "no recovery phrase" in home.fails(2, "wallet", "import", "x", "--mnemonic")
    assert "give FILE" in home.fails(2, "wallet", "import", "x")


def test_a_key_that_others_can_read(home, tmp_path):
    """A key's file that others can read is refused; a keystore is encrypted and may be anywhere."""
    file = tmp_path / "key"
    file.write_text("11" * 32)
    file.chmod(0o644)
    assert "chmod 600" in home.fails(2, "wallet", "import", "x", str(file))


def test_watching(home):
    """A watched address is a wallet by name, and what it is is said."""
    made = home.json("wallet", "watch", "cold", BOB.address)
    assert made["address"] == BOB.address
    assert home.json("wallet", "list")["wallets"] == [{"name": "cold", "address": BOB.address, "kind": "watch-only"}]
    assert "its key is not here" in home.fails(2, "wallet", "export", "cold")
    assert "has no passphrase" in home.fails(2, "wallet", "passwd", "cold")
    assert "looks like wallet cold" in home.fails(2, "wallet", "watch", "co1d", ALICE.address)


def test_a_new_passphrase_by_descriptors(home):
    """`passwd` takes both passphrases by descriptors; afterwards the new one opens, and the old one doesn't."""
    home.wallet("alice")
    pipes = [os.pipe(), os.pipe()]
    for (_, writing), text in zip(pipes, (b"secret\n", b"new one\n"), strict=True):
        os.write(writing, text)
        os.close(writing)
    old, new = (str(reading) for reading, _ in pipes)
    home.json("wallet", "passwd", "alice", "--passphrase-fd", old, "--new-passphrase-fd", new)
    for reading, _ in pipes:
        os.close(reading)
    made = json.loads((home.path / "wallets" / "alice.json").read_text())
    assert Account.from_key(Account.decrypt(made, "new one")).address == ALICE.address
    with pytest.raises(ValueError, match="MAC"):
        Account.decrypt(made, "secret")


def test_renaming_and_removing(home):
    """A wallet is called otherwise, and taken out of the list with its file kept; without a yes it stays."""
    home.wallet("alice")
    assert home.json("wallet", "rename", "alice", "alicia")["address"] == ALICE.address
    assert "say --yes" in home.fails(2, "wallet", "remove", "alicia")
    kept = home.json("wallet", "remove", "alicia", "--yes")["path"]
    assert home.json("wallet", "list")["wallets"] == []
    back = home.json("wallet", "import", "back", kept, "--passphrase-file", str(home.passphrase))
    assert back["address"] == ALICE.address


def test_a_broken_wallet_can_be_removed(home):
    """A file that can't be read as a wallet is moved aside like any other."""
    home.wallet("alice")
    path = home.path / "wallets" / "alice.json"
    path.write_text("{")
    assert home.json("wallet", "remove", "alice", "--yes")["address"] is None
    assert not path.exists()


def test_an_external_signer_that_is_not_there(home):
    """A signer that can't be reached, or isn't on this machine, becomes no wallet."""
    options = ("--address", BOB.address)
    for end_point, code, line in (
        ("http://127.0.0.1:1", 3, "can't be reached"),
        ("http://192.0.2.1:8550", 2, "is on this machine"),
    ):
        assert line in home.fails(code, "wallet", "add-external", "ledger", "--url", end_point, *options)
    assert "either --url or --ipc" in home.fails(2, "wallet", "add-external", "ledger", *options)
    assert home.json("wallet", "list")["wallets"] == []
