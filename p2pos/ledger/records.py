"""What `chain` answers with: blocks, receipts, classes and refusals. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from eth_utils.address import to_checksum_address

from p2pos.errors import ChainError
from p2pos.ledger import bloom
from p2pos.ledger.events import Event, decode_all
from p2pos.ledger.reverts import Revert
from p2pos.ledger.terms import Policy
from p2pos.types import Address, Wei


class RevertError(ChainError):
    """The contract refused; `revert` says why."""

    def __init__(self, revert: Revert) -> None:
        super().__init__(revert.text, hint=revert.hint, error=revert.name)
        self.revert = revert


class MistakeError(RevertError):
    """The contract refused for a reason that it has a name for: what was asked for can't be."""

    exit_code = 2
    fault = "user"


def refused(revert: Revert) -> RevertError:
    """The error for a contract's refusal; the user's mistake where the contract says in its own words what is wrong."""
    return RevertError(revert) if revert.name in {"", "Error", "Panic"} else MistakeError(revert)


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

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> "Block":
        """From JSON-RPC's form. Raises ChainError where it isn't one."""
        try:
            return cls(
                int(raw["number"], 16),
                raw["hash"],
                int(raw["timestamp"], 16),
                Wei(int(raw.get("baseFeePerGas", "0x0"), 16)),
                int(raw["gasLimit"], 16),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise ChainError("the chain sent a block that is none") from exc


class Header(NamedTuple):
    """What links a block to the one before."""

    number: int
    hash: bytes
    parent: bytes
    timestamp: int
    """Seconds since the epoch."""
    bloom: int = 0
    """Its filter of logs (`bloom`); 0 where the chain makes none."""

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> "Header":
        """From JSON-RPC's form. Raises ChainError where it isn't one."""
        try:
            found = cls(
                int(raw["number"], 16),
                bytes.fromhex(raw["hash"][2:]),
                bytes.fromhex(raw["parentHash"][2:]),
                int(raw["timestamp"], 16),
                int(raw.get("logsBloom") or "0x0", 16),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise ChainError("the chain sent a block that is none") from exc
        if not 0 <= found.bloom < 1 << bloom.BITS:
            raise ChainError("the chain sent a block that is none")
        if {len(found.hash), len(found.parent)} != {32} or not 0 <= found.timestamp < 1 << 63 > found.number >= 0:
            raise ChainError("the chain sent a block that is none")
        return found


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
    fee: Wei = Wei(0)
    """Paid for the gas; 0 where the node doesn't say."""

    @classmethod
    def read(cls, raw: Mapping[str, Any], contract: Address | None) -> "Receipt":
        """From JSON-RPC's form; `contract` is the asset contract, where there is one. Raises ChainError."""
        try:
            deployed = raw.get("contractAddress")
            ours = [log for log in raw["logs"] if contract and log["address"].lower() == contract.lower()]
            return cls(
                raw["transactionHash"],
                raw["status"] == "0x1",
                int(raw["blockNumber"], 16),
                raw["blockHash"],
                int(raw["gasUsed"], 16),
                Address(to_checksum_address(deployed)) if deployed else None,
                decode_all(ours),
                Wei(int(raw["gasUsed"], 16) * int(raw.get("effectiveGasPrice") or "0x0", 16)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise ChainError("the chain sent a receipt that is none") from exc


class ClassInfo(NamedTuple):
    """A class of items as the contract knows it, in the order of its `ClassInfo`."""

    issuer: Address
    cap: int
    """The most that may ever be made; 0 is no limit."""
    minted: int
    """Ever."""
    burned: int
    digest: bytes
    """sha2-256 of the descriptor."""
    version: int
    """Of the descriptor; it begins at 1."""
    soulbound: bool
    policy: Policy
    delay: int
    """Seconds from an update's proposal to its effect."""
    royalty_receiver: Address
    royalty_bps: int
    """Of the price, in 1/10000."""

    @classmethod
    def read(cls, fields: Sequence[Any]) -> "ClassInfo | None":
        """From the values of `classOf`; None where there is no such class. Raises ChainError where they are odd."""
        issuer, cap, minted, burned, digest, version, soulbound, policy, delay, receiver, bps = fields
        if not int(issuer, 16):
            return None
        try:
            known = Policy(policy)
        except ValueError as exc:
            raise ChainError(f"the chain sent a class with the unknown policy {policy}") from exc
        return cls(issuer, cap, minted, burned, bytes(digest), version, soulbound, known, delay, receiver, bps)

    @property
    def supply(self) -> int:
        """How many there are."""
        return self.minted - self.burned


class Look(NamedTuple):
    """What a relayer sees of the chain at one glance."""

    head: Block
    hash: str
    """Of the block that was asked for; "" where it isn't there or none was asked for."""
    used: dict[Address, int]
    """Of each account, how many transactions are in blocks: its lowest nonce that no block has."""
    pending: dict[Address, int]
    """Likewise, the pool's transactions counted too."""
    priority: int
    """The tip that the node suggests, in wei per gas; 0 where it suggests none."""

    @classmethod
    def read(cls, head: Block, block: Any, accounts: Sequence[Address], counts: Sequence[Any], priority: Any) -> "Look":
        """From JSON-RPC's answers; `counts` begins with two for each account. Raises ChainError, or what they are."""
        for answer in (block, *counts[: 2 * len(accounts)]):
            if isinstance(answer, ChainError):
                raise answer
        try:
            numbers = [int(count, 16) for count in counts[: 2 * len(accounts)]]
            return cls(
                head,
                str(block["hash"]) if block else "",
                dict(zip(accounts, numbers[::2], strict=True)),
                dict(zip(accounts, numbers[1::2], strict=True)),
                0 if isinstance(priority, ChainError) else int(priority, 16),
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise ChainError("the chain's answers about its newest block make no sense") from exc


class Preflight(NamedTuple):
    """What would become of an intent now."""

    contract_wallets: frozenset[Address]
    """Those of the signers that have code, so that ERC-1271 decides on a signature that is not by their key."""
    revert: Revert | None
    """Why the contract would refuse it; None where it would not."""
