from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.shard import ring
from p2pos.shard.ring import Server, cheapest, cost_s

LAYERS = 4
SPANS = st.tuples(st.integers(0, LAYERS - 1), st.integers(1, LAYERS)).filter(lambda span: span[0] < span[1])
TIMES = st.floats(0.001, 1.0)
SERVERS = st.lists(
    st.tuples(SPANS, TIMES, TIMES, st.dictionaries(st.integers(0, 8), TIMES, max_size=4)), min_size=1, max_size=9
)


def made(drawn: list) -> list[Server]:
    return [
        Server(f"{index}", *span, cost, far, [(f"{other}", 2000 * seconds) for other, seconds in near.items()])
        for index, (span, cost, far, near) in enumerate(drawn)
    ]


def every_ring(servers: list[Server], start: int = 0) -> list[list[Server]]:
    """All chains from a layer to the last."""
    if start == LAYERS:
        return [[]]
    return [[server, *rest] for server in servers if server.start == start for rest in every_ring(servers, server.end)]


@given(SERVERS)
def test_no_ring_is_cheaper(drawn: list) -> None:
    """Of all rings that there are, the one that is found costs least, its closing hop included."""
    servers = made(drawn)
    rings = every_ring(servers)
    found = cheapest(servers, LAYERS)
    if not rings:
        assert found is None
        return
    assert found is not None
    assert found.cost_s == pytest.approx(min(map(cost_s, rings)))
    assert found.cost_s == pytest.approx(cost_s(found.servers))
    assert all(left.end == right.start for left, right in pairwise(found.servers))


@given(SERVERS)
def test_a_search_that_is_cut_short_still_finds_a_ring(drawn: list) -> None:
    """Without a step of the search, the ring is one that is cheapest as far as its tail."""
    servers = made(drawn)
    rings = every_ring(servers)
    most, ring.MAX_STEPS = ring.MAX_STEPS, 0
    try:
        found = cheapest(servers, LAYERS)
    finally:
        ring.MAX_STEPS = most
    assert (found is None) == (not rings)
    if found is not None:
        assert list(found.servers) in rings


@given(SERVERS)
def test_the_choice_is_the_same_every_time(drawn: list) -> None:
    """The same servers give the same ring."""
    first, second = cheapest(made(drawn), LAYERS), cheapest(made(drawn), LAYERS)
    assert (first is None) == (second is None)
    if first and second:
        assert [server.peer for server in first.servers] == [server.peer for server in second.servers]


def test_the_hop_that_closes_the_ring_counts() -> None:
    """Of two tails, the one that is a little slower but next to the head is taken."""
    head = Server("head", 0, 2, 0.1, 0.0, [("near", 10.0), ("far", 10.0)])
    tails = [Server("far", 2, 4, 0.1, 0.0, [("head", 2000.0)]), Server("near", 2, 4, 0.2, 0.0, [("head", 10.0)])]
    found = cheapest([head, *tails], LAYERS)
    assert found is not None
    assert [server.peer for server in found.servers] == ["head", "near"]


def test_a_ring_of_one_has_no_hop() -> None:
    """A server with all layers sends to nobody."""
    assert cost_s([Server("all", 0, 4, 0.1, 9.0, [])]) == 0.1
