"""The node daemon: joins host, links, discovery, stage and HTTP under one root nursery, and leaves in good order."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
import trio
from trio_typing import TaskStatus

from p2pos import __version__, leash, lock, log
from p2pos.errors import UserError
from p2pos.node import gateway
from p2pos.node.client import ModelFiles, fetch_model_files, read_model_files
from p2pos.node.content_service import MAX_REQUEST, ContentService
from p2pos.node.discovery import Discovery
from p2pos.node.gauges import Status, Views
from p2pos.node.host import Host, open_host
from p2pos.node.identity import Identity
from p2pos.node.links import Links
from p2pos.node.metrics import Metrics
from p2pos.node.openai.catalogue import Catalogue
from p2pos.node.openai.service import Api
from p2pos.node.stage_service import StageService
from p2pos.node.switchboard import Switchboard
from p2pos.shard import architecture, hub, manifest, runners
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.coverage import Coverage, Kind, coverages
from p2pos.shard.grammar import Grammars
from p2pos.shard.manifest import Manifest
from p2pos.shard.quantize import check_kernels
from p2pos.shard.routing import uncovered
from p2pos.shard.runners import Runner
from p2pos.shard.session import MAX_WAITING
from p2pos.shard.stage import Stage, check, needed
from p2pos.types import Cid, LayerSpan, ModelId, PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import CONTENT_PROTOCOL, STAGE_PROTOCOL, Announcement, Quantization, StageRef

DRAIN_S = 10.0
"""Seconds that SIGTERM gives the sessions to finish."""

ANSWERS_S = 2.0
"""Seconds for the last tokens of the API's texts to reach clients that read."""

FAREWELL_S = 1.0
"""Seconds for the last messages to leave."""

_log = log.get("node")


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What `p2pos node run` was asked to do."""

    home: Path
    cache: Path
    model: Path
    """A checkpoint's directory; one of a hub's may lack weights."""
    offline: bool
    """Fetch none of them."""
    layers: LayerSpan | None
    """None takes the first layers that nobody serves, or all of them."""
    listen: tuple[str, ...]
    bootstrap: tuple[str, ...]
    api: tuple[str, int]
    dtype: str
    quantize: Quantization
    """How to hold the weights of linear layers."""
    device: str
    threads: int
    """Of torch; 0 leaves it to torch."""
    max_tokens: int
    """Positions that all KV caches may hold together."""
    api_token: str
    """What requests to the HTTP interface must bear; "" for none, which only loopback addresses allow."""
    cache_bytes: int
    """Bytes that they may take; 0 is a quarter of the memory that is free when the node starts."""
    leashed: bool
    """Leave when standard input ends."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a node says once it serves."""

    peer: str
    addresses: tuple[str, ...]
    api: str


Progress = Callable[[str, int], Callable[[int], None]]
"""Given a title and a total of bytes, what to call with each piece's bytes."""


async def run(config: NodeConfig, progress: Progress, *, task_status: TaskStatus[Ready]) -> None:
    """Run a node until it is told to leave (SIGTERM, SIGINT, or its leash).

    Raises UserError, UnavailableError and others where it can't start; nothing is left behind then.
    """
    checkpoint = Checkpoint.open(config.model)
    # all this before anything is written or anyone is told
    shape, _ = check(config.model, config.layers, device=config.device)
    ids = architecture.vocabulary(shape)
    checkpoint.check_tokenizer(ids)
    checkpoint.defaults(ids)
    needed(checkpoint, config.layers)
    check_kernels(config.quantize, config.device)
    in_use = UserError(f"a node already runs in {config.home}", hint="give each its own --home")
    with lock.held(config.home, in_use):
        await _run(config, checkpoint, progress, task_status)


async def _run(config: NodeConfig, checkpoint: Checkpoint, progress: Progress, task_status: TaskStatus[Ready]) -> None:
    identity = Identity.load_or_create(config.home / "identity.key")
    async with trio.open_nursery() as nursery, open_host(identity, config.listen) as host:
        _log.info("listening", peer=host.peer, addresses=list(host.addresses))
        metrics = Metrics(process=True)
        discovery = Discovery(host, identity)
        await nursery.start(discovery.run, config.bootstrap)
        known = await pin(checkpoint, config.cache)
        _, whole = check(config.model, None)
        span = config.layers or _choose(discovery, known, checkpoint, config, layers=whole.end)
        metrics.fetched("hub", await _fetch(config, span or whole, checkpoint, progress))
        stage = await _load(config, span, known, progress)
        runner = runners.choose(stage, max_tokens=config.max_tokens, max_bytes=config.cache_bytes or _quarter(stage))
        metrics.fetched("disk", stage.report.bytes_read)
        node = _Node(config, host, discovery, checkpoint, known, stage, runner, metrics)
        await node.serve(nursery, task_status)
        nursery.cancel_scope.cancel()


