"""The relayer as a service: HTTP in front, the queue in the middle, the chain behind.

`POST /intents` answers 202 once the intent is on disk, and from then on the intent is submitted, whatever happens to
this process. `admit_forever` and `submit_forever` are the two tasks that share the queue, each in a thread of its own.
"""

import gc
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio
from starlette.types import ASGIApp
from trio_typing import TaskStatus

from p2pos import http_server, log
from p2pos.errors import ChainError, P2posError, UnavailableError
from p2pos.ledger.admission import Admission, Outcome
from p2pos.ledger.chain import Chain
from p2pos.ledger.intents import RefusedError, SignedIntent
from p2pos.ledger.limits import LimitedError, Limits
from p2pos.ledger.queue import Queue, Status
from p2pos.ledger.relayer_metrics import RelayerMetrics
from p2pos.ledger.submitter import Submitter
from p2pos.types import Address, Wei

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
BALANCES_S = 10.0
"""Between two looks at the senders' coin. `/status` shows what was seen last, so that asking it asks no chain."""
STALLED_S = 120.0
"""Without a block, while something waits for one: ten times Ethereum's slot, five times what it missed at worst."""
COLLECT_EVERY = (100_000, 20, 100)
"""New objects until the interpreter looks for cycles among the young ones, and how many such looks until it looks among
the older. A relayer keeps ten thousand intents in hand, which it would look through again and again: at Python's own
700 that took an eighth of its processor time (`bench relay`, four runs)."""
DRAIN_S = 2.0
"""For requests under way when the service is asked to stop; an admission takes under 1 s."""


@dataclass(eq=False)
class _Arrival:
    intents: Sequence[SignedIntent]
    done: trio.Event = field(default_factory=trio.Event)
    outcomes: list[Outcome] = field(default_factory=list)


