import pytest

from bench import simulator
from bench.optimum import slowest_layer
from p2pos.shard.placement import Node, Placed, Swarm
from p2pos.shard.planning import plan


def test_the_optimum_of_two_nodes() -> None:
    """Two nodes that hold half the model each: the slower one's half is the slowest."""
    found = slowest_layer(8, [Node(40.0, 4), Node(20.0, 4)], limit_s=10.0)
    assert found.reached == pytest.approx(5.0)
    assert found.bound == pytest.approx(5.0)


def test_the_solver_says_nothing_on_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """Standard output is the bench's answer alone."""
    slowest_layer(4, [Node(1.0, 4)], limit_s=10.0)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("seed", [0, 1])
def test_a_plan_comes_near_to_the_optimum(seed: int) -> None:
    """Of four nodes and twelve layers, the plan's slowest layer has nine tenths of the optimum's rate at least."""
    nodes = simulator.nodes(4, layers=12, seed=seed)
    spans = plan(12, nodes)
    swarm = Swarm(12, [Placed(node.rate, *span) for node, span in zip(nodes, spans, strict=True)])
    assert swarm.slowest >= 0.9 * slowest_layer(12, nodes, limit_s=20.0).bound
