"""From the queue to the chain: one `tick` brings the two in step. Synchronous; runs in a thread.

The order of every step is: write it down, then do it. So a kill at any moment leaves either a transaction that was
never sent and will be, or one that was sent and will be found. The contract's nonces see to it that an intent in two
transactions takes effect once.

Several accounts may send; each has a line of nonces of its own (`lines`), so that one that is stuck or out of coin
holds back only what it carries already.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby

from p2pos import log
from p2pos.errors import ChainError, UserError
from p2pos.ledger import batching
from p2pos.ledger.chain import Chain
from p2pos.ledger.fees import MAX_FEE, MIN_PRIORITY, Fees, in_gwei
from p2pos.ledger.figures import Figures
from p2pos.ledger.intents import Refusal
from p2pos.ledger.judge import Judge
from p2pos.ledger.lines import STUCK_BLOCKS, Line
from p2pos.ledger.plain_words import when
from p2pos.ledger.queue import Batch, Draft, Mined, Queue, Sending, Verdict, Waiting
from p2pos.ledger.records import Block, Look, Receipt
from p2pos.ledger.rpc_http import public_name
from p2pos.ledger.signer import Signer
from p2pos.ledger.transaction import read
from p2pos.types import Address

__all__ = ["MAX_BATCH", "MAX_OPEN", "STUCK_BLOCKS", "WATCHED_BLOCKS", "Submitter"]

MAX_BATCH = 100
"""Intents in one transaction: their gas limit, 12 million, stays under the 16,777,216 of EIP-7825."""
MAX_OPEN = 16
"""Batches under way per sender: as many of one account's transactions as geth's pool keeps in any case
(`--txpool.accountslots`)."""
MAX_SENDINGS = 12
"""Fees tried for one batch: an eighth more each time makes the last four times the first. Then a person must look."""
WATCHED_BLOCKS = 256
"""How deep a reorganisation is followed. Ethereum finalises after 64; anvil's default keeps some hundred states."""
FORGET_EVERY = 8
"""Blocks between two clearings of what no reorganisation can reach."""
FORGET_MOST = 2000
"""Batches cleared at once, so that a clearing takes under 0.1 s."""
SEND_BYTES = 256 << 10
"""Of signed transactions in one request: half a megabyte of JSON, a tenth of what geth takes (`body limit`, 5 MB)."""


