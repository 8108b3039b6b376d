"""Which peers to leave alone after they failed, and for how long: twice as long each time. Pure."""

from collections import OrderedDict
from dataclasses import dataclass

FIRST_S = 2.0
"""Seconds after the first failure: by then a peer's restart, or a dropped packet, is over."""
MOST_S = 300.0
"""Seconds at most: a peer that comes back is used again within five minutes."""
FORGET_S = 900.0
"""Seconds without a further failure after which a peer counts as new."""
MAX_PEERS = 4096
"""Peers remembered; beyond, whoever failed longest ago is forgotten."""


@dataclass(frozen=True, slots=True)
class _Record:
    failures: int
    failed_s: float
    until_s: float


class Backoff:
    """The failures of peers, as one peer that uses them sees it."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, _Record] = OrderedDict()
        """The one that failed last at the end."""

    def failed(self, peer: str, now_s: float) -> None:
        """A peer did not do what was asked of it.

        Failures while it is avoided already count once: several sessions lose the same peer at the same moment.
        """
        known = self._records.get(peer)
        if known is not None and now_s < known.until_s:
            return
        before = 0 if known is None or now_s - known.failed_s > FORGET_S else known.failures
        pause_s = min(MOST_S, FIRST_S * 2.0 ** min(before, 32))  # 2³² × FIRST_S is far over MOST_S
        self._records[peer] = _Record(before + 1, now_s, now_s + pause_s)
        self._records.move_to_end(peer)
        if len(self._records) > MAX_PEERS:
            self._records.popitem(last=False)

    def worked(self, peer: str) -> None:
        """A peer did what was asked of it: its failures are forgotten."""
        self._records.pop(peer, None)

    def avoided(self, now_s: float) -> frozenset[str]:
        """Whom to leave alone now."""
        return frozenset(peer for peer, record in self._records.items() if now_s < record.until_s)

    def failures(self, peer: str) -> int:
        """How often in a row a peer failed."""
        known = self._records.get(peer)
        return 0 if known is None else known.failures
