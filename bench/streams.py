"""`python -m bench streams`: several sessions at once over two stages, against one session over the same nodes.

The shape `B` of `checkpoints` in bf16, random weights, two nodes of one torch thread each, over loopback. One session
keeps one of two stages busy at a time; several keep both, and share every read of the weights.
"""

import tempfile
from pathlib import Path

import trio

from bench import checkpoints
from bench.harness import Figures, progress
from bench.swarm import aggregate_tok_s, in_turn, swarm

SESSIONS = 8
PROMPT_TOKENS = 16


def run(figures: Figures, *, quick: bool, device: str) -> int:
    """Set `aggregate_ratio`, `sessions`, `one_tok_s`, `aggregate_tok_s`; return how often each was measured."""
    repeats, tokens = (2, 16) if quick else (9, 64)
    with tempfile.TemporaryDirectory() as directory:
        rates = trio.run(_measure, Path(directory), device, repeats, tokens)
    figures.median("aggregate_ratio", [together / alone for alone, together in rates])
    figures.exact(sessions=SESSIONS)
    figures.median("one_tok_s", [alone for alone, _ in rates])
    figures.median("aggregate_tok_s", [together for _, together in rates])
    return repeats


async def _measure(directory: Path, device: str, repeats: int, tokens: int) -> list[tuple[float, float]]:
    """Tokens per second of one session, and of all together."""
    cache, shape = directory / "cache", checkpoints.B
    model = checkpoints.write(directory / "model", shape, cache=cache)
    prompts = [checkpoints.prompt(shape, PROMPT_TOKENS, seed) for seed in range(SESSIONS)]
    async with swarm(directory, model, 2, cache=cache, device=device) as nodes:

        async def alone() -> float:
            return 1 / (await nodes.text(prompts[0], tokens)).token_s

        async def together() -> float:
            return aggregate_tok_s(await nodes.texts(prompts, tokens))

        rates = await in_turn(alone, together, repeats + 1)
        for one, all_of_them in rates:
            progress(f"one session {one:.1f} tok/s, {SESSIONS} together {all_of_them:.1f}")
        return rates[1:]  # the first warms caches and connections up
