from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import UnavailableError
from p2pos.shard.routing import route, uncovered
from p2pos.types import LayerSpan
from p2pos.wire.messages import Announcement


def node(peer: str, start: int, end: int, **changes: Any) -> Announcement:
    values: dict[str, Any] = {
        "peer": f"peer-{peer}",
        "addresses": [f"/ip4/127.0.0.1/tcp/{start + 1}"],
        "sequence": 1,
        "expires": 2,
        "model": "m",
        "model_name": "m",
        "layers": 6,
        "start": start,
        "end": end,
        "dtype": "bf16",
        "tokens_per_s": 0.0,
        "sessions": 0,
        "cached_tokens": 0,
        "resident_bytes": 0,
        "weight_bytes": 0,
    }
    return Announcement(**{**values, **changes})


def peers(found: list[Any]) -> list[str]:
    return [stage.peer.removeprefix("peer-") for stage in found]


def test_spans_that_join_make_a_route() -> None:
    """Three nodes that hold a third each are passed through in the order of their layers."""
    assert peers(route([node("c", 4, 6), node("a", 0, 2), node("b", 2, 4)], "m")) == ["a", "b", "c"]


def test_fewest_hops_win() -> None:
    """One node that holds everything beats three that hold a third each."""
    assert peers(route([node("a", 0, 2), node("b", 2, 4), node("c", 4, 6), node("all", 0, 6)], "m")) == ["all"]


def test_the_less_busy_node_is_preferred() -> None:
    """Of two nodes with the same layers, the one with fewer sessions is taken."""
    assert peers(route([node("a", 0, 6, sessions=3), node("b", 0, 6, sessions=1)], "m")) == ["b"]


def test_a_gap_is_named() -> None:
    """Layers that nobody serves are listed."""
    with pytest.raises(UnavailableError, match="nobody serves layers 2, 3"):
        route([node("a", 0, 2), node("c", 4, 6)], "m")


def test_spans_that_overlap_without_joining_are_no_route() -> None:
    """All layers are served, but no chain of whole spans covers them."""
    with pytest.raises(UnavailableError, match="do not join end to end"):
        route([node("a", 0, 4), node("b", 3, 6)], "m")


def test_a_node_that_counts_other_layers_hinders_nobody() -> None:
    """Whoever announces the same model with more layers than it has is passed by."""
    assert peers(route([node("a", 0, 3), node("b", 3, 6), node("liar", 5, 9, layers=9)], "m")) == ["a", "b"]


def test_a_route_keeps_to_one_dtype() -> None:
    """Stages that compute in different dtypes are not chained, even where their layers join."""
    with pytest.raises(UnavailableError, match="in one dtype"):
        route([node("a", 0, 3), node("b", 3, 6, dtype="f32")], "m")
    found = route([node("a", 0, 3), node("b", 3, 6, dtype="f32"), node("c", 0, 3, dtype="f32")], "m")
    assert peers(found) == ["c", "b"]


def test_a_route_keeps_to_one_quantization() -> None:
    """Stages that hold their weights in different bits are not chained: another would go on with other numbers."""
    with pytest.raises(UnavailableError, match="in one dtype and quantization"):
        route([node("a", 0, 3), node("b", 3, 6, quantize="int8")], "m")
    found = route([node("a", 0, 3), node("b", 3, 6, quantize="int8"), node("c", 0, 3, quantize="int8")], "m")
    assert peers(found) == ["c", "b"]


@pytest.mark.parametrize("others", [[], [node("x", 0, 6, model="other")], [node("x", 0, 6, goodbye=True)]])
def test_nobody_serves_the_model(others: list[Announcement]) -> None:
    """Nodes of other models, and those that said goodbye, don't count."""
    with pytest.raises(UnavailableError, match="nobody serves the model m"):
        route(others, "m")


def test_peers_to_avoid_are_avoided() -> None:
    """A peer that failed is not used where another can be."""
    assert peers(route([node("a", 0, 6), node("b", 0, 6)], "m", avoid=frozenset({"peer-a"}))) == ["b"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)).filter(lambda span: span[0] < span[1]), max_size=8))
def test_a_route_covers_every_layer_once(spans: list[tuple[int, int]]) -> None:
    """Whatever spans are served, a route that is found joins from layer 0 to the last, by different peers."""
    announcements = [node(str(index), start, end) for index, (start, end) in enumerate(spans)]
    try:
        found = route(announcements, "m")
    except UnavailableError:
        return
    assert (found[0].start, found[-1].end) == (0, 6)
    assert all(left.end == right.start for left, right in pairwise(found))
    assert len({stage.peer for stage in found}) == len(found)


@pytest.mark.parametrize(
    ("spans", "missing"),
    [([], "0:6"), ([(0, 2)], "2:6"), ([(0, 2), (4, 6)], "2:4"), ([(2, 6)], "0:2"), ([(0, 6)], None)],
)
def test_the_first_uncovered_run(spans: list[tuple[int, int]], missing: str | None) -> None:
    """A node that may choose takes the first layers that nobody serves."""
    announcements = [node(str(index), start, end) for index, (start, end) in enumerate(spans)]
    assert uncovered(announcements, "m", 6) == (LayerSpan.parse(missing) if missing else None)
