"""`/p2pos/stage/1.0.0` as a node serves it: opens sessions, feeds the engine, carries out what the machines want."""

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import InternalError, P2posError, PeerError, UnavailableError
from p2pos.node.metrics import Metrics
from p2pos.node.ports import Outbox
from p2pos.shard.effects import Adopt, Computed, Release, Run, Send, StageEffect
from p2pos.shard.engine import Engine, Outcome
from p2pos.shard.grammar import Grammars
from p2pos.shard.runners import Runner
from p2pos.shard.session import StageSession
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan, ModelId, PeerId
from p2pos.wire import tensors
from p2pos.wire.framing import Frame
from p2pos.wire.messages import Ack, Fault, FaultCode, Open, Probe, Repair, StageMessage, Step, Tokens

SWEEP_S = 1.0
"""Seconds between two looks for sessions that nobody speaks of any more, or that have waited long enough for room."""

KEPT_BYTES = 512 << 20
"""Of hidden states that all sessions together may keep for a stage that takes the next one's place: in bf16, of a model
2,048 wide, 130,000 positions. Who has most forgets first."""

_log = log.get("stage")


class Layers(Protocol):
    """What is to be known of the layers that are served."""

    @property
    def span(self) -> LayerSpan:
        """Which they are."""

    @property
    def layers(self) -> int:
        """How many the whole model has."""

    @property
    def width(self) -> int:
        """Of the hidden states that pass between stages."""

    @property
    def vocabulary(self) -> int:
        """Tokens are smaller than this."""


class Worker(Protocol):
    """What computes for sessions; `shard.engine.Engine` says what each of these does."""

    def chunk(self) -> int:
        """How many tokens of a prompt come at once."""

    def admit(self, session: StageSession) -> str:
        """Let a session in, or have it wait; why not, else ""."""

    def overdue(self) -> list[StageSession]:
        """The sessions that have waited too long."""

    def adopt(self, session: StageSession, position: int) -> None:
        """A session begins here."""

    def schedule(self, session: StageSession, run: Run) -> None:
        """Queue a run."""

    def release(self, session: StageSession) -> None:
        """A session is over."""

    async def run(self, *, task_status: TaskStatus[None] = ...) -> None:
        """Compute until cancelled."""