class Submitter:
    """Carries one queue's intents to one chain from one account or several."""

    def __init__(
        self,
        chain: Chain,
        queue: Queue,
        *signers: Signer,
        confirmations: int = 1,
        max_batch: int = MAX_BATCH,
        max_open: int = MAX_OPEN,
        max_fee: int = MAX_FEE,
    ) -> None:
        """`max_fee` is the most that is ever offered, in wei per gas."""
        self._chain = chain
        self._queue = queue
        self._lines = {signer.address: Line(signer) for signer in signers}
        self._confirmations = confirmations
        self._max_batch = max_batch
        self._max_open = max_open
        self._max_fee = max_fee
        self._judge = Judge(chain, queue, signers[0].address)
        self._log = log.get("relayer")
        self._forgot = 0
        self._seen: Block | None = None
        """The newest block whose predecessors are known to be those that were seen before."""
        self._doubted: dict[int, int] = {}
        """Per batch whose nonce is used and which is in no block: the head when that was first seen."""
        self._due: dict[int, int] = {}
        """Per batch in a block that is not deep enough yet: the head at which it will be."""
        self._dear = ""
        """The chain asks for more than may be offered."""
        self.figures = Figures()
        """What it did since it was made."""
        self.head: Block | None = None
        """The newest block in which everything was looked at."""

    @property
    def senders(self) -> list[Address]:
        """The accounts that send."""
        return list(self._lines)

    @property
    def trouble(self) -> str:
        """What holds the work up, so far as the chain answers; "" when all goes well."""
        return self._dear or next((line.trouble for line in self._lines.values() if line.trouble), "")

    def bind(self) -> None:
        """Claim the queue for this chain and contract.

        Raises UserError where it is another's, or where an account that has batches under way is not among the
        senders.
        """
        self._queue.bind(
            {"chain": str(self._chain.chain_id), "contract": self._chain.contract, "genesis": self._genesis()}
        )
        strangers = {batch.sender for batch in self._queue.open_batches()} - set(self._lines)
        if strangers:
            raise UserError(
                f"the queue has batches under way from sender {', '.join(sorted(strangers))}",
                hint="give that wallet too, until they are settled",
            )

    def tick(self) -> bool:
        """Look at the chain, record what happened, send what waits. Returns whether anything is under way.

        Raises UnavailableError or ChainError where the chain doesn't answer or the queue's disk takes nothing; the
        next tick goes on from there.
        """
        look = self._chain.look(self.senders, self._seen.number if self._seen else None)
        with self._chain.consistent():
            return self._bring_in_step(look)

    def _bring_in_step(self, look: Look) -> bool:
        if self._seen is None or self._seen.hash != look.head.hash:
            self._follow(look)
        if self.head is None or self.head.hash != look.head.hash:
            missing = self._settle(look)
            for line in self._lines.values():
                self._tend(line, [batch for batch in missing if batch.sender == line.address], look)
        self._submit(look)
        self.head = look.head
        return self._queue.unsettled() > 0

    # ---- what happened

    def _follow(self, look: Look) -> None:
        """Notice a reorganisation, at the start also one that came while nobody looked, and open again what it took."""
        if self._seen is None or look.hash != self._seen.hash:
            # from where it was left: what is older than that was forgotten, and of what came since nothing is known
            since = min(look.head.number, self._seen.number) - WATCHED_BLOCKS if self._seen else 0
            mined = self._queue.mined_since(since)
            if self._seen:
                self._require_same_chain()
            now = self._hashes({block for _, block, _ in mined})
            for batch, block, block_hash in mined:
                if now[block] != block_hash:
                    self._log.warning("reorganised", batch=batch, block=block)
                    self._queue.reopen(batch)
                    self.figures.reorganised += 1
            self._due.clear()
            self._doubted.clear()
        self._seen = look.head
        if look.head.number - self._forgot >= FORGET_EVERY:
            self._queue.forget_before(look.head.number - WATCHED_BLOCKS, FORGET_MOST)
            self._forgot = look.head.number

    def _require_same_chain(self) -> None:
        """Raise ChainError where this is another chain than before, or one that has lost the contract."""
        name, hint = public_name(self._chain.url), "bring back its state, or give --queue another file"
        if self._genesis() != self._queue.bound("genesis"):
            raise ChainError(f"the chain at {name} began anew: it is not the one that this queue is for", hint=hint)
        if not self._chain.with_code([self._chain.contract]):
            raise ChainError(f"the chain at {name} has lost the contract {self._chain.contract}", hint=hint)

    def _genesis(self) -> str:
        return self._chain.block_hashes([0])[0]

    def _hashes(self, numbers: set[int]) -> dict[int, str]:
        asked = sorted(numbers)
        return dict(zip(asked, self._chain.block_hashes(asked), strict=True))

    def _settle(self, look: Look) -> list[Batch]:
        """Record the outcome of batches that are in blocks; return those that are in none and still can be."""
        batches = self._queue.open_batches()
        missing = [batch for batch in batches if batch.nonce >= look.used[batch.sender]]
        gone = [batch for batch in batches if batch.nonce < look.used[batch.sender]]
        ripe = [batch for batch in gone if self._due.get(batch.number, 0) <= look.head.number]
        receipts = self._receipts(ripe)
        mined, lost = list[Mined](), list[int]()
        for batch in ripe:
            receipt = receipts.get(batch.number)
            if receipt is None:
                # at the next block it is lost: this answer may have come from a node that is a block behind
                if self._doubted.setdefault(batch.number, look.head.number) < look.head.number:
                    lost.append(batch.number)
                continue
            due = receipt.block + self._confirmations - 1
            if due <= look.head.number:
                mined.append(self._judge.mined(batch, receipt))
            else:
                self._due[batch.number] = due
        if mined:
            self._queue.mine(mined)
            self._report(mined, receipts)
        if lost:
            self._log.warning("lost to another transaction of the same account", batches=lost)
            self._lose(lost)
        for number in (*lost, *(one.batch for one in mined)):
            self._due.pop(number, None)
            self._doubted.pop(number, None)
        return missing

    def _receipts(self, batches: Sequence[Batch]) -> dict[int, Receipt]:
        pairs = [(batch.number, sending.transaction) for batch in batches for sending in batch.sendings]
        answers = self._chain.receipts([transaction for _, transaction in pairs])
        return {number: receipt for (number, _), receipt in zip(pairs, answers, strict=True) if receipt}

    def _lose(self, batches: Sequence[int]) -> None:
        self._queue.lose(batches)
        self.figures.lost += len(batches)

    def _report(self, mined: Sequence[Mined], receipts: Mapping[int, Receipt]) -> None:
        states = [verdict.state for one in mined for verdict in one.verdicts]
        settled = states.count("settled")
        self.figures.settled += settled
        self.figures.failed += states.count("failed")
        for one in mined:
            self.figures.sizes[len(one.verdicts)] += 1
            self.figures.gas_used += receipts[one.batch].gas_used
            self.figures.fee_paid += receipts[one.batch].fee
        self._log.info(
            "in a block",
            batches=len(mined),
            block=max(one.block for one in mined),
            settled=settled,
            others=len(states) - settled,
        )

    # ---- what is under way

    def _tend(self, line: Line, missing: Sequence[Batch], look: Look) -> None:
        """Hand over again what the pool has dropped, outbid what is stuck, give up what can't come in turn."""
        head, pending = look.head.number, look.pending[line.address]
        line.watch(missing, head)
        if not missing:
            line.trouble = ""
            return
        first = missing[0]
        dropped = [batch for batch in missing if batch.nonce >= pending]
        if first.nonce > pending:
            # a transaction before ours is missing; once it is gone for good, ours begin again at its nonce
            if line.is_late(head):
                self._log.warning("a nonce before ours was never used", sender=line.address, batches=len(missing))
                self._lose([batch.number for batch in missing])
            return
        self._send(line, [batch.sendings[-1] for batch in dropped])
        self.figures.dropped += len(dropped)
        if line.trouble and dropped and line.is_stuck(head) and self._others(line, head):
            self._log.warning("another sender takes over", sender=line.address, because=line.trouble)
            self._lose([batch.number for batch in dropped])
            line.rest(head)
            return
        if not line.is_stuck(head):
            return
        for batch in missing:
            if batch is first or batch.sendings[-1].fees.max_fee < look.head.base_fee:
                self._outbid(line, batch, look)

    def _outbid(self, line: Line, batch: Batch, look: Look) -> None:
        now = Fees.suggest(look.head.base_fee, look.priority, self._max_fee)
        higher = None
        if len(batch.sendings) < MAX_SENDINGS:
            higher = batch.sendings[-1].fees.outbid(now, self._max_fee)
        if higher is None:
            line.trouble = "a transaction is stuck at the highest fee that this relayer offers"
            return
        fields = read(batch.sendings[-1].raw)
        fields |= {"maxFeePerGas": higher.max_fee, "maxPriorityFeePerGas": higher.priority}
        signed = line.signer.sign_transaction(fields)
        sending = Sending(signed.hash, signed.raw, higher)
        self._queue.add_sending(batch.number, sending)
        self.figures.sent += 1
        self.figures.replaced += 1
        line.changed(batch, look.head.number)
        self._log.warning("outbidding", batch=batch.number, max_fee=higher.max_fee)
        self._send(line, [sending])

    def _others(self, line: Line, head: int) -> bool:
        """Whether another sender could do this one's work."""
        return any(one is not line and one.is_able(head) for one in self._lines.values())

    # ---- what is to be done

    def _submit(self, look: Look) -> None:
        """Sign batches of what waits, write them down, send them.

        While one is under way and on its way into the next block, the next waits until it is full, as Nagle's
        algorithm does: what comes alone is sent at once, and what comes thick shares the cost of a transaction.
        """
        head = look.head
        self._dear = ""
        if not (waiting := self._unexpired(head)):
            return
        if head.base_fee + MIN_PRIORITY > self._max_fee:
            self._dear = (
                f"the chain asks {in_gwei(head.base_fee)} gwei per gas, and this relayer pays {in_gwei(self._max_fee)}"
            )
            return
        fees = Fees.suggest(head.base_fee, look.priority, self._max_fee)
        drafts = list[Draft]()
        batches = self._queue.open_batches()
        held = {address: sum(batch.sender == address for batch in batches) for address in self._lines}
        nonces = {
            address: max([look.pending[address], *(one.nonce + 1 for one in batches if one.sender == address)])
            for address in self._lines
        }
        able = [line for line in self._lines.values() if line.is_able(head.number)]
        coming = any(line.expects_a_block(head.number) for line in able)
        while waiting:
            able = [line for line in able if held[line.address] < self._max_open]
            members = batching.cut(waiting, self._max_batch, head.gas_limit)
            full = len(members) == self._max_batch or len(members) < len(waiting)
            if not able or ((coming or drafts) and not full):
                break
            line = min(able, key=lambda one: held[one.address])
            drafts.append(self._draft(line, tuple(members), nonces[line.address], fees))
            held[line.address] += 1
            nonces[line.address] += 1
            waiting = waiting[len(members) :]
        if not drafts:
            return
        opened = self._queue.open_batch(drafts)
        self.figures.sent += len(opened)
        self._log.info("submitting", batches=len(opened), intents=sum(len(batch.members) for batch in opened))
        for batch in opened:
            self._lines[batch.sender].changed(batch, head.number)
        for address, own in groupby(sorted(opened, key=lambda batch: batch.sender), key=lambda batch: batch.sender):
            self._send(self._lines[address], [batch.sendings[0] for batch in own])

    def _unexpired(self, head: Block) -> Sequence[Waiting]:
        """What could be sent now; what has expired meanwhile fails."""
        waiting = self._queue.waiting(self._max_batch * self._max_open * len(self._lines))
        late = [one for one in waiting if head.timestamp > one.intent.struct.deadline]
        if not late:
            return waiting
        verdicts = [
            self._judge.elsewhere(one)
            or Verdict(
                one.seq,
                "failed",
                Refusal.EXPIRED,
                f"it expired at {when(one.intent.struct.deadline)}, before a block took it",
            )
            for one in late
        ]
        self._queue.fail(verdicts)
        failed = sum(one.state == "failed" for one in verdicts)
        self.figures.failed += failed
        self.figures.settled += len(verdicts) - failed
        gone = {one.seq for one in late}
        return [one for one in waiting if one.seq not in gone]

    def _draft(self, line: Line, members: tuple[Waiting, ...], nonce: int, fees: Fees) -> Draft:
        data, gas = batching.call([member.intent for member in members])
        fields = self._chain.transaction_fields(data, to=self._chain.contract, nonce=nonce, gas=gas, fees=fees)
        signed = line.signer.sign_transaction(fields)
        return Draft(line.address, nonce, gas, members, Sending(signed.hash, signed.raw, fees))

    def _send(self, line: Line, sendings: Sequence[Sending]) -> None:
        """Hand transactions to the pool, in order, and note what it says against them."""
        trouble = ""
        for portion in _portions(sendings):
            complaints = self._chain.send_raw([sending.raw for sending in portion])
            refused = [(one.transaction, why) for one, why in zip(portion, complaints, strict=True) if why]
            if refused:
                known = self._chain.are_known([transaction for transaction, _ in refused])
                trouble = next((why for (_, why), has in zip(refused, known, strict=True) if not has), trouble)
        if trouble and trouble != line.trouble:
            self._log.warning("the chain takes nothing", sender=line.address, because=trouble)
        line.trouble = trouble


def _portions(sendings: Sequence[Sending]) -> list[list[Sending]]:
    """In groups that make one request each."""
    portions: list[list[Sending]] = []
    size = SEND_BYTES
    for sending in sendings:
        size += len(sending.raw)
        if size > SEND_BYTES:
            portions.append([])
            size = len(sending.raw)
        portions[-1].append(sending)
    return portions
