import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.shard.placement import WORTH, Node, Placed, Swarm, better, calm, choose
from p2pos.types import LayerSpan

LAYERS = 12
PLACED = st.builds(
    lambda rate, start, length: Placed(rate, start, min(LAYERS, start + length)),
    st.floats(1.0, 1000.0),
    st.integers(0, LAYERS - 1),
    st.integers(1, LAYERS),
)
NODES = st.builds(Node, st.floats(1.0, 1000.0), st.integers(1, LAYERS))


def swarm(*spans: str, rate: float = 100.0) -> Swarm:
    placed = [LayerSpan.parse(span) for span in spans]
    return Swarm(LAYERS, [Placed(rate, span.start, span.end) for span in placed])


@pytest.mark.parametrize(
    ("spans", "most", "wanted"),
    [
        ([], 12, "0:12"),  # the first takes all it can
        ([], 5, "0:5"),
        (["0:5"], 5, "5:10"),  # the next goes on where it ends
        (["0:5", "5:10"], 12, "10:12"),  # and one with more memory takes no more than is missing
        (["0:4", "8:12"], 12, "4:8"),
        (["0:6", "6:12"], 6, "0:6"),
        (["0:6", "6:12", "0:6"], 6, "6:12"),  # where there are fewer already
        (["0:6", "6:12"], 12, "0:12"),  # all of it, where it fits
        (["0:4", "4:8", "8:12", "0:4", "8:12"], 7, "4:8"),
        (["0:12"], 6, "0:6"),  # of use only together with another, it begins a chain
        (["0:12", "0:6"], 6, "6:12"),  # which the other completes
    ],
)
def test_where_a_newcomer_goes(spans: list[str], most: int, wanted: str) -> None:
    """A newcomer fills what is missing, joins where others end, and else helps the slowest layers."""
    assert choose(swarm(*spans), Node(100.0, most)) == LayerSpan.parse(wanted)


@given(st.lists(PLACED, max_size=6), NODES)
def test_a_newcomer_never_takes_more_than_it_holds_and_never_leaves_more_missing(placed: list, node: Node) -> None:
    """Its span fits its memory, and no other span of that size would leave less missing."""
    there = Swarm(LAYERS, placed)
    span = choose(there, node)
    assert len(span) <= node.most
    there.add(Placed(node.rate, span.start, span.end))
    least = there.missing
    there.remove(Placed(node.rate, span.start, span.end))
    assert least <= there.missing
    for start in range(LAYERS):
        for end in range(start + 1, min(LAYERS, start + node.most) + 1):
            there.add(Placed(node.rate, start, end))
            assert there.missing >= least
            there.remove(Placed(node.rate, start, end))


@given(st.lists(NODES, min_size=1, max_size=12))
def test_newcomers_cover_the_model_where_their_memory_suffices(nodes: list) -> None:
    """Joining one after another they leave no layer out, however much each holds."""
    there = Swarm(LAYERS)
    for node in nodes:
        span = choose(there, node)
        there.add(Placed(node.rate, span.start, span.end))
    assert (there.missing == 0) == (sum(node.most for node in nodes) >= LAYERS)


@given(st.lists(PLACED, max_size=8), PLACED)
def test_a_move_never_uncovers_a_layer(placed: list, me: Placed) -> None:
    """Where the swarm is whole it is whole without the node that moves, and where it isn't, less is missing then."""
    others = Swarm(LAYERS, placed)
    missing_without = others.missing
    others.add(me)
    missing_now = others.missing
    others.remove(me)
    move = better(others, me, LAYERS)
    if move is None:
        return
    others.add(Placed(me.rate, move.span.start, move.span.end))
    assert move.urgent == (missing_now > 0)
    assert others.missing < missing_now if missing_now else missing_without == others.missing == 0


@given(st.lists(PLACED, max_size=8), PLACED)
def test_a_node_that_has_moved_stays(placed: list, me: Placed) -> None:
    """With the others as they were, no node moves on or back."""
    others = Swarm(LAYERS, placed)
    move = better(others, me, LAYERS)
    if move is not None and not move.urgent:
        assert better(others, Placed(me.rate, move.span.start, move.span.end), LAYERS) is None


def test_a_spare_fills_the_place_of_one_that_left() -> None:
    """Of two nodes with the same layers, either moves to those that nobody has any more."""
    others = swarm("0:6")
    move = better(others, Placed(100.0, 0, 6), 6)
    assert move is not None
    assert (move.span, move.urgent) == (LayerSpan(6, 12), True)


def test_the_only_one_with_some_layers_stays() -> None:
    """However slow other layers are, who alone serves some goes nowhere."""
    assert better(swarm("0:6"), Placed(100.0, 6, 12), 6) is None


def test_a_small_gain_moves_nobody() -> None:
    """Three nodes here and two there are left alone; four and one are not."""
    assert better(swarm("0:6", "0:6", "6:12", "6:12"), Placed(100.0, 0, 6), 6) is None
    move = better(swarm("0:6", "0:6", "0:6", "6:12"), Placed(100.0, 0, 6), 6)
    assert move is not None
    assert (move.span, move.urgent) == (LayerSpan(6, 12), False)


@given(st.lists(PLACED, min_size=2, max_size=8))
def test_where_all_is_calm_nobody_moves(placed: list) -> None:
    """Where a look at the whole says that nobody can want to move, nobody who is of use does."""
    whole = Swarm(LAYERS, [*placed, *(Placed(1e5, 0, LAYERS) for _ in range(3))])
    if not calm(whole, max(each.per_layer for each in placed)):
        return
    for each in placed:
        whole.remove(each)
        before, after = whole.gaps()
        if before[each.start] + after[each.end] == 0:
            assert better(whole, each, LAYERS) is None
        whole.add(each)


def test_calm_is_about_the_slowest_layers() -> None:
    """Even layers are calm, a layer that is much slower than another is not."""
    even = [Placed(100.0, 0, 6), Placed(100.0, 6, 12)] * 20
    assert calm(Swarm(LAYERS, even), 100.0 / 6)
    assert not calm(Swarm(LAYERS, [*even, *[Placed(100.0 * WORTH, 0, 6)] * 20]), 100.0 / 6)
    assert not calm(Swarm(LAYERS, even[::2]), 0.0)
