"""Every causal-LM type that transformers knows: cut in two and in three, against the whole model.

Each type is tried in a worker process (`bench.parity_trial`), two at a time, so that one that crashes or hangs ends
alone. What is found is also what `scripts/make_support.py` writes into the record that nodes go by.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, Queue

from bench import tiny_models
from bench.harness import Figures
from bench.parity_trial import TOLERANCE, Outcome
from p2pos.shard import exceptions, support

WORKERS = 2
"""At once: a worker takes up to 1 GiB, and what it does is bound by one core."""

LIMIT_S = 120.0
"""Seconds for one type: the slowest takes ten on a free core."""

EVERY = 14
"""Of the alphabet of types, `--quick` tries every fourteenth, besides `QUICK`: half a minute's worth for one core."""

QUICK = ("llama", "gpt2", "bert", "mamba", "minimax", "longcat_flash", "zaya")
"""A plan, none, an encoder made to read leftwards, a state, a cache of its own, two caches a layer, a refusal."""


def run(figures: Figures, *, quick: bool, device: str) -> int:
    """Measure. Returns how often each type was tried: once."""
    if device != "cpu":
        figures.exact(note="the comparison is made on the CPU, in fp32")
    types = sorted({*tiny_models.types()[::EVERY], *QUICK}) if quick else tiny_models.types()
    outcomes = try_all(types, lambda outcome: print(_line(outcome), file=sys.stderr, flush=True))
    equal = [outcome for outcome in outcomes if "split" in outcome.equal]
    served = [outcome for outcome in outcomes if support.holds(outcome.model_type)]
    figures.exact(
        types_with_plan=sum(outcome.plan for outcome in outcomes),
        equal_with_plan=sum(outcome.plan for outcome in equal),
        types_all=len(outcomes),
        equal_all=len(equal),
        max_abs_diff=max((outcome.diffs["split"] for outcome in equal), default=None),
        tolerance=TOLERANCE,
        sampled=quick,
        paged=sum("paged" in outcome.equal for outcome in outcomes),
        refused={
            outcome.model_type: support.why_not(outcome.model_type) for outcome in outcomes if outcome not in served
        },
        wrong={
            outcome.model_type: outcome.reason or "not equal where texts run side by side"
            for outcome in served
            if not set(support.record().types[outcome.model_type].equal) <= set(outcome.equal)
        },
        unserved=sorted(outcome.model_type for outcome in equal if outcome not in served),
    )
    return 1


def try_all(types: Sequence[str], on_outcome: Callable[[Outcome], None] = lambda _: None) -> list[Outcome]:
    """Put types on trial. Returns what became of each, in the order given."""
    waiting: Queue[str] = Queue()
    for model_type in types:
        waiting.put(model_type)
    found: dict[str, Outcome] = {}

    def work() -> None:
        worker = Worker()
        try:
            while True:
                try:
                    model_type = waiting.get_nowait()
                except Empty:
                    return
                if model_type in exceptions.REFUSED:
                    plan = tiny_models.has_plan(model_type)
                    outcome = Outcome(model_type, plan, {}, exceptions.REFUSED[model_type])
                else:
                    outcome = worker.ask(model_type)
                found[model_type] = outcome
                on_outcome(outcome)
        finally:
            worker.end()

    with ThreadPoolExecutor(WORKERS) as pool:
        for done in [pool.submit(work) for _ in range(WORKERS)]:
            done.result()
    return [found[model_type] for model_type in types]


class Worker:
    """A process that tries one type at a time; started when first asked, and anew after one has died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def ask(self, model_type: str) -> Outcome:
        """What became of a type; a worker that dies or takes too long is the answer as well."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.parity_trial"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # transformers' warnings about configs
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            )
        process = self.process
        timer = threading.Timer(LIMIT_S, process.kill)
        timer.start()
        try:
            line = _exchange(process, model_type)
        finally:
            timer.cancel()
        if not line:
            self.process = None
            code = process.wait()
            reason = f"its code ends the process that runs it, or takes over {LIMIT_S:.0f} s (exit {code})"
            return Outcome(model_type, tiny_models.has_plan(model_type), {}, reason)
        return Outcome(**json.loads(line))

    def end(self) -> None:
        """Stop the process."""
        if self.process is not None:
            self.process.communicate()


def _exchange(process: subprocess.Popen[str], model_type: str) -> str:
    if process.stdin is None or process.stdout is None:
        return ""
    try:
        process.stdin.write(f"{model_type}\n")
        process.stdin.flush()
    except BrokenPipeError:
        return ""
    return process.stdout.readline()


def _line(outcome: Outcome) -> str:
    diff = outcome.diffs.get("split")
    return f"{outcome.model_type:28} {'plan' if outcome.plan else '':5} " + (outcome.reason or f"{diff:.1e}")
