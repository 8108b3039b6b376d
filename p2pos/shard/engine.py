"""The sessions of one stage, and the one thread that computes for them: schedule → run → postprocess.

Who is let in is `admission`, which runs go together `scheduler`, how they are computed `runners`, who may say what
`session`. Here they meet: each step's runs are made into tensors, passed through the span in the worker thread, and
what came of them is handed back. A run that can't be done ends its own session and no other.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import trio
from trio_typing import TaskStatus

from p2pos.errors import InternalError, P2posError, PeerError, UserError
from p2pos.shard import activations, blocks, sampling
from p2pos.shard.admission import Admission
from p2pos.shard.effects import Computed, Run
from p2pos.shard.grammar import GrammarConstraint, Grammars
from p2pos.shard.runners import Runner, Work
from p2pos.shard.scheduler import LIGHT_ROWS, Scheduler, Stepped
from p2pos.shard.session import CHUNK, MAX_SESSIONS, StageSession
from p2pos.shard.stage import Stage
from p2pos.types import PeerId

RATE_WINDOW_S = 10.0
"""Seconds over which `tokens_per_s` is taken."""

CPU_CHUNK = 128
"""Tokens of a prompt that a CPU's step takes. Its arithmetic is as fast as with more, and others wait less for it."""


@dataclass(frozen=True, eq=False, slots=True)
class Job:
    """One run of one session."""

    session: StageSession
    run: Run


@dataclass(frozen=True, slots=True)
class Failed:
    """A run that could not be done, and who is at fault."""

    error: Exception


Outcome = Computed | Failed


