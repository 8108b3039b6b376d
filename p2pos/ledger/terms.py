"""What an issuer fixes for good when a class is made. Pure."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from p2pos.errors import UserError
from p2pos.ledger.abi import MAX_UINT128, ZERO
from p2pos.types import Address

MAX_DELAY_S = 365 * 86_400
"""The longest that an update may have to wait; the contract's own limit."""
MAX_ROYALTY_BPS = 5_000
"""Half of the price; the contract's own limit."""


class Policy(IntEnum):
    """Who may give a class a new descriptor, and how fast."""

    FROZEN = 0
    """Nobody, ever."""
    ISSUER = 1
    """The issuer, at once."""
    DELAYED = 2
    """The issuer, who must announce it `delay` seconds before."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a class, in the order of the contract's struct."""

    cap: int
    """The most units that may ever be made, burned ones included; 0 is no limit."""
    soulbound: bool = False
    """Units never change hands; the holder may burn them."""
    policy: Policy = Policy.FROZEN
    delay: int = 0
    """Seconds from an update's proposal to its effect; above 0 with DELAYED alone."""
    royalty_receiver: Address = ZERO
    royalty_bps: int = 0
    """Of the price of a sale, in 1/10000 (ERC-2981)."""

    def sound(self) -> Self:
        """Itself. Raises UserError where the contract would refuse these terms."""
        if not 0 <= self.cap <= MAX_UINT128:
            raise UserError(f"a cap must be from 0 to {MAX_UINT128}")
        if (self.policy is Policy.DELAYED) != (self.delay > 0) or not 0 <= self.delay <= MAX_DELAY_S:
            raise UserError(
                f"a delay of 1 to {MAX_DELAY_S} seconds belongs to the policy “delayed”, and to no other",
                hint="give --policy delayed and --delay together",
            )
        if not 0 <= self.royalty_bps <= MAX_ROYALTY_BPS:
            raise UserError(f"a royalty is at most {MAX_ROYALTY_BPS // 100} % of the price")
        if (self.royalty_receiver == ZERO) != (self.royalty_bps == 0):
            raise UserError("a royalty needs a receiver, and a receiver a royalty")
        return self

    def arguments(self) -> tuple[int, bool, int, int, Address, int]:
        """The fields as a general ABI encoder takes the contract's struct."""
        return self.cap, self.soulbound, int(self.policy), self.delay, self.royalty_receiver, self.royalty_bps
