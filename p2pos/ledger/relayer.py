"""The relayer as a service: HTTP in front, the queue in the middle, the chain behind.

`POST /intents` answers 202 once the intent is on disk, and from then on the intent is submitted, whatever happens to
this process. `admit` and `submit_forever` are the two tasks that share the queue; both run its calls in threads, one
at a time.
"""

import functools
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import ChainError, InternalError, P2posError, UnavailableError
from p2pos.ledger.chain import Chain
from p2pos.ledger.intents import Refusal, RefusedError, SignedIntent, check
from p2pos.ledger.queue import MAX_WAITING, Queue, Status
from p2pos.ledger.submitter import Submitter
from p2pos.types import Address

T = TypeVar("T")

ADMIT_BATCH = 100
"""Intents that are checked with one request to the chain and written with one flush to disk."""
MAX_ARRIVING = 1000
"""Requests that wait to be admitted, 32 KiB each at most; whoever comes next is told to come back."""
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
    intent: SignedIntent
    done: trio.Event = field(default_factory=trio.Event)
    outcome: Status | P2posError | None = None


class Relayer:
    """One chain, one queue, one sending account."""

    def __init__(self, chain: Chain, queue: Queue, submitter: Submitter, sender: Address) -> None:
        self.chain = chain
        self.sender = sender
        self._queue = queue
        self._submitter = submitter
        self._one_at_a_time = trio.CapacityLimiter(1)
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
        arrival = _Arrival(intent)
        try:
            self._arriving_send.send_nowait(arrival)
        except trio.WouldBlock:
            raise UnavailableError("too many intents arrive at once", hint="try again in a moment") from None
        await arrival.done.wait()
        if isinstance(arrival.outcome, Status):
            return arrival.outcome
        if isinstance(arrival.outcome, RefusedError):
            self.refused[arrival.outcome.refusal] += 1
        raise arrival.outcome or InternalError("an arrival without an outcome")

    async def status(self, id_: str) -> Status | None:
        """What is known of an intent, or None."""
        return await self._in_thread(self._queue.status, id_)

    async def counts(self) -> dict[str, int]:
        """Intents by state."""
        return await self._in_thread(self._queue.counts)

    async def summary(self) -> dict[str, Any]:
        """What `/status` says."""
        head = self._submitter.head
        open_batches = await self._in_thread(lambda: len(self._queue.open_batches()))
        try:
            balance: int | None = await trio.to_thread.run_sync(self.chain.native_balance, self.sender)
        except (ChainError, UnavailableError):
            balance = None
        return {
            "chain_id": self.chain.chain_id,
            "contract": self.chain.contract,
            "rpc_url": self.chain.url,
            "sender": self.sender,
            "sender_balance_wei": None if balance is None else str(balance),
            "head": head.number if head else None,
            "intents": await self.counts(),
            "open_batches": open_batches,
            "trouble": self.unreachable or self._submitter.trouble,
        }

    # ---- the two tasks

    async def admit_forever(self) -> None:
        """Check what arrives and write it down, many at a time."""
        async for first in self._arriving:
            arrivals = [first]
            while len(arrivals) < ADMIT_BATCH:
                try:
                    arrivals.append(self._arriving.receive_nowait())
                except trio.WouldBlock:
                    break
            try:
                outcomes = await self._in_thread(self._admit, [arrival.intent for arrival in arrivals])
            except P2posError as exc:
                outcomes = [exc] * len(arrivals)
            for arrival, outcome in zip(arrivals, outcomes, strict=True):
                arrival.outcome = outcome
                arrival.done.set()
            self._wake.set()

    async def submit_forever(self) -> None:
        """Tick for ever: at once when something arrives while all is quiet, else as often as blocks may come."""
        backoff_s = POLL_S
        while True:
            self._wake = trio.Event()
            try:
                busy = await self._in_thread(self._submitter.tick)
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

    # ----

    def _admit(self, intents: Sequence[SignedIntent]) -> list[Status | P2posError]:
        """Per intent its status or why it is not taken. In a thread."""
        outcomes: dict[int, Status | P2posError] = {}
        fresh: dict[str, list[int]] = {}
        nonces: dict[tuple[str, int], str] = {}
        now_s = float(self._submitter.head.timestamp) if self._submitter.head else 0.0
        for index, intent in enumerate(intents):
            try:
                check(intent, self.chain.domain, now_s=max(now_s, time.time()), contract_wallets=None)
                status = self._queue.status(intent.id)
                if status is None or status.state == "failed":
                    self._require_own_nonce(intent, nonces)
                    fresh.setdefault(intent.id, []).append(index)
                else:
                    outcomes[index] = _again(status)
            except P2posError as exc:
                outcomes[index] = exc
        taken = self._preflight([intents[places[0]] for places in fresh.values()], now_s, fresh, outcomes)
        room = self._queue.room()
        self._queue.accept(taken[:room], time.time())
        for position, intent in enumerate(taken):
            status = self._queue.status(intent.id)
            full = UnavailableError(f"{MAX_WAITING} intents are waiting already", hint="try again in a minute")
            for index in fresh[intent.id]:
                outcomes[index] = status if status and position < room else full
        return [outcomes[index] for index in range(len(intents))]

    def _require_own_nonce(self, intent: SignedIntent, nonces: dict[tuple[str, int], str]) -> None:
        key = (intent.owner, intent.nonce)
        rival = self._queue.rival(intent) or nonces.setdefault(key, intent.id)
        status = self._queue.status(rival)
        if rival != intent.id and status and status.state == "settled":
            raise RefusedError(
                Refusal.REPLAYED,
                f"nonce {intent.nonce} of this owner was already used or cancelled",
                hint="sign it again with a new nonce",
                transaction=status.transaction,
            )
        if rival != intent.id:
            raise RefusedError(
                Refusal.CONFLICT,
                f"another intent of this owner with nonce {intent.nonce} is here already",
                hint="sign it again with a new nonce",
                rival=rival,
            )

    def _preflight(
        self,
        intents: Sequence[SignedIntent],
        now_s: float,
        places: dict[str, list[int]],
        outcomes: dict[int, Status | P2posError],
    ) -> list[SignedIntent]:
        """Ask signatures and contract about new intents; note refusals in `outcomes`, return the good ones."""
        if not intents:
            return []
        found = self.chain.preflight(intents, self.sender)
        good = []
        for intent, (contract_wallets, revert) in zip(intents, found, strict=True):
            fault: RefusedError | None = None
            try:
                check(intent, self.chain.domain, now_s=now_s, contract_wallets=contract_wallets)
            except RefusedError as exc:
                fault = exc
            if fault is None and revert is not None:
                fault = RefusedError(revert.refusal, revert.text, hint=revert.hint)
            if fault is None:
                good.append(intent)
            else:
                outcomes.update(dict.fromkeys(places[intent.id], fault))
        return good

    async def _in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        return await trio.to_thread.run_sync(call, *arguments, limiter=self._one_at_a_time)


def _again(status: Status) -> Status | RefusedError:
    if status.state != "settled":
        return status
    return RefusedError(
        Refusal.REPLAYED,
        f"this intent was already carried out, in transaction {status.transaction}",
        hint="nothing moves twice; to give again, sign again",
        id=status.id,
        state=status.state,
        transaction=status.transaction,
        block=status.block,
    )


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
