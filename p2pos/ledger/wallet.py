"""The wallets of one directory, a file of mode 0600 each: keystores, and addresses whose key is elsewhere.

A file is written whole or not at all, is never overwritten by another wallet, and is refused where others could read
it. A key is in memory only inside a `KeySigner`, and no log line, error or repr ever shows it. Start reading at
`Wallets.look`.
"""

import json
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from p2pos.content import strict_json
from p2pos.errors import UserError
from p2pos.ledger import keystore, mnemonic, naming, private_file
from p2pos.ledger.signer import KeySigner
from p2pos.ledger.typed_data import address
from p2pos.types import Address

FORMAT = "p2pos-wallet-1"
"""Of the files that hold no key."""
REMOVED = "removed"
"""The directory, among the wallets', of those that were removed."""


class Kind(StrEnum):
    """Where a wallet's key is."""

    KEYSTORE = "keystore"
    """Here, encrypted."""
    WATCH_ONLY = "watch-only"
    """Not known. The wallet can be looked at and given to."""
    EXTERNAL = "external"
    """With a program or device that is asked for each signature."""


@dataclass(frozen=True, slots=True)
class Wallet:
    """What a wallet's file says without its passphrase."""

    name: str
    kind: Kind
    address: Address
    end_point: str = ""
    """Of an external signer: http://…, or unix: and a socket's path."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that is no sound wallet, and why."""

    name: str
    """Of the wallet, or of the file where that can't be a wallet's."""
    error: UserError


