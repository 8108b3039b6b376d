"""How long the tokens of a text take and how it ends, for the node's metrics."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from p2pos.node.metrics import Metrics


class Count:
    """Of one text, from when its session opens. `end` is set where it comes to its end."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._last_s = trio.current_time()
        self._begun = False
        self.end = "failed"

    def token(self) -> None:
        """A token came."""
        now_s = trio.current_time()
        after_s, self._last_s = now_s - self._last_s, now_s
        if self._begun:
            self._metrics.next_token(after_s)
        else:
            self._metrics.first_token(after_s)
        self._begun = True


@contextmanager
def counted(metrics: Metrics, prompt_tokens: int) -> Iterator[Count]:
    """Count a text while the context lasts."""
    metrics.asked(prompt_tokens)
    count = Count(metrics)
    try:
        yield count
    except trio.Cancelled:  # the client hung up, or another text of its request failed
        count.end = "cancelled"
        raise
    finally:
        metrics.ended(count.end)
