from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2pos.errors import UnavailableError
from p2pos.node.routes import Routes
from p2pos.types import ModelId, PeerId
from p2pos.wire.messages import Announcement, StageRef
from tests.shard.test_routing import node, peers

ONLY = PeerId("the-only-node")
STAGES = [StageRef(ONLY, [], 0, 6)]
MODEL = ModelId("m")
A, B, C, SPARE = (PeerId(f"peer-{name}") for name in ("a", "b", "c", "spare"))
THIRDS = [StageRef(A, [], 0, 2), StageRef(B, [], 2, 4), StageRef(C, [], 4, 6)]


def announced(sequence: int, **changes: Any) -> Announcement:
    values: dict[str, Any] = {
        "peer": ONLY,
        "addresses": [],
        "sequence": sequence,
        "expires": sequence + 1000,
        "model": "m",
        "model_name": "m",
        "layers": 6,
        "start": 0,
        "end": 6,
        "dtype": "f32",
        "tokens_per_s": 0.0,
        "sessions": 0,
        "cached_tokens": 0,
        "resident_bytes": 0,
        "weight_bytes": 0,
    }
    return Announcement(**{**values, **changes})


def test_a_node_is_back_when_it_says_that_it_serves() -> None:
    """One that was lost is no route again for saying that it serves nobody now, but for saying that it does."""

    async def main() -> None:
        known = [announced(1)]
        routes = Routes(lambda: known)
        routes.failed(ONLY)
        known[0] = announced(2, draining=True)
        with pytest.raises(UnavailableError):
            await routes.replace(ModelId("m"), STAGES, frozenset([ONLY]))
        known[0] = announced(3)
        assert await routes.replace(ModelId("m"), STAGES, frozenset([ONLY])) == STAGES

    trio.run(main)


def thirds(*spares: Announcement) -> list[Announcement]:
    return [node("a", 0, 2), node("b", 2, 4), node("c", 4, 6), *spares]


def within(body: Callable[[], Awaitable[Any]]) -> Any:
    return trio.run(body, clock=MockClock())


def test_a_spare_takes_the_place() -> None:
    """What is lost is replaced, and the others stay."""

    async def body() -> list[StageRef]:
        routes = Routes(lambda: thirds(node("spare", 2, 4)))
        routes.failed(B)
        return await routes.replace(MODEL, THIRDS, frozenset({B}))

    assert peers(within(body)) == ["a", "spare", "c"]


def test_those_that_are_dead_are_not_tried_in_turn() -> None:
    """Of two that failed and said nothing since, neither is tried again: each attempt would fail at once."""

    async def body() -> None:
        routes = Routes(lambda: thirds(node("spare", 2, 4)))
        routes.failed(B)
        routes.failed(SPARE)
        with pytest.raises(UnavailableError):
            await routes.replace(MODEL, [THIRDS[0], StageRef(SPARE, [], 2, 4), THIRDS[2]], frozenset({SPARE}))

    within(body)


def test_one_that_failed_and_spoke_since_is_better_than_none() -> None:
    """It is avoided while there is another, and taken where there is none."""

    async def body() -> list[StageRef]:
        known = thirds(node("spare", 2, 4))
        routes = Routes(lambda: known)
        routes.failed(SPARE)
        routes.failed(B)
        known[3] = node("spare", 2, 4, sequence=2)
        return await routes.replace(MODEL, THIRDS, frozenset({B}))

    assert peers(within(body)) == ["a", "spare", "c"]


def test_it_asks_anew_where_there_is_none() -> None:
    """A visitor isn't told of newcomers; it asks when it needs one."""

    async def body() -> list[StageRef]:
        known = thirds()

        async def refresh() -> list[Announcement]:
            known.append(node("spare", 2, 4))
            return known

        routes = Routes(lambda: known, refresh)
        routes.failed(B)
        return await routes.replace(MODEL, THIRDS, frozenset({B}))

    assert peers(within(body)) == ["a", "spare", "c"]
