"""A private swarm: who hasn't got its key can't exchange a word with its nodes.

The cipher is the one of other libp2p implementations (libp2p's specification "Private Networks"): each side sends 24
random bytes, then everything under XSalsa20 with the key and these bytes. It hides the swarm and keeps others out; that
nothing is forged or read is still noise's work.
"""

import secrets
import struct
from collections.abc import Callable
from typing import Any

from Crypto.Cipher import Salsa20
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.connection.raw_connection import RawConnection

NONCE_BYTES = 24
_GREETING = b"\x13/multistream/1.0.0\n"
"""What either end says first once the cipher is off; a connection whose first words are others has another key."""
_SIGMA = struct.unpack("<4I", b"expand 32-byte k")
_DOUBLE_ROUNDS = 10
_WORD = 0xFFFFFFFF
_QUARTERS = (
    *((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)),  # columns
    *((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)),  # rows
)


class SwarmKeyError(RawConnError):  # type: ignore[misc]  # the library ships no types that mypy follows
    """The other end has another swarm key, or none."""


def hsalsa20(key: bytes, nonce: bytes) -> bytes:
    """The 32 bytes that XSalsa20 takes for a key (Bernstein, "Extending the Salsa20 nonce", 2011).

    Args:
        key: 32 bytes.
        nonce: the first 16 of its 24.

    """
    k, n = struct.unpack("<8I", key), struct.unpack("<4I", nonce)
    x = [_SIGMA[0], *k[:4], _SIGMA[1], *n, _SIGMA[2], *k[4:], _SIGMA[3]]
    for _ in range(_DOUBLE_ROUNDS):
        for a, b, c, d in _QUARTERS:
            x[b] ^= _rotated(x[a] + x[d], 7)
            x[c] ^= _rotated(x[b] + x[a], 9)
            x[d] ^= _rotated(x[c] + x[b], 13)
            x[a] ^= _rotated(x[d] + x[c], 18)
    return struct.pack("<8I", *(x[index] for index in (0, 5, 10, 15, 6, 7, 8, 9)))


def _rotated(word: int, bits: int) -> int:
    word &= _WORD
    return (word << bits | word >> 32 - bits) & _WORD


def _cipher(key: bytes, nonce: bytes) -> Callable[[bytes], bytes]:
    """XSalsa20 under this key: what to put each next piece of a stream through."""
    cipher = Salsa20.new(key=hsalsa20(key, nonce[:16]), nonce=nonce[16:])
    return lambda data: bytes(cipher.encrypt(data))


class PrivateConnection(RawConnection):  # type: ignore[misc]  # the library ships no types that mypy follows
    """A connection under a swarm's key, in the place of the library's `PskConn`.

    Raises SwarmKeyError where the other end's first words show that it has another key.
    """

    def __init__(self, conn: Any, key: bytes) -> None:
        self._conn = conn
        self._key = key
        self._sealed: Callable[[bytes], bytes] | None = None
        self._opened: Callable[[bytes], bytes] | None = None
        self._greeting = bytearray()
        """The first bytes that came, until they are as many as a greeting has."""

    def __getattr__(self, name: str) -> Any:
        """What this class doesn't change is the connection's below."""
        return getattr(self._conn, name)

    async def write(self, data: bytes) -> None:
        """Send bytes, at first behind the nonce."""
        nonce = b""
        if self._sealed is None:
            nonce = secrets.token_bytes(NONCE_BYTES)
            self._sealed = _cipher(self._key, nonce)
        await self._conn.write(nonce + self._sealed(data))

    async def read(self, n: int | None = None) -> bytes:
        """At least one byte, at most `n`; b"" at the end."""
        if self._opened is None:
            nonce = bytearray()
            while len(nonce) < NONCE_BYTES:
                piece = await self._conn.read(NONCE_BYTES - len(nonce))
                nonce += piece
                if not piece or nonce.startswith(_GREETING):
                    raise SwarmKeyError("the other end is in no private swarm")
            self._opened = _cipher(self._key, bytes(nonce))
        data = await self._conn.read(n)
        if not data:
            return b""
        plain = self._opened(data)
        if len(self._greeting) < len(_GREETING):
            self._greeting += plain[: len(_GREETING) - len(self._greeting)]
            if not _GREETING.startswith(bytes(self._greeting)):
                raise SwarmKeyError("the other end has another swarm key")
        return plain

    async def close(self) -> None:
        """Close the connection below."""
        await self._conn.close()


def protected(conn: Any, psk: str) -> PrivateConnection:
    """The library's `new_protected_conn`: a connection under the key of 64 hexadecimal digits."""
    return PrivateConnection(conn, bytes.fromhex(psk))
