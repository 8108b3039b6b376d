"""`python -m bench churn`: nodes are killed and come back at random while texts go on; none is lost, none is wrong.

Three spans with two nodes each. Four clients write one text after another, some greedily and some by a seed, without a
break. Every 20 s one node, drawn by lot, is killed with SIGKILL and started again; the next one waits until it serves,
so that every layer is served by somebody. Each text is compared with the same one written before the first kill.
"""

import gc
import itertools
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import trio

from bench import checkpoints
from bench.checkpoints import Shape
from bench.faults import Cluster, cluster
from bench.harness import Figures, progress
from bench.trial import Trial, attempt, text
from p2pos.devnet import plan
from p2pos.errors import P2posError
from p2pos.node.visitor import visit
from p2pos.shard.request import Request
from p2pos.wire.messages import Sampling

SECONDS = 1800.0
QUICK_SECONDS = 45.0
EVERY_S = 20.0
"""Between two kills."""
CLIENTS = 4
STAGES = 3
SMALL = Shape(hidden=128, layers=6, mlp=256, heads=4, kv_heads=2, vocabulary=2048, head_dim=32)
"""Small: what is measured is not speed."""
TOKENS = 120
PROMPTS = tuple((16, 80, 250, 600)[seed % 4] for seed in range(8))
"""Lengths of the prompts that are in use; those with odd numbers are sampled, the others greedy."""
TEXTS_PER_VISIT = 8
"""After so many a client leaves and comes back as another peer, through whichever nodes are there."""
TEXT_S = 120.0
"""A text that takes longer counts as lost; undisturbed it takes some seconds."""
SAMPLE_EVERY_S = 3.0
"""Between two looks at memory."""
SETTLE_S = 25.0
"""Of a process's life that are not looked at: libraries fill their caches."""
SAMPLES = 3
"""Of a process's memory, at its beginning and at its end; the median counts."""
SHOWN = 20
"""Of what was lost, in the answer."""


@dataclass(slots=True)
class Tally:
    """What became of the texts."""

    requests: int = 0
    lost: list[str] = field(default_factory=list)
    """Why each of these was not whole."""
    wrong: int = 0
    kills: int = 0
    hit: int = 0
    """Texts that went through a node when it was killed, as far as their first route says."""
    longest_s: float = 0.0
    """The longest time that anybody waited for a token."""


class Memory:
    """Resident bytes of processes over their lives."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)

    def add(self, name: str, pid: int, now_s: float, resident: int) -> None:
        """One look at one process."""
        self._samples[name, pid].append((now_s, resident))

    def growth(self, name: str | None = None) -> float | None:
        """The most that a process grew from after its first seconds to its end, as a share; None of too short lives."""
        found = []
        for (each, _), samples in self._samples.items():
            sizes = [resident for now_s, resident in samples if now_s >= samples[0][0] + SETTLE_S]
            if name in {None, each} and len(sizes) >= 2 * SAMPLES:
                found.append(statistics.median(sizes[-SAMPLES:]) / statistics.median(sizes[:SAMPLES]) - 1)
        return max(found, default=None)


def run(figures: Figures, *, quick: bool, device: str, seconds: float | None = None) -> int:
    """Set the figures that docs/bench.md lists; return 1, for it is one long run."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cache = directory / "cache"
        model = checkpoints.write(directory / "model", SMALL, cache=cache)
        options = ("--device", device, "--dtype", "f32")
        nodes = stack.enter_context(cluster(directory / "nodes", model, *options, cache=cache))
        tally, memory = trio.run(_churn, nodes, model, seconds or (QUICK_SECONDS if quick else SECONDS))
    figures.exact(requests=tally.requests, lost=len(tally.lost), wrong=tally.wrong, kills=tally.kills)
    growth = memory.growth()
    if growth is None:
        figures.missing("rss_growth_share", f"no process lived for {SETTLE_S + 2 * SAMPLES * SAMPLE_EVERY_S:g} s")
    else:
        figures.exact(rss_growth_share=round(growth, 4), client_rss_growth_share=_rounded(memory.growth("client")))
    figures.exact(hit=tally.hit, longest_wait_s=round(tally.longest_s, 2), why_lost=tally.lost[:SHOWN])
    return 1


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def request(seed: int) -> Request:
    """One of the texts that are asked for. No end-of-sequence token: all are of one length."""
    sampling = Sampling(temperature=1.0, top_p=0.95, seed=seed) if seed % 2 else Sampling()
    return Request(checkpoints.prompt(SMALL, PROMPTS[seed], seed), TOKENS, (), sampling)