class Wallets:
    """The wallets of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def names(self) -> list[str]:
        """Of all wallets here, in order, sound or not."""
        return sorted(path.stem for path in self._files() if naming.is_fit(path.stem))

    def look(self) -> tuple[list[Wallet], list[Refused]]:
        """All wallets that can be read, and those that can't with the reason, each in order of their names."""
        sound, refused = [], []
        for path in sorted(self._files()):
            if not naming.is_fit(path.stem):
                hint = f"p2pos wallet import NAME {path} brings a keystore in"
                refused.append(Refused(path.name, UserError(f"{path.name} can't be a wallet's name", hint=hint)))
                continue
            try:
                sound.append(self.get(path.stem))
            except UserError as exc:
                refused.append(Refused(path.stem, exc))
        return sound, refused

    def get(self, name: str) -> Wallet:
        """One wallet. Needs no passphrase. Raises UserError for an unknown name or a bad file."""
        value = self._read(name)
        if value.get("format") == FORMAT:
            return _keyless(name, value, f"wallet {name}: {self.path(name)}")
        parsed = self._keystore(name, value)
        return Wallet(name, Kind.KEYSTORE, keystore.stated_address(parsed, f"wallet {name}: {self.path(name)}"))

    def address(self, name: str) -> Address:
        """A wallet's address. Raises as `get`."""
        return self.get(name).address

    # ---- making

    def create(self, name: str, passphrase: str, *, light: bool = False) -> Address:
        """Make a wallet with a new random key.

        Args:
            name: what it is called here; see `naming`.
            passphrase: opens it; without it the items in the wallet are lost.
            light: use scrypt at `LIGHT_SCRYPT_N`, for wallets that hold nothing of value.

        Raises:
            UserError: a bad name, an empty passphrase, or a wallet that is already there.

        """
        return self._lock_up(name, keystore.new_key(), passphrase, light=light)

    def import_key(self, name: str, key: str | bytes, passphrase: str, *, light: bool = False) -> Address:
        """Make a wallet of a given private key: 32 bytes, or 64 hex digits with or without 0x. Raises UserError."""
        if isinstance(key, str):
            try:
                key = bytes.fromhex(key.strip().removeprefix("0x"))
            except ValueError:
                raise UserError("the key is not hex", hint="give 64 hex digits") from None
        if len(key) != 32:
            raise UserError(f"the key has {len(key)} bytes, not 32", hint="give 64 hex digits")
        return self._lock_up(name, key, passphrase, light=light)

    def import_keystore(self, name: str, text: str, passphrase: str, *, light: bool = False) -> Address:
        """Copy in a V3 keystore made elsewhere, after opening it. Raises UserError where it doesn't open."""
        account = keystore.decrypt(keystore.parse(text, "the keystore"), passphrase, f"wallet {name}")
        return self._lock_up(name, bytes(account.key), passphrase, light=light)

    def import_phrase(
        self,
        name: str,
        phrase: str,
        passphrase: str,
        *,
        extra: str = "",
        path: str = mnemonic.DEFAULT_PATH,
        light: bool = False,
    ) -> Address:
        """Make a wallet of the key at a path of a recovery phrase; the phrase is not kept. Raises UserError."""
        return self._lock_up(name, mnemonic.key(phrase, extra=extra, path=path), passphrase, light=light)

    def watch(self, name: str, of: Address) -> Wallet:
        """Remember an address whose key is not here. Raises UserError."""
        return self._write_keyless(Wallet(name, Kind.WATCH_ONLY, of))

    def add_external(self, name: str, of: Address, end_point: str) -> Wallet:
        """Remember an address for which an external signer signs. Raises UserError."""
        return self._write_keyless(Wallet(name, Kind.EXTERNAL, of, end_point))

    # ---- using

    def unlock(self, name: str, passphrase: str) -> KeySigner:
        """Open a keystore. Raises UserError: unknown name, bad file, wrong passphrase, or there is no key here."""
        parsed = self._own_keystore(name)
        signer = KeySigner(keystore.decrypt(parsed, passphrase, f"wallet {name}"))
        if signer.address != keystore.stated_address(parsed, f"wallet {name}"):
            raise UserError(f"wallet {name}: the key inside is not of the address that the file states")
        return signer

    def require_signing(self, name: str) -> Wallet:
        """A wallet that can sign. Raises UserError for one that is only watched, and as `get`."""
        found = self.get(name)
        if found.kind is Kind.WATCH_ONLY:
            raise UserError(
                f"wallet {name} is watch-only: its key is not here, so it can't sign",
                hint="sign where the key is, or bring it in under another name with p2pos wallet import",
            )
        return found

    def export(self, name: str) -> str:
        """The keystore's text, still encrypted. Raises UserError for an unknown name, a bad file or no keystore."""
        return json.dumps(self._own_keystore(name))

    def change_passphrase(self, name: str, old: str, new: str, *, light: bool = False) -> None:
        """Encrypt a keystore's key anew. At every moment the file opens with the old passphrase or with the new.

        Raises UserError; then nothing has changed.
        """
        signer = self.unlock(name, old)
        text = json.dumps(keystore.encrypt(signer.private_key(), new, light=light))
        # what is about to replace the only copy of a key must be seen to open
        keystore.decrypt(keystore.parse(text, "the new keystore"), new, "the new keystore")
        private_file.replace(self.path(name), text.encode())

    def rename(self, name: str, new: str) -> None:
        """Call a wallet otherwise. Raises UserError for an unknown name, a bad new one or one that is taken."""
        self._read(name)
        self.require_free(new)
        old_path, path = self.path(name), self.path(new)
        try:
            path.hardlink_to(old_path)  # unlike a rename, fails where the name is taken
        except FileExistsError as exc:
            raise _exists(new, path) from exc
        except OSError as exc:
            raise UserError(f"{path} can't be written: {exc.strerror}") from exc
        old_path.unlink()

    def remove(self, name: str) -> Path:
        """Take a wallet out of the list. Its file is moved aside, not destroyed; returns where it is now.

        Raises UserError for an unknown name, or where the file can't be moved.
        """
        path = self.path(name)
        if not path.exists():
            raise self._unknown(name)
        aside = self.directory / REMOVED / f"{name}-{time.time_ns()}.json"
        try:
            aside.parent.mkdir(mode=0o700, exist_ok=True)
            path.rename(aside)
        except OSError as exc:
            raise UserError(f"wallet {name}: {path} can't be moved: {exc.strerror}") from exc
        return aside

    def path(self, name: str) -> Path:
        """Where a wallet's file is or would be. Raises UserError for a name that can't be one."""
        naming.require_fit(name, "wallet's name")
        return self.directory / f"{name}.json"

    def require_free(self, name: str) -> None:
        """Raise UserError where the name can't be one or is taken, before anyone types a passphrase."""
        path = self.path(name)
        if path.exists():
            raise _exists(name, path)

    # ----

    def _files(self) -> list[Path]:
        return list(self.directory.glob("*.json")) if self.directory.is_dir() else []

    def _unknown(self, name: str) -> UserError:
        known = ", ".join(self.names()) or "none yet"
        return UserError(f"there is no wallet “{name}” in {self.directory}", hint=f"wallets here: {known}")

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path(name)
        try:
            data = private_file.read(path, keystore.MAX_BYTES, f"wallet {name}")
        except FileNotFoundError as exc:
            raise self._unknown(name) from exc
        try:
            value = strict_json.loads(data)
        except ValueError as exc:
            raise UserError(f"wallet {name}: {path} is not a wallet: it is not JSON") from exc
        if not isinstance(value, dict):
            raise UserError(f"wallet {name}: {path} is not a wallet")
        return value

    def _keystore(self, name: str, value: dict[str, Any]) -> keystore.Keystore:
        return keystore.parsed(value, f"wallet {name}: {self.path(name)}")

    def _own_keystore(self, name: str) -> keystore.Keystore:
        value = self._read(name)
        if value.get("format") == FORMAT:
            kind = _keyless(name, value, f"wallet {name}").kind
            raise UserError(f"wallet {name} is {kind}: its key is not here")
        return self._keystore(name, value)

    def _lock_up(self, name: str, key: bytes, passphrase: str, *, light: bool) -> Address:
        self.require_free(name)
        made = keystore.encrypt(key, passphrase, light=light)
        self._write(name, made)
        return keystore.stated_address(made, f"wallet {name}")

    def _write_keyless(self, wallet: Wallet) -> Wallet:
        self.require_free(wallet.name)
        value = {"format": FORMAT, "kind": wallet.kind.value, "address": wallet.address}
        self._write(wallet.name, value | ({"end_point": wallet.end_point} if wallet.end_point else {}))
        return wallet

    def _write(self, name: str, value: dict[str, Any]) -> None:
        path = self.path(name)
        if self.directory.is_dir():
            self.directory.chmod(0o700)
        try:
            private_file.write_new(path, json.dumps(value).encode())
        except FileExistsError as exc:
            raise _exists(name, path) from exc


def _exists(name: str, path: Path) -> UserError:
    return UserError(f"wallet {name} is already there: {path}", hint="choose another name; wallets are never replaced")


def _keyless(name: str, value: dict[str, Any], what: str) -> Wallet:
    """Read a file of `FORMAT`. Raises UserError."""
    kind, end_point = value.get("kind"), value.get("end_point", "")
    if kind not in {Kind.WATCH_ONLY.value, Kind.EXTERNAL.value} or not isinstance(end_point, str):
        raise UserError(f"{what} is damaged", hint="remove it, and add the address again")
    if (kind == Kind.EXTERNAL.value) != bool(end_point):
        raise UserError(f"{what} is damaged", hint="remove it, and add the address again")
    return Wallet(name, Kind(kind), address(value.get("address"), what), end_point)
