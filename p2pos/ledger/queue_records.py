"""What the relayer's queue holds and answers with. Pure."""

from dataclasses import dataclass
from typing import Any

from p2pos.ledger.fees import Fees
from p2pos.ledger.intents import Refusal, SignedIntent
from p2pos.types import Address


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of an intent."""

    id: str
    state: str
    """`accepted`, `submitted`, `settled` or `failed`."""
    refusal: str
    reason: str
    """Why it failed, for a person; "" otherwise."""
    transaction: str
    """That settled it or in which it failed; "" otherwise."""
    block: int | None
    accepted_s: float
    """Seconds since the epoch."""

    def as_json(self) -> dict[str, Any]:
        """For HTTP and `--json`."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Waiting:
    """An intent that is accepted and neither settled nor failed."""

    seq: int
    intent: SignedIntent
    attempts: int
    """Batches that carried it and came to nothing."""


@dataclass(frozen=True, slots=True)
class Sending:
    """One signed transaction of a batch."""

    transaction: str
    raw: bytes
    fees: Fees


@dataclass(frozen=True, slots=True)
class Batch:
    """Intents that one nonce of a sender carries; where its fee was too low, in several sendings of which one wins."""

    number: int
    sender: Address
    nonce: int
    gas: int
    members: tuple[Waiting, ...]
    """In the order in which its transaction carries them."""
    sendings: tuple[Sending, ...]
    """Oldest first; never empty."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A batch that is signed and not yet written down."""

    sender: Address
    nonce: int
    gas: int
    members: tuple[Waiting, ...]
    sending: Sending


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one intent."""

    seq: int
    state: str
    """`settled`, `failed`, or `accepted` to try again."""
    refusal: Refusal | None = None
    reason: str = ""
    transaction: str = ""
    block: int | None = None


@dataclass(frozen=True, slots=True)
class Mined:
    """A batch that is in a block deep enough to count."""

    batch: int
    transaction: str
    block: int
    block_hash: str
    verdicts: tuple[Verdict, ...]
    """One for each intent that the batch carried."""
