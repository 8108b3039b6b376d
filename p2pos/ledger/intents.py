"""A signed intent as a file, and what can be wrong with it. Pure.

An intent is signed off line and submitted by anyone. Before a relayer pays for it, `check` finds every fault that
can be seen without a chain; the rest (a used nonce, a balance too low) the contract itself says. A swap that only one
of the two has signed is an `Offer`; `countersign` makes an intent of it.
"""

import functools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from p2pos.content import strict_json
from p2pos.errors import UserError
from p2pos.ledger.eip712 import NAME, VERSION, Domain, as_object, exactly
from p2pos.ledger.plain_words import when
from p2pos.ledger.signatures import recover
from p2pos.ledger.typed_data import TYPES, Signable, Swap, address, digest, unsigned
from p2pos.types import Address

FORMAT = "p2pos-intent-1"
OFFER_FORMAT = "p2pos-offer-1"
MAX_BYTES = 32 << 10
"""Of an intent's JSON. A swap of 32 items for 32 takes up to 12 KiB; the rest is room for two contract wallets'
signatures."""
MAX_SIGNATURE = 4 << 10
"""Bytes. An ERC-1271 wallet with a dozen owners needs under 1 KiB."""


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


@dataclass(frozen=True)
class SignedIntent:
    """A struct, where it counts, what its signers signed, and the digest that the file states."""

    domain: Domain
    struct: Signable
    signatures: tuple[bytes, ...]
    """In the order of `struct.signers`. Each is 65 bytes (r, s, v) of an ordinary wallet, or whatever a contract
    wallet's ERC-1271 takes."""
    stated_digest: bytes

    @classmethod
    def of(cls, domain: Domain, struct: Signable, *signatures: bytes) -> Self:
        """An intent that states its own digest."""
        return cls(domain, struct, signatures, digest(domain, struct))

    @functools.cached_property
    def digest(self) -> bytes:
        """The digest of the fields as they are."""
        return digest(self.domain, self.struct)

    @property
    def id(self) -> str:
        """The name by which a relayer knows it: the digest in hex."""
        return "0x" + self.stated_digest.hex()

    @property
    def kind(self) -> str:
        """The name of what is signed, such as `Transfer`."""
        return type(self.struct).__name__

    @property
    def owner(self) -> Address:
        """The first of those who must sign: of a swap the one who offered, of an unlock the world."""
        return self.struct.signers[0][0]

    @property
    def nonce(self) -> int:
        """The first signer's nonce."""
        return self.struct.signers[0][1]

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        return _as_json(FORMAT, self.domain, self.struct, self.stated_digest) | {
            "signatures": ["0x" + signature.hex() for signature in self.signatures]
        }

    @classmethod
    def parse(cls, data: str | bytes) -> Self:
        """Read an intent file. Raises RefusedError (malformed) with the field and its fault."""
        return cls.from_json(_decoded(data))

    @classmethod
    def from_json(cls, value: object) -> Self:
        """As `parse`, of JSON that is already decoded."""
        fields = _fields(value, FORMAT, "signatures")
        domain, struct, named = _signed_part(fields)
        signatures = fields["signatures"]
        if not isinstance(signatures, list) or len(signatures) != len(struct.signers):
            raise _malformed(f"signatures: want a list of {len(struct.signers)}")
        read = [
            _signature(one, f"signatures[{at}]" if len(signatures) > 1 else "signature")
            for at, one in enumerate(signatures)
        ]
        return cls(domain, struct, tuple(read), named)


@dataclass(frozen=True)
class Offer:
    """A swap that its first party has signed and the second has not."""

    domain: Domain
    struct: Swap
    signature: bytes
    """The first party's."""
    stated_digest: bytes

    @classmethod
    def of(cls, domain: Domain, struct: Swap, signature: bytes) -> Self:
        """An offer that states its own digest."""
        return cls(domain, struct, signature, digest(domain, struct))

    @functools.cached_property
    def digest(self) -> bytes:
        """The digest of the fields as they are."""
        return digest(self.domain, self.struct)

    @property
    def id(self) -> str:
        """The name that the intent will have: the digest in hex."""
        return "0x" + self.stated_digest.hex()

    def countersign(self, signature: bytes) -> SignedIntent:
        """The intent that both have signed."""
        return SignedIntent(self.domain, self.struct, (self.signature, signature), self.stated_digest)

    def as_json(self) -> dict[str, Any]:
        """The file's content."""
        return _as_json(OFFER_FORMAT, self.domain, self.struct, self.stated_digest) | {
            "signature": "0x" + self.signature.hex()
        }

    @classmethod
    def parse(cls, data: str | bytes) -> Self:
        """Read an offer file. Raises RefusedError (malformed) with the field and its fault."""
        return cls.from_json(_decoded(data))

    @classmethod
    def from_json(cls, value: object) -> Self:
        """As `parse`, of JSON that is already decoded."""
        fields = _fields(value, OFFER_FORMAT, "signature")
        domain, struct, named = _signed_part(fields)
        if not isinstance(struct, Swap):
            raise _malformed("type: an offer is of a Swap")
        return cls(domain, struct, _signature(fields["signature"], "signature"), named)


def parse_any(data: str | bytes) -> SignedIntent | Offer:
    """Read a file of either format. Raises RefusedError (malformed)."""
    value = _decoded(data)
    if isinstance(value, dict) and value.get("format") == OFFER_FORMAT:
        return Offer.from_json(value)
    return SignedIntent.from_json(value)


