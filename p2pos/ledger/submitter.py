"""From the queue to the chain: one `tick` brings the two in step. Synchronous; runs in a thread.

The order of every step is: write it down, then do it. So a kill at any moment leaves either a transaction that was
never sent and will be, or one that was sent and will be found. The contract's nonces see to it that an intent in two
transactions takes effect once.
"""

from collections.abc import Sequence

from p2pos import log
from p2pos.ledger import calldata, settlement
from p2pos.ledger.chain import Chain
from p2pos.ledger.fees import Fees
from p2pos.ledger.intents import Refusal
from p2pos.ledger.plain_words import when
from p2pos.ledger.queue import Batch, Queue, Sending, Verdict, Waiting
from p2pos.ledger.records import Block, Receipt
from p2pos.ledger.signer import Signer

MAX_BATCH = 100
"""Intents in one transaction: their gas limit, 11 million, stays under the 16,777,216 of EIP-7825."""
MAX_OPEN = 4
"""Batches under way. More would not fit into one block of 30 million gas, and a reorg would cost more."""
MAX_TX_GAS = 1 << 24
"""EIP-7825: the most that one transaction may take."""
MAX_ATTEMPTS = 5
"""Batches that may come to nothing before an intent is given up. Each is a transaction that was paid for."""
STUCK_BLOCKS = 3
"""Blocks after which a transaction that is next in line and still waits is sent again with a higher fee."""
GAP_BLOCKS = 1
"""Blocks for which a missing transaction of the same account, of whoever sent it, may still turn up."""
MAX_SENDINGS = 12
"""Fees tried for one batch: an eighth more each time makes the last four times the first. Then a person must look."""
WATCHED_BLOCKS = 256
"""How deep a reorganisation is followed. Ethereum finalises after 64; anvil's default keeps some hundred states."""
LOCK_GAS = 300_000
"""Of a lone lock, besides its data: 90,000 for an ordinary wallet, the rest for a contract wallet's signature check."""


