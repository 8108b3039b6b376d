"""What a transaction offers to pay (EIP-1559), and how a stuck one is outbid. Pure."""

from dataclasses import dataclass
from decimal import Decimal

from p2pos.types import Wei

GWEI = 10**9
MIN_PRIORITY = Wei(GWEI // 1000)
"""Wei per gas. Some nodes drop transactions that offer the proposer nothing."""
MAX_FEE = Wei(2000 * GWEI)
"""Wei per gas: never offer more. The highest daily mean on Ethereum was 710 gwei (etherscan.io/chart/gasprice)."""


@dataclass(frozen=True, slots=True)
class Fees:
    """Of one transaction, in wei per gas."""

    max_fee: Wei
    priority: Wei

    @classmethod
    def suggest(cls, base_fee: int, priority: int, cap: int = MAX_FEE) -> "Fees":
        """An offer that stays good while the base fee doubles, which takes at least six full blocks.

        Args:
            base_fee: of the newest block, wei per gas.
            priority: what the node suggests, wei per gas.
            cap: the most that may be offered, wei per gas.

        """
        tip = max(priority, MIN_PRIORITY)
        return cls(Wei(min(2 * base_fee + tip, cap)), Wei(min(tip, cap)))

    def outbid(self, now: "Fees", cap: int = MAX_FEE) -> "Fees | None":
        """An offer that replaces this one, or None where that would pass `cap`.

        A pool takes a replacement only where both figures rise by a tenth (geth's `--txpool.pricebump 10`); an
        eighth is what other pools ask for, and rounding up keeps small figures moving.
        """
        max_fee = max(-(-self.max_fee * 9 // 8), now.max_fee)
        priority = max(-(-self.priority * 9 // 8), now.priority)
        return Fees(Wei(max_fee), Wei(min(priority, max_fee))) if max_fee <= cap else None


def from_gwei(gwei: Decimal) -> Wei:
    """Wei per gas; what is less than one is dropped."""
    return Wei(int(gwei * GWEI))


def in_gwei(wei: int) -> str:
    """Wei per gas as a person writes it: in gwei, without trailing zeros."""
    return f"{(Decimal(wei) / GWEI).normalize():f}"