def check(
    intent: SignedIntent, domain: Domain, *, now_s: float, contract_wallets: Collection[Address] | None = ()
) -> None:
    """Find what is wrong with an intent without asking a chain.

    Args:
        intent: what was handed in.
        domain: the chain and contract it is handed to.
        now_s: seconds since the epoch, the chain's where it is known.
        contract_wallets: signers that have code: they alone can say whether a signature that is not by their key is
            good. None leaves all signatures for later.

    Raises:
        RefusedError: wrong chain, wrong contract, tampered, expired or wrong signer, looked for in this order.

    """
    _check_place_and_time(intent, domain, now_s)
    if contract_wallets is not None:
        for (signer, _), signature in zip(intent.struct.signers, intent.signatures, strict=True):
            _check_signature(intent.digest, signer, signature, contract_wallets)


def check_offer(offer: Offer, domain: Domain, *, now_s: float, contract_wallets: Collection[Address] = ()) -> None:
    """As `check`, of an offer: its first party must have signed it."""
    _check_place_and_time(offer, domain, now_s)
    _check_signature(offer.digest, offer.struct.first, offer.signature, contract_wallets)


def _check_place_and_time(intent: SignedIntent | Offer, domain: Domain, now_s: float) -> None:
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


def _check_signature(digest_: bytes, signer: Address, signature: bytes, contract_wallets: Collection[Address]) -> None:
    found = recover(digest_, signature)
    if found != signer and signer not in contract_wallets:
        raise RefusedError(
            Refusal.WRONG_SIGNER,
            f"the signature is not by {signer}" + (f" but by {found}" if found else ": it is no valid signature"),
            hint="only that wallet can sign it",
            signer=signer,
        )


# ---- files


def _as_json(format_: str, domain: Domain, struct: Signable, stated_digest: bytes) -> dict[str, Any]:
    return {
        "format": format_,
        "type": type(struct).__name__,
        "domain": {
            "name": NAME,
            "version": VERSION,
            "chainId": domain.chain_id,
            "verifyingContract": domain.contract,
        },
        "message": struct.message(),
        "digest": "0x" + stated_digest.hex(),
    }


def _decoded(data: str | bytes) -> Any:
    if len(data) > MAX_BYTES:
        raise _malformed(f"the intent is larger than {MAX_BYTES} bytes")
    try:
        raw = data.encode() if isinstance(data, str) else data
        return strict_json.loads(raw, unique_keys=True)
    except strict_json.RepeatedKeyError as exc:
        raise _malformed(f"the intent {exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise _malformed("the intent is not JSON", hint="sign it again") from exc


def _fields(value: object, format_: str, signature: str) -> Mapping[str, object]:
    """The file's outermost object, with exactly its fields."""
    try:
        fields = as_object(value, "the intent")
        found = fields.get("format")
        if found != format_:
            other = {FORMAT: "a signed intent", OFFER_FORMAT: "an offer"}
            what = other.get(found, "something else") if isinstance(found, str) else "something else"
            raise _malformed(f"this is {what}, not {other[format_]}: its “format” is not {format_}")
        exactly(fields, ["format", "type", "domain", "message", signature, "digest"], "the intent")
    except RefusedError:
        raise
    except UserError as exc:
        raise _malformed(exc.message, hint=exc.hint) from exc
    return fields


def _signed_part(fields: Mapping[str, object]) -> tuple[Domain, Signable, bytes]:
    """Domain, struct and stated digest."""
    kind = fields["type"]
    if not isinstance(kind, str) or kind not in TYPES:
        raise _malformed(f"type: want one of {', '.join(TYPES)}")
    try:
        stated = as_object(fields["domain"], "the intent's domain")
        exactly(stated, ["name", "version", "chainId", "verifyingContract"], "the intent's domain")
        if stated["name"] != NAME or stated["version"] != VERSION:
            raise _malformed(f"domain: the intent was not signed for {NAME} version {VERSION}")
        domain = Domain(
            unsigned(stated["chainId"], "chainId"), address(stated["verifyingContract"], "verifyingContract")
        )
        struct = TYPES[kind].from_message(as_object(fields["message"], "the intent's message"))
    except RefusedError:
        raise
    except UserError as exc:
        raise _malformed(exc.message, hint=exc.hint) from exc
    named = _hex(fields["digest"], "digest")
    if len(named) != 32:
        raise _malformed(f"digest: {len(named)} bytes, not 32")
    return domain, struct, named


def _signature(value: object, what: str) -> bytes:
    found = _hex(value, what)
    if not 0 < len(found) <= MAX_SIGNATURE:
        raise _malformed(f"{what}: {len(found)} bytes, not 1 to {MAX_SIGNATURE}")
    return found


def _hex(value: object, what: str) -> bytes:
    if isinstance(value, str) and value.startswith("0x") and len(value) % 2 == 0:
        try:
            found = bytes.fromhex(value[2:])
        except ValueError:
            pass
        else:
            if 2 * len(found) == len(value) - 2:  # `fromhex` passes over white space
                return found
    raise _malformed(f"{what}: not hex after 0x")


def _malformed(message: str, *, hint: str = "") -> RefusedError:
    return RefusedError(Refusal.MALFORMED, message, hint=hint)
