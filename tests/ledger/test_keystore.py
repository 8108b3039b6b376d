import json

import pytest
from eth_keyfile.keyfile import create_keyfile_json

from p2pos.errors import UserError
from p2pos.ledger import keystore

KEY = bytes.fromhex("7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d")
"""Of the examples in the Web3 Secret Storage Definition; public since 2014."""
PBKDF2 = {
    "crypto": {
        "cipher": "aes-128-ctr",
        "cipherparams": {"iv": "6087dab2f9fdbbfaddc31a909735c1e6"},
        "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
        "kdf": "pbkdf2",
        "kdfparams": {
            "c": 262144,
            "dklen": 32,
            "prf": "hmac-sha256",
            "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
        },
        "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
    },
    "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
    "version": 3,
}


def test_the_definitions_own_example():
    """The keystore that the format's definition shows opens, also where the outer word has a capital."""
    assert bytes(keystore.decrypt(PBKDF2, "testpassword", "it").key) == KEY
    text = json.dumps(PBKDF2).replace('"crypto"', '"Crypto"')
    assert keystore.decrypt(keystore.parse(text, "it"), "testpassword", "it").key == KEY


def test_what_is_made_opens():
    """A key that was locked up comes out again, and its address stands outside."""
    made = keystore.encrypt(KEY, "secret", light=True)
    account = keystore.decrypt(made, "secret", "it")
    assert bytes(account.key) == KEY
    assert keystore.stated_address(made, "it") == account.address
    assert keystore.is_light(made)
    assert not keystore.is_light(PBKDF2 | {"crypto": {"kdfparams": {"n": keystore.SCRYPT_N}}})


def test_passphrases_in_several_forms():
    """A passphrase opens in its composed form, as ethers makes it, and as typed, as geth does."""
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert keystore.decrypt(keystore.encrypt(KEY, decomposed, light=True), composed, "it").key == KEY
    as_typed = create_keyfile_json(KEY, decomposed.encode(), kdf="scrypt", iterations=2)
    assert keystore.decrypt(as_typed, decomposed, "it").key == KEY


@pytest.mark.parametrize(
    "parameters",
    [
        {"n": 1 << 40, "r": 8, "p": 1},
        {"n": 2, "r": 1 << 40},
        {"n": 2, "r": 8, "p": 1 << 20},
        {"c": 1 << 40},
        {"N": 1 << 30},
    ],
)
def test_a_keystore_that_would_eat_the_machine(parameters):
    """Stretching that would take all memory or hours is refused before it is begun."""
    made = keystore.encrypt(KEY, "secret", light=True)
    made["crypto"]["kdfparams"] |= parameters
    with pytest.raises(UserError, match="too much memory or time"):
        keystore.decrypt(made, "secret", "wallet x")


@pytest.mark.parametrize(
    "parameters", [{"n": "2"}, {"n": -1}, {"n": True}, {"r": None}, {"salt": 5}, {"dklen": 5}, {"DKLEN": 1 << 30}]
)
def test_parameters_that_are_none(parameters):
    """Parameters of a wrong kind are a damaged keystore, not a traceback."""
    made = keystore.encrypt(KEY, "secret", light=True)
    made["crypto"]["kdfparams"] |= parameters
    with pytest.raises(UserError, match="wallet x: "):
        keystore.decrypt(made, "secret", "wallet x")


@pytest.mark.parametrize("key", [bytes(32), b"\xff" * 32])
def test_what_is_no_key(key):
    """32 bytes outside the curve's order are refused, and not quoted, not even as the error's cause."""
    with pytest.raises(UserError, match="is not a secp256k1 private key") as caught:
        keystore.encrypt(key, "secret", light=True)
    assert caught.value.__cause__ is None
