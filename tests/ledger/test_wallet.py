import json
import stat

import pytest
from eth_account import Account

from p2pos.errors import UserError
from p2pos.ledger.keystore import LIGHT_SCRYPT_N
from p2pos.ledger.typed_data import Domain, Transfer, digest
from p2pos.ledger.wallet import Wallets


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
    for name in ("../alice", "", ".alice", "a/b", "a" * 65):
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
    address = wallets.import_key("alice", key, "secret")
    assert address == Account.from_key(key).address
    assert wallets.import_keystore("copy", wallets.export("alice"), "secret") == address
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
    wallets.import_key("alice", key, "secret")
    signer = wallets.unlock("alice", "secret")
    domain = Domain(1, signer.address)
    struct = Transfer(signer.address, signer.address, 1, 2, 3, 4)
    signature = signer.sign_typed(domain, struct)
    assert Account._recover_hash(digest(domain, struct), signature=signature) == signer.address
    assert key not in repr(signer)
    assert repr(signer) == f"KeySigner({signer.address})"