class Submitter:
    """Carries one queue's intents to one chain from one account."""

    def __init__(
        self, chain: Chain, queue: Queue, signer: Signer, *, confirmations: int = 1, max_batch: int = MAX_BATCH
    ) -> None:
        self._chain = chain
        self._queue = queue
        self._signer = signer
        self._confirmations = confirmations
        self._max_batch = max_batch
        self._log = log.get("relayer")
        self._forgot = 0
        self._since: dict[int, int] = {}
        """Per batch in no block: the head when this process first saw it so, or last changed its fee."""
        self.head: Block | None = None
        """The newest block that was seen."""
        self.trouble = ""
        """What the chain complained of last while it took nothing; "" when all goes well."""

    def bind(self) -> None:
        """Claim the queue for this chain, contract and account. Raises UserError where it is another's."""
        facts = {
            "chain": str(self._chain.chain_id),
            "contract": self._chain.contract,
            "genesis": self._chain.block_hashes([0])[0],
            "sender": self._signer.address,
        }
        self._queue.bind(facts, keep=("chain", "contract", "genesis"))

    def tick(self) -> bool:
        """Look at the chain, record what happened, send what waits. Returns whether anything is under way.

        Raises UnavailableError or ChainError where the chain doesn't answer; the next tick goes on from there.
        """
        head = self._chain.head()
        if self.head is None or head.hash != self.head.hash:
            self._follow(head)
            self.head = head
        missing = self._settle(head)
        self._send_again(missing, head)
        self._submit(head)
        return self._queue.unsettled() > 0

    # ---- what happened

    def _follow(self, head: Block) -> None:
        """Notice a reorganisation, and open again what it took away."""
        seen = self._queue.seen_head()
        if seen is not None and self._chain.block_hashes([seen[0]])[0] != seen[1]:
            mined = self._queue.mined_since(head.number - WATCHED_BLOCKS)
            now = self._chain.block_hashes([block for _, block, _ in mined])
            for (batch, block, block_hash), found in zip(mined, now, strict=True):
                if found != block_hash:
                    self._log.warning("reorganised", batch=batch, block=block)
                    self._queue.reopen(batch)
        self._queue.set_seen_head(head.number, head.hash)
        if head.number - self._forgot >= WATCHED_BLOCKS:
            self._queue.forget_before(head.number - WATCHED_BLOCKS)
            self._forgot = head.number

    def _settle(self, head: Block) -> list[Batch]:
        """Record the outcome of batches that are in blocks; return those that are in none."""
        batches = self._queue.open_batches()
        if not batches:
            return []
        receipts = self._receipts(batches)
        missing = [batch for batch in batches if batch.number not in receipts]
        if missing:
            used = self._chain.nonce(self._signer.address)
            # asked for again, because a block may have come between the two answers
            late = self._receipts([batch for batch in missing if batch.nonce < used])
            receipts |= late
            for batch in missing:
                if batch.nonce < used and batch.number not in late:
                    self._log.warning("lost to another transaction of the same account", batch=batch.number)
                    self._queue.lose(batch.number)
            missing = [batch for batch in missing if batch.nonce >= used]
        for batch in batches:
            receipt = receipts.get(batch.number)
            if receipt and head.number - receipt.block + 1 >= self._confirmations:
                self._record(batch, receipt)
        return missing

    def _receipts(self, batches: Sequence[Batch]) -> dict[int, Receipt]:
        pairs = [(batch.number, sending.transaction) for batch in batches for sending in batch.sendings]
        answers = self._chain.receipts([transaction for _, transaction in pairs])
        return {number: receipt for (number, _), receipt in zip(pairs, answers, strict=True) if receipt}

    def _record(self, batch: Batch, receipt: Receipt) -> None:
        members = self._queue.members(batch.number)
        verdicts = [self._verdict(batch, member, receipt) for member in members]
        self._queue.mine(batch.number, receipt.transaction, receipt.block, receipt.block_hash, verdicts)
        settled = sum(one.state == "settled" for one in verdicts)
        self._log.info(
            "batch in a block",
            batch=batch.number,
            block=receipt.block,
            settled=settled,
            others=len(verdicts) - settled,
            gas=receipt.gas_used,
        )

    def _verdict(self, batch: Batch, member: Waiting, receipt: Receipt) -> Verdict:
        struct = member.intent.struct

        def failed(refusal: Refusal, why: str) -> Verdict:
            return Verdict(member.seq, "failed", refusal, why, receipt.transaction, receipt.block)

        if settlement.took_effect(struct, receipt.events):
            return Verdict(member.seq, "settled", transaction=receipt.transaction, block=receipt.block)
        reason = settlement.failure(struct, receipt.events)
        if reason is None and member.intent.kind == "Transfer":
            # the batch as a whole failed, which its gas limit rules out save for a chain that prices gas otherwise
            if member.attempts + 1 < MAX_ATTEMPTS:
                return Verdict(member.seq, "accepted")
            return failed(Refusal.REVERTED, f"{MAX_ATTEMPTS} batches with it failed")
        if reason is None:
            revert = self._chain.preflight([member.intent], self._signer.address)[0].revert
            if revert is None and member.attempts + 1 < MAX_ATTEMPTS:
                return Verdict(member.seq, "accepted")
        else:
            revert = self._chain.reverts.read(reason)
        if revert is None:
            return failed(Refusal.REVERTED, "its transactions kept failing")
        if revert.refusal is Refusal.REPLAYED:
            for other in self._chain.receipts(self._queue.other_transactions(member.seq, batch.number)):
                if other and settlement.took_effect(struct, other.events):
                    return Verdict(member.seq, "settled", transaction=other.transaction, block=other.block)
        return failed(revert.refusal, revert.text)

    # ---- what is to be done

    def _send_again(self, missing: Sequence[Batch], head: Block) -> None:
        """Hand over again what the pool has dropped; outbid the fee of what is next in line and stuck."""
        self._since = {batch.number: self._since.get(batch.number, head.number) for batch in missing}
        if not missing:
            self.trouble = ""
            return
        known = self._chain.are_known([batch.sendings[-1].transaction for batch in missing])
        self._send([batch.sendings[-1] for batch, has in zip(missing, known, strict=True) if not has])
        first = missing[0]
        waited = head.number - self._since[first.number]
        if waited >= GAP_BLOCKS and first.nonce > self._chain.nonce(self._signer.address, pending=True):
            # a transaction before ours is gone for good, so ours never come in turn: begin again at its nonce
            self._log.warning("a nonce before ours was never used", batches=len(missing))
            for batch in missing:
                self._queue.lose(batch.number)
            return
        if waited < STUCK_BLOCKS:
            return
        higher = first.sendings[-1].fees.outbid(self._chain.fees()) if len(first.sendings) < MAX_SENDINGS else None
        if higher is None:
            self._complain("a transaction is stuck at the highest fee that this relayer offers")
            return
        sending = self._sign(self._data(self._queue.members(first.number)), first, higher)
        self._queue.add_sending(first.number, sending)
        self._since[first.number] = head.number
        self._log.warning("outbidding", batch=first.number, max_fee=higher.max_fee)
        self._send([sending])

    def _submit(self, head: Block) -> None:
        """Sign batches of what waits, write them down, send them.

        While one is under way the next waits until it is full, as Nagle's algorithm does: what comes alone is sent at
        once, and what comes thick shares the cost of a transaction.
        """
        while len(batches := self._queue.open_batches()) < MAX_OPEN:
            members = self._fitting(self._unexpired(self._queue.waiting(self._max_batch), head), head)
            if not members or (batches and not self._is_full(members)):
                return
            data = self._data(members)
            pending = self._chain.nonce(self._signer.address, pending=True)
            nonce = max([pending, *(batch.nonce + 1 for batch in batches)])
            blank = Batch(0, nonce, _gas(members, data), ())
            sending = self._sign(data, blank, self._chain.fees())
            number = self._queue.open_batch(nonce, blank.gas, sending, [member.seq for member in members])
            self._log.info("submitting", batch=number, intents=len(members), nonce=nonce)
            self._send([sending])

    def _is_full(self, members: Sequence[Waiting]) -> bool:
        return len(members) >= self._max_batch or members[0].intent.kind == "Lock"

    def _unexpired(self, waiting: Sequence[Waiting], head: Block) -> list[Waiting]:
        late = [one for one in waiting if head.timestamp > one.intent.struct.deadline]
        if late:
            self._queue.fail(
                [
                    Verdict(
                        one.seq,
                        "failed",
                        Refusal.EXPIRED,
                        f"it expired at {when(one.intent.struct.deadline)}, before a block took it",
                    )
                    for one in late
                ]
            )
        return [one for one in waiting if one not in late]

    def _fitting(self, waiting: list[Waiting], head: Block) -> list[Waiting]:
        """As many from the front as one transaction's gas allows, at least one."""
        limit = min(MAX_TX_GAS, head.gas_limit)
        while len(waiting) > 1 and _gas(waiting, self._data(waiting)) > limit:
            waiting = waiting[: max(1, len(waiting) * 3 // 4)]
        return waiting

    @staticmethod
    def _data(members: Sequence[Waiting]) -> bytes:
        if members[0].intent.kind == "Lock":
            return calldata.submit(members[0].intent)
        return calldata.relay([member.intent for member in members])

    def _sign(self, data: bytes, batch: Batch, fees: Fees) -> Sending:
        fields = self._chain.transaction_fields(
            data, to=self._chain.contract, nonce=batch.nonce, gas=batch.gas, fees=fees
        )
        signed = self._signer.sign_transaction(fields)
        return Sending(signed.hash, signed.raw, fees)

    def _send(self, sendings: Sequence[Sending]) -> None:
        for complaint in self._chain.send_raw([sending.raw for sending in sendings]):
            if complaint:
                self._complain(complaint)

    def _complain(self, what: str) -> None:
        if what != self.trouble:
            self._log.warning("the chain takes nothing", because=what)
        self.trouble = what


def _gas(members: Sequence[Waiting], data: bytes) -> int:
    if members[0].intent.kind == "Lock":
        return 21_000 + 40 * len(data) + LOCK_GAS
    return calldata.relay_gas(data, len(members))
