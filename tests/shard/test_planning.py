import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.shard.placement import Node, Placed, Swarm
from p2pos.shard.planning import LARGE, ceiling, plan

NODES = st.builds(Node, st.floats(1.0, 1000.0), st.integers(1, 12))


def planned(layers: int, nodes: list[Node]) -> Swarm:
    spans = plan(layers, nodes, trials=100)
    assert all(
        0 <= start < end <= layers and end - start <= each.most for each, (start, end) in zip(nodes, spans, strict=True)
    )
    return Swarm(layers, [Placed(node.rate, *span) for node, span in zip(nodes, spans, strict=True)])


@settings(max_examples=12, deadline=None)
@given(st.lists(NODES, min_size=1, max_size=6))
def test_no_layer_is_left_out(nodes: list[Node]) -> None:
    """Whoever the nodes are, they cover the model where they hold all its layers together, and within its ceiling."""
    there = planned(10, nodes)
    assert (there.missing == 0) == (sum(min(node.most, 10) for node in nodes) >= 10)
    assert there.slowest <= ceiling(10, nodes) * (1 + 1e-6)


@pytest.mark.parametrize("count", [100, 300, LARGE + 500])
def test_a_large_swarm_comes_near_to_its_ceiling(count: int) -> None:
    """With machines as different as volunteers' are, the slowest layer has over nine tenths of what there can be."""
    chance = random.Random(count)
    nodes = [Node(chance.lognormvariate(6.0, 0.8), chance.choice([4, 8, 20, 40])) for _ in range(count)]
    there = planned(80, nodes)
    assert there.missing == 0
    assert there.slowest >= 0.9 * ceiling(80, nodes)


def test_equal_nodes_share_a_model_evenly() -> None:
    """Four machines that hold a quarter each get a quarter each."""
    assert sorted(plan(8, [Node(10.0, 2)] * 4)) == [(0, 2), (2, 4), (4, 6), (6, 8)]


def test_a_fast_node_gets_more_layers() -> None:
    """Where memory binds nobody, layers go by rate, so that no stage holds the others up."""
    there = planned(12, [Node(300.0, 9), Node(100.0, 9)])
    assert there.slowest == pytest.approx(ceiling(12, [Node(300.0, 9), Node(100.0, 9)]))


def test_nodes_that_hold_everything_serve_everything() -> None:
    """Three whole replicas, where nothing is gained by taking less."""
    assert planned(8, [Node(10.0, 8), Node(20.0, 8), Node(30.0, 8)]).slowest == pytest.approx(60 / 8)
