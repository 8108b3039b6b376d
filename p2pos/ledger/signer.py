"""Who signs: a key that is in memory, a device or program elsewhere, or something that asks a person first.

Whatever signs is a `Signer`. The chain, the relayer and the commands know no more of it than this.
"""

from typing import Any, NamedTuple, Protocol

import coincurve
from eth_account.signers.local import LocalAccount

from p2pos.ledger import transaction
from p2pos.ledger.typed_data import Domain, Signable, digest
from p2pos.types import Address


class SignedTransaction(NamedTuple):
    """A transaction ready to send."""

    raw: bytes
    hash: str
    """0x and 64 hex digits."""


class Signer(Protocol):
    """What can sign for one address."""

    @property
    def address(self) -> Address:
        """Whose signatures these are."""
        ...

    def sign_typed(self, domain: Domain, struct: Signable) -> bytes:
        """The 65 bytes (r, s, v; v is 27 or 28) over the struct's EIP-712 digest."""
        ...

    def sign_transaction(self, fields: dict[str, Any]) -> SignedTransaction:
        """Sign an EIP-1559 transaction, given in the fields of `Chain.transaction_fields`."""
        ...


class KeySigner:
    """A key in memory. No log line, error or repr shows it."""

    def __init__(self, account: LocalAccount) -> None:
        self._key = coincurve.PrivateKey(bytes(account.key))
        self._address = Address(account.address)

    @property
    def address(self) -> Address:
        """The key's address."""
        return self._address

    def sign_typed(self, domain: Domain, struct: Signable) -> bytes:
        """The 65 bytes (r, s, v) over the struct's EIP-712 digest."""
        return self._sign(digest(domain, struct))

    def sign_transaction(self, fields: dict[str, Any]) -> SignedTransaction:
        """Sign an EIP-1559 transaction, given in the fields of JSON-RPC."""
        items = transaction.unsigned(fields)
        return SignedTransaction(*transaction.signed(items, self._sign(transaction.signing_hash(items))))

    def _sign(self, digest_: bytes) -> bytes:
        found: bytes = self._key.sign_recoverable(digest_, hasher=None)
        return found[:64] + bytes([27 + found[64]])

    def private_key(self) -> bytes:
        """The 32 bytes themselves, to encrypt them anew."""
        return bytes(self._key.secret)

    def __repr__(self) -> str:
        return f"KeySigner({self.address})"
