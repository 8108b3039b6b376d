import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from p2pos.node.visitor import Visitor, visit
from p2pos.shard.request import Request
from p2pos.shard.routing import route
from p2pos.types import LayerSpan
from tests import checkpoints, swarms
from tests.swarms import Node

PROMPT = (5, 6, 7)
TOKENS = 700
BEFORE = 60
"""Tokens that are there when a node is killed."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six layers, and texts that never end by themselves."""
    made = tmp_path_factory.mktemp("placement")
    return checkpoints.save(made, "llama", max_position_embeddings=1024, eos_token_id=None)


def until(holds: Callable[[], bool], what: str, *, deadline_s: float = 60.0) -> None:
    """Look at an observable fact until it holds."""
    ends_s = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < ends_s, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.1)


def whole(nodes: list[Node]) -> bool:
    """Whether these nodes serve all six layers now."""
    statuses = [node.status() for node in nodes]
    served = [LayerSpan.parse(status["layers"]) for status in statuses if not status["draining"]]
    return {layer for span in served for layer in range(span.start, span.end)} == set(range(6))


async def write(visitor: Visitor, *, on_token: Callable[[int], None] = lambda _: None) -> list[int]:
    """A text through the swarm; `on_token` is told how many tokens are there."""
    model = visitor.choose_model("")
    stages = route(visitor.announcements, model)
    tokens = []
    async with visitor.client.generate(model, stages, Request(PROMPT, TOKENS)) as generation:
        async for token in generation:
            tokens.append(token)
            on_token(len(tokens))
    return tokens


def test_a_swarm_of_auto_nodes_mends_itself(model: Path, tmp_path: Path) -> None:
    """Three nodes take layers that join, a fourth doubles some; one is killed, the spare moves, and a text goes on."""
    choosing = ("--layers", "auto", "--max-layers", "2")
    with swarms.node(tmp_path / "a", model, *choosing) as first:
        joining = (*choosing, "--bootstrap", first.address)
        with (
            swarms.node(tmp_path / "b", model, *joining) as second,
            swarms.node(tmp_path / "c", model, *joining) as third,
            swarms.node(tmp_path / "d", model, *joining) as spare,
        ):
            nodes = [first, second, third, spare]
            spans = [node.status()["layers"] for node in nodes]
            assert sorted(spans[:3]) == ["0:2", "2:4", "4:6"]
            assert spans[3] in spans[:3]
            # one that nobody doubles, and that the others didn't join through
            victim = next(node for node in (third, second) if node.status()["layers"] != spans[3])
            lost = victim.status()["layers"]
            left = [node for node in nodes if node is not victim]

            until(lambda: all(node.status()["known_nodes"] == 4 for node in nodes), "all know one another")

            async def main() -> None:
                def kill(tokens: int) -> None:
                    if tokens == BEFORE:
                        victim.process.send_signal(signal.SIGKILL)

                async with visit([first.address, spare.address]) as visitor:
                    wanted = await write(visitor)
                    assert await write(visitor, on_token=kill) == wanted

            trio.run(main)
            until(lambda: whole(left), "all layers are served again")
            movers = [node for node in left if node.status()["moves"]]
            assert [node.status()["layers"] for node in movers] == [lost]
            assert re.search(r'"moving"', movers[0].log.read_text())
