"""What takes minutes: `make soak`."""

import random
from pathlib import Path

import pytest
import trio

from p2pos.node.visitor import Visitor, visit
from p2pos.shard.request import Request
from p2pos.shard.routing import route
from tests.swarms import Node, swarm

CLIENTS, TEXTS = 4, 150


@pytest.mark.soak
def test_hundreds_of_texts_leave_nothing_behind(tmp_path: Path, checkpoint_of) -> None:
    """Texts from several clients at once, a third of them broken off: all that end are equal, and no cache is held.

    Resident memory of each node grows by less than a tenth from after the first texts to the end.
    """
    with swarm(tmp_path, checkpoint_of("llama"), ("0:2", "2:4", "4:6"), "--dtype", "f32") as nodes:
        trio.run(_many_texts, nodes, 10)
        before = [node.status()["resident_bytes"] for node in nodes]
        texts = trio.run(_many_texts, nodes, TEXTS)
        assert len(texts) > CLIENTS * TEXTS / 2
        assert len(set(texts)) == 1
        assert any(all(node.status()["cached_tokens"] == 0 for node in nodes) for _ in range(500))
        for node, bytes_before in zip(nodes, before, strict=True):
            assert node.status()["resident_bytes"] < 1.1 * bytes_before


async def _many_texts(nodes: list[Node], each: int) -> list[tuple[int, ...]]:
    texts: list[tuple[int, ...]] = []
    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(_client, nodes[number % len(nodes)].address, random.Random(number), each, texts)
    return texts


async def _client(address: str, dice: random.Random, each: int, texts: list[tuple[int, ...]]) -> None:
    async with visit([address]) as swarm_:
        for _ in range(each):
            await _text(swarm_, dice, texts)


async def _text(visitor: Visitor, dice: random.Random, texts: list[tuple[int, ...]]) -> None:
    model = visitor.choose_model("")
    broken_off_at = dice.choice([None, None, dice.randrange(20)])
    text: list[int] = []
    stages = route(visitor.announcements, model)
    async with visitor.client.generate(model, stages, Request((5, 6, 7), 24)) as generation:
        async for token in generation:
            text.append(token)
            if len(text) == broken_off_at:
                return
    texts.append(tuple(text))
