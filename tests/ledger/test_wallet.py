import errno
import json
import os
import stat
from pathlib import Path

import pytest
from eth_account import Account

from p2pos.errors import UserError
from p2pos.ledger.keystore import LIGHT_SCRYPT_N
from p2pos.ledger.typed_data import Domain, Transfer, digest
from p2pos.ledger.wallet import Kind, Wallets
from tests.ledger.chains import ALICE


@pytest.fixture
def wallets(tmp_path):
    return Wallets(tmp_path / "wallets")


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_wallet_is_a_private_v3_keystore(wallets):
    """A new wallet is a V3 keystore of mode 0600 in a directory of mode 0700, which eth-account opens."""
    address = wallets.create("alice", "secret", light=True)
    assert mode(wallets.path("alice")) == 0o600
    assert mode(wallets.directory) == 0o700
    keystore = json.loads(wallets.path("alice").read_text())
    assert keystore["crypto"]["kdfparams"]["n"] == LIGHT_SCRYPT_N
    assert Account.from_key(Account.decrypt(keystore, "secret")).address == address == wallets.address("alice")
    assert [path.name for path in wallets.directory.iterdir()] == ["alice.json"]


def test_a_real_wallet_is_stretched_fully(wallets):
    """Without `light`, scrypt has the cost that geth and eth-account give it."""
    wallets.create("alice", "secret")
    assert json.loads(wallets.path("alice").read_text())["crypto"]["kdfparams"]["n"] == 262_144


def test_a_wallet_is_never_replaced(wallets):
    """A name that is taken is refused, and the old wallet still opens."""
    address = wallets.create("alice", "secret", light=True)
    with pytest.raises(UserError, match="already there"):
        wallets.create("alice", "other", light=True)
    assert wallets.unlock("alice", "secret").address == address


def test_a_keystore_that_others_can_read_is_refused(wallets):
    """Loose permissions are refused with the command that mends them."""
    wallets.create("alice", "secret", light=True)
    path = wallets.path("alice")
    path.chmod(0o640)
    with pytest.raises(UserError, match=f"chmod 600 {path}"):
        wallets.unlock("alice", "secret")


def test_a_wrong_passphrase_is_one_line(wallets):
    """A wrong passphrase says so, and no more."""
    wallets.create("alice", "secret", light=True)
    with pytest.raises(UserError, match="wallet alice: wrong passphrase") as caught:
        wallets.unlock("alice", "Secret")
    assert "\n" not in str(caught.value)


def test_unknown_and_impossible_names(wallets):
    """An unknown name lists the known ones; a name that would leave the directory is none."""
    wallets.create("alice", "secret", light=True)
    with pytest.raises(UserError, match="wallets here: alice"):
        wallets.address("alcie")
    for name in ("../alice", "", ".alice", "a/b", "a" * 65, "аlice"):
        with pytest.raises(UserError, match="can't be a wallet's name"):
            wallets.create(name, "secret")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 3}', '{"version": 3, "crypto": {}, "address": "00"}'])
def test_a_damaged_keystore_is_said_to_be(wallets, text):
    """Whatever is wrong with the file, the error names the wallet."""
    wallets.create("alice", "secret", light=True)
    wallets.path("alice").write_text(text)
    with pytest.raises(UserError, match="wallet alice"):
        wallets.unlock("alice", "secret")


def test_a_swapped_address_is_noticed(wallets):
    """A keystore whose stated address is not its key's is refused."""
    wallets.create("alice", "secret", light=True)
    path = wallets.path("alice")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"address": "11" * 20}))
    with pytest.raises(UserError, match="not of the address"):
        wallets.unlock("alice", "secret")


def test_keys_come_in_and_keystores_go_out(wallets):
    """A private key is imported; what is exported can be imported again under another name."""
    key = "0x" + "11" * 32
    address = wallets.import_key("alice", key, "secret", light=True)
    assert address == Account.from_key(key).address
    assert wallets.import_keystore("copy", wallets.export("alice"), "secret", light=True) == address
    assert wallets.names() == ["alice", "copy"]


@pytest.mark.parametrize("key", ["", "0x12", "zz", "00" * 32, "ff" * 32])
def test_what_is_no_key_is_refused(wallets, key):
    """Text that is no private key is refused before anything is written."""
    with pytest.raises(UserError, match="key"):
        wallets.import_key("alice", key, "secret")
    assert wallets.names() == []


def test_an_empty_passphrase_is_refused(wallets):
    """A keystore without a passphrase is not made."""
    with pytest.raises(UserError, match="empty"):
        wallets.create("alice", "")


def test_a_signer_shows_no_key(wallets):
    """A signer signs the digest of what it is shown, and its repr has the address alone."""
    key = "11" * 32
    wallets.import_key("alice", key, "secret", light=True)
    signer = wallets.unlock("alice", "secret")
    domain = Domain(1, signer.address)
    struct = Transfer(signer.address, signer.address, 1, 2, 3, 4)
    signature = signer.sign_typed(domain, struct)
    assert Account._recover_hash(digest(domain, struct), signature=signature) == signer.address
    assert key not in repr(signer)
    assert repr(signer) == f"KeySigner({signer.address})"


