"""How much one signer may ask of a relayer: intents that wait, and intents per minute. Pure.

Counted is what was taken in, after its signatures were found good: whoever writes another's name on nonsense uses up
nothing of theirs. Who signs with many keys is many signers; what an address on the network may ask is for the reverse
proxy to limit.
"""

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from p2pos.errors import UnavailableError
from p2pos.types import Address

MAX_REMEMBERED = 20_000
"""Signers whose rate is known; twice the intents that can wait. Beyond, who was heard of longest ago starts afresh."""
BUSY_S = 10
"""When to come back where too much of one's own waits: a block or two."""


class LimitedError(UnavailableError):
    """A signer asks too much at once. `retry_after_s` is when to try again, in whole seconds."""

    def __init__(self, message: str, retry_after_s: int, signer: Address) -> None:
        super().__init__(
            message, hint=f"try again in {retry_after_s} s", retry_after_s=retry_after_s, signer=signer, limited=True
        )
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Limits:
    """Of each signer; 0 is no limit."""

    waiting: int = 0
    """Intents accepted and not yet settled."""
    per_minute: float = 0.0
    """Intents taken in, in the long run."""
    burst: int = 100
    """Of them, how many may come at once after a rest; at least one."""


class Limiter:
    """What each signer has used up.

    Args:
        limits: the same for all.

    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buckets: OrderedDict[Address, tuple[float, float]] = OrderedDict()
        """Tokens, and the time at which there were so many."""

    def asks_who_waits(self, unsettled: int) -> bool:
        """Whether anyone can be over the limit of those who wait, while so many intents of all signers do."""
        return 0 < self._limits.waiting <= unsettled

    def require(self, signers: Iterable[Address], waiting: Mapping[Address, int], now_s: float) -> None:
        """Raise LimitedError where one of these may not hand in another intent now.

        Args:
            signers: of the intent.
            waiting: how many intents of each signer wait; 0 for who is missing.
            now_s: any clock's that doesn't go back, in seconds.

        """
        limits = self._limits
        for signer in signers:
            if limits.waiting and (count := waiting.get(signer, 0)) >= limits.waiting:
                raise LimitedError(
                    f"{count} intents of {signer} are waiting already, and {limits.waiting} may", BUSY_S, signer
                )
            if limits.per_minute and (left := self._tokens(signer, now_s)) < 1:
                wait_s = max(1, math.ceil((1 - left) * 60 / limits.per_minute))
                raise LimitedError(
                    f"{signer} hands in more than {limits.per_minute:g} intents per minute", wait_s, signer
                )

    def charge(self, signers: Iterable[Address], now_s: float) -> None:
        """Count an intent that was taken in."""
        if not self._limits.per_minute:
            return
        for signer in signers:
            self._buckets[signer] = (self._tokens(signer, now_s) - 1, now_s)
            self._buckets.move_to_end(signer)
        while len(self._buckets) > MAX_REMEMBERED:
            self._buckets.popitem(last=False)

    def _tokens(self, signer: Address, now_s: float) -> float:
        burst = max(1, self._limits.burst)
        tokens, then_s = self._buckets.get(signer, (burst, now_s))
        return min(burst, tokens + max(0.0, now_s - then_s) * self._limits.per_minute / 60)
