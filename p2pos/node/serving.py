"""What a node serves now, and how it comes to serve other layers while everything else of the node goes on.

A `Serving` is one loaded span with all that belongs to it: stage, caches, sessions. A `Seat` holds one at a time. To
move, it hands the sessions over, lets the old span go before it loads the new one, so that no more memory is taken
than the larger of the two needs, and refuses meanwhile whoever asks for a place.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Self

import trio
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import InternalError, P2posError, PeerError, UnavailableError
from p2pos.node import measure
from p2pos.node.loading import Source
from p2pos.node.ports import Outbox
from p2pos.node.stage_service import StageService
from p2pos.node.switchboard import Switchboard
from p2pos.shard.runners import Runner
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan, PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import Fault, Open, StageMessage

_log = log.get("node")


class Serving:
    """One span that is served: loaded, run, drained, retired, in this order and once each.

    Args:
        me: this node's peer id.
        source: the model.
        stage: the loaded span.
        runner: holds its caches.
        outbox: takes messages to peers.
        rate: tokens per second through one of its layers, as `measure` found.

    """

    def __init__(
        self, me: PeerId, source: Source, stage: Stage, runner: Runner, outbox: Outbox, *, rate: float
    ) -> None:
        self.stage = stage
        self.rate = rate
        self._me, self._source, self._runner, self._outbox = me, source, runner, outbox
        self.service = StageService(
            me,
            source.model,
            stage,
            runner,
            dtype=source.config.dtype,
            outbox=outbox,
            grammars=(lambda: source.grammars(stage)) if source.has_tokenizer else None,
            metrics=source.metrics,
        )
        self._scope = trio.CancelScope()
        self._over = trio.Event()

    @classmethod
    async def load(cls, me: PeerId, source: Source, span: LayerSpan, outbox: Outbox) -> Self:
        """Load a span whose weights are on disk. Raises UserError where they won't do."""
        stage, runner = await source.load(span)
        rate = await trio.to_thread.run_sync(measure.rate_of, source.config, source.model, stage)
        return cls(me, source, stage, runner, outbox, rate=rate)

    def again(self) -> "Serving":
        """The same span with the same caches, to be served anew after this one was drained and retired."""
        return Serving(self._me, self._source, self.stage, self._runner, self._outbox, rate=self.rate)

    @property
    def span(self) -> LayerSpan:
        """The layers."""
        return self.stage.span

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until retired."""
        try:
            with self._scope:
                await self.service.run(task_status=task_status)
        finally:
            self._over.set()

    async def retire(self) -> None:
        """End `run` and wait for its end; what is in the worker thread is waited for."""
        self._scope.cancel()
        await self._over.wait()

    def status(self) -> dict[str, Any]:
        """What `/status` shows of it."""
        engine, report = self.service.engine, self.stage.report
        return {
            "layers": str(self.span),
            "quantized_layers": report.quantized.layers,
            "left_alone": report.quantized.why_left(),
            "saved_bytes": report.quantized.saved_bytes,
            "tokens_per_s": round(engine.tokens_per_s(), 2),
            "sessions": engine.sessions,
            "waiting": engine.waiting,
            "runs_waiting": engine.runs_waiting,
            "cached_tokens": engine.cached_tokens,
            "cached_bytes": engine.cached_bytes,
            "free_tokens": max(0, engine.room - engine.cached_tokens),
            "prefix_tokens": engine.prefix_tokens,
            "prompt_tokens": engine.prompt_tokens,
            "weight_bytes": report.bytes_read,
            "span_bytes": report.span_bytes,
            "layer_tokens_per_s": self.rate,
        }


_NOTHING: dict[str, Any] = {
    "quantized_layers": 0,
    "left_alone": {},
    "saved_bytes": 0,
    "tokens_per_s": 0.0,
    "sessions": 0,
    "waiting": 0,
    "runs_waiting": 0,
    "cached_tokens": 0,
    "cached_bytes": 0,
    "free_tokens": 0,
    "prefix_tokens": 0,
    "prompt_tokens": 0,
    "weight_bytes": 0,
    "span_bytes": 0,
    "layer_tokens_per_s": 0.0,
}
"""The status between two spans."""


class Seat:
    """The one place of a node where layers are served. Servings run in its nursery, inside `run`.

    Args:
        me: this node's peer id.
        source: the model.
        switchboard: has the stage's messages delivered, and takes its own.
        announce: tells the swarm what this node says of itself now.

    """

    def __init__(
        self, me: PeerId, source: Source, switchboard: Switchboard, announce: Callable[[], Awaitable[None]]
    ) -> None:
        self._me = me
        self._source = source
        self._switchboard = switchboard
        self._announce = announce
        self._nursery: trio.Nursery | None = None
        self._serving: Serving | None = None
        self._claimed: LayerSpan | None = None
        self._draining = False
        self._moves = 0
        self._rate = 0.0
        switchboard.stage = _Vacant(switchboard)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold what is served, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._nursery = None

    @property
    def span(self) -> LayerSpan:
        """The layers that are served, or will be once they are loaded."""
        if self._serving is not None:
            return self._serving.span
        if self._claimed is None:
            raise InternalError("no layers were chosen yet")
        return self._claimed

    @property
    def draining(self) -> bool:
        """Whether nothing new is to be begun here: the node is leaving, moving, or loading still."""
        return self._draining or self._serving is None

    @property
    def moves(self) -> int:
        """How often it came to serve other layers."""
        return self._moves

    @property
    def rate(self) -> float:
        """Tokens per second through one layer, as measured; 0 before."""
        return self._rate

    async def claim(self, span: LayerSpan) -> None:
        """Say that these layers will be served, so that nobody else comes for the same reason, before they are here."""
        self._claimed = span
        await self._announce()

    async def take(self, span: LayerSpan) -> None:
        """Load the first span and serve it. Raises UserError where it can't be loaded."""
        if self._nursery is None or self._serving is not None:
            raise InternalError("a seat is taken once, while it runs")
        self._claimed = span
        await self._source.fetch(span)
        serving = await Serving.load(self._me, self._source, span, self._switchboard)
        await self._serve(serving)
        _log.info("serving", model=self._source.checkpoint.name, layers=str(span))

    async def move(self, span: LayerSpan, *, deadline_s: float, still: Callable[[], bool] = lambda: True) -> bool:
        """Serve other layers from now on: hand the sessions over, let go, load, serve.

        Args:
            span: the new layers; their weights are fetched before anything else is touched.
            deadline_s: seconds for the sessions to go elsewhere.
            still: asked before they are told to, and again right before the old span is let go; where it says no, the
                old one is kept.

        Returns:
            Whether it moved. Where the new span can't be loaded, the old one is loaded again.

        Raises:
            P2posError: the weights can't be fetched (the old span is still served), or neither span can be loaded.

        """
        old = self._serving
        if self._nursery is None or old is None:
            raise InternalError("nothing is served that could be moved")
        await self._source.fetch(span)
        if not still():
            return False
        _log.info("moving", layers=str(old.span), to=str(span), sessions=old.service.engine.sessions)
        self._draining = True
        try:
            await self._announce()
            await old.service.drain(deadline_s)
            self._switchboard.stage = _Vacant(self._switchboard)
            if not still():
                await old.retire()
                await self._serve(old.again())
                return False
            self._serving = None
            await self.claim(span)
            await old.retire()
            back = old.span
            del old  # its weights, before those of the new span come
            return await self._take_or_return(span, back)
        finally:
            self._draining = False
            await self._announce()

    async def _take_or_return(self, span: LayerSpan, back: LayerSpan) -> bool:
        try:
            await self.take(span)
        except P2posError as exc:
            _log.error("can't serve the layers it was to move to", layers=str(span), why=str(exc))
            await self.take(back)
            return False
        self._moves += 1
        self._source.metrics.moved()
        return True

    async def _serve(self, serving: Serving) -> None:
        if self._nursery is None:
            raise InternalError("the seat does not run")
        await self._nursery.start(serving.run)
        self._serving, self._rate = serving, serving.rate
        self._switchboard.stage = serving.service

    async def drain(self, deadline_s: float) -> None:
        """Admit nobody any more, and see the sessions off."""
        self._draining = True
        if self._serving is not None:
            await self._serving.service.drain(deadline_s)

    def status(self) -> dict[str, Any]:
        """What `/status` shows of what is served."""
        if self._serving is None:
            return {"layers": str(self.span), **_NOTHING}
        return self._serving.status()


class _Vacant:
    """Takes the stage's messages while no span is loaded: refuses whoever wants a place, at once and by name."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def on_frame(self, sender: PeerId, frame: Frame) -> None:
        """See `Receiver`."""
        message = frame.message
        if isinstance(message, Open):
            with suppress(UnavailableError):  # it reads nothing, so it won't miss this either
                self._outbox.post(sender, (), Fault(message.session, "busy", "it is loading other layers"))
        elif not isinstance(message, StageMessage):
            raise PeerError(sender, f"sent {type(message).__name__} on the stage protocol")

    def on_lost(self, peer: PeerId) -> None:
        """Nobody has anything here."""
