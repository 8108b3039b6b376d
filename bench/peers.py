"""`python -m bench peers`: our rates for two shapes, so that others' can be set beside them. No bar.

Two nodes of one torch thread each, the layers shared evenly, over loopback; bf16, random weights, greedy. The shapes
`A` and `B` are those of `checkpoints`. The figures are objects by shape:

- `decode_tok_s`: one stream after a prompt of 16 tokens, from its first token to its last;
- `prefill512_tok_s`: a prompt of 512 new tokens over its time to the first token;
- `decode_8_streams_tok_s`: eight streams together, while all of them are under way;
- `int8_decode_tok_s`, `int4_decode_tok_s`: as the first, with `node run --quantize`.

With `--quick`, `A` is left out.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import trio

from bench import checkpoints
from bench.checkpoints import Shape
from bench.harness import Figures, progress
from bench.swarm import Swarm, aggregate_tok_s, swarm

STAGES = 2
PROMPT_TOKENS = 16
PREFILL_TOKENS = 512
STREAMS = 8
QUANTIZED = ("int8", "int4")


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    shapes: dict[str, Shape]
    repeats: int
    tokens: int


def run(figures: Figures, *, quick: bool, device: str) -> int:
    """Set `A` and `B`; return how often each of their figures was measured."""
    full = Plan({"A": checkpoints.A, "B": checkpoints.B}, repeats=5, tokens=64)
    small = Plan({"B": checkpoints.B}, repeats=2, tokens=16)
    scale = small if quick else full
    if quick:
        figures.missing("A", "--quick leaves it out: its nodes alone take half a minute to load")
    for name, shape in scale.shapes.items():
        ours = Figures()
        with tempfile.TemporaryDirectory() as directory:
            trio.run(_measure, ours, Path(directory), shape, scale, device)
        progress(f"{name}: {ours.values}")
        figures.exact(**{name: {"parameters": shape.parameters, **ours.values}})
    return scale.repeats


async def _measure(figures: Figures, directory: Path, shape: Shape, scale: Plan, device: str) -> None:
    cache = directory / "cache"
    model = checkpoints.write(directory / "model", shape, cache=cache)
    async with swarm(directory / "bf16", model, STAGES, cache=cache, device=device) as nodes:
        figures.median("decode_tok_s", await _decode(nodes, shape, scale))
        # the first of each warms up; every prompt is a new one, which no prefix cache knows
        firsts = [
            (await nodes.text(checkpoints.prompt(shape, PREFILL_TOKENS, seed=100 + number), 1)).first_s
            for number in range(scale.repeats + 1)
        ]
        figures.median("prefill512_tok_s", [PREFILL_TOKENS / first_s for first_s in firsts[1:]])
        prompts = [checkpoints.prompt(shape, PROMPT_TOKENS, seed) for seed in range(STREAMS)]
        rates = [aggregate_tok_s(await nodes.texts(prompts, scale.tokens)) for _ in range(scale.repeats + 1)]
        figures.median("decode_8_streams_tok_s", rates[1:])
    for kind in QUANTIZED:
        options = ("--quantize", kind)
        async with swarm(directory / kind, model, STAGES, cache=cache, device=device, options=options) as nodes:
            figures.median(f"{kind}_decode_tok_s", await _decode(nodes, shape, scale))


async def _decode(nodes: Swarm, shape: Shape, scale: Plan) -> list[float]:
    """Tokens per second of one stream, several times."""
    prompt = checkpoints.prompt(shape, PROMPT_TOKENS, seed=1)
    return [1 / (await nodes.text(prompt, scale.tokens)).token_s for _ in range(scale.repeats + 1)][1:]
