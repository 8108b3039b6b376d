"""A token bucket: how many bytes may pass now, so that no more than so many pass in a second. Pure."""

import math


class Bucket:
    """A cap on a rate.

    Over any time that it is used, no more than `rate × seconds + burst + one piece` passes.

    Args:
        rate: bytes per second; 0 for no cap.
        burst: bytes that may pass at once after a rest. Default: a quarter of a second's.

    """

    def __init__(self, rate: float, *, burst: float | None = None) -> None:
        self.rate = rate
        self._burst = rate / 4 if burst is None else burst
        self._level = self._burst
        self._at_s: float | None = None

    def take(self, nbytes: int, now_s: float) -> None:
        """Let a piece pass. The level may fall below nothing: a piece can be larger than the burst."""
        self._fill(now_s)
        self._level -= nbytes

    def free_s(self, now_s: float) -> float:
        """When the next piece may pass: `now_s`, or later."""
        if self.rate <= 0:
            return now_s
        self._fill(now_s)
        if self._level >= 0:
            return now_s
        # a little later rather than a little early, for at the rounded time the level may be a hair below nothing
        return math.nextafter(now_s - self._level / self.rate, math.inf) + 1e-6

    def _fill(self, now_s: float) -> None:
        if self._at_s is not None and now_s > self._at_s:
            self._level = min(self._burst, self._level + (now_s - self._at_s) * self.rate)
        self._at_s = now_s if self._at_s is None else max(now_s, self._at_s)
