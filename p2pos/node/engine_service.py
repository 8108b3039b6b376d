"""An engine that others run, in the place of `shard.engine.Engine`: it takes runs of the whole model and gives tokens.

To the rest of the node, and to the swarm, the engine is one stage that has all layers. A session's prompt comes in runs
as it does anywhere; with the last of them the engine is asked for a stream of the text, and each further run, which
brings the token that was given before, is answered by the next one. Closing a session ends its request.

Who is let in is `shard.admission`, as elsewhere, with as many places as the engine writes texts at a time: what waits
waits here, where the swarm can see it. An engine that does not answer is down; its sessions end with a fault at once,
so that their owners go on elsewhere, and nobody is let in until it was found again.
"""

import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import InternalError, P2posError, PeerError, UnavailableError, UserError
from p2pos.node import engine_api, engine_probe
from p2pos.node.engine_client import FIRST_S, NEXT_S, EngineClient, Stream
from p2pos.node.engine_probe import Found, Model
from p2pos.node.engine_text import EngineText, Token
from p2pos.shard.admission import Admission
from p2pos.shard.effects import Computed, Run
from p2pos.shard.engine import RATE_WINDOW_S, Failed, Outcome
from p2pos.shard.scheduler import Stepped
from p2pos.shard.session import CHUNK, StageSession

CHECK_S = 5.0
"""Between two looks whether the engine answers; what it says of its queue is as old as this, at most."""
STALL_S = 2.0
"""Without a word from an engine that has a text to write, after which it is asked whether it is there."""
RETRY_S = (1.0, 2.0, 5.0, 10.0)
"""Between two looks for an engine that is down."""

_log = log.get("engine")


@dataclass(eq=False)
class _Writing:
    """A session that was let in."""

    session: StageSession
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    run: Run | None = None
    arrived: trio.Event = field(default_factory=trio.Event)

    def offer(self, run: Run) -> None:
        """Put down the next run. Raises InternalError where one waits."""
        if self.run is not None:
            raise InternalError("a session has more than one run waiting")
        self.run = run
        self.arrived.set()

    async def next_run(self) -> Run:
        while self.run is None:
            self.arrived = trio.Event()
            await self.arrived.wait()
        run, self.run = self.run, None
        return run


