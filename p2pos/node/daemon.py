"""The node daemon: joins host, links, discovery, stage and HTTP under one root nursery, and leaves in good order."""

import signal
import time
from functools import partial
from typing import Any

import psutil
import trio
from trio_typing import TaskStatus

from p2pos import __version__, leash, lock, log
from p2pos.content.bucket import Bucket
from p2pos.content.store import Store
from p2pos.errors import UserError
from p2pos.node import addresses, gateway, loading, mdns, measure
from p2pos.node.client import ModelFiles, fetch_model_files, read_model_files
from p2pos.node.content_service import MAX_REQUEST, ContentService
from p2pos.node.discovery import Discovery
from p2pos.node.engine_seat import EngineSeat, check_whole
from p2pos.node.gauges import Status, Views
from p2pos.node.host import Host, open_host
from p2pos.node.identity import Identity
from p2pos.node.links import Links
from p2pos.node.loading import Source
from p2pos.node.metrics import Metrics
from p2pos.node.node_config import NodeConfig, Progress, Ready
from p2pos.node.openai.catalogue import Catalogue
from p2pos.node.openai.service import Api
from p2pos.node.placing import Placing
from p2pos.node.reach import Reach
from p2pos.node.relay import Relay
from p2pos.node.round_trips import RoundTrips
from p2pos.node.routes import Routes
from p2pos.node.serving import Seat
from p2pos.node.switchboard import Switchboard
from p2pos.node.weights import Swarm
from p2pos.shard import architecture
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.coverage import Coverage, Kind, coverages
from p2pos.shard.quantize import check_kernels
from p2pos.shard.routing import View
from p2pos.shard.session import MAX_WAITING
from p2pos.shard.stage import check, needed
from p2pos.types import LayerSpan, ModelId, PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import CONTENT_PROTOCOL, STAGE_PROTOCOL, Announcement, StageRef

DRAIN_S = 10.0
"""Seconds that SIGTERM gives the sessions to finish."""

ANSWERS_S = 2.0
"""Seconds for the last tokens of the API's texts to reach clients that read."""

FAREWELL_S = 1.0
"""Seconds for the last messages to leave."""

_log = log.get("node")


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
    if config.engine is not None:
        check_whole(config, architecture.layer_count(shape))
    check_kernels(config.quantize, config.device)
    measure.check_bounds(config)
    in_use = UserError(f"a node already runs in {config.home}", hint="give each its own --home")
    with lock.held(config.home, in_use):
        await _run(config, checkpoint, progress, task_status)


async def _run(config: NodeConfig, checkpoint: Checkpoint, progress: Progress, task_status: TaskStatus[Ready]) -> None:
    identity = Identity.load_or_create(config.home / "identity.key")
    relays = [relay for each in config.listen if (relay := addresses.relay_to_listen_at(each)) is not None]
    own = [each for each in config.listen if not addresses.is_circuit(each)]
    async with trio.open_nursery() as nursery, open_host(identity, own, swarm_key=config.swarm_key) as host:
        _log.info("listening", peer=host.peer, addresses=list(host.addresses))
        metrics = Metrics(process=True)
        reach = Reach(host, Relay(host) if config.relay else None, relays)
        await nursery.start(reach.run)
        discovery = Discovery(host, identity, metrics=metrics)
        host.on_learn(discovery.say_anew)
        await nursery.start(discovery.run, config.bootstrap)
        if config.mdns:
            await nursery.start(partial(mdns.run, host, discovery.meet, swarm_key=config.swarm_key))
        known = await loading.pin(checkpoint, config.cache, config.model_id)
        _, whole = check(config.model, None)
        discovery.follow(known.model_id)  # all who may have its weights
        swarm = Swarm(host, discovery.known, Bucket(config.download_rate), discovery.find)
        source = Source(config, checkpoint, known, whole.end, progress, metrics, swarm)
        content = ContentService(
            source.blocks(),
            await source.shelf(),
            Bucket(config.upload_rate),
            metrics=metrics,
            store=None if config.content is None else Store(config.content),
        )
        await _Node(source, host, reach, discovery, content).serve(nursery, task_status)
        nursery.cancel_scope.cancel()


