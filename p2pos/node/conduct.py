"""Who broke the protocol, how often, and for how long nothing is taken from them. Pure: time comes in."""

from dataclasses import dataclass

from p2pos.types import PeerId

FORGIVEN = 3
"""Faults that only cost a peer its stream: a process that is killed in the middle of a frame leaves one or two."""
FORGET_S = 60.0
"""Seconds without a fault after which earlier ones count no more, and after a ban until it is forgotten."""
FIRST_BAN_S = 10.0
"""Seconds of the first ban; each further one is twice as long."""
LONGEST_BAN_S = 3600.0
"""Seconds: whoever has mended its node need not wait until tomorrow."""
MAX_PEERS = 4096
"""Peers whose faults are kept, some 200 bytes each; identities cost nothing, so beyond it the oldest go."""


@dataclass(slots=True)
class _Record:
    faults: int = 0
    bans: int = 0
    last_s: float = 0.0
    """Of the last fault, or the end of the last ban."""
    until_s: float = 0.0
    """End of the ban."""


class Conduct:
    """What is held against each peer."""

    def __init__(self) -> None:
        self._records: dict[PeerId, _Record] = {}

    def __len__(self) -> int:
        return len(self._records)

    def offended(self, peer: PeerId, now_s: float) -> float:
        """A peer broke the protocol; returns for how many seconds it is banned now, 0 where it's forgiven.

        Args:
            peer: who did.
            now_s: seconds of a clock that never goes back.

        """
        record = self._records.pop(peer, _Record())
        if now_s > record.last_s + FORGET_S:
            record = _Record(bans=max(0, record.bans - int((now_s - record.last_s) / LONGEST_BAN_S)))
        record.faults += 1
        record.last_s = max(now_s, record.last_s)
        if record.faults > FORGIVEN:
            ban_s = min(FIRST_BAN_S * 2.0 ** min(record.bans, 16), LONGEST_BAN_S)
            record.bans += 1
            record.until_s = record.last_s = now_s + ban_s
            record.faults = FORGIVEN  # one more after the ban is enough
        self._records[peer] = record
        if len(self._records) > MAX_PEERS:
            self._records.pop(next(iter(self._records)))
        return self.banned(peer, now_s)

    def banned(self, peer: PeerId, now_s: float) -> float:
        """Seconds that a peer's ban goes on for; 0 where it has none."""
        record = self._records.get(peer)
        return 0.0 if record is None else max(0.0, record.until_s - now_s)
