"""Keeps an index in step with the chain: reads on from where it stopped, and rolls back what was reorganised away."""

from collections.abc import Sequence

from p2pos.errors import ChainError
from p2pos.ledger.chain import Chain
from p2pos.ledger.index import Index
from p2pos.ledger.rpc import RpcError
from p2pos.types import Address

SPAN = 2000
"""Blocks asked for at once; public end points allow 500 to 10,000, and where one allows less the span is halved."""
MAX_TRIES = 5
"""Reorganisations in a row during one sync before it gives up; the next sync goes on."""


class Indexer:
    """Feeds one index from one chain. Synchronous."""

    def __init__(self, index: Index, chain: Chain) -> None:
        self._index = index
        self._chain = chain

    def sync(self) -> int:
        """Read on to the newest block and return its number.

        Raises UnavailableError where the chain doesn't answer, ChainError where it changes all the time; what was
        read until then stays.
        """
        for _ in range(MAX_TRIES):
            start = self._common() + 1
            head = self._chain.block_number()
            if start > head or self._read(start, head):
                return head
        raise ChainError("the chain reorganised again and again while it was read", hint="try again in a minute")

    def checked_holdings(self, account: Address) -> tuple[int, dict[int, int]]:
        """What an account holds, from the index and proven against `balanceOf` at the same block.

        Returns the block and the amounts by class. Raises ChainError where index and chain disagree.
        """
        block = self.sync()
        holdings = self._index.holdings(account)
        self._prove([(account, id_, amount) for id_, amount in holdings.items()], block)
        return block, holdings

    def checked_holders(self, id_: int) -> tuple[int, dict[Address, int]]:
        """Who holds how much of a class, proven likewise."""
        block = self.sync()
        holders = self._index.holders(id_)
        self._prove([(account, id_, amount) for account, amount in holders.items()], block)
        return block, holders

    def _prove(self, claims: Sequence[tuple[Address, int, int]], block: int) -> None:
        found = self._chain.balances([(account, id_) for account, id_, _ in claims], block=block)
        for (account, id_, amount), truth in zip(claims, found, strict=True):
            if amount != truth:
                raise ChainError(
                    f"the index says {account} holds {amount} of {hex(id_)}, the chain says {truth}",
                    hint=f"remove {self._index.path}; it is made again",
                )

    def _common(self) -> int:
        """The newest block that index and chain share, after rolling back to it; before the contract's where none."""
        checkpoints = self._index.checkpoints()
        if checkpoints and self._chain.block_hashes([checkpoints[0][0]])[0] == checkpoints[0][1]:
            return checkpoints[0][0]
        hashes = self._chain.block_hashes([block for block, _ in checkpoints])
        for (block, known), now in zip(checkpoints, hashes, strict=True):
            if known == now:
                self._index.roll_back(block)
                return block
        self._index.roll_back(-1)
        return self._chain.first_block() - 1

    def _read(self, start: int, head: int) -> bool:
        """Take in blocks `start … head`. False where chain or index changed meanwhile."""
        span = SPAN
        while start <= head:
            last = min(start + span - 1, head)
            before = self._chain.block_hashes([last])[0]
            try:
                events = self._chain.logs(start, last)
            except RpcError:
                if span == 1:
                    raise
                span //= 2
                continue
            if not before or self._chain.block_hashes([last])[0] != before:
                return False
            if not self._index.take(events, start, last, before):
                return False
            start = last + 1
        return True
