"""A node's ed25519 key: made once, kept in a file that only its owner can read, and what it signs.

The file holds libp2p's protobuf of the private key (68 bytes), as other libp2p implementations write it.
"""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Self

from libp2p.crypto.ed25519 import Ed25519PrivateKey, Ed25519PublicKey, create_new_key_pair
from libp2p.crypto.keys import KeyPair
from libp2p.peer.id import ID

from p2pos.errors import PeerError, UserError
from p2pos.types import PeerId

_PRIVATE_PREFIX = bytes.fromhex("08011240")
"""Protobuf of libp2p's `PrivateKey`: field 1 (type) is 1, ed25519; field 2 has 64 bytes: seed, then public key."""
_PUBLIC_PREFIX = bytes.fromhex("08011220")
"""Protobuf of libp2p's `PublicKey`: field 1 (type) is 1, ed25519; field 2 has 32 bytes."""
_SEED_BYTES = 32
_PUBLIC_BYTES = 32
_SIGNATURE_BYTES = 64


class Identity:
    """An ed25519 key pair and the peer id that follows from it."""

    def __init__(self, seed: bytes) -> None:
        """Take the 32 bytes that the key is derived from."""
        private = Ed25519PrivateKey.from_bytes(seed)
        self.key_pair = KeyPair(private, private.get_public_key())
        self.peer = PeerId(str(ID.from_pubkey(self.key_pair.public_key)))
        self.public_key = _PUBLIC_PREFIX + bytes(self.key_pair.public_key.to_bytes())
        """libp2p's protobuf of the public key, 36 bytes."""

    @classmethod
    def new(cls) -> Self:
        """A fresh identity that is kept nowhere."""
        return cls(bytes(create_new_key_pair().private_key.to_bytes()))

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """The identity in this file; where there is no such file, a new one is written there first (mode 0600).

        Two processes that start at once on one path get the same identity. Raises UserError where the file can
        be read by others, is damaged, or can't be read or written.
        """
        try:
            if not path.exists():
                _write_new(path, cls.new()._encode())
            return cls._decode(_read_private(path), path)
        except OSError as exc:
            raise UserError(f"the node's key {path} can't be used: {exc.strerror or exc}") from exc

    def sign(self, body: bytes) -> bytes:
        """The 64 bytes of the ed25519 signature over these bytes."""
        return bytes(self.key_pair.private_key.sign(body))

    def _encode(self) -> bytes:
        seed, public = self.key_pair.private_key.to_bytes(), self.key_pair.public_key.to_bytes()
        return _PRIVATE_PREFIX + bytes(seed) + bytes(public)

    @classmethod
    def _decode(cls, data: bytes, path: Path) -> Self:
        prefix, seed = data[: len(_PRIVATE_PREFIX)], data[len(_PRIVATE_PREFIX) :][:_SEED_BYTES]
        if prefix == _PRIVATE_PREFIX and len(seed) == _SEED_BYTES:
            identity = cls(seed)
            if identity._encode() == data:
                return identity
        raise UserError(
            f"the node's key {path} is damaged", hint="restore it from a copy, or remove it to get a new identity"
        )


def verify(public_key: bytes, body: bytes, signature: bytes) -> PeerId:
    """The peer whose key made this signature over `body`.

    Args:
        public_key: libp2p's protobuf of an ed25519 public key, 36 bytes; no other encoding of it is taken, so
            that one key has one peer id.
        body: what was signed.
        signature: 64 bytes.

    Raises PeerError where the key is no such key or did not make the signature.

    """
    raw = public_key[len(_PUBLIC_PREFIX) :]
    if public_key[: len(_PUBLIC_PREFIX)] != _PUBLIC_PREFIX or len(raw) != _PUBLIC_BYTES:
        raise PeerError("", "signed with a key that is not ed25519")
    key = Ed25519PublicKey.from_bytes(raw)
    peer = PeerId(str(ID.from_pubkey(key)))
    if len(signature) != _SIGNATURE_BYTES or not key.verify(body, signature):
        raise PeerError(peer, "sent a signature that its key did not make")
    return peer


def _write_new(path: Path, data: bytes) -> None:
    """Put `data` at `path` whole or not at all; what another process put there first is left alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()


def _read_private(path: Path) -> bytes:
    """The file's bytes. Raises UserError where anyone but its owner has a right on it."""
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UserError(f"the node's key {path} can be used by others (mode {mode:04o})", hint=f"chmod 600 {path}")
        return file.read(_SEED_BYTES * 4)
