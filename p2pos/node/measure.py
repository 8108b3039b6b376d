"""What a node can do, measured once: tokens per second through one layer, and how many layers its memory holds.

The rate is that of real layers, one token at a time with nothing else to do, and is kept in the node's home under what
it depends on: the processor, its cores and threads, the device, torch, the model and how it is held. Where one of these
changes it is measured again.
"""

import hashlib
import json
import os
import platform
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import torch

from p2pos import log
from p2pos.errors import UserError
from p2pos.node.node_config import NodeConfig
from p2pos.shard import architecture
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.stage import Stage
from p2pos.types import ModelId

FILE = "measured.json"
MAX_KEPT = 64
"""Rates in the file; one each for as many models and ways to hold them as a machine ever serves."""
WARM_ROWS = 3
"""Tokens before the clock starts: the first ones lay out memory."""
MEASURE_S = 0.25
"""Seconds that a measurement takes, at least one token."""
MAX_ROWS = 256
"""Tokens of one; enough even where each takes microseconds."""
SHARE = 0.8
"""Of the memory that is free when the node starts, for weights and caches; the rest is for what else a process needs,
and for the machine's owner."""
CACHE_SHARE = 0.25
"""Of that, for caches, where nothing else was said."""

_BITS = {"none": None, "int8": 8, "int4": 4}

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")
"""The first number in a tensor's name is its layer's: `model.layers.3.mlp.experts.7.w1`."""

_log = log.get("measure")


def facts(config: NodeConfig, model: ModelId) -> str:
    """What a rate depends on, as one line that is the same as long as all of it is."""
    device = torch.cuda.get_device_name() if config.device == "cuda" else _processor()
    return json.dumps(
        {
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "device": device,
            "dtype": config.dtype,
            "model": model,
            "quantize": config.quantize,
            "threads": config.threads,
            "torch": torch.__version__,
        },
        sort_keys=True,
    )


def kept(home: Path, what: str) -> float | None:
    """The rate that was measured earlier, in tokens per second through one layer; None where there is none."""
    entry = _read(home / FILE).get(_key(what))
    rate = entry.get("layer_tokens_per_s") if isinstance(entry, dict) else None
    return float(rate) if isinstance(rate, int | float) and 0 < rate < float("inf") else None


def keep(home: Path, what: str, rate: float) -> None:
    """Keep a rate for `kept`; the oldest of too many goes."""
    known = _read(home / FILE)
    known.pop(_key(what), None)
    entries = [*known.items(), (_key(what), {"facts": json.loads(what), "layer_tokens_per_s": rate})]
    with tempfile.NamedTemporaryFile("w", dir=home, delete=False, encoding="utf-8") as file:
        json.dump(dict(entries[-MAX_KEPT:]), file, indent=1)
    Path(file.name).replace(home / FILE)


def layer_rate(stage: Stage) -> float:
    """Measure a loaded stage: tokens per second through one of its layers, one token at a time. Takes some 0.3 s.

    The faster quarter counts: what was slower had company, and that is no property of the machine.
    """
    cache, one = stage.new_cache(), stage.nothing()
    for _ in range(WARM_ROWS):
        _pass(stage, one, cache)
    times: list[float] = []
    ends_s = time.monotonic() + MEASURE_S
    while len(times) < MAX_ROWS and cache.positions < stage.max_positions and (not times or time.monotonic() < ends_s):
        began_s = time.perf_counter()
        _pass(stage, one, cache)
        times.append(time.perf_counter() - began_s)
    return len(stage.span) / sorted(times)[len(times) // 4]


def rate_of(config: NodeConfig, model: ModelId, stage: Stage) -> float:
    """The rate of a stage's layers, from the node's home or measured now."""
    what = facts(config, model)
    rate = kept(config.home, what)
    if rate is None:
        rate = round(layer_rate(stage), 1)
        keep(config.home, what, rate)
        _log.info("measured", layer_tokens_per_s=rate)
    return rate


def most_layers(config: NodeConfig, checkpoint: Checkpoint) -> int:
    """How many layers of a model the memory that is free now holds, with room for caches; at least 1.

    What belongs to no layer (embedding, head) counts in full, wherever it will be.
    """
    layers = architecture.layer_count(architecture.read_config(config.model))
    by_layer: Counter[int] = Counter()
    for tensor in checkpoint.tensors.values():
        found = _LAYER.search(tensor.name)
        size = tensor.nbytes if len(tensor.shape) < 2 else _held(config, tensor.dtype, tensor.nbytes)
        by_layer[int(found.group(1)) if found else -1] += size
    other = by_layer.pop(-1, 0)
    free = config.memory_bytes or int(SHARE * _free(config.device))
    left = free - (config.cache_bytes or int(free * CACHE_SHARE)) - other
    return max(1, min(config.max_layers or layers, layers, left // max(by_layer.values(), default=1)))


def _held(config: NodeConfig, stored: str, size: int) -> int:
    """Bytes that a matrix takes in memory, of so many on disk."""
    from_bits = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "I8": 8, "U8": 8}
    bits = _BITS[config.quantize] or (32 if config.dtype == "f32" else 16)
    return size * bits // from_bits.get(stored, 16)


def _pass(stage: Stage, one: torch.Tensor, cache: object) -> None:
    output = stage.run(one, cache)  # type: ignore[arg-type]  # a SpanCache, of which only its stage knows more
    float(output.reshape(-1)[0])  # waits for a GPU


def _free(device: str) -> int:
    """Bytes of memory that are free where the layers would be."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def _processor() -> str:
    """The processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def _key(what: str) -> str:
    return hashlib.sha256(what.encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, object]:
    """What is kept; nothing where the file is missing or damaged, for then it is measured again."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        _log.warning("can't be read; measuring again", path=str(path), why=str(exc))
        return {}
    return value if isinstance(value, dict) else {}


def check_bounds(config: NodeConfig) -> None:
    """Raise UserError where a bound is given beside layers that are named."""
    if config.layers is not None and (config.max_layers or config.memory_bytes):
        raise UserError("--max-layers and --memory are for --layers auto", hint=f"--layers {config.layers} says it all")
