"""Which nonce to sign with next, off line.

The contract keeps an owner's nonces as bits, 256 to a word of storage. A word's first use costs whoever submits
22,100 gas, the later ones 5,000 (EIP-2929, EIP-3529), so nonces are taken one after another from a word. Each book
begins at a word of its own, at random among 2¹²⁸: two machines with the same wallet don't meet.
"""

import fcntl
import json
import os
import secrets
from pathlib import Path

from p2pos.errors import UserError
from p2pos.ledger.typed_data import MAX_UINT256, Domain
from p2pos.types import Address

WORD = 256


class NonceBook:
    """The nonces that wallets of one home have signed with, one small file for each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def take(self, domain: Domain, owner: Address) -> int:
        """A nonce that this home has not signed with before. It counts as used from here on, whatever comes of it.

        Raises UserError where the book can't be read.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(domain, owner)
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            nonce = _read(file.read(), path)
            file.seek(0)
            file.truncate()
            json.dump({"next": str(nonce + 1)}, file)
            file.flush()
            os.fsync(file.fileno())
        return nonce

    def gave(self, domain: Domain, owner: Address, nonce: int) -> bool:
        """Whether this home has signed with a nonce, as far as it knows: of the word in use and no earlier one.

        Raises UserError where the book can't be read.
        """
        path = self._path(domain, owner)
        try:
            following = _read(path.read_text(encoding="ascii"), path)
        except FileNotFoundError:
            return False
        return following - following % WORD <= nonce < following

    def _path(self, domain: Domain, owner: Address) -> Path:
        return self._directory / f"{domain.chain_id}-{domain.contract}-{owner}.json"


def random_nonce() -> int:
    """The first nonce of a word at random. Two in a million books meet with a chance of one in 10²⁶."""
    return secrets.randbits(128) * WORD


def _read(text: str, path: Path) -> int:
    if not text:  # new, or a write that a crash cut off: a fresh word is always right
        return random_nonce()
    try:
        nonce = int(json.loads(text)["next"])
    except (ValueError, KeyError, TypeError) as exc:
        raise UserError(f"{path} is damaged", hint="remove it; a new one is begun") from exc
    return nonce if nonce % WORD and 0 < nonce < MAX_UINT256 else random_nonce()
