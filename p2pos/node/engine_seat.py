"""What a node with an engine behind it serves: all layers of one model, as long as the engine answers.

It has the place that `serving.Seat` has in a node that computes itself, and the same ways to be spoken to, but there is
nothing to load and nowhere to move.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio
from tokenizers import Tokenizer
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import InternalError, PeerError, UserError
from p2pos.node import engine_probe
from p2pos.node.engine_client import EngineClient, base_of
from p2pos.node.engine_probe import Found, Model
from p2pos.node.engine_service import RemoteEngine
from p2pos.node.engine_text import Spelling
from p2pos.node.loading import Source
from p2pos.node.node_config import EngineConfig, NodeConfig
from p2pos.node.ports import Outbox
from p2pos.node.stage_service import SessionService
from p2pos.node.switchboard import Switchboard
from p2pos.shard import architecture
from p2pos.shard.text import guarded
from p2pos.types import LayerSpan, PeerId

_log = log.get("node")


@dataclass(frozen=True, slots=True)
class _Whole:
    """All layers of a model."""

    layers: int
    vocabulary: int

    @property
    def span(self) -> LayerSpan:
        """All of them."""
        return LayerSpan(0, self.layers)

    @property
    def width(self) -> int:
        """No hidden states pass to a stage that is the only one."""
        return 0


class EngineSeat:
    """The one place of a node where an engine's layers are served.

    Args:
        me: this node's peer id.
        source: the model. None of its weights are loaded.
        config: where the engine is.
        switchboard: has the stage's messages delivered, and takes its own.
        announce: tells the swarm what this node says of itself now.

    """

    moves = 0
    """It never serves other layers."""

    def __init__(
        self,
        me: PeerId,
        source: Source,
        config: EngineConfig,
        switchboard: Switchboard,
        announce: Callable[[], Awaitable[None]],
    ) -> None:
        self._me = me
        self._source = source
        self._config = config
        self._switchboard = switchboard
        self._announce = announce
        vocabulary = architecture.vocabulary(architecture.read_config(source.config.model))
        self._whole = _Whole(source.layers, vocabulary)
        self._nursery: trio.Nursery | None = None
        self._client: EngineClient | None = None
        self._service: SessionService | None = None
        self._engine: RemoteEngine | None = None
        self._leaving = False

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold what is served, until cancelled."""
        client = EngineClient(base_of(self._config.url), key=self._config.key)
        async with client, trio.open_nursery() as nursery:
            self._client, self._nursery = client, nursery
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._client = self._nursery = None

    @property
    def span(self) -> LayerSpan:
        """All layers."""
        return self._whole.span

    @property
    def draining(self) -> bool:
        """Whether nothing new is to be begun here: the node is leaving, or the engine doesn't answer."""
        return self._leaving or self._engine is None or not self._engine.up

    async def take(self, span: LayerSpan) -> None:
        """Find the engine and serve. Raises UserError or UnavailableError where it isn't there or won't do."""
        if self._nursery is None or self._client is None or self._engine is not None or span != self.span:
            raise InternalError("a seat is taken once, while it runs, and here for all layers")
        model = await trio.to_thread.run_sync(_model, self._source)
        find = partial(engine_probe.find, self._client, model, wanted=self._config.model, places=self._config.sessions)
        found = await find()
        service = _Service(self._me, self._source, self._whole, self._switchboard)
        engine = service.write_by(self._client, model, found, find=find, on_change=self._announce)
        await self._nursery.start(service.run)
        self._service, self._engine = service, engine
        self._switchboard.stage = service
        _log.info("serving", model=self._source.checkpoint.name, layers=str(span), engine=self._client.url)

    async def drain(self, deadline_s: float) -> None:
        """Admit nobody any more, and see the sessions off."""
        self._leaving = True
        if self._service is not None:
            await self._service.drain(deadline_s)

    def status(self) -> dict[str, Any]:
        """What `/status` shows of what is served."""
        engine = self._engine
        return {
            "layers": str(self.span),
            "quantized_layers": 0,
            "left_alone": {},
            "saved_bytes": 0,
            "tokens_per_s": 0.0 if engine is None else round(engine.tokens_per_s(), 2),
            "sessions": 0 if engine is None else engine.sessions,
            "waiting": 0 if engine is None else engine.waiting,
            "runs_waiting": 0,
            "cached_tokens": 0 if engine is None else engine.cached_tokens,
            "cached_bytes": 0,
            "free_tokens": 0 if engine is None else engine.free_tokens,
            "prefix_tokens": 0,
            "prompt_tokens": 0 if engine is None else engine.prompt_tokens,
            "weight_bytes": 0,
            "span_bytes": 0,
            # of one text with nothing else to do, as measured
            "layer_tokens_per_s": 0.0 if engine is None else round(engine.found.tokens_per_s * self._whole.layers, 2),
            "engine": None if engine is None else engine.status(),
        }


def check_whole(config: NodeConfig, layers: int) -> None:
    """Raise UserError where a node is asked for what an engine has no say in, or its address is none."""
    if config.engine is None:
        return
    base_of(config.engine.url)
    if config.layers not in {None, LayerSpan(0, layers)}:
        raise UserError(f"an engine serves all layers, 0:{layers}, not {config.layers}", hint="leave out --layers")
    if config.quantize != "none":
        raise UserError("how an engine holds its weights is the engine's affair", hint="leave out --quantize")


class _Service(SessionService):
    """Sessions of the whole model, written by an engine."""

    def __init__(self, me: PeerId, source: Source, whole: _Whole, outbox: Outbox) -> None:
        super().__init__(me, source.model, whole, dtype=source.config.dtype, outbox=outbox)
        self._metrics = source.metrics

    def write_by(
        self,
        client: EngineClient,
        model: Model,
        found: Found,
        *,
        find: Callable[[], Awaitable[Found]],
        on_change: Callable[[], Awaitable[None]],
    ) -> RemoteEngine:
        """Have this engine write, and give what speaks with it."""
        engine = RemoteEngine(
            client,
            model,
            found,
            find=find,
            on_change=on_change,
            on_admitted=self._on_admitted,
            on_done=self._on_done,
            on_step=self._metrics.stepped,
        )
        self.engine = engine
        return engine


def _model(source: Source) -> Model:
    """What is to be known of the model: of its config and tokenizer. Raises UserError."""
    config = architecture.read_config(source.config.model)
    path: Path | None = source.checkpoint.side_files().get("tokenizer.json")
    try:
        spelling = None if path is None else guarded(lambda: Spelling(Tokenizer.from_file(str(path))))
    except PeerError as exc:
        raise UserError(f"{path} can't be used: {exc.message}", hint="use the one that came with the model") from exc
    return Model(source.checkpoint.name, architecture.vocabulary(config), architecture.max_positions(config), spelling)