async def pin(checkpoint: Checkpoint, cache: Path) -> Manifest:
    """The checkpoint's manifest: from the cache, or made by another process, so that this one reads its span alone."""
    if checkpoint.partial is not None:
        return manifest.make(checkpoint)  # reads no weights
    known = manifest.cached(checkpoint, cache)
    if known is None:
        _log.info("naming the model by its content; this happens once", model=str(checkpoint.directory))
        command = [sys.executable, "-m", "p2pos", "model", "pin", str(checkpoint.directory)]
        await trio.run_process(
            command, check=False, stdin=b"", capture_stdout=True, env={**os.environ, "P2POS_CACHE": str(cache)}
        )
        known = manifest.cached(checkpoint, cache)
    if known is None:
        raise UserError(f"{checkpoint.directory} could not be named by its content", hint="try `p2pos model pin`")
    return known


def _choose(
    discovery: Discovery, known: Manifest, checkpoint: Checkpoint, config: NodeConfig, *, layers: int
) -> LayerSpan | None:
    """For `--layers auto`: the first layers that nobody serves who computes as this node does, else all."""
    announced = [
        each
        for each in discovery.known()
        if (each.model, each.dtype, each.quantize) == (known.model_id, config.dtype, config.quantize)
    ]
    if not announced:
        return None
    _log.info("choosing layers", model=checkpoint.name, served_by=len(announced))
    return uncovered(announced, known.model_id, layers)


async def _fetch(config: NodeConfig, span: LayerSpan, checkpoint: Checkpoint, progress: Progress) -> int:
    """Of a checkpoint from a hub, fetch what the span needs and isn't here. Returns how many bytes came."""
    if checkpoint.partial is None:
        return 0
    stop = threading.Event()

    def fetch() -> int:
        return hub.fetch(checkpoint, needed(checkpoint, span), offline=config.offline, progress=progress, stop=stop)

    try:
        _log.info("fetching what isn't here", model=checkpoint.name, layers=str(span))
        fetched = await trio.to_thread.run_sync(fetch, abandon_on_cancel=True)  # type: ignore[call-arg]  # trio-typing knows an older trio
    finally:
        stop.set()
    _log.info("fetched", bytes=fetched)
    return fetched


async def _load(config: NodeConfig, span: LayerSpan | None, known: Manifest, progress: Progress) -> Stage:
    if config.threads:
        torch.set_num_threads(config.threads)
    checkpoint = Checkpoint.open(config.model)

    def load() -> Stage:
        return Stage.load(
            config.model,
            span,
            dtype=config.dtype,
            device=config.device,
            quantize=config.quantize,
            manifest=known,
            on_bytes=progress(f"loading {checkpoint.name}", checkpoint.total_bytes),
        )

    stage = await trio.to_thread.run_sync(load)
    report = stage.report
    _log.info(
        "loaded",
        layers=str(stage.span),
        bytes_read=report.bytes_read,
        span_bytes=report.span_bytes,
        model_bytes=report.total_bytes,
        quantize=report.quantized.mode,
        saved_bytes=report.quantized.saved_bytes,
        resident_bytes=psutil.Process().memory_info().rss,
        seconds=round(report.seconds, 2),
    )
    if report.quantized.mode != "none":
        _log.info("quantized", layers=report.quantized.layers, left_alone=report.quantized.why_left())
    return stage


def _quarter(stage: Stage) -> int:
    """Bytes: a quarter of what is free where the stage computes. Weights are loaded by then."""
    if stage.device.type == "cuda":
        return int(torch.cuda.mem_get_info(stage.device)[0]) // 4
    return int(psutil.virtual_memory().available) // 4


