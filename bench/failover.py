"""`python -m bench failover`: how long a person waits when a node fails in mid-sentence, and whether the text is right.

Shape B in bf16 on three stages of one thread each, with a spare beside every one of them. After 512 tokens of context
one node fails from outside: it is killed (SIGKILL), hung (SIGSTOP), or cut off (all packets dropped, both ways). The
pause is the longest time without a token that ends after that; nothing is taken off for the token that was due anyway.
What came is compared with the same text written before anything failed, by the same nodes. Between trials the node
that failed comes back, and a trial waits until all are known and idle again.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import trio

from bench import checkpoints, netns
from bench.faults import Cluster, Node, cluster
from bench.harness import Figures, progress
from bench.trial import Trial, text
from p2pos.devnet import plan
from p2pos.errors import InternalError
from p2pos.shard.request import Request
from p2pos.wire.messages import StageRef

STAGES = 3
PROMPT_TOKENS = 496
AFTER = 16
"""Tokens after which the fault comes: with the prompt, 512 of context."""
TOKENS = 64
PROMPTS = 10
"""Different ones; what they continue as is known from before."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to fail."""

    name: str
    """What its figures begin with; "" for the first."""
    stage: int
    """Which of the route."""
    fail: Callable[[Node], None]
    undo: Callable[[Node], None] | None
    """None for a node that must be started again."""
    runs: int
    quick_runs: int


KINDS = (
    Kind("", 1, Node.kill, None, 50, 2),
    Kind("hang_", 1, Node.hang, Node.resume, 20, 1),
    Kind("cut_", 1, Node.cut, Node.mend, 20, 1),
    Kind("head_", 0, Node.kill, None, 20, 1),
    Kind("tail_", 2, Node.kill, None, 20, 1),
)
F32_RUNS = 10
"""Of the first kind in fp32, where rounding leaves no room for an excuse."""


@dataclass(slots=True)
class Results:
    """Of all trials of one kind."""

    pauses_ms: list[float] = field(default_factory=list)
    """Of those that went on."""
    identical: int = 0
    errors: list[str] = field(default_factory=list)
    """What the owner was told in those that did not."""
    runs: int = 0


Texts: TypeAlias = dict[int, tuple[int, ...]]
"""Seed of the prompt → what it continues as."""


def run(figures: Figures, *, quick: bool, device: str) -> int:
    """Set the figures that docs/bench.md lists; return how often the first kind was measured."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        why_no_cut = netns.why_not()
        net = None if why_no_cut else stack.enter_context(netns.network())
        cache = directory / "cache"
        model = checkpoints.write(directory / "model", checkpoints.B, cache=cache)
        kinds = [kind for kind in KINDS if net is not None or kind.fail is not Node.cut]
        wanted = {kind: kind.quick_runs if quick else kind.runs for kind in kinds}
        with cluster(directory / "bf16", model, "--device", device, cache=cache, net=net) as nodes:
            results, token_ms = trio.run(_measure, nodes, model, wanted)
        exact: Results | None = None
        if not quick:
            options = ("--device", device, "--dtype", "f32")
            with cluster(directory / "f32", model, *options, cache=cache, net=net) as nodes:
                found, _ = trio.run(_measure, nodes, model, {KINDS[0]: F32_RUNS})
                exact = found[KINDS[0]]
    every = list(results.values())
    figures.exact(runs=sum(each.runs for each in every), identical=sum(each.identical for each in every))
    for kind, result in results.items():
        _set(figures, kind, result)
    if net is None:
        figures.missing("cut_pause_ms_p95", why_no_cut)
    figures.median("token_ms", token_ms)
    if exact is not None:
        figures.exact(f32_runs=exact.runs, f32_identical=exact.identical)
    return results[KINDS[0]].runs


def share(samples: Sequence[float], part: float) -> float:
    """The smallest sample that so large a part of all does not exceed (the nearest rank)."""
    return sorted(samples)[max(0, math.ceil(part * len(samples)) - 1)]


def _set(figures: Figures, kind: Kind, result: Results) -> None:
    if result.errors:
        figures.exact(**{f"{kind.name}errors": result.errors})
    if not result.pauses_ms:
        if not kind.name:
            figures.missing("pause_ms_p50", f"no text went on: {result.errors[0]}")
        figures.missing(f"{kind.name}pause_ms_p95", f"no text went on: {result.errors[0]}")
        return
    rounded = [round(each, 1) for each in result.pauses_ms]
    if not kind.name:
        figures.exact(pause_ms_p50=share(rounded, 0.5))
    name = f"{kind.name}pause_ms"
    figures.exact(**{f"{name}_p95": share(rounded, 0.95), f"{name}_min": min(rounded), f"{name}_max": max(rounded)})


async def _measure(nodes: Cluster, model: Path, wanted: dict[Kind, int]) -> tuple[dict[Kind, Results], list[float]]:
    """Results of each kind, and milliseconds of each token while nothing failed."""
    spans = plan.split_layers(plan.layer_count(model), STAGES)
    started = [nodes.add(str(span)) for span in (*spans, *spans)]
    await trio.to_thread.run_sync(partial(nodes.start, *started))
    await trio.to_thread.run_sync(nodes.settle)
    texts: Texts = {}
    token_ms: list[float] = []
    for seed in range(min(PROMPTS, max(wanted.values()))):
        trial = await text(nodes.addresses(), _request(seed))
        if trial.error is not None:
            raise trial.error
        texts[seed] = trial.tokens
        token_ms.append((trial.arrivals_s[-1] - trial.arrivals_s[0]) / (TOKENS - 1) * 1e3)
        progress(f"text {seed}: {token_ms[-1]:.1f} ms a token")
    results = {}
    for kind, runs in wanted.items():
        results[kind] = Results()
        for number in range(runs):
            await _one(nodes, kind, results[kind], number % len(texts), texts)
    return results, token_ms


async def _one(nodes: Cluster, kind: Kind, result: Results, seed: int, texts: Texts) -> None:
    """One trial, and all as it was before."""
    failed: list[Node] = []

    async def fail(stages: Sequence[StageRef]) -> None:
        node = nodes.of(stages[kind.stage].peer)
        failed.append(node)
        await trio.to_thread.run_sync(kind.fail, node)

    trial = await text(nodes.addresses(), _request(seed), after=AFTER, fault=fail)
    _judge(kind, result, trial, texts[seed])
    if not failed:
        raise InternalError(f"the text ended before anything failed: {trial.error}")
    if kind.undo is None:
        await trio.to_thread.run_sync(nodes.start, failed[0])
    else:
        await trio.to_thread.run_sync(kind.undo, failed[0])
    await trio.to_thread.run_sync(nodes.settle)


def _judge(kind: Kind, result: Results, trial: Trial, due: tuple[int, ...]) -> None:
    result.runs += 1
    label = kind.name or "kill_"
    if trial.error is not None:
        result.errors.append(str(trial.error))
        progress(f"{label}{result.runs}: {trial.error}")
        return
    if trial.unhurt == TOKENS:
        raise InternalError("the text was whole before anything failed")
    result.pauses_ms.append(trial.pause_s * 1e3)
    result.identical += trial.tokens == due
    same = "identical" if trial.tokens == due else "DIFFERENT"
    progress(f"{label}{result.runs}: {result.pauses_ms[-1]:.0f} ms, {same}")


def _request(seed: int) -> Request:
    # no end-of-sequence token: the same number of tokens every time
    return Request(checkpoints.prompt(checkpoints.B, PROMPT_TOKENS, seed), TOKENS)
