"""How long a node that has nothing of a model takes until it serves a span: process start, weights from peers, loading.

`serving_s` is for the bench `join`.
"""

import shutil
from pathlib import Path

import trio

from bench import checkpoints
from bench.checkpoints import Shape
from bench.harness import progress
from p2pos.devnet import plan
from p2pos.devnet.processes import Command, Process, tied
from p2pos.shard import manifest
from p2pos.shard.checkpoint import Checkpoint

SHAPE = Shape(hidden=1024, layers=6, mlp=4608, heads=16, kv_heads=4, vocabulary=8192)
"""A layer has 16.8 million parameters, 33.6 MB in bf16."""
SPAN = "2:5"
"""Three layers without embedding or head."""


async def serving_s(directory: Path, repeats: int) -> tuple[list[float], float]:
    """Start two nodes with the whole model on disk, and after them so often one that joins with an empty cache.

    Args:
        directory: an empty one, for models, homes and logs; it takes some 350 MB.
        repeats: how often.

    Returns:
        Seconds from the start of the joining process to its ready line, each; and the MB (10⁶ bytes) of its span.

    Raises:
        P2posError: a node ended at its start, with its own last words.

    """
    cache = directory / "cache"
    model = await trio.to_thread.run_sync(lambda: checkpoints.write(directory / "model", SHAPE, cache=cache))
    model_id = manifest.make(Checkpoint.open(model)).model_id
    taken: list[float] = []
    span_bytes = 0

    async def start(nursery: trio.Nursery, name: str, cache: Path, *words: str) -> dict[str, list[str]]:
        argv = tied("p2pos", "--home", str(directory / name), "--log-json", "node", "run", *words)
        argv += ("--threads", "1", "--leash")
        command = Command(argv, plan.NODE_READY_S, plan.NODE_STOP_S, plan.environment(P2POS_CACHE=str(cache)))
        process = Process(name, directory / f"{name}.log", lambda _: None)
        ready: dict[str, list[str]] = await nursery.start(process.run, command)
        return ready

    async with trio.open_nursery() as nursery:
        first = await start(nursery, "first", cache, "--model", str(model), "--layers", "0:3")
        join = ("--bootstrap", first["addresses"][0])
        await start(nursery, "second", cache, "--model", str(model), "--layers", "3:6", *join)
        for number in range(repeats):
            own = directory / f"cache-{number}"
            async with trio.open_nursery() as life:  # one at a time: the next one gets nothing from it
                began_s = trio.current_time()
                await start(life, f"joins-{number}", own, "--model", model_id, "--layers", SPAN, *join)
                taken.append(trio.current_time() - began_s)
                life.cancel_scope.cancel()
            progress(f"a node that had nothing serves after {taken[-1]:.1f} s")
            span_bytes = sum(path.stat().st_blocks * 512 for path in own.glob("peers/*/model.safetensors"))
            shutil.rmtree(own)
        nursery.cancel_scope.cancel()
    return taken, span_bytes / 1e6
