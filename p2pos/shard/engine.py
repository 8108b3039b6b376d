"""The sessions of one stage, and the one thread that computes for them: schedule → run → postprocess.

The order of runs is that of their arrival: a session has at most one run waiting, so sessions take turns, and a long
prompt holds the others up for one chunk at a time.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import torch
import trio
from trio_typing import TaskStatus

from p2pos.errors import InternalError, PeerError, UserError
from p2pos.shard import activations, sampling
from p2pos.shard.cache import SpanCache
from p2pos.shard.grammar import GrammarConstraint, Grammars
from p2pos.shard.session import MAX_SESSIONS, Computed, Run, StageSession
from p2pos.shard.stage import Stage
from p2pos.types import PeerId

RATE_WINDOW_S = 10.0
"""Seconds over which `tokens_per_s` is taken."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one session."""

    session: StageSession
    run: Run


@dataclass(frozen=True, slots=True)
class Failed:
    """A run that could not be done, and who is at fault."""

    error: Exception


class Engine:
    """Runs a stage for its sessions.

    Args:
        stage: the loaded span.
        dtype: of the hidden states that stages exchange, by its wire name.
        max_tokens: positions that all caches of this stage may hold together.
        on_done: told of each run's outcome, in the trio thread.
        grammars: makes what holds texts to grammars, when the first one asks for it; at the tail alone.

    """

    def __init__(
        self,
        stage: Stage,
        *,
        dtype: str,
        max_tokens: int,
        on_done: Callable[[StageSession, Computed | Failed], Awaitable[None]],
        grammars: Callable[[], Grammars] | None = None,
    ) -> None:
        self.stage = stage
        self.max_tokens = max_tokens
        self._dtype = dtype
        self._on_done = on_done
        self._make_grammars = grammars
        self._grammars: Grammars | None = None
        self._constraints: dict[bytes, GrammarConstraint] = {}
        self._caches: dict[bytes, SpanCache] = {}
        self._reserved: dict[bytes, int] = {}
        self._waiting: deque[Job] = deque()
        """At most one per session that is held, so at most `MAX_SESSIONS`."""
        self._arrived = trio.Event()
        self._thread = trio.CapacityLimiter(1)
        self._passed: deque[tuple[float, int]] = deque()

    @property
    def sessions(self) -> int:
        """How many it holds."""
        return len(self._caches)

    @property
    def cached_tokens(self) -> int:
        """Positions held in the caches."""
        return sum(cache.positions for cache in self._caches.values())

    @property
    def cached_bytes(self) -> int:
        """Bytes of the caches' tensors."""
        return sum(cache.nbytes for cache in self._caches.values())

    def tokens_per_s(self) -> float:
        """Tokens that left the stage per second, over the last ten seconds."""
        self._forget(trio.current_time())
        return sum(rows for _, rows in self._passed) / RATE_WINDOW_S

    def admit(self, session: StageSession) -> str:
        """Make room for a session; "" when there is, else why there isn't."""
        wanted = session.order.prompt_length + session.order.max_tokens
        if wanted > self.stage.max_positions:
            return f"{wanted} tokens are more than the model's context of {self.stage.max_positions}"
        if len(self._caches) >= MAX_SESSIONS:
            return f"it holds {MAX_SESSIONS} sessions already"
        if sum(self._reserved.values()) + wanted > self.max_tokens:
            return f"its cache has no room for {wanted} tokens"
        self._caches[session.session] = self.stage.new_cache()
        self._reserved[session.session] = wanted
        return ""

    def release(self, session: StageSession) -> None:
        """Free a session's cache and the run that waits. One that is under way finishes, and its result is dropped."""
        self._waiting = deque(job for job in self._waiting if job.session is not session)
        self._caches.pop(session.session, None)
        self._reserved.pop(session.session, None)
        self._constraints.pop(session.session, None)

    def schedule(self, session: StageSession, run: Run) -> None:
        """Queue a run; one of a session that was released is passed over. Raises InternalError where too many wait."""
        if session.session not in self._caches:
            return
        if len(self._waiting) >= MAX_SESSIONS:
            raise InternalError("more runs are waiting than there are sessions")
        self._waiting.append(Job(session, run))
        self._arrived.set()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compute, one run after another, until cancelled."""
        task_status.started()
        while True:
            if not self._waiting:
                self._arrived = trio.Event()
                await self._arrived.wait()
                continue
            job = self._waiting.popleft()
            cache = self._caches[job.session.session]
            try:
                result: Computed | Failed = await trio.to_thread.run_sync(
                    self._compute, job, cache, limiter=self._thread
                )
                self._passed.append((trio.current_time(), job.run.rows))
                self._forget(trio.current_time())
            except Exception as exc:  # noqa: BLE001 - the model's code is not ours, and what a peer sent decides what it does
                # whatever it raises ends this session and no other
                result = Failed(exc)
            await self._on_done(job.session, result)

    def _compute(self, job: Job, cache: SpanCache) -> Computed:
        """In the worker thread: one pass through the span. Raises what the model's code raises."""
        run, order, stage = job.run, job.session.order, self.stage
        if run.position != cache.positions:
            raise InternalError(f"the cache is at {cache.positions}, not at {run.position}")
        if run.header is None:
            if max(run.tokens) >= stage.vocabulary:  # looked at here: on a GPU it would spoil the whole process
                sender = order.owner if run.position < order.prompt_length else order.stages[-1].peer
                raise PeerError(sender, f"sent token {max(run.tokens)} of a vocabulary of {stage.vocabulary}")
            inputs = torch.tensor(run.tokens, dtype=torch.long)
        else:
            sender = PeerId(order.stages[order.index - 1].peer)
            inputs = activations.from_wire(
                run.header, run.payload, width=stage.width, dtype=self._dtype, device=stage.device, peer=sender
            )
        output = stage.run(inputs, cache, want_logits=run.sample)
        if run.sample:
            chosen = sampling.choose(
                output,
                order.sampling,
                prompt=order.history,
                generated=job.session.generated,
                position=run.position + run.rows,
                constraint=self._constraint(job.session),
            )
            return Computed(run.position, run.rows, token=chosen.token, logprobs=chosen.logprobs)
        if stage.is_tail:
            return Computed(run.position, run.rows)
        header, payload = activations.to_wire(output)
        return Computed(run.position, run.rows, header, payload)

    def _constraint(self, session: StageSession) -> GrammarConstraint | None:
        """What holds a session's text to its grammar; None where it has none. Raises PeerError."""
        grammar = session.order.sampling.grammar
        if grammar is None:
            return None
        if self._make_grammars is None:
            raise PeerError(session.owner, "asked for a grammar of a stage that has no tokenizer")
        if session.session not in self._constraints:
            try:
                self._grammars = self._grammars or self._make_grammars()
            except UserError as exc:
                raise PeerError(session.owner, exc.message) from exc
            constraint = self._grammars.start(grammar)
            if session.session not in self._caches:  # it was released meanwhile, in the trio thread
                return constraint
            self._constraints[session.session] = constraint
        return self._constraints[session.session]

    def _forget(self, now_s: float) -> None:
        while self._passed and self._passed[0][0] < now_s - RATE_WINDOW_S:
            self._passed.popleft()
