"""Where a node's layers come from: one model, any span of which can be fetched and loaded while the node runs."""

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
import trio

from p2pos import log
from p2pos.errors import UserError
from p2pos.node.metrics import Metrics
from p2pos.node.node_config import NodeConfig, Progress
from p2pos.shard import hub, manifest, runners
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.grammar import Grammars
from p2pos.shard.manifest import Manifest
from p2pos.shard.runners import Runner
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

    @property
    def model(self) -> ModelId:
        """The model's id."""
        return self.manifest.model_id

    async def fetch(self, span: LayerSpan) -> None:
        """Of a checkpoint from a hub, fetch what the span needs and isn't here."""
        if self.checkpoint.partial is None:
            return
        stop = threading.Event()

        def fetch() -> int:
            wanted, offline = needed(self.checkpoint, span), self.config.offline
            return hub.fetch(self.checkpoint, wanted, offline=offline, progress=self.progress, stop=stop)

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
