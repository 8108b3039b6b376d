import pytest

from bench import route as bench_route
from p2pos.shard.ring import cheapest
from p2pos.shard.routing import servers


@pytest.mark.parametrize("seed", range(3))
def test_the_exact_shortest_is_what_the_search_finds(seed: int) -> None:
    """Looking at every pair for every head gives no shorter ring than the search, nor a longer one."""
    announcements, view = bench_route.swarm(60, seed)
    known = servers(announcements, view, bench_route.TOKENS)
    found = cheapest(known, bench_route.LAYERS)
    assert found is not None
    assert bench_route.shortest_s(known) == pytest.approx(found.cost_s)