class SessionService:
    """Serves sessions, whatever computes for them: `engine` does, and is set by who makes one of these.

    Args:
        me: this node's peer id.
        model: the model's id.
        stage: the layers.
        dtype: of hidden states on the wire.
        outbox: takes messages to peers.

    """

    engine: Worker

    def __init__(self, me: PeerId, model: ModelId, stage: Layers, *, dtype: str, outbox: Outbox) -> None:
        self._me = me
        self._model = model
        self._stage = stage
        self._dtype = dtype
        self._outbox = outbox
        self._sessions: dict[bytes, StageSession] = {}
        self._draining = False
        self._empty = trio.Event()

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compute and sweep until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.engine.run)
            task_status.started()
            while True:
                await trio.sleep(SWEEP_S)
                self._sweep(trio.current_time())

    def on_frame(self, sender: PeerId, frame: Frame) -> None:
        """Take a message of the stage protocol.

        A message of a session that isn't here is passed over: it crossed the session's end. One that breaks the
        session's rules ends that session, and the owner hears why.
        """
        message = frame.message
        if isinstance(message, Open):
            self._open(sender, message)
            return
        if not isinstance(message, StageMessage):
            raise PeerError(sender, f"sent {type(message).__name__} on the stage protocol")
        session = self._sessions.get(message.session)
        if session is None:
            if isinstance(message, Repair | Probe):  # its owner believes that it is here
                self._refuse(sender, Fault(message.session, "unknown", "this session is not here"))
            return  # it ended here while the message was under way
        try:
            self._look_at(sender, frame)
            effects = session.on_message(sender, message, frame.payload, trio.current_time())
        except PeerError as exc:
            _log.warning("broke the protocol", peer=sender, what=exc.message)
            if sender == session.owner and not isinstance(message, Step | Ack):  # those it sends as a stage
                effects = session.fail("bad_request", exc.message)
            elif sender in session.neighbours:
                effects = session.disbelieve(sender, exc.message)
            else:
                return  # a stranger doesn't end other people's sessions
        self._perform(session, effects)

    def _look_at(self, sender: PeerId, frame: Frame) -> None:
        """Raise PeerError for what can't be right, before it waits for its turn and takes memory meanwhile."""
        match frame.message:
            case Step(tensor=header):
                tensors.check(header, frame.payload, width=self._stage.width, dtype=self._dtype, peer=sender)
            case Tokens(tokens=chosen) if max(chosen) >= self._stage.vocabulary:
                raise PeerError(sender, f"sent token {max(chosen)} of a vocabulary of {self._stage.vocabulary}")
            case _:
                pass

    def on_lost(self, peer: PeerId) -> None:
        """The connection to a peer is gone: its own sessions end, those of which it is a part wait for the repair."""
        for session in list(self._sessions.values()):
            if session.owner == peer:
                _log.info("owner left", session=session.session.hex(), peer=peer)
                self._perform(session, session.drop())
            elif peer in session.neighbours:
                self._perform(session, session.lost(peer))

    async def drain(self, deadline_s: float) -> None:
        """Admit nobody, have the sessions handed over, and after the deadline end those that are here still."""
        self._draining = True
        for session in list(self._sessions.values()):
            self._perform(session, session.leave())
        with trio.move_on_after(deadline_s):
            if self._sessions:
                await self._empty.wait()
        for session in list(self._sessions.values()):
            self._perform(session, session.fail("deadline", "this node is leaving"))

    def _open(self, sender: PeerId, order: Open) -> None:
        try:
            self._check(sender, order)
            now_s, exact = trio.current_time(), self._dtype != "f32"
            session = StageSession(order, me=self._me, sender=sender, now_s=now_s, chunk=self.engine.chunk, exact=exact)
        except P2posError as exc:
            code: FaultCode = "wrong_model" if order.model != self._model else "bad_request"
            self._refuse(sender, Fault(order.session, code, exc.message))
            return
        if (before := self._sessions.get(order.session)) is not None:  # its owner begins it anew
            self._perform(before, before.drop())
        self._sessions[order.session] = session
        refusal = "it is leaving" if self._draining else self.engine.admit(session)
        if refusal:
            del self._sessions[order.session]
            self._refuse(sender, Fault(order.session, "busy", refusal))

    def _check(self, sender: PeerId, order: Open) -> None:
        before = self._sessions.get(order.session)
        if before is not None and (before.owner != sender or order.epoch <= before.order.epoch):
            raise PeerError(sender, "opened a session that is open")
        if order.model != self._model:
            raise PeerError(sender, f"asked for the model {order.model}; this node serves {self._model}")
        mine = order.stages[order.index] if order.index < len(order.stages) else None
        if mine is None or (mine.start, mine.end) != (self._stage.span.start, self._stage.span.end):
            raise PeerError(sender, f"asked for other layers than {self._stage.span}")
        if order.stages[0].start != 0 or order.stages[-1].end != self._stage.layers:
            raise PeerError(sender, f"asked for a route that is not all {self._stage.layers} layers")

    def _on_admitted(self, session: StageSession, cached: int) -> None:
        _log.debug("opened", session=session.session.hex(), owner=session.owner, cached=cached)
        self._perform(session, session.start(cached))

    async def _on_done(self, session: StageSession, result: Outcome) -> None:
        if isinstance(result, Computed):
            self._perform(session, session.on_computed(result, trio.current_time()))
            return
        error = result.error
        _log.error("a run failed", session=session.session.hex(), error=str(error), kind=type(error).__name__)
        text = error.message if isinstance(error, P2posError) else type(error).__name__
        if isinstance(error, PeerError) and error.peer in session.neighbours and error.peer != session.owner:
            self._perform(session, session.disbelieve(PeerId(error.peer), text, run=True))
            return
        code: FaultCode = "bad_request" if isinstance(error, PeerError) else "internal"
        self._perform(session, session.fail(code, text))

    def _perform(self, session: StageSession, effects: list[StageEffect]) -> None:
        for effect in effects:
            match effect:
                case Send(peer, addresses, message, payload):
                    self._post(session, Send(peer, addresses, message, payload))
                case Adopt(position):
                    self.engine.adopt(session, position)
                case Run():
                    self.engine.schedule(session, effect)
                case Release():
                    self.engine.release(session)
                    if self._sessions.pop(session.session, None) is None:
                        raise InternalError("a session was released twice")
                    _log.debug("released", session=session.session.hex())
        if not self._sessions:
            self._empty.set()
            self._empty = trio.Event()

    def _post(self, session: StageSession, send: Send) -> None:
        """Queue a message; a peer that reads so slowly that its queue is full ends the session."""
        try:
            self._outbox.post(send.peer, send.addresses, send.message, send.payload)
        except UnavailableError as exc:
            _log.warning("could not queue", peer=send.peer, why=exc.message)
            lost_owner = send.peer == session.owner
            self._perform(session, session.drop() if lost_owner else session.lost(send.peer))

    def _refuse(self, peer: PeerId, fault: Fault) -> None:
        with suppress(UnavailableError):  # it reads nothing, so it won't miss this either
            self._outbox.post(peer, (), fault)

    def _sweep(self, now_s: float) -> None:
        for session in list(self._sessions.values()):
            if session.expired(now_s):
                self._perform(session, session.fail("deadline", "nobody spoke of this session any more"))
        while sum(each.kept_bytes for each in self._sessions.values()) > KEPT_BYTES:
            greatest = max(self._sessions.values(), key=lambda each: each.kept_bytes)
            _log.info("keeps no more of what it sent", session=greatest.session.hex(), bytes=greatest.kept_bytes)
            greatest.forget()
        while overdue := self.engine.overdue():  # asked again each time: who leaves may let another in
            self._perform(overdue[0], overdue[0].fail("busy", "it has had no room for some time"))


class StageService(SessionService):
    """Serves one stage's sessions.

    Args:
        me: this node's peer id.
        model: the model's id.
        stage: the loaded span.
        runner: holds its caches.
        dtype: of hidden states on the wire.
        outbox: takes messages to peers.
        grammars: as the engine has it.
        metrics: count its steps.

    """

    engine: Engine

    def __init__(
        self,
        me: PeerId,
        model: ModelId,
        stage: Stage,
        runner: Runner,
        *,
        dtype: str,
        outbox: Outbox,
        grammars: Callable[[], Grammars] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        super().__init__(me, model, stage, dtype=dtype, outbox=outbox)
        self.engine = Engine(
            stage,
            runner,
            dtype=dtype,
            on_admitted=self._on_admitted,
            on_done=self._on_done,
            grammars=grammars,
            on_step=None if metrics is None else metrics.stepped,
        )
