"""How long a node takes from its process's start until it serves a span of 100 MB: weights on disk, or from peers.

On disk: two nodes serve what lies before and behind the span, so that every text must pass the one that joins. Its home
is a new one each time, so that it measures its rate; a node that was there before skips that quarter of a second.
"""

import tempfile
from pathlib import Path

import trio

from bench import checkpoints, join_peers
from bench.harness import Figures, progress
from bench.join_peers import SHAPE, SPAN
from p2pos.devnet import plan
from p2pos.devnet.processes import Command, Process, tied
from p2pos.errors import InternalError
from p2pos.node.status import ask
from p2pos.node.visitor import Visitor, visit
from p2pos.shard.request import Request
from p2pos.shard.routing import route
from p2pos.types import LayerSpan, PeerId

PROMPT = (5, 6, 7)
TEXT_S = 30.0
"""Seconds for one token through three nodes; it takes some milliseconds."""


def run(figures: Figures, *, quick: bool, device: str) -> int:
    """Measure, and fill the figures. Returns how often."""
    repeats = 2 if quick else 7
    with tempfile.TemporaryDirectory() as scratch:
        ready_s, answers_s = trio.run(_from_disk, Path(scratch) / "disk", repeats, device)
        figures.median("serving_s_disk", ready_s)
        figures.median("answers_s_disk", answers_s)
        peers_s, fetched_mb = trio.run(join_peers.serving_s, Path(scratch) / "peers", repeats)
        figures.median("serving_s_peers", peers_s)
        figures.exact(span_mb=round(fetched_mb, 1))
    return repeats


async def _from_disk(directory: Path, repeats: int, device: str) -> tuple[list[float], list[float]]:
    """Seconds to the ready line, and to the first token that passed the node; each so often."""
    cache = directory / "cache"
    model = await trio.to_thread.run_sync(lambda: checkpoints.write(directory / "model", SHAPE, cache=cache))
    span = LayerSpan.parse(SPAN)
    ready_s, answers_s = [], []

    async def start(nursery: trio.Nursery, name: str, layers: str, *words: str) -> dict[str, list[str]]:
        argv = tied("p2pos", "--home", str(directory / name), "--log-json", "node", "run", "--model", str(model))
        argv += ("--layers", layers, "--threads", "1", "--device", device, "--leash", *words)
        command = Command(argv, plan.NODE_READY_S, plan.NODE_STOP_S, plan.environment(P2POS_CACHE=str(cache)))
        process = Process(name, directory / f"{name}.log", lambda _: None)
        ready: dict[str, list[str]] = await nursery.start(process.run, command)
        return ready

    async with trio.open_nursery() as nursery:
        first = await start(nursery, "first", f"0:{span.start}")
        address = first["addresses"][0]
        await start(nursery, "last", f"{span.end}:{SHAPE.layers}", "--bootstrap", address)
        async with visit([address]) as visitor:
            for number in range(repeats):
                began_s = trio.current_time()
                async with trio.open_nursery() as life:
                    ready = await start(life, f"joins-{number}", SPAN, "--bootstrap", address)
                    ready_s.append(trio.current_time() - began_s)
                    await _write_one(visitor, ready["addresses"][0])
                    answers_s.append(trio.current_time() - began_s)
                    life.cancel_scope.cancel()
                progress(
                    f"with its weights on disk, ready after {ready_s[-1]:.1f} s, a token after {answers_s[-1]:.1f}"
                )
        nursery.cancel_scope.cancel()
    return ready_s, answers_s


async def _write_one(visitor: Visitor, address: str) -> None:
    """A token through the node at this address. Raises InternalError where none comes."""
    peer = await visitor.host.connect_to(address)
    announcements = await ask(visitor.host, peer)
    model = visitor.choose_model("")
    mine = next(each for each in announcements if each.peer == peer)
    if mine.draining:
        raise InternalError("a node that is ready does not serve")
    others = [each for each in announcements if each.peer == peer or each.start == 0 or each.end == each.layers]
    stages = route(others, model)
    if PeerId(stages[1].peer) != peer:
        raise InternalError("the route does not pass the node that joined")
    with trio.fail_after(TEXT_S):
        async with visitor.client.generate(model, stages, Request(PROMPT, 1)) as generation:
            async for _ in generation:
                return
    raise InternalError("no token came")