class _Node:
    """The parts of a running node, once the weights are there."""

    def __init__(
        self,
        config: NodeConfig,
        host: Host,
        discovery: Discovery,
        checkpoint: Checkpoint,
        known: Manifest,
        stage: Stage,
        runner: Runner,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._host = host
        self._discovery = discovery
        self._checkpoint = checkpoint
        self._stage = stage
        self._model = known.model_id
        self._began_s = time.monotonic()
        self._process = psutil.Process()
        self._metrics = metrics
        self._links = Links(
            host, STAGE_PROTOCOL, receive=self._receive, on_lost=self._on_lost, queue_frames=MAX_WAITING
        )
        self._switchboard = Switchboard(host.peer, self._links)
        self._api = Api(self._switchboard.owner, Catalogue(discovery.known, self._fetch_files), metrics)
        self._service = StageService(
            host.peer,
            self._model,
            stage,
            runner,
            dtype=config.dtype,
            outbox=self._switchboard,
            grammars=self._grammars if "tokenizer.json" in checkpoint.side_files() else None,
            metrics=metrics,
        )
        self._switchboard.stage = self._service
        files = {known.files[name]: path for name, path in checkpoint.side_files().items() if name in known.files}
        self._content = ContentService({Cid(self._model): known.to_bytes(), **files}, metrics)

    async def serve(self, nursery: trio.Nursery, task_status: TaskStatus[Ready]) -> None:
        """Serve until told to leave, then leave in good order."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await nursery.start(self._service.run)
            await nursery.start(self._links.run)
            await nursery.start(self._switchboard.run)
            await nursery.start(self._api.run)
            serve_http = partial(gateway.run, token=self._config.api_token)
            views = Views(self.status, lambda: self._host.traffic, self._coverage, self._round_trips_ms)
            url: str = await nursery.start(serve_http, *self._config.api, views, self._metrics, self._api.routes)
            self._host.serve(CONTENT_PROTOCOL, self._content.serve, max_frame=MAX_REQUEST)
            await self._discovery.announce(self._announcement)
            task_status.started(Ready(self._host.peer, self._host.addresses, url))
            _log.info("serving", model=self._checkpoint.name, layers=str(self._stage.span), api=url)
            await self._told_to_leave(signals)
            _log.info("leaving", sessions=self._service.engine.sessions)
            self._api.leaving = True
            await self._discovery.leave()
            await self._service.drain(DRAIN_S)
            await self._api.drain(ANSWERS_S)
            await self._links.flush(FAREWELL_S)

    async def _told_to_leave(self, signals: Any) -> None:
        async def on_signal() -> None:
            async for _ in signals:
                told.set()
                return

        async def on_leash() -> None:
            await leash.let_go()
            told.set()

        told = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(on_signal)
            if self._config.leashed:
                nursery.start_soon(on_leash)
            await told.wait()
            nursery.cancel_scope.cancel()

    def status(self) -> Status:
        """What `/status` and `/metrics` show."""
        engine, report = self._service.engine, self._stage.report
        return {
            "peer": self._host.peer,
            "addresses": list(self._host.addresses),
            "model": self._model,
            "model_name": self._checkpoint.name,
            "layers": str(self._stage.span),
            "model_layers": self._stage.layers,
            "dtype": self._config.dtype,
            "quantize": report.quantized.mode,
            "quantized_layers": report.quantized.layers,
            "left_alone": report.quantized.why_left(),
            "saved_bytes": report.quantized.saved_bytes,
            "tokens_per_s": round(engine.tokens_per_s(), 2),
            "sessions": engine.sessions,
            "owned_sessions": self._switchboard.owner.sessions,
            "waiting": engine.waiting,
            "runs_waiting": engine.runs_waiting,
            "draining": self._api.leaving,
            "cached_tokens": engine.cached_tokens,
            "cached_bytes": engine.cached_bytes,
            "free_tokens": max(0, engine.room - engine.cached_tokens),
            "prefix_tokens": engine.prefix_tokens,
            "prompt_tokens": engine.prompt_tokens,
            "weight_bytes": report.bytes_read,
            "span_bytes": report.span_bytes,
            "resident_bytes": self._process.memory_info().rss,
            "known_nodes": len(self._discovery.known()),
            "linked_peers": len(self._links.linked()),
            "connected_peers": len(self._host.connected()),
            "version": __version__,
            "uptime_s": round(time.monotonic() - self._began_s, 1),
        }

    def _coverage(self) -> Coverage | None:
        """Of this node's model, by the nodes that compute as it does."""
        mine = Kind(self._model, self._config.dtype, self._config.quantize, self._stage.layers)
        return next((each for each in coverages(self._discovery.known()) if each.kind == mine), None)

    def _round_trips_ms(self) -> dict[str, float]:
        """What it announced last."""
        return {
            peer: milliseconds
            for each in self._discovery.known()
            if each.peer == self._host.peer
            for peer, milliseconds in each.round_trips
        }

    def _announcement(self, sequence: int, expires: int) -> Announcement:
        """What this node says of itself now; `sequence` and `expires` in milliseconds since the epoch."""
        status = self.status()
        return Announcement(
            peer=self._host.peer,
            addresses=list(self._host.addresses),
            sequence=sequence,
            expires=expires,
            model=self._model,
            model_name=self._checkpoint.name,
            layers=self._stage.layers,
            start=self._stage.span.start,
            end=self._stage.span.end,
            dtype=self._config.dtype,  # type: ignore[arg-type]  # the command line admits these literals alone
            tokens_per_s=status["tokens_per_s"],
            sessions=status["sessions"],
            cached_tokens=status["cached_tokens"],
            resident_bytes=status["resident_bytes"],
            weight_bytes=status["weight_bytes"],
            quantize=self._config.quantize,
        )

    def _receive(self, peer: PeerId, frame: Frame) -> None:
        self._switchboard.receive(peer, frame)

    def _on_lost(self, peer: PeerId) -> None:
        self._metrics.link_lost()
        self._switchboard.on_lost(peer)

    def _grammars(self) -> Grammars:
        """Raises UserError where the tokenizer or the model can't be used with one."""
        tokenizer = self._checkpoint.side_files()["tokenizer.json"].read_bytes()
        return Grammars(tokenizer, self._stage.vocabulary, list(self._checkpoint.defaults(self._stage.vocabulary).eos))

    async def _fetch_files(self, stage: StageRef, model: ModelId) -> ModelFiles:
        """A model's config and tokenizer from a node that serves it, which may be this one."""
        peer = PeerId(stage.peer)
        if peer == self._host.peer:
            return await read_model_files(self._content.blocks, model, peer=peer, foreign=False)
        await self._host.connect(peer, stage.addresses)
        return await fetch_model_files(self._host, peer, model)
