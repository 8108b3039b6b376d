"""A signed intent as a file, what can be wrong with it, and what it means in one sentence. Pure.

An intent is signed off line and submitted by anyone. Before a relayer pays for it, `check` finds every fault that
can be seen without a chain; the rest (a used nonce, a balance too low) the contract itself says.
"""

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

from p2pos.errors import UserError
from p2pos.ledger.typed_data import NAME, TYPES, VERSION, Domain, Signable, Transfer, address, digest, unsigned
from p2pos.types import Address

FORMAT = "p2pos-intent-1"
MAX_BYTES = 16 << 10
"""Of an intent's JSON. The fields take under 1 KiB; the rest is room for a contract wallet's signature."""
MAX_SIGNATURE = 4 << 10
"""Bytes. An ERC-1271 wallet with a dozen owners needs under 1 KiB."""

_LAST_DATE = 253_402_300_799  # 9999-12-31T23:59:59Z, the last second that datetime can write


class Refusal(StrEnum):
    """Why an intent is not taken; each has its own message and, over HTTP, its own code."""

    MALFORMED = "malformed"
    WRONG_CHAIN = "wrong-chain"
    WRONG_CONTRACT = "wrong-contract"
    TAMPERED = "tampered"
    EXPIRED = "expired"
    WRONG_SIGNER = "wrong-signer"
    REPLAYED = "replayed"
    CONFLICT = "conflict"
    BALANCE = "balance"
    REVERTED = "reverted"


class RefusedError(UserError):
    """An intent that would not be carried out. Nothing was submitted and nothing is lost."""

    def __init__(self, refusal: Refusal, message: str, *, hint: str = "", **fields: Any) -> None:
        super().__init__(message, hint=hint, refusal=refusal.value, **fields)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class SignedIntent:
    """A struct, where it counts, the owner's signature, and the digest that the file states."""

    domain: Domain
    struct: Signable
    signature: bytes
    """65 bytes (r, s, v) of an ordinary wallet, or whatever a contract wallet's ERC-1271 takes."""
    stated_digest: bytes

    @property
    def digest(self) -> bytes:
        """The digest of the fields as they are."""
        return digest(self.domain, self.struct)

    @property
    def id(self) -> str:
        """The name by which a relayer knows it: the digest in hex."""
        return "0x" + self.stated_digest.hex()

    @property
    def kind(self) -> str:
        """`Transfer` or `Lock`."""
        return type(self.struct).__name__

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        return {
            "format": FORMAT,
            "type": self.kind,
            "domain": {
                "name": NAME,
                "version": VERSION,
                "chainId": self.domain.chain_id,
                "verifyingContract": self.domain.contract,
            },
            "message": self.struct.message(),
            "signature": "0x" + self.signature.hex(),
            "digest": self.id,
        }

    @classmethod
    def parse(cls, data: str | bytes) -> Self:
        """Read an intent file. Raises RefusedError (malformed) with the field and its fault."""
        if len(data) > MAX_BYTES:
            raise RefusedError(Refusal.MALFORMED, f"the intent is larger than {MAX_BYTES} bytes")
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as exc:
            raise RefusedError(Refusal.MALFORMED, "the intent is not JSON", hint="sign it again") from exc
        return cls.from_json(value)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """As `parse`, of JSON that is already decoded."""
        fields = _mapping(value, "the intent")
        if fields.get("format") != FORMAT:
            raise RefusedError(Refusal.MALFORMED, f"this is not an intent: its “format” is not {FORMAT}")
        kind = fields.get("type")
        if not isinstance(kind, str) or kind not in TYPES:
            raise RefusedError(Refusal.MALFORMED, f"the intent's type is not one of {', '.join(TYPES)}")
        stated = _mapping(fields.get("domain"), "the intent's domain")
        if stated.get("name") != NAME or stated.get("version") != VERSION:
            raise RefusedError(Refusal.MALFORMED, f"the intent was not signed for {NAME} version {VERSION}")
        try:
            domain = Domain(
                unsigned(stated.get("chainId"), "chainId"), address(stated.get("verifyingContract"), "contract")
            )
            struct = TYPES[kind].from_message(_mapping(fields.get("message"), "the intent's message"))
        except RefusedError:
            raise
        except UserError as exc:
            raise RefusedError(Refusal.MALFORMED, exc.message, hint=exc.hint) from exc
        signature = _hex(fields.get("signature"), "signature")
        if not 0 < len(signature) <= MAX_SIGNATURE:
            raise RefusedError(Refusal.MALFORMED, f"the signature has {len(signature)} bytes")
        named = _hex(fields.get("digest"), "digest")
        if len(named) != 32:
            raise RefusedError(Refusal.MALFORMED, f"the digest has {len(named)} bytes, not 32")
        return cls(domain, struct, signature, named)


