"""`python -m bench prefix`: the first token of a request whose long beginning the nodes have seen already.

A prompt of 512 tokens and 8 more goes through two nodes that have never seen it, then the same 512 with 8 others:
`ttft_ratio` is the first's time to its first token over the second's, pair by pair, each pair with a prefix of its own.
The shape `A` of `checkpoints` in bf16, random weights, one torch thread per node, over loopback.
"""

import tempfile
from pathlib import Path

import trio

from bench import checkpoints
from bench.harness import Figures, progress
from bench.swarm import swarm

PREFIX_TOKENS = 512
TAIL_TOKENS = 8


def run(figures: Figures, *, quick: bool, device: str) -> int:
    """Set `ttft_ratio`, `tokens`, `first_ttft_ms`, `second_ttft_ms`; return how many prefixes were tried."""
    repeats = 3 if quick else 9
    with tempfile.TemporaryDirectory() as directory:
        pairs = trio.run(_measure, Path(directory), device, repeats)
    figures.median("ttft_ratio", [first / second for first, second in pairs])
    figures.exact(tokens=PREFIX_TOKENS)
    figures.median("first_ttft_ms", [first * 1e3 for first, _ in pairs])
    figures.median("second_ttft_ms", [second * 1e3 for _, second in pairs])
    return repeats


async def _measure(directory: Path, device: str, repeats: int) -> list[tuple[float, float]]:
    """Seconds to the first token of a new prefix, and of the same one again."""
    cache, shape = directory / "cache", checkpoints.A
    model = checkpoints.write(directory / "model", shape, cache=cache)
    async with swarm(directory, model, 2, cache=cache, device=device) as nodes:
        pairs = []
        for number in range(repeats + 1):
            prefix = checkpoints.prompt(shape, PREFIX_TOKENS, seed=3 * number)
            tails = (checkpoints.prompt(shape, TAIL_TOKENS, seed=3 * number + each) for each in (1, 2))
            first_s, second_s = [(await nodes.text(prefix + tail, 1)).first_s for tail in tails]
            progress(f"first token after {first_s * 1e3:.0f} ms, then {second_s * 1e3:.0f}")
            pairs.append((first_s, second_s))
        return pairs[1:]  # the first warms caches and connections up
