"""Whose signature it is. Pure."""

import functools

import coincurve
from eth_hash.auto import keccak

from p2pos.ledger.abi import checksummed
from p2pos.types import Address

_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0  # secp256k1's n / 2, rounded down


def recover(digest: bytes, signature: bytes) -> Address | None:
    """Who signed this digest, or None where the bytes are no signature.

    High s and a v other than 27 and 28 are refused as the contract refuses them (EIP-2; OpenZeppelin ECDSA).
    """
    if len(signature) != 65 or signature[64] not in {27, 28}:
        return None
    if int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        return None
    try:
        key = coincurve.PublicKey.from_signature_and_message(
            signature[:64] + bytes([signature[64] - 27]), digest, hasher=None
        )
    except ValueError:  # r or s out of range, or no point of the curve
        return None
    return _address_of(key.format(compressed=False))


@functools.lru_cache(maxsize=1 << 14)  # 4 MB; whoever signs once is likely to sign again
def _address_of(key: bytes) -> Address:
    return checksummed(keccak(key[1:])[12:].hex())
