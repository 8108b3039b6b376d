"""The V3 keystore: one private key, encrypted under a passphrase, in the JSON that all Ethereum software reads.

The key is stretched by scrypt and encrypted by AES-128-CTR; eth-keyfile does both. What comes from elsewhere is
checked before anything is computed from it: its stretching could otherwise ask for all of a machine's memory.
"""

import secrets
import unicodedata
from collections.abc import Mapping
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_keyfile.keyfile import create_keyfile_json, decode_keyfile_json

from p2pos.content import strict_json
from p2pos.errors import UserError
from p2pos.ledger.typed_data import address
from p2pos.types import Address

SCRYPT_N = 262_144
"""geth's `StandardScryptN` (accounts/keystore/passphrase.go): 256 MiB and a second for each guess."""
LIGHT_SCRYPT_N = 4096
"""geth's `LightScryptN`: opens in 20 ms in place of 1 s. For throw-away wallets."""
MAX_BYTES = 64 << 10
"""Of a keystore's JSON. One has about 500."""
MAX_SCRYPT_BYTES = 1 << 30
"""Of memory that opening a keystore may take, 128 × n × r. Geth's own take a quarter of it."""
MAX_SCRYPT_P = 16
"""Geth's light keystores use 6."""
DERIVED_BYTES = 32
"""That a passphrase is stretched into: a key for AES and one for the digest, 16 each."""
MAX_PBKDF2 = 10_000_000
"""Rounds. The standard's examples use 262,144; this many take ten seconds."""

Keystore = dict[str, Any]


def new_key() -> bytes:
    """A random private key."""
    return secrets.token_bytes(32)


def encrypt(key: bytes, passphrase: str, *, light: bool = False) -> Keystore:
    """Lock up a private key of 32 bytes. Raises UserError where the passphrase is empty or the key is none."""
    if not passphrase:
        raise UserError("the passphrase is empty", hint="a keystore without one protects nothing")
    account_of(key)
    made = create_keyfile_json(key, _bytes(passphrase), kdf="scrypt", iterations=LIGHT_SCRYPT_N if light else SCRYPT_N)
    return made | {"address": str(made["address"]).lower()}  # as geth writes it


def decrypt(keystore: Mapping[str, Any], passphrase: str, what: str) -> LocalAccount:
    """Open a keystore.

    Args:
        keystore: as `parse` gave it.
        passphrase: as typed. Where it has letters in several forms, the composed one (NFKC, which ethers takes) is
            tried as well as the one that was typed (which geth takes).
        what: what to call the keystore in an error.

    Raises UserError: a wrong passphrase, or the keystore is damaged, of an unknown kind or too costly to open.

    """
    _require_bounded(keystore, what)
    for form in dict.fromkeys((_bytes(passphrase), passphrase.encode())):
        try:
            return account_of(decode_keyfile_json(dict(keystore), form))
        except ValueError as exc:
            if "MAC mismatch" not in str(exc):  # eth-keyfile has no class of its own for this
                raise UserError(f"{what}: the keystore is damaged") from exc
        except (KeyError, TypeError, AttributeError, NotImplementedError, OverflowError) as exc:
            # what eth-keyfile says of fields that lack, or are of another kind: it checks none beforehand
            raise UserError(f"{what}: the keystore is damaged or of an unknown kind") from exc
    raise UserError(f"{what}: wrong passphrase", hint="try again")


def parse(text: str, what: str) -> Keystore:
    """Read a keystore's JSON, still encrypted. Raises UserError where it is none."""
    try:
        value = strict_json.loads(text.encode(errors="replace"))
    except ValueError as exc:
        raise UserError(f"{what} is not a V3 keystore: it is not JSON") from exc
    if not isinstance(value, dict):
        raise UserError(f"{what} is not a V3 keystore")
    return parsed(value, what)


def parsed(value: Mapping[str, Any], what: str) -> Keystore:
    """As `parse`, of JSON that is already decoded."""
    value = {key.lower(): inner for key, inner in value.items()}  # some write “Crypto”
    if value.get("version") != 3 or not isinstance(value.get("crypto"), dict):
        raise UserError(f"{what} is not a V3 keystore")
    return value


def stated_address(keystore: Mapping[str, Any], what: str) -> Address:
    """The address that a keystore says its key has. Raises UserError where it says none."""
    stated = keystore.get("address")
    if not isinstance(stated, str):
        raise UserError(f"{what} states no address")
    return address("0x" + stated.lower().removeprefix("0x"), what)


def is_light(keystore: Mapping[str, Any]) -> bool:
    """Whether its key is stretched so lightly that a fast machine can try many passphrases."""
    parameters = _lower(keystore["crypto"]).get("kdfparams")
    n = _lower(parameters).get("n") if isinstance(parameters, dict) else None
    return not isinstance(n, int) or n < SCRYPT_N


def account_of(key: bytes) -> LocalAccount:
    """The account of a private key. Raises UserError where 32 bytes are no key; the error does not show them."""
    try:
        account: LocalAccount = Account.from_key(key)
    except ValueError:
        raise UserError("the key is not a secp256k1 private key") from None  # the cause's text holds the key
    return account


def _bytes(passphrase: str) -> bytes:
    return unicodedata.normalize("NFKC", passphrase).encode()


def _require_bounded(keystore: Mapping[str, Any], what: str) -> None:
    parameters = _lower(keystore["crypto"]).get("kdfparams")
    if not isinstance(parameters, dict):
        raise UserError(f"{what}: the keystore is damaged")
    parameters = _lower(parameters)
    if parameters.get("dklen") != DERIVED_BYTES:
        raise UserError(f"{what}: the keystore is damaged")
    n, r, p, c = (_whole(parameters.get(key, 1)) for key in "nrpc")
    if None in {n, r, p, c}:
        raise UserError(f"{what}: the keystore is damaged")
    if 128 * (n or 0) * (r or 0) > MAX_SCRYPT_BYTES or (p or 0) > MAX_SCRYPT_P or (c or 0) > MAX_PBKDF2:
        raise UserError(
            f"{what}: its passphrase is stretched so far that to open it takes too much memory or time",
            hint="open it where it was made, and import the key",
        )


def _lower(fields: Mapping[str, Any]) -> dict[str, Any]:
    """As eth-keyfile reads them: names in any case."""
    return {str(key).lower(): value for key, value in fields.items()}


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
