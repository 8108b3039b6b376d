"""`python -m bench interference`: what four people who are being written to feel of a long prompt that arrives.

Four sessions decode over two nodes; then a prompt of 2,048 tokens comes. `max_gap_ms` is the longest time between two
tokens of any of the four while the prompt is being worked on: from its `Open` to its first token.

It may be as long as `chunk_plus_step_ms`: what one chunk of that prompt takes from end to end of the route by itself,
and one token of the four, decoding without company, at the median. A chunk attends to all before it, so the last one,
which takes longest, counts: the nodes are shown a prompt of all but its last chunk, and then the whole, of which they
have only that chunk to compute; its time to the first token is the chunk's.

The shape `B` of `checkpoints` in bf16, random weights, one torch thread per node, over loopback.
"""

import itertools
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from bench import checkpoints
from bench.harness import Figures, progress
from bench.swarm import Arrivals, Swarm, swarm
from p2pos.errors import InternalError
from p2pos.shard.engine import chunk_tokens

STAGES = 2
SESSIONS = 4
PROMPT_TOKENS = 16
LONG_TOKENS = 2048
ALONE_TOKENS = 32
"""Tokens of the four by themselves, over which a step is taken."""
ENDLESS_TOKENS = checkpoints.MAX_POSITIONS - PROMPT_TOKENS
"""The four are cut off long before they have so many."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One arrival of the long prompt, and what it is measured by; all in seconds."""

    max_gap_s: float
    chunk_s: float
    step_s: float


def run(figures: Figures, *, quick: bool, device: str) -> int:
    """Set `max_gap_ms`, `chunk_plus_step_ms`, `chunk_ms`, `step_ms`; return how often each was measured."""
    repeats = 2 if quick else 7
    with tempfile.TemporaryDirectory() as directory:
        trials = trio.run(_measure, Path(directory), device, repeats)
    figures.median("max_gap_ms", [each.max_gap_s * 1e3 for each in trials])
    figures.median("chunk_plus_step_ms", [(each.chunk_s + each.step_s) * 1e3 for each in trials])
    figures.median("chunk_ms", [each.chunk_s * 1e3 for each in trials])
    figures.median("step_ms", [each.step_s * 1e3 for each in trials])
    figures.exact(chunk_tokens=chunk_tokens(device))
    return repeats


async def _measure(directory: Path, device: str, repeats: int) -> list[Trial]:
    cache, shape = directory / "cache", checkpoints.B
    model = checkpoints.write(directory / "model", shape, cache=cache)
    seeds = itertools.count()
    async with swarm(directory, model, STAGES, cache=cache, device=device) as nodes:
        trials = []
        for number in range(repeats + 1):
            trial = await _trial(nodes, seeds, chunk_tokens(device))
            progress(
                f"{number}: longest gap {trial.max_gap_s * 1e3:.0f} ms; "
                f"a chunk {trial.chunk_s * 1e3:.0f} ms, a step {trial.step_s * 1e3:.0f} ms"
            )
            trials.append(trial)
        return trials[1:]  # the first warms caches and connections up


async def _trial(nodes: Swarm, seeds: Iterator[int], chunk: int) -> Trial:
    shape = checkpoints.B
    shown = checkpoints.prompt(shape, LONG_TOKENS, next(seeds))
    before = await nodes.text(shown[:-chunk], 1)
    last = await nodes.text(shown, 1)
    if 2 * last.first_s > before.first_s:
        raise InternalError("the nodes did not remember what they were shown, so its last chunk can't be timed alone")
    prompts = [checkpoints.prompt(shape, PROMPT_TOKENS, next(seeds)) for _ in range(SESSIONS)]
    alone = await nodes.texts(prompts, ALONE_TOKENS)
    step_s = statistics.median(itertools.chain.from_iterable(text.gaps_s for text in alone))
    begin_s, end_s, arrivals = await _arrival(nodes, prompts, checkpoints.prompt(shape, LONG_TOKENS, next(seeds)))
    gap_s = max(longest_gap_s(each, begin_s, end_s) for each in arrivals)
    return Trial(gap_s, last.first_s, step_s)


async def _arrival(
    nodes: Swarm, prompts: Sequence[Sequence[int]], long: Sequence[int]
) -> tuple[float, float, list[list[float]]]:
    """When the long prompt came, when its first token did, and when every session's tokens did."""
    watches = [Arrivals() for _ in prompts]
    async with trio.open_nursery() as decoding:
        for prompt, watch in zip(prompts, watches, strict=True):
            decoding.start_soon(nodes.text, prompt, ENDLESS_TOKENS, watch)
        await _all_go_on(watches)
        text = await nodes.text(long, 1)
        await _all_go_on(watches)  # so that the gap in which the prompt ended has an end too
        decoding.cancel_scope.cancel()
    return text.began_s, text.arrivals_s[0], [watch.times_s for watch in watches]


async def _all_go_on(watches: Sequence[Arrivals]) -> None:
    """Wait for one more token of each."""
    async with trio.open_nursery() as waiting:
        for watch in watches:
            waiting.start_soon(watch.another)


def longest_gap_s(times_s: Sequence[float], begin_s: float, end_s: float) -> float:
    """The longest time between two tokens, of those that reach into the time from `begin_s` to `end_s`."""
    gaps = [later - sooner for sooner, later in itertools.pairwise(times_s) if later > begin_s and sooner < end_s]
    if not gaps or times_s[0] > begin_s or times_s[-1] < end_s:
        raise InternalError("a session was not decoding all the while")
    return max(gaps)
