"""CIDs: version 1, raw codec, sha2-256, base32. The only importer of multiformats.

The 32 bytes of the digest are what stands on chain; `from_digest` turns them back into the CID.
"""

import hashlib

from multiformats import CID

from p2pos.errors import PeerError, UserError
from p2pos.types import Cid


def of(data: bytes) -> Cid:
    """The CID of these bytes."""
    return from_digest(hashlib.sha256(data).digest())


def from_digest(digest: bytes) -> Cid:
    """The CID whose sha2-256 digest (32 bytes) this is."""
    return Cid(str(CID("base32", 1, "raw", ("sha2-256", digest))))


def digest(cid: str) -> bytes:
    """The 32 bytes of a CID's digest. Raises UserError where it isn't a CIDv1 of raw bytes by sha2-256."""
    try:
        parsed = CID.decode(cid)
    except (ValueError, KeyError) as exc:
        raise UserError(f"“{cid}” is not a CID") from exc
    if parsed.version != 1 or parsed.codec.name != "raw" or parsed.hashfun.name != "sha2-256":
        raise UserError(f"“{cid}” is not a CIDv1 of raw bytes by sha2-256")
    return bytes(parsed.raw_digest)


def check(data: bytes, cid: Cid, *, peer: str) -> bytes:
    """Return the bytes where they hash to the CID. Raises PeerError, at `peer`'s fault, where they don't."""
    if of(data) != cid:
        raise PeerError(peer, "sent bytes that are not what was asked for", cid=cid)
    return data
