"""CIDs: version 1, sha2-256, base32, of raw bytes or of a node that lists a file's pieces (`unixfs`). Pure.

Of the many forms a CID can have this is one, whole in 36 bytes: the version, the codec, what hashes, how long, and the
digest. One form only, so that two names are equal where their texts are. The 32 bytes of a raw block's digest are what
stands on chain; `from_digest` turns them back into the CID.
"""

import base64
import binascii
import hashlib
import re
from typing import Literal, TypeAlias

from p2pos.errors import PeerError, UserError
from p2pos.types import Cid

Codec: TypeAlias = Literal["raw", "dag-pb"]

CODES: dict[Codec, int] = {"raw": 0x55, "dag-pb": 0x70}
"""From the multicodec table."""
BYTES = 36
"""Of a CID: 1 version, 1 codec, 1 hash function, 1 length, 32 digest."""
_SHA256 = b"\x12\x20"
"""The multihash's head: sha2-256, 32 bytes."""
_HEADS = {bytes((1, code)) + _SHA256: codec for codec, code in CODES.items()}
_TEXT = re.compile(r"b[a-z2-7]{58}")
"""Multibase's letter for base32, and 36 bytes in it without padding."""
_LOOKS_LIKE_ONE = re.compile(r"[bBfFzZuUmQ][A-Za-z0-9_-]{40,120}")


def of(data: bytes | memoryview, codec: Codec = "raw") -> Cid:
    """The CID of these bytes."""
    return from_digest(hashlib.sha256(data).digest(), codec)


def from_digest(digest: bytes, codec: Codec = "raw") -> Cid:
    """The CID whose sha2-256 digest (32 bytes) this is."""
    return decode(bytes((1, CODES[codec])) + _SHA256 + digest)


def decode(data: bytes) -> Cid:
    """The CID in 36 bytes. Raises ValueError where they are none of ours."""
    if len(data) != BYTES or data[:4] not in _HEADS:
        raise ValueError("not a CIDv1 of raw bytes or of a dag-pb node by sha2-256")
    return Cid("b" + base64.b32encode(data).decode().lower().rstrip("="))


def encode(cid: str) -> bytes:
    """Its 36 bytes. Raises UserError where it isn't a CIDv1 of raw bytes or of a node, by sha2-256, in base32."""
    if not _TEXT.fullmatch(cid):
        if _LOOKS_LIKE_ONE.fullmatch(cid):
            raise UserError(f"“{cid}” is not a CIDv1 by sha2-256, in base32")
        raise UserError(f"“{cid[:100]}” is not a CID")
    try:
        data = base64.b32decode(cid[1:].upper() + "=" * 6)
        if decode(data) != cid:  # base32's last letter has bits that mean nothing
            raise UserError(f"“{cid}” is not a CID")
    except (ValueError, binascii.Error) as exc:
        raise UserError(f"“{cid}” is not a CIDv1 of raw bytes or of a file's node by sha2-256") from exc
    return data


def codec(cid: str) -> Codec:
    """What it names. Raises UserError where it isn't one of ours."""
    return _HEADS[encode(cid)[:4]]


def digest(cid: str) -> bytes:
    """The 32 bytes of the digest of raw bytes' CID. Raises UserError where it isn't one."""
    data = encode(cid)
    if _HEADS[data[:4]] != "raw":
        raise UserError(f"“{cid}” is not a CIDv1 of raw bytes by sha2-256")
    return data[4:]


def is_of(cid: Cid, data: bytes | memoryview) -> bool:
    """Whether these are the bytes that it names. Raises UserError where it isn't one of ours."""
    return encode(cid)[4:] == hashlib.sha256(data).digest()


def check(data: bytes, cid: Cid, *, peer: str) -> bytes:
    """Return the bytes where they hash to the CID. Raises PeerError, at `peer`'s fault, where they don't."""
    if not is_of(cid, data):
        raise PeerError(peer, "sent bytes that are not what was asked for", cid=cid)
    return data
