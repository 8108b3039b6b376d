"""The relayer as a service: HTTP in front, the queue in the middle, the chain behind.

`POST /intents` answers 202 once the intent is on disk, and from then on the intent is submitted, whatever happens to
this process. `admit_forever` and `submit_forever` are the two tasks that share the queue, each in a thread of its own.
"""

import functools
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import ChainError, P2posError, UnavailableError
from p2pos.ledger.admission import Admission, Outcome
from p2pos.ledger.chain import Chain
from p2pos.ledger.intents import Refusal, RefusedError, SignedIntent
from p2pos.ledger.queue import Queue, Status
from p2pos.ledger.submitter import Submitter

ADMIT_BATCH = 100
"""Intents that are checked with one request to the chain and written with one flush to disk."""
MAX_ARRIVING = 1000
"""Requests that wait to be admitted, 16 KiB each at most; whoever comes next is told to come back."""
POLL_S = 0.2
"""Between two looks at the chain while something is under way. The fastest chains make a block per 0.25 s."""
IDLE_POLL_S = 2.0
"""While nothing is. Reorganisations of settled blocks are noticed this often."""
MAX_BACKOFF_S = 10.0
"""Between two tries while the chain doesn't answer."""
DRAIN_S = 2.0
"""For requests under way when the service is asked to stop; an admission takes under 1 s."""


@dataclass(eq=False)
class _Arrival:
    intents: Sequence[SignedIntent]
    done: trio.Event = field(default_factory=trio.Event)
    outcomes: list[Outcome] = field(default_factory=list)


class Relayer:
    """One chain, one queue, and the accounts that send."""

    def __init__(self, chain: Chain, queue: Queue, submitter: Submitter) -> None:
        self.chain = chain
        self._queue = queue
        self._submitter = submitter
        self._admission = Admission(chain, queue, submitter.senders[0])
        self._admitting = trio.CapacityLimiter(1)
        self._submitting = trio.CapacityLimiter(1)
        self._arriving_send, self._arriving = trio.open_memory_channel[_Arrival](MAX_ARRIVING)
        self._wake = trio.Event()
        self._log = log.get("relayer")
        self.refused: dict[str, int] = dict.fromkeys(Refusal, 0)
        """Intents that were not taken, by refusal, since the start."""
        self.unreachable = ""
        """Why the chain could not be asked last; "" when it could."""

    async def submit(self, intent: SignedIntent) -> Status:
        """Take an intent in.

        Returns: its status, once it is on disk. The same intent again gives its status again, until it is settled.

        Raises:
            RefusedError: it would not be carried out, or already was.
            UnavailableError: too much is waiting, or the chain can't be asked.

        """
        (outcome,) = await self.submit_many([intent])
        if isinstance(outcome, Status):
            return outcome
        raise outcome

    async def submit_many(self, intents: Sequence[SignedIntent]) -> list[Outcome]:
        """Take intents in, up to `ADMIT_BATCH`. Returns per intent its status, or what `submit` would raise."""
        arrival = _Arrival(intents)
        try:
            self._arriving_send.send_nowait(arrival)
        except trio.WouldBlock:
            busy = UnavailableError("too many intents arrive at once", hint="try again in a moment")
            return [busy] * len(intents)
        await arrival.done.wait()
        for outcome in arrival.outcomes:
            if isinstance(outcome, RefusedError):
                self.refused[outcome.refusal] += 1
        return arrival.outcomes

    async def status(self, id_: str) -> Status | None:
        """What is known of an intent, or None."""
        return await trio.to_thread.run_sync(self._queue.status, id_)

    async def counts(self) -> dict[str, int]:
        """Intents by state."""
        return await trio.to_thread.run_sync(self._queue.counts)

    async def summary(self) -> dict[str, Any]:
        """What `/status` says."""
        head = self._submitter.head
        balances = await trio.to_thread.run_sync(self._balances)
        open_batches = self._queue.open_batches()
        return {
            "chain_id": self.chain.chain_id,
            "contract": self.chain.contract,
            "rpc_url": self.chain.url,
            "senders": [
                {
                    "address": sender,
                    "balance_wei": None if balance is None else str(balance),
                    "open_batches": sum(batch.sender == sender for batch in open_batches),
                }
                for sender, balance in zip(self._submitter.senders, balances, strict=True)
            ],
            "head": head.number if head else None,
            "intents": await self.counts(),
            "open_batches": len(open_batches),
            "trouble": self.unreachable or self._submitter.trouble,
        }

    def _balances(self) -> list[int | None]:
        """The senders' coin in wei; None where the chain doesn't say."""
        try:
            return [self.chain.native_balance(sender) for sender in self._submitter.senders]
        except (ChainError, UnavailableError):
            return [None] * len(self._submitter.senders)

    # ---- the two tasks

    async def admit_forever(self) -> None:
        """Check what arrives and write it down, many at a time."""
        async for first in self._arriving:
            arrivals, count = [first], len(first.intents)
            while count < ADMIT_BATCH:
                try:
                    arrivals.append(self._arriving.receive_nowait())
                except trio.WouldBlock:
                    break
                count += len(arrivals[-1].intents)
            intents = [intent for arrival in arrivals for intent in arrival.intents]
            head = self._submitter.head
            try:
                outcomes = await trio.to_thread.run_sync(
                    self._admission.admit, intents, float(head.timestamp) if head else 0.0, limiter=self._admitting
                )
            except P2posError as exc:
                outcomes = [exc] * len(intents)
            for arrival in arrivals:
                arrival.outcomes = outcomes[: len(arrival.intents)]
                outcomes = outcomes[len(arrival.intents) :]
                arrival.done.set()
            self._wake.set()

    async def submit_forever(self) -> None:
        """Tick for ever: at once when something arrives while all is quiet, else as often as blocks may come."""
        backoff_s = POLL_S
        while True:
            self._wake = trio.Event()
            try:
                busy = await trio.to_thread.run_sync(self._submitter.tick, limiter=self._submitting)
                self.unreachable = ""
                backoff_s = POLL_S
            except (UnavailableError, ChainError) as exc:
                if not self.unreachable:
                    self._log.warning("the chain does not answer", because=str(exc))
                self.unreachable = str(exc)
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
                busy = True
            if busy:
                await trio.sleep(backoff_s)  # what arrives meanwhile is gathered
            else:
                with trio.move_on_after(IDLE_POLL_S):
                    await self._wake.wait()


async def run(
    relayer: Relayer,
    app: Any,
    *,
    listener: socket.socket,
    stop: trio.Event,
    task_status: TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop`; then finish the requests under way.

    Args:
        relayer: whose tasks run meanwhile.
        app: `relayer_http.application(relayer)`.
        listener: a bound socket, which is taken over.
        stop: ends it.
        task_status: told the URL once requests are taken.

    """
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = DRAIN_S
    config.keep_alive_max_requests = 1_000_000  # a client that hands in many needs no new connection each thousand
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relayer.admit_forever)
        nursery.start_soon(relayer.submit_forever)
        serving = functools.partial(serve, app, config, shutdown_trigger=stop.wait)
        bound = await nursery.start(_serve_then_cancel, serving, nursery.cancel_scope)
        task_status.started(bound[0])


async def _serve_then_cancel(
    serving: Any, scope: trio.CancelScope, *, task_status: TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
) -> None:
    await serving(task_status=task_status)
    scope.cancel()
