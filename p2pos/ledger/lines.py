"""One sending account's line of nonces: what waits for a block, since when, and whether it can take more. Pure."""

from collections.abc import Sequence

from p2pos.ledger.queue_records import Batch
from p2pos.ledger.signer import Signer
from p2pos.types import Address

STUCK_BLOCKS = 3
"""Blocks after which a transaction that is next in line and still waits is sent again with a higher fee."""
GAP_BLOCKS = 1
"""Blocks for which a missing transaction of the same account, of whoever sent it, may still turn up."""
REST_BLOCKS = 16
"""For which a sender whose work another had to take over gets no more; then it is tried again."""


class Line:
    """One sender."""

    def __init__(self, signer: Signer) -> None:
        self.signer = signer
        self.trouble = ""
        """What the chain said against its transactions last; "" where it took them."""
        self._since: dict[int, int] = {}
        """Per batch in no block: the head when this process sent it, first saw it so, or last changed its fee."""
        self._first: int | None = None
        """The batch that is next in line."""
        self._rests_until = 0

    @property
    def address(self) -> Address:
        """The account."""
        return self.signer.address

    def watch(self, missing: Sequence[Batch], head: int) -> None:
        """Take note of the batches that are in no block, by nonce."""
        first = missing[0].number if missing else None
        if first is not None and first != self._first:
            self._since[first] = head  # its turn has come only now
        self._since = {batch.number: self._since.get(batch.number, head) for batch in missing}
        self._first = first

    def changed(self, batch: Batch, head: int) -> None:
        """A batch was sent, or sent with another fee."""
        self._since[batch.number] = head
        self._first = batch.number if self._first is None else self._first

    def is_late(self, head: int) -> bool:
        """Whether what is next in line has waited long enough for a transaction before it to turn up."""
        return self._first is not None and head - self._since[self._first] >= GAP_BLOCKS

    def is_stuck(self, head: int) -> bool:
        """Whether what is next in line has waited through several blocks."""
        return self._first is not None and head - self._since[self._first] >= STUCK_BLOCKS

    def is_able(self, head: int) -> bool:
        """Whether it should be given more work."""
        return not (self.trouble or self.is_stuck(head) or head < self._rests_until)

    def expects_a_block(self, head: int) -> bool:
        """Whether the next block is likely to bring something of its own."""
        return any(head - since <= 1 for since in self._since.values())

    def rest(self, head: int) -> None:
        """Give it no work for some time."""
        self._rests_until = head + REST_BLOCKS
        self._since.clear()
        self._first = None
        self.trouble = ""