class Relayer:
    """One chain, one queue, and the accounts that send.

    Args:
        chain: with the contract.
        queue: open.
        submitter: bound to both.
        limits: of each signer.
        process: show the process's memory, CPU and files among the metrics; once per process.

    """

    def __init__(
        self,
        chain: Chain,
        queue: Queue,
        submitter: Submitter,
        *,
        limits: Limits | None = None,
        process: bool = False,
    ) -> None:
        self.chain = chain
        self._queue = queue
        self._submitter = submitter
        self._figures = submitter.figures
        self._admission = Admission(chain, queue, submitter.senders[0], limits=limits, figures=self._figures)
        self._admitting = trio.CapacityLimiter(1)
        self._submitting = trio.CapacityLimiter(1)
        self._arriving_send, self._arriving = trio.open_memory_channel[_Arrival](MAX_ARRIVING)
        self._wake = trio.Event()
        self._log = log.get("relayer")
        self._began_s = time.time()
        self._balances: dict[Address, Wei] = {}
        self._balances_from_s = 0.0
        """When to look at them next, by `time.monotonic`."""
        self._block = ""
        self._block_since_s = time.monotonic()
        """Since when no other block was seen."""
        self.metrics = RelayerMetrics(self._figures, process=process)
        self.unreachable = ""
        """Why the chain could not be asked last; "" when it could."""

    @property
    def no_block_for_s(self) -> float:
        """For how long no new block has been seen; since the start, where none was."""
        return time.monotonic() - self._block_since_s

    @property
    def trouble(self) -> str:
        """What holds the work up, in one line; "" where nothing does."""
        if self.unreachable or self._submitter.trouble:
            return self.unreachable or self._submitter.trouble
        if self._queue.unsettled() and (stalled_s := self.no_block_for_s) > STALLED_S:
            return f"no block for {stalled_s:.0f} s: the chain has stopped; what waits goes in when it goes on"
        return ""

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
        began_s = trio.current_time()
        arrival = _Arrival(intents)
        try:
            self._arriving_send.send_nowait(arrival)
        except trio.WouldBlock:
            busy = UnavailableError("too many intents arrive at once", hint="try again in a moment")
            self._figures.refused["unavailable"] += len(intents)
            return [busy] * len(intents)
        await arrival.done.wait()
        self.metrics.answered(trio.current_time() - began_s)
        for outcome in arrival.outcomes:
            if not isinstance(outcome, Status):
                self._figures.refused[_reason(outcome)] += 1
        return arrival.outcomes

    async def status(self, id_: str) -> Status | None:
        """What is known of an intent, or None."""
        return await trio.to_thread.run_sync(self._queue.status, id_)

    async def counts(self) -> dict[str, int]:
        """Intents by state."""
        return await trio.to_thread.run_sync(self._queue.counts)

    async def summary(self) -> dict[str, Any]:
        """What `/status` says. Asks no chain."""
        return await trio.to_thread.run_sync(self._summary)

    def _summary(self) -> dict[str, Any]:
        head = self._submitter.head
        end_points = self.chain.health()
        open_batches = self._queue.open_batches()
        oldest_s = self._queue.oldest_s()
        figures = self._figures
        return {
            "chain_id": self.chain.chain_id,
            "contract": self.chain.contract,
            "rpc_url": next((each["name"] for each in end_points if each["in_use"]), ""),
            "rpc": end_points,
            "senders": [
                {
                    "address": sender,
                    "balance_wei": str(self._balances[sender]) if sender in self._balances else None,
                    "open_batches": sum(batch.sender == sender for batch in open_batches),
                }
                for sender in self._submitter.senders
            ],
            "head": head.number if head else None,
            "no_block_for_s": round(self.no_block_for_s, 1),
            "intents": self._queue.counts(),
            "room": self._queue.room(),
            "queue_age_s": 0.0 if oldest_s is None else round(max(0.0, time.time() - oldest_s), 1),
            "open_batches": len(open_batches),
            "since_start": {
                "seconds": round(time.time() - self._began_s, 1),
                "accepted": figures.accepted,
                "refused": dict(figures.refused),
                "settled": figures.settled,
                "failed": figures.failed,
                "transactions": figures.sent,
                "replacements": figures.replaced,
                "gas": figures.gas_used,
                "fee_wei": str(figures.fee_paid),
            },
            "trouble": self.trouble,
        }

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
                busy = await trio.to_thread.run_sync(self._tick, limiter=self._submitting)
                self.unreachable = ""
                backoff_s = POLL_S
            except (UnavailableError, ChainError) as exc:
                if not self.unreachable:
                    self._log.warning("held up", because=str(exc))  # by the chain, or by the queue's disk
                self.unreachable = str(exc)
                backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)
                busy = True
            if busy:
                await trio.sleep(backoff_s)  # what arrives meanwhile is gathered
            else:
                with trio.move_on_after(IDLE_POLL_S):
                    await self._wake.wait()

    def _tick(self) -> bool:
        busy = self._submitter.tick()
        head, now_s = self._submitter.head, time.monotonic()
        if head is not None and head.hash != self._block:
            self._block, self._block_since_s = head.hash, now_s
        if now_s >= self._balances_from_s:
            self._balances = {sender: self.chain.native_balance(sender) for sender in self._submitter.senders}
            self._balances_from_s = now_s + BALANCES_S
        return busy


def _reason(outcome: P2posError) -> str:
    if isinstance(outcome, RefusedError):
        return outcome.refusal.value
    return "limited" if isinstance(outcome, LimitedError) else "unavailable"


class _Counted:
    """An application whose requests under way are counted, so that they can be finished before it ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._under_way = 0
        self._none = trio.Event()
        self._none.set()
        self._ending = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or answer 503 once the end has begun."""
        if self._ending and scope["type"] == "http":
            headers = [(b"content-length", b"0"), (b"retry-after", b"5"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        if not self._under_way:
            self._none = trio.Event()
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._none.set()

    async def finish(self, most_s: float) -> None:
        """Begin nothing new; wait for what is under way."""
        self._ending = True
        with trio.move_on_after(most_s):
            await self._none.wait()


def spare_collector() -> None:
    """Have this process look for cycles of objects as seldom as `COLLECT_EVERY` says."""
    gc.set_threshold(*COLLECT_EVERY)


async def run(
    relayer: Relayer,
    app: ASGIApp,
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
    listener.listen(http_server.BACKLOG)
    host = listener.getsockname()[0]
    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
    counted = _Counted(app)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relayer.admit_forever)
        nursery.start_soon(relayer.submit_forever)
        serving = partial(http_server.serve_on, counted, listeners, host)
        task_status.started(await nursery.start(serving))
        await stop.wait()
        await counted.finish(DRAIN_S)
        nursery.cancel_scope.cancel()
