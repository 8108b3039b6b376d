import pytest

from bench.simulator import Simulation, nodes

LAYERS = 20


@pytest.mark.parametrize("seed", range(3))
def test_a_simulated_swarm_stays_whole(seed: int) -> None:
    """However often a node leaves and another joins, no layer stays uncovered that the nodes' memory suffices for."""
    swarm = Simulation(LAYERS, nodes(12, layers=LAYERS, seed=seed), seed=seed)
    for number in range(10):
        swarm.depart()
        swarm.settle(60)
        if sum(member.node.most for member in swarm.members) >= LAYERS:
            assert swarm.swarm.missing == 0
        swarm.join(nodes(6, layers=LAYERS, seed=100 * seed + number)[0])


def test_a_swarm_that_has_settled_stays_as_it_is() -> None:
    """Once nobody wants to move any more, nobody does."""
    swarm = Simulation(LAYERS, nodes(12, layers=LAYERS, seed=5), seed=5)
    assert swarm.settle(100) < 100
    assert swarm.settle(100) == 0