def check(intent: SignedIntent, domain: Domain, *, now_s: float, contract_wallet: bool = False) -> None:
    """Find what is wrong with an intent without asking a chain.

    Args:
        intent: what was handed in.
        domain: the chain and contract it is handed to.
        now_s: seconds since the epoch, the chain's where it is known.
        contract_wallet: the owner is a contract, which alone can say whether the signature is good.

    Raises:
        RefusedError: wrong chain, wrong contract, tampered, expired or wrong signer, looked for in this order.

    """
    if intent.domain.chain_id != domain.chain_id:
        raise RefusedError(
            Refusal.WRONG_CHAIN,
            f"the intent was signed for chain {intent.domain.chain_id}, this is chain {domain.chain_id}",
            hint="submit it to a relayer of that chain",
        )
    if intent.domain.contract != domain.contract:
        raise RefusedError(
            Refusal.WRONG_CONTRACT,
            f"the intent was signed for contract {intent.domain.contract}, this is {domain.contract}",
            hint="submit it where that contract is served",
        )
    if intent.stated_digest != intent.digest:
        raise RefusedError(
            Refusal.TAMPERED,
            "the intent was changed after it was signed: its fields don't give the digest it states",
            hint="ask its owner to sign again",
        )
    if now_s > intent.struct.deadline:
        raise RefusedError(
            Refusal.EXPIRED,
            f"the intent expired at {when(intent.struct.deadline)}",
            hint="ask its owner to sign again",
            deadline=intent.struct.deadline,
        )
    if not contract_wallet:
        signer = recover(intent.digest, intent.signature)
        if signer != intent.struct.owner:
            raise RefusedError(
                Refusal.WRONG_SIGNER,
                f"the signature is not by the owner {intent.struct.owner}"
                + (f" but by {signer}" if signer else ": it is no valid signature"),
                hint="only the owner's wallet can sign it",
            )


def recover(digest_: bytes, signature: bytes) -> Address | None:
    """Who signed this digest, or None where the bytes are no signature.

    High s and a v other than 27 and 28 are refused as the contract refuses them (EIP-2; OpenZeppelin ECDSA).
    """
    if len(signature) != 65 or signature[64] not in {27, 28}:
        return None
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    if s > _HALF_ORDER:
        return None
    try:
        key = Signature(vrs=(signature[64] - 27, r, s)).recover_public_key_from_msg_hash(digest_)
    except (BadSignature, ValidationError):
        return None
    return Address(key.to_checksum_address())


_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0  # secp256k1's n / 2, rounded down


def sentence(struct: Signable, *, names: Mapping[Address, str], items: Mapping[int, str]) -> str:
    """What is signed, in one sentence that a person can agree to.

    Args:
        struct: what is to be signed.
        names: of addresses that are known; others are shown whole, because a shortened one can be imitated.
        items: of classes that are known, by id.

    """
    item = items.get(struct.id, f"item {hex(struct.id)}")
    owner = names.get(struct.owner, struct.owner)
    until = f"anyone may submit this until {when(struct.deadline)}"
    if isinstance(struct, Transfer) and struct.owner == struct.to and not struct.amount:
        return f"{owner} uses up nonce {struct.nonce}, so that nothing else signed with it takes effect; {until}"
    if isinstance(struct, Transfer):
        return f"{owner} gives {names.get(struct.to, struct.to)} {struct.amount} × {item}; {until}"
    world = names.get(struct.world, struct.world)
    return f"{owner} lets world {world} hold {struct.amount} × {item} in place until {when(struct.until)}; {until}"


def when(second: int) -> str:
    """A second since the epoch as a person reads it, in UTC."""
    if second > _LAST_DATE:
        return "the end of time"
    return dt.datetime.fromtimestamp(second, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _mapping(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise RefusedError(Refusal.MALFORMED, f"{what} is not a JSON object")
    return value


def _hex(value: object, what: str) -> bytes:
    if isinstance(value, str) and value.startswith("0x"):
        try:
            return bytes.fromhex(value[2:])
        except ValueError:
            pass
    raise RefusedError(Refusal.MALFORMED, f"the {what} is not hex after 0x")
