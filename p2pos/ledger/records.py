"""What `chain` answers with: blocks, receipts, classes and refusals. Pure."""

from typing import NamedTuple

from p2pos.errors import ChainError
from p2pos.ledger.events import Event
from p2pos.ledger.reverts import Revert
from p2pos.types import Address, Wei


class RevertError(ChainError):
    """The contract refused; `revert` says why."""

    def __init__(self, revert: Revert) -> None:
        super().__init__(revert.text, error=revert.name)
        self.revert = revert


class Block(NamedTuple):
    """The head of a block."""

    number: int
    hash: str
    timestamp: int
    """Seconds since the epoch."""
    base_fee: Wei
    """Per gas."""
    gas_limit: int
    """Of all its transactions together."""


class Receipt(NamedTuple):
    """What became of a transaction that is in a block."""

    transaction: str
    succeeded: bool
    block: int
    block_hash: str
    gas_used: int
    contract: Address | None
    """Where it deployed one."""
    events: list[Event]
    """Of the asset contract alone."""


class ItemClass(NamedTuple):
    """A class of items as the contract knows it."""

    issuer: Address
    cap: int
    """0 is no limit."""
    supply: int
    digest: bytes
    """sha2-256 of the descriptor."""
