"""What a relayer counts while it works, since the process started. `relayer_metrics` shows it. Pure."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Figures:
    """Counts that only grow."""

    accepted: int = 0
    """Intents taken in; one that failed and is handed in again counts again."""
    refused: Counter[str] = field(default_factory=Counter)
    """Those that were not, by reason."""
    settled: int = 0
    """Intents that took effect in a block that counts. One that was reorganised away counts again when it is back."""
    failed: int = 0
    """Intents that were given up, with a reason."""
    sizes: Counter[int] = field(default_factory=Counter)
    """Transactions in blocks that count, by the number of intents that they carried."""
    gas_used: int = 0
    """Of those transactions."""
    fee_paid: int = 0
    """For that gas, in wei."""
    sent: int = 0
    """Transactions signed, replacements among them."""
    replaced: int = 0
    """Of them, those that outbid an earlier one."""
    dropped: int = 0
    """Transactions that were handed over again, because the chain's pool had lost them."""
    lost: int = 0
    """Batches that could not get into a block any more, whose intents travelled in another."""
    reorganised: int = 0
    """Batches whose block was taken back."""
