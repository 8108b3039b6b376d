"""What became of a batch's intents, from its receipt and, where that leaves a question, by asking the chain."""

from p2pos.ledger.chain import Chain
from p2pos.ledger.queue import Batch, Mined, Queue, Verdict, Waiting
from p2pos.ledger.records import Receipt
from p2pos.ledger.reverts import Revert
from p2pos.ledger.rpc import RpcError
from p2pos.ledger.settlement import Outcome
from p2pos.types import Address

MAX_ATTEMPTS = 5
"""Batches that may come to nothing before an intent is given up. Each is a transaction that was paid for."""


class Judge:
    """Reads receipts of one chain for one queue."""

    def __init__(self, chain: Chain, queue: Queue, sender: Address) -> None:
        self._chain = chain
        self._queue = queue
        self._sender = sender

    def mined(self, batch: Batch, receipt: Receipt) -> Mined:
        """The outcome of a batch whose block counts."""
        outcome = Outcome(receipt.events)
        verdicts = []
        for position, member in enumerate(batch.members):
            if outcome.took_effect(member.intent.struct):
                verdicts.append(Verdict(member.seq, "settled", transaction=receipt.transaction, block=receipt.block))
            else:
                verdicts.append(self._failed(batch, position, member, receipt, outcome))
        return Mined(batch.number, receipt.transaction, receipt.block, receipt.block_hash, tuple(verdicts))

    def _failed(self, batch: Batch, position: int, member: Waiting, receipt: Receipt, outcome: Outcome) -> Verdict:
        reason = outcome.failure(member.intent.struct, position)
        revert: Revert | None
        if reason is not None:
            revert = self._chain.reverts.read(reason)
        elif len(batch.members) == 1:
            try:
                revert = self._chain.preflight([member.intent], self._sender)[0].revert
            except (
                RpcError
            ):  # not the contract's word: it ran out of gas or time; it is tried again, and given up some time
                revert = None
        else:
            # the batch as a whole failed, which its gas limit rules out save for a chain that prices gas otherwise
            revert = None
        if revert is None:
            if member.attempts + 1 < MAX_ATTEMPTS:
                return Verdict(member.seq, "accepted")
            revert = Revert("", f"{MAX_ATTEMPTS} transactions with it failed")
        if found := self.elsewhere(member, batch.number):
            return found
        return Verdict(member.seq, "failed", revert.refusal, revert.text, receipt.transaction, receipt.block)

    def elsewhere(self, member: Waiting, batch: int = 0) -> Verdict | None:
        """The verdict on an intent that an earlier transaction of ours has settled, which was taken for lost.

        Asked before an intent is given up for any reason: the contract may name another than its used nonce. `batch`
        is the one that is known not to have.
        """
        others = self._queue.other_transactions(member.seq, batch)
        receipts = self._chain.receipts([transaction for _, transaction in others])
        for (number, _), receipt in zip(others, receipts, strict=True):
            if receipt and Outcome(receipt.events).took_effect(member.intent.struct):
                self._queue.found(number, receipt.transaction, receipt.block, receipt.block_hash)
                return Verdict(member.seq, "settled", transaction=receipt.transaction, block=receipt.block)
        return None
