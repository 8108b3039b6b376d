"""`python -m bench roofline`: how near a decode step comes to reading its weights as fast as memory gives them.

A step of one session multiplies each weight once, so it can be no faster than its weights are read. The model has
the layers of a 1B Llama (`checkpoints.A`) with random weights, half as many of them: 1.1 GB in bf16, thirty times the
caches. One thread. Each repeat reads memory and takes steps in bf16, int8 and int4, one right after the
other; ratios are of that repeat's numbers.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench import checkpoints
from bench.harness import Figures
from p2pos.shard.stage import Stage
from p2pos.wire.messages import Quantization

READ_BYTES = 256 << 20
"""Of memory read to find out how fast that goes: eight times the caches of the machine this was written on."""
PROMPT_TOKENS = 16
"""Short, so that a step is its weights and next to no attention."""
MODES: tuple[Quantization, ...] = ("none", "int8", "int4")


def run(figures: Figures, *, quick: bool, device: str) -> int:
    """Set `read_gb_s`, `decode_share_bf16`, `int8_speedup`, `int4_speedup`; return how often each was measured."""
    layers, repeats, steps = (4, 5, 3) if quick else (8, 15, 5)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        stages = _stages(layers, device)
        reads = _readers(device)
        rates: list[float] = []
        shares: list[float] = []
        speedups: dict[Quantization, list[float]] = {"int8": [], "int4": []}
        for number in range(repeats + 1):
            rate = max(READ_BYTES / _seconds(read, device, times=2) / 1e9 for read in reads)
            step_s = {mode: _seconds(_step(stages[mode]), device, times=steps) for mode in MODES}
            print(
                number,
                f"{rate:.1f} GB/s",
                {mode: f"{each * 1e3:.1f} ms" for mode, each in step_s.items()},
                file=sys.stderr,
            )
            if number:  # the first warms up
                rates.append(rate)
                shares.append(stages["none"].report.span_bytes / step_s["none"] / 1e9 / rate)
                for mode, each in speedups.items():
                    each.append(step_s["none"] / step_s[mode])
    finally:
        torch.set_num_threads(threads)
    figures.median("read_gb_s", rates)
    figures.median("decode_share_bf16", shares)
    for mode, each in speedups.items():
        figures.median(f"{mode}_speedup", each)
    figures.exact(
        **{f"{mode}_bytes" if mode != "none" else "bf16_bytes": stages[mode].report.span_bytes for mode in MODES}
    )
    return repeats


def _stages(layers: int, device: str) -> dict[Quantization, Stage]:
    """The same random checkpoint, held in each way."""
    with tempfile.TemporaryDirectory() as parent:
        model = checkpoints.write(Path(parent) / "model", replace(checkpoints.A, layers=layers), cache=Path(parent))
        return {mode: Stage.load(model, device=device, quantize=mode) for mode in MODES}


def _readers(device: str) -> list[Callable[[], Any]]:
    """Ways to read `READ_BYTES` of memory once with one thread, of which the fastest counts."""
    written = bytearray(b"\x01" * READ_BYTES)  # written, because pages that never were are all one page
    buffer = torch.frombuffer(written, dtype=torch.uint8).to(device)
    readers: list[Callable[[], Any]] = [buffer.view(torch.int64).sum, buffer.view(torch.float32).amax, buffer.max]
    return readers if device != "cpu" else [*readers, lambda: written.find(b"\x00")]


def _step(stage: Stage) -> Callable[[], Any]:
    """A decode step after a short prompt, which this takes at once; each call is one position further."""
    cache = stage.new_cache()
    stage.run(torch.arange(PROMPT_TOKENS), cache, want_logits=True)
    token = torch.tensor([7])
    return lambda: stage.run(token, cache, want_logits=True)


def _seconds(call: Callable[[], Any], device: str, *, times: int) -> float:
    """The median time of a call, which has ended when the device has."""
    taken = []
    for _ in range(times + 1):
        began_s = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began_s)
    return statistics.median(taken[1:])  # the first finds the caches full of something else
