"""Where a node's layers come from: one model, any span of which can be fetched and loaded while the node runs."""

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
import trio

from p2pos import log
from p2pos.errors import UserError
from p2pos.node import weights
from p2pos.node.metrics import Metrics
from p2pos.node.node_config import NodeConfig, Progress
from p2pos.node.weights import Swarm
from p2pos.shard import hub, manifest, runners
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.grammar import Grammars
from p2pos.shard.manifest import Manifest
from p2pos.shard.runners import Runner
from p2pos.shard.shelf import Shelf
from p2pos.shard.stage import Stage, needed
from p2pos.types import Cid, LayerSpan, ModelId

_log = log.get("node")


@dataclass(frozen=True, slots=True)
class Source:
    """The model that a node serves layers of."""

    config: NodeConfig
    checkpoint: Checkpoint
    manifest: Manifest
    layers: int
    """How many the whole model has."""
    progress: Progress
    metrics: Metrics
    """Count the bytes that come."""
    swarm: Swarm | None = None
    """Where weights may come from besides disk and hub."""

    @property
    def model(self) -> ModelId:
        """The model's id."""
        return self.manifest.model_id

    async def fetch(self, span: LayerSpan) -> None:
        """Of a checkpoint from a hub or from peers, fetch what the span needs and isn't here.

        Raises as `hub.fetch` and `weights.fill` do.
        """
        if self.checkpoint.partial is not None:
            await self._fetch_from_hub(span)
        elif self.checkpoint.fetched is not None:
            # the rehearsal of the loading takes a second, and the swarm wants answers meanwhile
            wanted = await trio.to_thread.run_sync(needed, self.checkpoint, span)
            await weights.fill(
                self.swarm,
                Shelf(self.checkpoint, self.manifest),
                wanted,
                cache=self.config.cache,
                offline=self.config.offline,
                progress=self.progress,
                metrics=self.metrics,
            )

    async def _fetch_from_hub(self, span: LayerSpan) -> None:
        stop = threading.Event()

        def progress(title: str, total: int) -> Callable[[int], None]:
            return weights.paced(self.progress(title, total), self.config.download_rate, stop)

        def fetch() -> int:
            wanted, offline = needed(self.checkpoint, span), self.config.offline
            return hub.fetch(self.checkpoint, wanted, offline=offline, progress=progress, stop=stop)

        try:
            _log.info("fetching what isn't here", model=self.checkpoint.name, layers=str(span))
            fetched = await trio.to_thread.run_sync(fetch, abandon_on_cancel=True)  # type: ignore[call-arg]  # trio-typing knows an older trio
        finally:
            stop.set()
        _log.info("fetched", bytes=fetched)
        self.metrics.fetched("hub", fetched)

    async def load(self, span: LayerSpan) -> tuple[Stage, Runner]:
        """Load a span whose weights are here, and lay out its caches. Raises UserError where its bytes won't do."""
        config = self.config
        if config.threads:
            torch.set_num_threads(config.threads)
        checkpoint = Checkpoint.open(config.model)

        def load() -> tuple[Stage, Runner]:
            stage = Stage.load(
                config.model,
                span,
                dtype=config.dtype,
                device=config.device,
                quantize=config.quantize,
                manifest=self.manifest,
                on_bytes=self.progress(f"loading {checkpoint.name}", checkpoint.total_bytes),
            )
            most = config.cache_bytes or _quarter(stage)
            return stage, runners.choose(stage, max_tokens=config.max_tokens, max_bytes=most)

        stage, runner = await trio.to_thread.run_sync(load)
        _tell(stage)
        self.metrics.fetched("disk", stage.report.bytes_read)
        return stage, runner

    def grammars(self, stage: Stage) -> Grammars:
        """Raises UserError where the tokenizer or the model can't be used with one."""
        tokenizer = self.checkpoint.side_files()["tokenizer.json"].read_bytes()
        return Grammars(tokenizer, stage.vocabulary, list(self.checkpoint.defaults(stage.vocabulary).eos))

    @property
    def has_tokenizer(self) -> bool:
        """Whether texts can be held to grammars."""
        return "tokenizer.json" in self.checkpoint.side_files()

    def blocks(self) -> dict[Cid, Path | bytes]:
        """What a client without the model needs to read and write its text, by CID: manifest and side files."""
        known = self.manifest
        files = {known.files[name]: path for name, path in self.checkpoint.side_files().items() if name in known.files}
        return {Cid(self.model): known.to_bytes(), **files}

    async def shelf(self) -> Shelf | None:
        """The chunks of its weights, for others; None where they can't be checked chunk by chunk."""
        return await trio.to_thread.run_sync(Shelf.of, self.checkpoint, self.manifest)


async def pin(checkpoint: Checkpoint, cache: Path, wanted: ModelId | None = None) -> Manifest:
    """The checkpoint's manifest: from the cache, or made by another process, so that this one reads its span alone.

    Of a checkpoint from a hub it is the one by the hub's digests, unless it was pinned by its content and is `wanted`
    by that name.
    """
    if checkpoint.fetched is not None:
        return await trio.to_thread.run_sync(manifest.make, checkpoint)  # reads no weights
    known = manifest.cached(checkpoint, cache)
    if checkpoint.partial is not None and (known is None or known.model_id != wanted):
        return manifest.make(checkpoint)  # reads no weights
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


def _tell(stage: Stage) -> None:
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


def _quarter(stage: Stage) -> int:
    """Bytes: a quarter of what is free where the stage computes. Weights are loaded by then."""
    if stage.device.type == "cuda":
        return int(torch.cuda.mem_get_info(stage.device)[0]) // 4
    return int(psutil.virtual_memory().available) // 4