async def _churn(nodes: Cluster, model: Path, seconds: float) -> tuple[Tally, Memory]:
    spans = plan.split_layers(plan.layer_count(model), STAGES)
    started = [nodes.add(str(span)) for span in (*spans, *spans)]
    await trio.to_thread.run_sync(partial(nodes.start, *started))
    due = []
    for seed in range(len(PROMPTS)):
        trial = await text(nodes.addresses(), request(seed))
        if trial.error is not None:
            raise trial.error
        due.append(trial.tokens)
    tally, memory, over = Tally(), Memory(), trio.Event()
    busy: dict[int, frozenset[str]] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, nodes, memory, over)
        async with trio.open_nursery() as work:
            for number in range(CLIENTS):
                work.start_soon(_client, nodes, number, due, tally, busy, over)
            await _kill_some(nodes, tally, busy, seconds)
            over.set()
        nursery.cancel_scope.cancel()
    return tally, memory


async def _kill_some(nodes: Cluster, tally: Tally, busy: dict[int, frozenset[str]], seconds: float) -> None:
    """One node after another, until the time is up and the last one is back."""
    dice = random.Random(0)
    end_s = trio.current_time() + seconds
    next_s = trio.current_time() + EVERY_S
    while next_s < end_s:
        await trio.sleep_until(next_s)
        node = dice.choice(nodes.nodes)
        tally.kills += 1
        tally.hit += sum(node.peer in peers for peers in busy.values())
        progress(f"{tally.kills}: {node.name} ({tally.requests} texts, {len(tally.lost)} lost, {tally.wrong} wrong)")
        await trio.to_thread.run_sync(node.kill)
        began_s = trio.current_time()
        await trio.to_thread.run_sync(nodes.start, node)
        progress(f"   back after {trio.current_time() - began_s:.1f} s")
        next_s = max(next_s + EVERY_S, trio.current_time())
    await trio.sleep_until(end_s)


async def _client(
    nodes: Cluster,
    number: int,
    due: Sequence[tuple[int, ...]],
    tally: Tally,
    busy: dict[int, frozenset[str]],
    over: trio.Event,
) -> None:
    """One text after another, until it is over."""
    dice = random.Random(number)
    while not over.is_set():
        try:
            async with visit(nodes.addresses()) as visitor:
                model = visitor.choose_model("")
                for _ in range(TEXTS_PER_VISIT):
                    if over.is_set():
                        return
                    seed = dice.randrange(len(due))
                    await visitor.refresh()
                    stages = visitor.client.routes.choose(model)
                    busy[number] = frozenset(stage.peer for stage in stages)
                    with trio.move_on_after(TEXT_S) as patience:
                        trial = await attempt(visitor, model, stages, request(seed), after=0, fault=None)
                        _count(tally, trial, due[seed])
                    if patience.cancelled_caught:
                        tally.requests += 1
                        tally.lost.append(f"not whole after {TEXT_S:g} s")
                    del busy[number]
        except P2posError as exc:  # before a text was begun
            tally.requests += 1
            tally.lost.append(f"{type(exc).__name__}: {exc}")
            progress(tally.lost[-1])


def _count(tally: Tally, trial: Trial, due: tuple[int, ...]) -> None:
    tally.requests += 1
    times_s = (trial.began_s, *trial.arrivals_s)
    tally.longest_s = max(tally.longest_s, *(later - sooner for sooner, later in itertools.pairwise(times_s)), 0.0)
    if trial.error is not None:
        tally.lost.append(f"{type(trial.error).__name__}: {trial.error}")
        progress(tally.lost[-1])
    elif trial.tokens != due:
        tally.wrong += 1
        progress(f"wrong: {trial.tokens} in place of {due}")


async def _watch(nodes: Cluster, memory: Memory, over: trio.Event) -> None:
    """Look at everybody's memory now and then."""
    me = psutil.Process()
    while not over.is_set():
        gc.collect()  # what the client could give back is not held against it
        now_s = trio.current_time()
        memory.add("client", me.pid, now_s, me.memory_info().rss)
        for node in nodes.nodes:
            try:
                memory.add(node.name, node.pid, now_s, node.resident_bytes())
            except (P2posError, psutil.Error):
                continue  # between two lives
        await trio.sleep(SAMPLE_EVERY_S)