class _Node:
    """The parts of a running node."""

    def __init__(self, source: Source, host: Host, reach: Reach, discovery: Discovery, content: ContentService) -> None:
        self._source = source
        self._reach = reach
        self._config = source.config
        self._host = host
        self._discovery = discovery
        self._began_s = time.monotonic()
        self._process = psutil.Process()
        self._metrics = source.metrics
        self._links = Links(
            host, STAGE_PROTOCOL, receive=self._receive, on_lost=self._on_lost, queue_frames=MAX_WAITING
        )
        self._round_trips = RoundTrips(host, discovery.known, self._own)
        routes = Routes(discovery.known, view=lambda: View(self._round_trips.ms, me=host.peer))
        self._switchboard = Switchboard(host.peer, self._links, routes)
        self._switchboard.owner.on_note = self._metrics.noted
        self._api = Api(self._switchboard.owner, Catalogue(discovery.known, self._fetch_files, routes), self._metrics)
        self._seat: Seat | EngineSeat = (
            Seat(host.peer, source, self._switchboard, self._announce)
            if self._config.engine is None
            else EngineSeat(host.peer, source, self._config.engine, self._switchboard, self._announce)
        )
        self._content = content

    async def serve(self, nursery: trio.Nursery, task_status: TaskStatus[Ready]) -> None:
        """Serve until told to leave, then leave in good order."""
        await nursery.start(self._links.run)
        await nursery.start(self._switchboard.run)
        await nursery.start(self._seat.run)
        placing = await self._take_layers()
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            await nursery.start(self._api.run)
            serve_http = partial(gateway.run, token=self._config.api_token)
            views = Views(self.status, lambda: self._host.traffic, self._coverage, lambda: self._round_trips.ms)
            url: str = await nursery.start(serve_http, *self._config.api, views, self._metrics, self._api.routes)
            self._host.serve(CONTENT_PROTOCOL, self._content.serve, max_frame=MAX_REQUEST)
            await self._announce()
            nursery.start_soon(self._round_trips.run)
            if placing is not None:
                nursery.start_soon(placing.run)
            task_status.started(Ready(self._host.peer, self._host.addresses, url))
            _log.info("ready", api=url)
            await self._told_to_leave(signals)
            _log.info("leaving", sessions=self.status()["sessions"])
            self._api.leaving = True
            await self._discovery.leave()
            await self._seat.drain(DRAIN_S)
            await self._api.drain(ANSWERS_S)
            await self._links.flush(FAREWELL_S)

    async def _take_layers(self) -> Placing | None:
        """Serve the layers that were named; or choose some, and give what goes on choosing."""
        source, seat = self._source, self._seat
        if self._config.layers is not None or isinstance(seat, EngineSeat):
            await seat.take(self._config.layers or LayerSpan(0, source.layers))
            return None
        most = measure.most_layers(self._config, source.checkpoint)
        placing = Placing(self._host.peer, source, seat, self._discovery.known, most)
        span = placing.first()
        await seat.claim(span)
        await seat.take(span)
        return placing

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
        return {
            "peer": self._host.peer,
            "addresses": list(self._host.addresses),
            "model": self._source.model,
            "model_name": self._source.checkpoint.name,
            "model_layers": self._source.layers,
            "dtype": self._config.dtype,
            "quantize": self._config.quantize,
            **self._seat.status(),
            "draining": self._seat.draining or self._api.leaving,
            "moves": self._seat.moves,
            "owned_sessions": self._switchboard.owner.sessions,
            "resident_bytes": self._process.memory_info().rss,
            "known_nodes": len(self._discovery.known()),
            "linked_peers": len(self._links.linked()),
            "connected_peers": len(self._host.connected()),
            **self._reach.status(),
            "version": __version__,
            "uptime_s": round(time.monotonic() - self._began_s, 1),
        }

    def _coverage(self) -> Coverage | None:
        """Of this node's model, by the nodes that compute as it does."""
        mine = Kind(self._source.model, self._config.dtype, self._config.quantize, self._source.layers)
        return next((each for each in coverages(self._discovery.known()) if each.kind == mine), None)

    def _own(self) -> Announcement | None:
        """What this node said of itself last."""
        return next((each for each in self._discovery.known() if each.peer == self._host.peer), None)

    async def _announce(self) -> None:
        await self._discovery.announce(self._announcement)

    def _announcement(self, sequence: int, expires: int) -> Announcement:
        """What this node says of itself now; `sequence` and `expires` in milliseconds since the epoch."""
        status, span = self.status(), self._seat.span
        return Announcement(
            peer=self._host.peer,
            addresses=list(self._host.addresses),
            sequence=sequence,
            expires=expires,
            model=self._source.model,
            model_name=self._source.checkpoint.name,
            layers=self._source.layers,
            start=span.start,
            end=span.end,
            dtype=self._config.dtype,  # type: ignore[arg-type]  # the command line admits these literals alone
            tokens_per_s=status["tokens_per_s"],
            sessions=status["sessions"],
            cached_tokens=status["cached_tokens"],
            resident_bytes=status["resident_bytes"],
            weight_bytes=status["weight_bytes"],
            quantize=self._config.quantize,
            free_tokens=status["free_tokens"],
            waiting=status["waiting"],
            draining=self._seat.draining,
            engine=self._config.engine is not None,
            layer_tokens_per_s=status["layer_tokens_per_s"],
            round_trips=list(self._round_trips.ms.items()),
        )

    def _receive(self, peer: PeerId, frame: Frame) -> None:
        self._switchboard.receive(peer, frame)

    def _on_lost(self, peer: PeerId) -> None:
        self._metrics.link_lost()
        self._switchboard.on_lost(peer)

    async def _fetch_files(self, stage: StageRef, model: ModelId) -> ModelFiles:
        """A model's config and tokenizer from a node that serves it, which may be this one."""
        peer = PeerId(stage.peer)
        if peer == self._host.peer:
            return await read_model_files(self._content.blocks, model, peer=peer, foreign=False)
        await self._host.connect(peer, stage.addresses)
        return await fetch_model_files(self._host, peer, model)
