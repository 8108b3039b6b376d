"""Keystores: one encrypted file per wallet, in the V3 format that other Ethereum software reads.

A file is written whole or not at all, is never overwritten, and is refused where others could read it. A key is in
memory only inside a `KeySigner`, and no log line, error or repr ever shows it.
"""

import json
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from p2pos.errors import UserError
from p2pos.ledger.signer import KeySigner
from p2pos.ledger.typed_data import address
from p2pos.types import Address

LIGHT_SCRYPT_N = 4096
"""geth's `LightScryptN` (accounts/keystore/passphrase.go): opens in 20 ms in place of 1 s. For throw-away wallets."""
MAX_KEYSTORE = 64 << 10
"""Bytes. A V3 keystore has about 500."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Wallets:
    """The keystores of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self) -> list[str]:
        """Of all wallets here, in order."""
        if not self.directory.is_dir():
            return []
        return sorted(path.stem for path in self.directory.glob("*.json") if _NAME.fullmatch(path.stem))

    def create(self, name: str, passphrase: str, *, light: bool = False) -> Address:
        """Make a wallet with a new random key.

        Args:
            name: what it is called here; letters, digits, - and _.
            passphrase: opens it; without it the items in the wallet are lost.
            light: use scrypt at `LIGHT_SCRYPT_N`, for wallets that hold nothing of value.

        Raises:
            UserError: a bad name, an empty passphrase, or a wallet that is already there.

        """
        return self._write(name, secrets.token_bytes(32), passphrase, light=light)

    def import_key(self, name: str, key: str | bytes, passphrase: str) -> Address:
        """Make a wallet of a given private key: 32 bytes, or 64 hex digits with or without 0x. Raises UserError."""
        if isinstance(key, str):
            try:
                key = bytes.fromhex(key.strip().removeprefix("0x"))
            except ValueError as exc:
                raise UserError("the key is not hex", hint="give 64 hex digits") from exc
        if len(key) != 32:
            raise UserError(f"the key has {len(key)} bytes, not 32", hint="give 64 hex digits")
        return self._write(name, key, passphrase, light=False)

    def import_keystore(self, name: str, text: str, passphrase: str) -> Address:
        """Copy in a V3 keystore made elsewhere, after opening it. Raises UserError where it doesn't open."""
        account = _decrypt(_parse(text, "the keystore"), passphrase, f"wallet {name}")
        return self._write(name, bytes(account.key), passphrase, light=False)

    def address(self, name: str) -> Address:
        """A wallet's address; needs no passphrase. Raises UserError for an unknown name or a bad file."""
        return self._address_of(name, self._read(name))

    def addresses(self) -> dict[Address, str]:
        """Names by address, of all wallets that can be read."""
        return {self.address(name): name for name in self.names()}

    def unlock(self, name: str, passphrase: str) -> KeySigner:
        """Open a wallet. Raises UserError for an unknown name, a bad file or a wrong passphrase."""
        keystore = self._read(name)
        signer = KeySigner(_decrypt(keystore, passphrase, f"wallet {name}"))
        if signer.address != self._address_of(name, keystore):
            raise UserError(f"wallet {name}: the key inside is not of the address that the file states")
        return signer

    def export(self, name: str) -> str:
        """The keystore's text, still encrypted. Raises UserError for an unknown name or a bad file."""
        return json.dumps(self._read(name))

    def path(self, name: str) -> Path:
        """Where a wallet's file is or would be. Raises UserError for a name that can't be one."""
        if not _NAME.fullmatch(name):
            raise UserError(
                f"“{name}” can't be a wallet's name",
                hint="use up to 64 of A-Z, a-z, 0-9, - and _, the first a letter or digit",
            )
        return self.directory / f"{name}.json"

    def require_free(self, name: str) -> None:
        """Raise UserError where the name can't be one or is taken, before anyone types a passphrase."""
        path = self.path(name)
        if path.exists():
            raise _exists(name, path)

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path(name)
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                if stat.S_IMODE(mode) & 0o077:
                    raise UserError(f"wallet {name}: others can read {path}", hint=f"chmod 600 {path}")
                data = file.read(MAX_KEYSTORE + 1)
        except FileNotFoundError as exc:
            known = ", ".join(self.names()) or "none yet"
            raise UserError(f"there is no wallet “{name}” in {self.directory}", hint=f"wallets here: {known}") from exc
        except OSError as exc:
            raise UserError(f"wallet {name}: {path} can't be read: {exc.strerror}") from exc
        return _parse(data.decode(errors="replace"), f"wallet {name}: {path}")

    def _address_of(self, name: str, keystore: dict[str, Any]) -> Address:
        stated = keystore.get("address")
        if not isinstance(stated, str):
            raise UserError(f"wallet {name}: {self.path(name)} states no address")
        return address("0x" + stated.removeprefix("0x").lower(), f"wallet {name}")

    def _write(self, name: str, key: bytes, passphrase: str, *, light: bool) -> Address:
        self.require_free(name)
        path = self.path(name)
        if not passphrase:
            raise UserError("the passphrase is empty", hint="a keystore without one protects nothing")
        try:
            account = Account.from_key(key)
        except ValueError as exc:
            raise UserError("the key is not a secp256k1 private key") from exc
        keystore = Account.encrypt(key, passphrase, kdf="scrypt", iterations=LIGHT_SCRYPT_N if light else None)
        temporary = self.directory / f".{name}.{secrets.token_hex(8)}"
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory.chmod(0o700)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as exc:
            raise UserError(f"{self.directory} can't be written: {exc.strerror}", hint="choose another --home") from exc
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                json.dump(keystore, file)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, path)  # unlike a rename, fails where the name is taken
            except FileExistsError as exc:
                raise _exists(name, path) from exc
        finally:
            temporary.unlink()
        return Address(account.address)


def _exists(name: str, path: Path) -> UserError:
    return UserError(f"wallet {name} is already there: {path}", hint="choose another name; wallets are never replaced")


def _parse(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise UserError(f"{what} is not a V3 keystore: it is not JSON") from exc
    if not isinstance(value, dict) or value.get("version") != 3 or not isinstance(value.get("crypto"), dict):
        raise UserError(f"{what} is not a V3 keystore")
    return value


def _decrypt(keystore: dict[str, Any], passphrase: str, what: str) -> LocalAccount:
    try:
        account: LocalAccount = Account.from_key(Account.decrypt(keystore, passphrase))
    except ValueError as exc:
        if "MAC mismatch" in str(exc):  # eth-keyfile has no class of its own for this
            raise UserError(f"{what}: wrong passphrase", hint="try again") from None
        raise UserError(f"{what}: the keystore is damaged") from exc
    except (KeyError, TypeError, NotImplementedError) as exc:
        raise UserError(f"{what}: the keystore is damaged or of an unknown kind") from exc
    return account