class Engine:
    """Runs a stage for its sessions.

    Args:
        stage: the loaded span.
        runner: holds its caches.
        dtype: of the hidden states that stages exchange, by its wire name.
        on_admitted: told in the trio thread of a session that has room now, and how many positions of its prefix are
            here already.
        on_done: told of each run's outcome, in the trio thread.
        grammars: makes what holds texts to grammars, when the first one asks for it; at the tail alone.
        on_step: told of each step, in the trio thread.

    """

    def __init__(
        self,
        stage: Stage,
        runner: Runner,
        *,
        dtype: str,
        on_admitted: Callable[[StageSession, int], None],
        on_done: Callable[[StageSession, Outcome], Awaitable[None]],
        grammars: Callable[[], Grammars] | None = None,
        on_step: Callable[[Stepped], None] | None = None,
    ) -> None:
        self.stage = stage
        self._chunk = chunk_tokens(stage.device.type)
        self._runner = runner
        self._dtype = dtype
        self._on_admitted = on_admitted
        self._on_done = on_done
        self._on_step = on_step
        self._make_grammars = grammars
        self._grammars: Grammars | None = None
        self._constraints: dict[bytes, GrammarConstraint] = {}
        self._sessions: dict[bytes, StageSession] = {}
        self._prefixes: dict[bytes, list[bytes]] = {}
        """The keys of those that wait, as this stage files them: made once, asked for at each attempt."""
        self._inside: set[bytes] = set()
        self._admission = Admission()
        self._scheduler: Scheduler[Job] = Scheduler(self._chunk + 4 * LIGHT_ROWS)
        self._jobs: dict[bytes, Job] = {}
        """The run of each session that waits; at most one, so at most `MAX_SESSIONS`."""
        self._arrived = trio.Event()
        self._thread = trio.CapacityLimiter(1)
        self._passed: deque[tuple[float, int]] = deque()
        self._prefix_tokens = 0
        self._prompt_tokens = 0

    @property
    def sessions(self) -> int:
        """How many it holds, without those that wait for room."""
        return len(self._inside)

    @property
    def waiting(self) -> int:
        """Sessions that wait for room."""
        return len(self._admission)

    @property
    def cached_tokens(self) -> int:
        """Positions held in the caches."""
        return self._runner.cached_tokens

    @property
    def cached_bytes(self) -> int:
        """Bytes of these."""
        return self._runner.cached_bytes

    @property
    def prefix_tokens(self) -> int:
        """Positions that were not computed because they were here already, since the start."""
        return self._prefix_tokens

    @property
    def prompt_tokens(self) -> int:
        """Positions of all prompts that came, since the start, whether computed or not."""
        return self._prompt_tokens

    @property
    def runs_waiting(self) -> int:
        """Runs that wait for a step."""
        return len(self._scheduler)

    @property
    def room(self) -> int:
        """Positions that all caches may come to hold."""
        return self._runner.room

    def chunk(self) -> int:
        """How many tokens of a prompt are to go through the stage at once: half as many while others decode.

        Both stages of a route may be busy with a chunk when a token comes round, and each takes longer beside the
        other than alone. With half chunks a token still waits no longer than one whole chunk by itself would take.
        """
        return self._chunk // 2 if any(self._sessions[name].decoding for name in self._inside) else self._chunk

    def tokens_per_s(self) -> float:
        """Tokens that left the stage per second, over the last ten seconds."""
        self._forget(trio.current_time())
        return sum(rows for _, rows in self._passed) / RATE_WINDOW_S

    def admit(self, session: StageSession) -> str:
        """Let a session in, or have it wait for room; why it can't even wait, else "".

        `on_admitted` tells when it is in, which may be before this returns.
        """
        wanted = session.order.prompt_length + session.order.max_tokens
        if wanted > self.stage.max_positions:
            return f"{wanted} tokens are more than the model's context of {self.stage.max_positions}"
        if wanted > self._runner.room:
            return f"its cache has no room for {wanted} tokens"
        if not self._admission.wait(session.session, session.owner, wanted, trio.current_time()):
            return f"{self.waiting} sessions wait for room already"
        self._sessions[session.session] = session
        self._prefixes[session.session] = _filed(session, session.order.prefix)
        self._let_in()
        return ""

    def overdue(self) -> list[StageSession]:
        """The sessions that have waited for room too long."""
        return [self._sessions[session] for session in self._admission.overdue(trio.current_time())]

    def adopt(self, session: StageSession, position: int) -> None:
        """A session begins at this position; what lies before is cached."""
        self._prefix_tokens += position
        self._prompt_tokens += session.order.prompt_length
        self._runner.adopt(session.session, position)

    def schedule(self, session: StageSession, run: Run) -> None:
        """Queue a run; one of a session that was released is passed over. Raises InternalError where one waits."""
        if session.session not in self._inside:
            return
        if session.session in self._jobs:
            raise InternalError("a session has more than one run waiting")
        job = self._jobs[session.session] = Job(session, run)
        self._scheduler.add(job, run.rows)
        self._arrived.set()

    def release(self, session: StageSession) -> None:
        """Free a session's cache and the run that waits. One that is under way finishes, and its result is dropped."""
        job = self._jobs.pop(session.session, None)
        if job is not None:
            self._scheduler.remove(job)
        self._constraints.pop(session.session, None)
        self._sessions.pop(session.session, None)
        self._prefixes.pop(session.session, None)
        self._inside.discard(session.session)
        self._admission.leave(session.session)
        self._runner.release(session.session)
        self._let_in()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compute, one step after another, until cancelled."""
        task_status.started()
        while True:
            jobs = self._scheduler.next(light=self._share())
            if not jobs:
                self._arrived = trio.Event()
                await self._arrived.wait()
                continue
            for job in jobs:
                del self._jobs[job.session.session]
            ready = [self._prepared(job) for job in jobs]
            began_s = trio.current_time()
            outcomes = await trio.to_thread.run_sync(self._compute, jobs, ready, limiter=self._thread)
            self._scheduler.done()
            self._count(jobs, outcomes, trio.current_time() - began_s)
            for job, outcome in zip(jobs, outcomes, strict=True):
                # where it was released meanwhile, another may have its place, even its name
                if isinstance(outcome, Computed) and self._sessions.get(job.session.session) is job.session:
                    keys = _filed(job.session, job.run.keys)
                    self._runner.done(job.session.session, job.run.position, job.run.rows, keys)
                await self._on_done(job.session, outcome)

    def _prepared(self, job: Job) -> Any:
        """What the run needs to know, or what was wrong: a fault of ours ends its session, and the node goes on."""
        try:
            return self._runner.prepare(job.session.session, job.run.position, job.run.rows)
        except P2posError as exc:
            return exc

    def _share(self) -> int | None:
        """How many decode steps the head starts at once: of several stages, each should have some to do."""
        if not (self.stage.is_head and self._inside):
            return None
        # each counts for itself, so that one long route doesn't make everybody's steps small
        share = sum(1 / len(self._sessions[session].order.stages) for session in self._inside)
        return max(1, round(share))

    def _let_in(self) -> None:
        def make_room(session: bytes) -> bool:
            if len(self._inside) >= MAX_SESSIONS:
                return False
            order = self._sessions[session].order
            found = self._runner.admit(session, order.prompt_length + order.max_tokens, self._prefixes[session])
            if found is None:
                return False
            del self._prefixes[session]
            self._inside.add(session)
            cached[session] = found
            return True

        cached: dict[bytes, int] = {}
        for session in self._admission.let_in(make_room):
            self._on_admitted(self._sessions[session], cached[session])

    def _compute(self, jobs: Sequence[Job], ready: Sequence[Any]) -> list[Outcome]:
        """In the worker thread: one step. What one run raises is its own outcome."""
        outcomes: dict[int, Outcome] = {}
        works: dict[int, Work] = {}
        for index, job in enumerate(jobs):
            if isinstance(ready[index], P2posError):
                outcomes[index] = Failed(ready[index])
                continue
            try:
                works[index] = self._work(job)
            except Exception as exc:  # noqa: BLE001 - what a peer sent decides what this raises, and it ends one session
                outcomes[index] = Failed(exc)
        for index, output in self._outputs(works, ready).items():
            try:
                outcomes[index] = (
                    Failed(output) if isinstance(output, Exception) else self._outcome(jobs[index], output)
                )
            except Exception as exc:  # noqa: BLE001 - a sampler's library is not ours
                outcomes[index] = Failed(exc)
        return [outcomes[index] for index in range(len(jobs))]

    def _outputs(self, works: dict[int, Work], ready: Sequence[Any]) -> dict[int, torch.Tensor | Exception]:
        """What each run's rows came to. Where the step fails, its runs are tried alone: they write the same again."""
        try:
            outputs = self._runner.run(list(works.values()), [ready[index] for index in works]) if works else []
            return dict(zip(works, outputs, strict=True))
        except Exception as exc:  # noqa: BLE001 - the model's code is not ours
            if len(works) == 1:
                return dict.fromkeys(works, exc)
        return {index: output for one in works for index, output in self._outputs({one: works[one]}, ready).items()}

    def _work(self, job: Job) -> Work:
        """The tensors of a run. Raises PeerError where what was sent won't do."""
        run, order, stage = job.run, job.session.order, self.stage
        if run.header is None:
            if max(run.tokens) >= stage.vocabulary:  # looked at here: on a GPU it would spoil the whole process
                sender = order.owner if run.position < order.prompt_length else order.stages[-1].peer
                raise PeerError(sender, f"sent token {max(run.tokens)} of a vocabulary of {stage.vocabulary}")
            inputs = torch.tensor(run.tokens, dtype=torch.long, device=stage.device)
        else:
            sender = PeerId(order.stages[order.index - 1].peer)
            inputs = activations.from_wire(
                run.header, run.payload, width=stage.width, dtype=self._dtype, device=stage.device, peer=sender
            )
        return Work(job.session.session, run.position, inputs, run.sample)

    def _outcome(self, job: Job, output: torch.Tensor) -> Computed:
        """What a run's rows came to. Raises InternalError where the model's numbers have run off."""
        run = job.run
        if run.sample:
            if not bool((output < math.inf).all()):  # neither NaN nor infinite; a model may rule tokens out by -inf
                raise InternalError("the model's numbers are not finite")
            chosen = sampling.choose(
                output,
                job.session.order.sampling,
                prompt=job.session.order.history,
                generated=job.session.generated,
                position=run.position + run.rows,
                constraint=self._constraint(job.session),
            )
            return Computed(run.position, run.rows, token=chosen.token, logprobs=chosen.logprobs)
        if self.stage.is_tail:
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
            constraint = self._grammars.start(grammar).replay(session.generated)
            if self._sessions.get(session.session) is not session:  # it was released meanwhile, in the trio thread
                return constraint
            self._constraints[session.session] = constraint
        return self._constraints[session.session]

    def _count(self, jobs: Sequence[Job], outcomes: Sequence[Outcome], seconds: float) -> None:
        now_s = trio.current_time()
        rows = sum(job.run.rows for job in jobs)
        self._passed.append((now_s, rows))
        self._forget(now_s)
        if self._on_step is not None:
            prefill = sum(job.run.rows for job in jobs if job.run.position < job.session.order.prompt_length)
            sampled = sum(isinstance(each, Computed) and each.token is not None for each in outcomes)
            failed = sum(isinstance(each, Failed) for each in outcomes)
            self._on_step(Stepped(prefill, rows - prefill, sampled, failed, seconds))

    def _forget(self, now_s: float) -> None:
        while self._passed and self._passed[0][0] < now_s - RATE_WINDOW_S:
            self._passed.popleft()


def chunk_tokens(device: str) -> int:
    """Tokens of a prompt that a step takes on a kind of device, `cpu` or `cuda`."""
    return CPU_CHUNK if device == "cpu" else CHUNK


def _filed(session: StageSession, keys: Sequence[bytes]) -> list[bytes]:
    """The keys of a session's blocks as this stage files them."""
    if not keys:
        return []
    scope = blocks.scope(session.owner, session.order.stages[: session.order.index])
    return [blocks.scoped(scope, key) for key in keys]
