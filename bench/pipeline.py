"""`python -m bench pipeline`: what cutting a model costs, and how it stands against plain transformers.

A Llama of 1.04 billion parameters in bf16, random weights, one stream, greedy, over loopback; every process has one
torch thread. One process is one node that holds all layers, asked through the same client as the others: so the
ratios say what the cut costs, and `vs_transformers_batch1` what everything else does. Each pair is taken one right
after the other, and who goes first alternates.

A token of N stages passes N hops (head → … → tail → head); a single node's passes none. So a hop's time is how much
longer a token takes, at the median of its text, than on one node, over N. Beside a token's time that is little, and
noise is much; `thin_hop_ms_p50` is the same of a model whose layers are as wide but as thin as can be, where next to
nothing but the hops is left.

With `--quick` the model has 4 of its 16 layers, in which a hop weighs more, and the thin one is left out.
"""

import statistics
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import trio

from bench import checkpoints
from bench.checkpoints import Shape
from bench.harness import Figures, progress
from bench.reference import Reference, reference
from bench.swarm import Swarm, Text, aggregate_tok_s, in_turn, swarm
from p2pos.errors import InternalError

PROMPT_TOKENS = 16
STREAMS = 8
THIN = Shape(hidden=2048, layers=4, mlp=32, heads=1, kv_heads=1, vocabulary=64)
"""As wide as `checkpoints.A`, so that a hop carries the same bytes."""
HOPS = {2: "two", 4: "four"}
"""Stages, which are hops as well, and what the figures call them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    shape: Shape
    repeats: int
    tokens: int
    thin_tokens: int
    """0 leaves the thin model out."""


def run(figures: Figures, *, quick: bool, device: str) -> int:
    """Set the figures of `pipeline`; return how often each was measured."""
    full = Plan(checkpoints.A, repeats=5, tokens=32, thin_tokens=400)
    small = Plan(replace(checkpoints.A, layers=4), repeats=2, tokens=8, thin_tokens=0)
    scale = small if quick else full
    with tempfile.TemporaryDirectory() as directory:
        trio.run(_measure, figures, Path(directory), scale, device)
    return scale.repeats


async def _measure(figures: Figures, directory: Path, scale: Plan, device: str) -> None:
    cache = directory / "cache"
    figures.exact(parameters=scale.shape.parameters)
    model = checkpoints.write(directory / "model", scale.shape, cache=cache)
    start = partial(swarm, model=model, cache=cache, device=device)
    hops_ms: list[float] = []
    alone: list[Text] = []
    async with start(directory / "single", stages=1) as single:
        for stages, name in HOPS.items():
            async with start(directory / name, stages=stages) as cut:
                pairs = await _compare(single, cut, scale.shape, scale.tokens, scale.repeats)
            figures.median(f"{name}_stage_ratio", [left.token_s / right.token_s for left, right in pairs])
            hops_ms += _hops_ms(pairs, stages)
            alone += [left for left, _ in pairs]
        figures.median("single_tok_s", [1 / each.token_s for each in alone])
        figures.median("hop_ms_p50", hops_ms)
        async with reference(model, device=device) as transformers:
            await _against_transformers(figures, single, transformers, scale)
    if scale.thin_tokens:
        await _thin(figures, directory, scale, device)
    else:
        figures.missing("thin_hop_ms_p50", "--quick leaves it out: it needs five more processes")


async def _compare(single: Swarm, cut: Swarm, shape: Shape, tokens: int, repeats: int) -> list[tuple[Text, Text]]:
    """Pairs of texts, which have to be the same, after one of each to warm them up."""
    prompt = checkpoints.prompt(shape, PROMPT_TOKENS, seed=1)
    pairs = await in_turn(lambda: single.text(prompt, tokens), lambda: cut.text(prompt, tokens), repeats + 1)
    for left, right in pairs:
        if left.tokens != right.tokens:
            raise InternalError(f"the texts differ: {left.tokens} and {right.tokens}")
        progress(f"one node {1 / left.token_s:.2f} tok/s, cut {1 / right.token_s:.2f}")
    return pairs[1:]


def _hops_ms(pairs: list[tuple[Text, Text]], hops: int) -> list[float]:
    return [(statistics.median(right.gaps_s) - statistics.median(left.gaps_s)) / hops * 1e3 for left, right in pairs]


async def _against_transformers(figures: Figures, single: Swarm, transformers: Reference, scale: Plan) -> None:
    prompts = [checkpoints.prompt(scale.shape, PROMPT_TOKENS, seed) for seed in range(STREAMS)]
    pairs = await in_turn(
        lambda: transformers.text(prompts[0], scale.tokens),
        lambda: single.text(prompts[0], scale.tokens),
        scale.repeats + 1,
    )
    for left, right in pairs:
        alike = sum(mine == theirs for mine, theirs in zip(right.tokens, left.tokens, strict=True))
        progress(
            f"transformers {1 / left.token_s:.2f} tok/s, one node {1 / right.token_s:.2f}; "
            f"{alike} of {scale.tokens} tokens alike"
        )
    ratios = [left.token_s / right.token_s for left, right in pairs[1:]]
    figures.median("transformers_tok_s", [1 / left.token_s for left, _ in pairs[1:]])
    figures.median("vs_transformers_batch1", ratios)

    async def theirs() -> float:
        return 1 / (await transformers.text(prompts[0], scale.tokens)).token_s

    async def ours() -> float:
        return aggregate_tok_s(await single.texts(prompts, scale.tokens))

    rates = await in_turn(theirs, ours, scale.repeats)
    for left_rate, right_rate in rates:
        progress(f"transformers {left_rate:.2f} tok/s, {STREAMS} streams {right_rate:.2f}")
    figures.median("vs_transformers_8_streams", [right_rate / left_rate for left_rate, right_rate in rates])


async def _thin(figures: Figures, directory: Path, scale: Plan, device: str) -> None:
    cache = directory / "cache"
    model = checkpoints.write(directory / "thin", THIN, cache=cache)
    start = partial(swarm, model=model, cache=cache, device=device)
    async with start(directory / "thin-single", stages=1) as single, start(directory / "thin-cut", stages=4) as cut:
        pairs = await _compare(single, cut, THIN, scale.thin_tokens, scale.repeats)
    figures.median("thin_hop_ms_p50", _hops_ms(pairs, 4))
