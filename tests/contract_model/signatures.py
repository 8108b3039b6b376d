"""Who signed what. Pure, but for the keys.

The model doesn't verify a signature: it remembers which were made. One that nobody made is nobody's.
"""

from coincurve import PrivateKey
from eth_hash.auto import keccak

from tests.contract_model.intents import Intent, digest
from tests.contract_model.puppets import puppet_signature


class Key:
    """A secp256k1 key and its address."""

    def __init__(self, name: str) -> None:
        self.secret = keccak(name.encode())
        self._key = PrivateKey(self.secret)
        self.address = int.from_bytes(keccak(self._key.public_key.format(compressed=False)[1:])[12:], "big")

    def sign(self, message: bytes) -> bytes:
        """65 bytes r, s, v over a digest; s in the lower half."""
        signature = self._key.sign_recoverable(message, hasher=None)
        return signature[:64] + bytes((signature[64] + 27,))


class Signatures:
    """Every signature made so far for one contract on one chain."""

    def __init__(self, separator: bytes) -> None:
        self.separator = separator
        self._by_key: dict[bytes, tuple[int, type, Intent]] = {}  # a tuple equals one of another kind
        self._by_puppet: dict[bytes, tuple[type, Intent]] = {}

    def sign(self, key: Key, intent: Intent) -> bytes:
        """The key's signature of an intent."""
        signature = key.sign(digest(self.separator, intent))
        self._by_key[signature] = key.address, type(intent), intent
        return signature

    def sign_as_puppet(self, intent: Intent) -> bytes:
        """What an honest puppet takes for its signature of an intent."""
        signature = puppet_signature(digest(self.separator, intent))
        self._by_puppet[signature] = type(intent), intent
        return signature

    def is_by_key(self, signer: int, intent: Intent, signature: bytes) -> bool:
        """Whether the key behind this address made the signature, over this."""
        return self._by_key.get(signature) == (signer, type(intent), intent)

    def suits_a_puppet(self, intent: Intent, signature: bytes) -> bool:
        """Whether an honest puppet takes it."""
        return self._by_puppet.get(signature) == (type(intent), intent)