def test_one_bad_file_hides_no_other(wallets):
    """A loose, a broken and a foreign file are each refused with the reason; the sound wallets are all there."""
    address = wallets.create("alice", "secret", light=True)
    wallets.create("loose", "secret", light=True)
    wallets.path("loose").chmod(0o644)
    for name, text in (("broken", "{"), ("empty", "{}"), ("no-address", '{"version": 3, "crypto": {}}')):
        wallets.path(name).touch(mode=0o600)
        wallets.path(name).write_text(text)
    (wallets.directory / "UTC--2020-01-01T00-00-00.0Z--00.json").write_text("{}")
    os.mkfifo(wallets.path("pipe"), mode=0o600)
    sound, refused = wallets.look()
    assert [(one.name, one.address) for one in sound] == [("alice", address)]
    why = {one.name: str(one.error) for one in refused}
    assert why["loose"].endswith(f"chmod 600 {wallets.path('loose')}")
    assert "is not JSON" in why["broken"]
    assert "is not a V3 keystore" in why["empty"]
    assert "states no address" in why["no-address"]
    assert "is not a file" in why["pipe"]
    assert "p2pos wallet import NAME" in why["UTC--2020-01-01T00-00-00.0Z--00.json"]


def test_a_watched_wallet_signs_nothing(wallets):
    """An address without a key can be looked up; it refuses to sign, to be opened and to be exported."""
    wallets.watch("cold", ALICE.address)
    assert wallets.get("cold").kind is Kind.WATCH_ONLY
    assert wallets.address("cold") == ALICE.address
    assert mode(wallets.path("cold")) == 0o600
    with pytest.raises(UserError, match="watch-only: its key is not here, so it can't sign"):
        wallets.require_signing("cold")
    for refused in (lambda: wallets.unlock("cold", "secret"), lambda: wallets.export("cold")):
        with pytest.raises(UserError, match="its key is not here"):
            refused()


def test_an_external_wallet_knows_its_end_point(wallets):
    """An external signer's wallet can sign, and says where."""
    wallets.add_external("ledger", ALICE.address, "http://127.0.0.1:8550")
    assert wallets.require_signing("ledger") == wallets.get("ledger")
    assert wallets.get("ledger").end_point == "http://127.0.0.1:8550"


@pytest.mark.parametrize(
    "value", [{"kind": "keystore"}, {"kind": "watch-only", "end_point": "x"}, {"kind": "external"}, {"kind": 5}, {}]
)
def test_a_damaged_file_without_a_key(wallets, value):
    """A file of ours with fields that don't fit together is damaged."""
    wallets.watch("cold", ALICE.address)
    wallets.path("cold").write_text(json.dumps({"format": "p2pos-wallet-1", "address": ALICE.address, **value}))
    with pytest.raises(UserError, match="is damaged"):
        wallets.get("cold")


def test_a_new_passphrase(wallets):
    """The key opens with the new passphrase and no longer with the old; a wrong old one changes nothing."""
    address = wallets.create("alice", "old", light=True)
    before = wallets.path("alice").read_bytes()
    with pytest.raises(UserError, match="wrong passphrase"):
        wallets.change_passphrase("alice", "odl", "new", light=True)
    with pytest.raises(UserError, match="empty"):
        wallets.change_passphrase("alice", "old", "", light=True)
    assert wallets.path("alice").read_bytes() == before
    wallets.change_passphrase("alice", "old", "new", light=True)
    assert wallets.unlock("alice", "new").address == address
    with pytest.raises(UserError, match="wrong passphrase"):
        wallets.unlock("alice", "old")
    assert mode(wallets.path("alice")) == 0o600
    assert [path.name for path in wallets.directory.iterdir()] == ["alice.json"]


def test_a_passphrase_change_that_is_cut_off(wallets, monkeypatch):
    """Where the disk fails as the new file is put in place, the old one still opens and nothing is left beside it."""
    address = wallets.create("alice", "old", light=True)
    monkeypatch.setattr(Path, "replace", _no_space)
    with pytest.raises(UserError, match="No space left"):
        wallets.change_passphrase("alice", "old", "new", light=True)
    assert wallets.unlock("alice", "old").address == address
    assert [path.name for path in wallets.directory.iterdir()] == ["alice.json"]


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_renaming(wallets):
    """A wallet keeps its key under its new name; a name that is taken is refused and nothing moves."""
    address = wallets.create("alice", "secret", light=True)
    wallets.watch("bob", ALICE.address)
    with pytest.raises(UserError, match="already there"):
        wallets.rename("alice", "bob")
    wallets.rename("alice", "alicia")
    assert wallets.names() == ["alicia", "bob"]
    assert wallets.unlock("alicia", "secret").address == address
    with pytest.raises(UserError, match="there is no wallet"):
        wallets.rename("alice", "anna")


def test_what_is_removed_is_not_destroyed(wallets):
    """A removed wallet is no longer listed; its file lies aside, opens, and doesn't hinder a second one of its name."""
    first = wallets.create("alice", "secret", light=True)
    kept = [wallets.remove("alice")]
    assert wallets.names() == []
    second = wallets.create("alice", "secret", light=True)
    kept.append(wallets.remove("alice"))
    texts = [path.read_text() for path in kept]
    found = [wallets.import_keystore(f"back{at}", text, "secret", light=True) for at, text in enumerate(texts)]
    assert found == [first, second]
    assert all(mode(path) == 0o600 for path in kept)
    with pytest.raises(UserError, match="there is no wallet"):
        wallets.remove("alice")


def test_a_phrase_becomes_a_keystore(wallets):
    """The key at a path of a phrase is kept like any other; the phrase is not."""
    phrase = "test test test test test test test test test test test junk"
    address = wallets.import_phrase("alice", phrase, "secret", path="m/44'/60'/0'/0/1", light=True)
    assert address == "0x70997970C51812dc3A010C7d01b50e0d17dc79C8" == wallets.unlock("alice", "secret").address
    assert b"junk" not in wallets.path("alice").read_bytes()