class RemoteEngine:
    """Writes texts by an engine that others run, for sessions of the whole model.

    Args:
        client: speaks with the engine.
        model: that it serves.
        found: what it can do.
        find: looks again what it can do, when it has been down.
        on_change: told when it went down and when it is back.
        on_admitted: told of a session that has a place now; none of its prompt is ever here already.
        on_done: told of each run's outcome.
        on_step: told of each token.

    """

    def __init__(
        self,
        client: EngineClient,
        model: Model,
        found: Found,
        *,
        find: Callable[[], Awaitable[Found]],
        on_change: Callable[[], Awaitable[None]],
        on_admitted: Callable[[StageSession, int], None],
        on_done: Callable[[StageSession, Outcome], Awaitable[None]],
        on_step: Callable[[Stepped], None] | None = None,
    ) -> None:
        self._client = client
        self._model = model
        self.found = found
        self._find = find
        self._on_change = on_change
        self._on_admitted = on_admitted
        self._on_done = on_done
        self._on_step = on_step
        self._sessions: dict[bytes, StageSession] = {}
        self._inside: dict[bytes, _Writing] = {}
        self._admission = Admission()
        self._nursery: trio.Nursery | None = None
        self._suspect = trio.Event()
        self._heard_s = -math.inf
        """When something last came of a stream."""
        self._passed: deque[float] = deque()
        self._prompt_tokens = 0
        self._queued = 0
        self.up = True
        """Whether the engine answers."""

    @property
    def sessions(self) -> int:
        """How many it writes for now."""
        return len(self._inside)

    @property
    def waiting(self) -> int:
        """Sessions that wait for a place here, and requests, whoever's they are, that wait in the engine itself."""
        return len(self._admission) + self._queued

    @property
    def cached_tokens(self) -> int:
        """Positions of the sessions that it writes for."""
        return sum(each.session.order.prompt_length + len(each.session.generated) for each in self._inside.values())

    @property
    def prompt_tokens(self) -> int:
        """Positions of all prompts that came, since the start."""
        return self._prompt_tokens

    @property
    def free_tokens(self) -> int:
        """Positions that the free places have room for."""
        free = self.found.can.places - len(self._inside) if self.up else 0
        return max(0, free) * self.found.can.context

    def chunk(self) -> int:
        """How many tokens of a prompt come at once: as many as may, since none is computed before the last is here."""
        return CHUNK

    def tokens_per_s(self) -> float:
        """Tokens that came of the engine per second, over the last ten seconds."""
        self._forget(trio.current_time())
        return len(self._passed) / RATE_WINDOW_S

    def admit(self, session: StageSession) -> str:
        """Let a session in, or have it wait for a place; why it can't even wait, else ""."""
        order, can = session.order, self.found.can
        if not self.up:
            return "its engine does not answer"
        wanted = order.prompt_length + order.max_tokens
        if can.context and wanted > can.context:
            return f"{wanted} tokens are more than its engine's context of {can.context}"
        refusal = engine_api.refusal(can, order.sampling, order.eos, given=bool(order.given))
        if refusal:
            return f"its engine {refusal}"
        if not self._admission.wait(session.session, session.owner, wanted, trio.current_time()):
            return f"{len(self._admission)} sessions wait for a place already"
        self._sessions[session.session] = session
        self._let_in()
        return ""

    def overdue(self) -> list[StageSession]:
        """The sessions that have waited for a place too long."""
        return [self._sessions[session] for session in self._admission.overdue(trio.current_time())]

    def adopt(self, session: StageSession, position: int) -> None:
        """A session begins: at its first position, since it was told that nothing is cached."""
        if position:
            raise InternalError(f"a session of {session.owner} begins at {position} in an engine that holds nothing")
        self._prompt_tokens += session.order.prompt_length

    def schedule(self, session: StageSession, run: Run) -> None:
        """Take a run; one of a session that was released is passed over. Raises InternalError where one waits."""
        writing = self._inside.get(session.session)
        if writing is not None and writing.session is session:
            writing.offer(run)

    def release(self, session: StageSession) -> None:
        """End a session's request, and give its place to the next."""
        if self._sessions.get(session.session) is not session:
            return
        del self._sessions[session.session]
        writing = self._inside.pop(session.session, None)
        if writing is not None:
            writing.scope.cancel()
        self._admission.leave(session.session)
        self._let_in()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write, and look after the engine, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(self._watch)
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def _let_in(self) -> None:
        def place(session: bytes) -> bool:
            if not self.up or self._nursery is None or len(self._inside) >= self.found.can.places:
                return False
            writing = self._inside[session] = _Writing(self._sessions[session])
            self._nursery.start_soon(self._serve, writing)
            return True

        for session in self._admission.let_in(place):
            self._on_admitted(self._sessions[session], 0)

    async def _serve(self, writing: _Writing) -> None:
        """One session, from its first run to its last token."""
        with writing.scope:
            try:
                await self._write(writing)
            except P2posError as exc:
                if not isinstance(exc, PeerError):
                    self._suspect.set()
                await self._on_done(writing.session, Failed(exc))

    async def _write(self, writing: _Writing) -> None:
        session, can = writing.session, self.found.can
        prompt: list[int] = []
        while True:
            run = await writing.next_run()
            if max(run.tokens, default=self._model.vocabulary) >= self._model.vocabulary:
                raise PeerError(session.owner, f"sent tokens outside a vocabulary of {self._model.vocabulary}")
            prompt += run.tokens
            if run.sample:
                break
            await self._on_done(session, Computed(run.position, run.rows))
        text = EngineText.of(
            can, session.order, prompt, vocabulary=self._model.vocabulary, spelling=self._model.spelling
        )
        patience_s, since_s = FIRST_S, trio.current_time()
        while not text.over:
            try:
                wish = text.wish()
            except UnavailableError as exc:
                raise self._client.fault(exc.message) from exc
            async with self._client.stream(can, wish) as stream:
                while not (text.over or text.asking):
                    with trio.fail_after(patience_s):
                        tokens = await self._next(stream, text)
                    patience_s = NEXT_S
                    for token in tokens:
                        done = Computed(run.position, run.rows, token=token.id, logprobs=token.logprobs)
                        since_s = self._count(run, prompt, since_s)
                        await self._on_done(session, done)
                        run = await writing.next_run()  # cancelled where that was the last token
        raise InternalError("a text came to its end, and its session did not")

    async def _next(self, stream: Stream, text: EngineText) -> list[Token]:
        """The tokens of the next event that brings the text on; none where it did not come to be tokens yet."""
        while True:
            piece = await stream.next()
            self._heard_s = trio.current_time()
            if piece is None:
                raise self._client.fault("broke off in the middle of a text")
            try:
                tokens = text.take(piece)
            except UnavailableError as exc:
                raise self._client.fault(exc.message) from exc
            if tokens or piece.text or piece.tokens or piece.finish:
                return tokens

    async def _watch(self) -> None:
        """See whether the engine answers, now and then, and at once where a text failed."""
        asked_s = -math.inf
        while True:
            with trio.move_on_after(STALL_S if self._inside else CHECK_S):
                await self._suspect.wait()
            suspected, self._suspect = self._suspect.is_set(), trio.Event()
            now_s = trio.current_time()
            if not suspected and now_s - self._heard_s < STALL_S and now_s - asked_s < CHECK_S:
                continue  # it is writing
            asked_s = now_s
            try:
                await engine_probe.alive(self._client)
            except UnavailableError as exc:
                # one that streams still is only slow; one that refuses connections is gone
                if exc.fields.get("gone") or trio.current_time() - self._heard_s > STALL_S:
                    await self._down(exc)
                continue
            try:
                self._queued = await engine_probe.queue(self._client, self.found.can.make)
            except UnavailableError as exc:
                self._queued = 0
                _log.debug("the engine does not tell its queue", url=self._client.url, why=exc.message)

    async def _down(self, why: UnavailableError) -> None:
        """End its sessions, and wait for it to come back."""
        _log.warning("the engine is down", url=self._client.url, why=why.message, sessions=self.sessions)
        self.up = False
        self._queued = 0
        await self._on_change()
        for session in list(self._sessions.values()):
            await self._on_done(session, Failed(why))
        tries = 0
        while not self.up:
            await trio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
            tries += 1
            try:
                self.found = await self._find()
                self.up = True
            except UnavailableError:
                continue
            except UserError as exc:
                if tries == 1 or tries % 30 == 0:  # every five minutes
                    _log.error("what came back is not the engine that it was", why=str(exc))
        _log.info("the engine is back", url=self._client.url)
        await self._on_change()
        self._let_in()

    def _count(self, run: Run, prompt: list[int], since_s: float) -> float:
        """Count a token that came, so long after what was before it. Returns the time."""
        now_s = trio.current_time()
        self._passed.append(now_s)
        self._forget(now_s)
        if self._on_step is not None:
            first = run.position + run.rows == len(prompt)
            prefill, decode = (len(prompt), 0) if first else (0, 1)
            self._on_step(Stepped(prefill, decode, 1, 0, now_s - since_s))
        return now_s

    def _forget(self, now_s: float) -> None:
        while self._passed and self._passed[0] < now_s - RATE_WINDOW_S:
            self._passed.popleft()

    def status(self) -> dict[str, Any]:
        """What `/status` shows of the engine."""
        can = self.found.can
        return {
            "url": self._client.url,
            "make": can.make.value,
            "model": can.model,
            "up": self.up,
            "passes": "tokens" if can.tokens else "text",
            "places": can.places,
            "context": can.context,
            "grammars": sorted(can.grammars),
            "tokens_per_s_alone": round(self.found.tokens_per_s, 2),
        }
