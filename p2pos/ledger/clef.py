"""What is said to an external signer and believed of its answers: Clef's JSON-RPC, as values. Pure.

Requests follow go-ethereum's `cmd/clef` (external API 6.1.0): numbers in hex, a typed struct as EIP-712's JSON. An
answer counts only where it is a signature of the right account over exactly what was asked.
"""

import re
from collections.abc import Mapping
from typing import Any

import rlp
from eth_utils.address import to_checksum_address

from p2pos.errors import PeerError
from p2pos.ledger import transaction as transactions
from p2pos.ledger.signatures import recover
from p2pos.ledger.signer import SignedTransaction
from p2pos.ledger.typed_data import NAME, VERSION, Domain, Signable, digest
from p2pos.types import Address

MAX_TRANSACTION = 512 << 10
"""Bytes of a signed transaction. Nodes take 128 KiB."""
_DOMAIN_FIELDS = [
    {"name": "name", "type": "string"},
    {"name": "version", "type": "string"},
    {"name": "chainId", "type": "uint256"},
    {"name": "verifyingContract", "type": "address"},
]
_TYPE = re.compile(r"(\w+)\(([^)]*)\)")


def typed_data(domain: Domain, struct: Signable) -> dict[str, Any]:
    """EIP-712's JSON of a struct, for `account_signTypedData`."""
    return {
        "types": {"EIP712Domain": _DOMAIN_FIELDS, **_types(type(struct).TYPE)},
        "primaryType": type(struct).__name__,
        "domain": {
            "name": NAME,
            "version": VERSION,
            "chainId": hex(domain.chain_id),
            "verifyingContract": domain.contract,
        },
        "message": struct.message(),
    }


def transaction(fields: Mapping[str, Any], sender: Address) -> dict[str, Any]:
    """The argument of `account_signTransaction`, from the fields of `Chain.transaction_fields`."""
    numbers = ("chainId", "nonce", "value", "gas", "maxFeePerGas", "maxPriorityFeePerGas")
    found: dict[str, Any] = {name: hex(int(fields[name])) for name in numbers}
    found |= {"from": sender, "input": "0x" + bytes(fields["data"]).hex(), "accessList": []}
    return found | ({"to": fields["to"]} if fields["to"] else {})


def accounts(answer: Any, signer: str) -> list[Address]:
    """What `account_list` answered: addresses, or in older versions objects that have one. Raises PeerError."""
    listed = answer if isinstance(answer, list) else [None]
    texts = [one.get("address") if isinstance(one, dict) else one for one in listed]
    try:
        return [Address(to_checksum_address(text)) for text in texts]
    except (TypeError, ValueError) as exc:
        raise PeerError(signer, f"{signer} answered with a list of accounts that is none") from exc


def signature(answer: Any, domain: Domain, struct: Signable, of: Address, signer: str) -> bytes:
    """The 65 bytes of `account_signTypedData`'s answer. Raises PeerError where it is no signature by `of`."""
    found = _bytes(answer, 65)
    if found is not None and len(found) == 65 and found[64] < 27:
        found = found[:64] + bytes([found[64] + 27])  # some devices say 0 and 1 for 27 and 28
    by = recover(digest(domain, struct), found) if found is not None else None
    if found is None or by != of:
        raise _not_by(signer, of, by)
    return found


def signed_transaction(answer: Any, fields: Mapping[str, Any], of: Address, signer: str) -> SignedTransaction:
    """The transaction of `account_signTransaction`'s answer.

    Raises PeerError where it is not the one that was asked for, or not signed by `of`.
    """
    raw = _bytes(answer.get("raw") if isinstance(answer, dict) else answer, MAX_TRANSACTION)
    parts = _parts(raw) if raw else None
    if raw is None or parts is None:
        raise PeerError(signer, f"{signer} answered with something that is no EIP-1559 transaction: nothing was sent")
    items = transactions.unsigned(fields)
    changed = [name for name, part, item in zip(_NAMES, parts, items, strict=False) if part != rlp.decode(item)]
    if changed:
        raise PeerError(
            signer,
            f"{signer} changed the transaction's {', '.join(changed)}: nothing was sent",
            hint="agree to it as it is, or refuse it",
        )
    parity, r, s = (int.from_bytes(part, "big") for part in parts[len(items) :])
    if max(r, s) >= 1 << 256 or parity > 1:
        raise _not_by(signer, of, None)
    signature_ = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([27 + parity])
    by = recover(transactions.signing_hash(items), signature_)
    made = SignedTransaction(*transactions.signed(items, signature_))
    if by != of or made.raw != raw:
        raise _not_by(signer, of, by if by != of else None)
    return made


_NAMES = ("chain id", "nonce", "priority fee", "fee cap", "gas limit", "receiver", "value", "data", "access list")


def _parts(raw: bytes) -> list[Any] | None:
    if raw[0] != 2:  # EIP-1559's type byte
        return None
    try:
        found = rlp.decode(raw[1:])
    except (rlp.exceptions.RLPException, RecursionError):
        return None
    if not isinstance(found, list) or len(found) != len(_NAMES) + 3:
        return None
    found = [list(part) if isinstance(part, list | tuple) else part for part in found]
    return found if all(isinstance(part, bytes) for part in (*found[:8], *found[9:])) else None


def _types(text: str) -> dict[str, list[dict[str, str]]]:
    """EIP-712's encodeType, taken apart: fields by the name of their struct."""
    found = {}
    for name, fields in _TYPE.findall(text):
        pairs = [field.split(" ") for field in fields.split(",")]
        found[name] = [{"name": field, "type": kind} for kind, field in pairs]
    return found


def _bytes(answer: Any, most: int) -> bytes | None:
    if not isinstance(answer, str) or not answer.startswith("0x") or len(answer) > 2 + 2 * most:
        return None
    try:
        return bytes.fromhex(answer[2:])
    except ValueError:
        return None


def _not_by(signer: str, of: Address, by: Address | None) -> PeerError:
    return PeerError(
        signer,
        f"{signer} did not sign with {of}"
        + (f" but with {by}" if by else ": its answer is no valid signature")
        + "; nothing was sent",
        hint="choose the right account there",
    )
