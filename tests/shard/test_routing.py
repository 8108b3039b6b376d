from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import UnavailableError
from p2pos.shard.routing import View, patch, route, uncovered
from p2pos.types import LayerSpan
from p2pos.wire.messages import Announcement, StageRef


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


def test_the_faster_node_is_taken() -> None:
    """Of two nodes with the same layers, the one that measured the higher rate is taken."""
    slow, fast = node("a", 0, 6, layer_tokens_per_s=100.0), node("b", 0, 6, layer_tokens_per_s=300.0)
    assert peers(route([slow, fast], "m")) == ["b"]


def test_a_fast_node_that_is_crowded_is_passed_over() -> None:
    """Sessions that share a node make it slower than another that has fewer."""
    crowded = node("a", 0, 6, layer_tokens_per_s=200.0, sessions=8)
    assert peers(route([crowded, node("b", 0, 6, layer_tokens_per_s=100.0)], "m")) == ["b"]


def test_two_fast_nodes_beat_a_slow_whole_one() -> None:
    """Hops are worth it where the layers between them take less than what they cost."""
    halves = [node("a", 0, 3, layer_tokens_per_s=1000.0), node("b", 3, 6, layer_tokens_per_s=1000.0)]
    assert peers(route([*halves, node("slow", 0, 6, layer_tokens_per_s=20.0)], "m")) == ["a", "b"]
    assert peers(route([*halves, node("whole", 0, 6, layer_tokens_per_s=500.0)], "m")) == ["whole"]


@pytest.mark.parametrize("teller", ["a", "b"])
def test_round_trips_that_either_end_measured_count(teller: str) -> None:
    """The second stage is the one that is near the first, whoever of the two says so."""
    head = node("a", 0, 3, round_trips=[("peer-b", 1.0)] if teller == "a" else [])
    near = node("b", 3, 6, round_trips=[("peer-a", 1.0)] if teller == "b" else [], sessions=1)
    assert peers(route([head, near, node("c", 3, 6)], "m")) == ["a", "b"]


def test_what_the_asker_measured_counts_where_nobody_else_did() -> None:
    """Of two nodes that nobody else has measured, the one that is nearer to the asker is taken."""
    swarm = [node("a", 0, 3), node("b", 3, 6), node("c", 3, 6)]
    assert peers(route(swarm, "m", view=View({"peer-b": 300.0, "peer-c": 2.0}))) == ["a", "c"]
    assert peers(route(swarm, "m", view=View({"peer-b": 2.0, "peer-c": 300.0}))) == ["a", "b"]
    # the asker is the head: what it measured is the hop itself
    assert peers(route(swarm, "m", view=View({"peer-b": 300.0, "peer-c": 2.0}, me="peer-a"))) == ["a", "c"]


def test_a_penalty_of_the_asker_counts() -> None:
    """A node that was slower than it says is passed over."""
    assert peers(route([node("a", 0, 6), node("b", 0, 6)], "m", view=View(penalties_s={"peer-a": 1.0}))) == ["b"]


def test_a_node_without_room_is_the_last_resort() -> None:
    """A longer way with room is taken before a shorter one without, and that one before none."""
    full, halves = node("a", 0, 6, free_tokens=10), [node("b", 0, 3, free_tokens=99), node("c", 3, 6, free_tokens=99)]
    assert peers(route([full, *halves], "m", tokens=50)) == ["b", "c"]
    assert peers(route([full, *halves], "m", tokens=5)) == ["a"]
    assert peers(route([full], "m", tokens=50)) == ["a"]


def test_a_draining_node_is_used_only_where_nobody_else_is() -> None:
    """A node that is about to leave gets nothing new, as long as another has its layers."""
    leaving, halves = node("a", 0, 6, draining=True), [node("b", 0, 3), node("c", 3, 6)]
    assert peers(route([leaving, *halves], "m")) == ["b", "c"]
    assert peers(route([leaving], "m")) == ["a"]


def test_an_engine_is_a_route_of_its_own() -> None:
    """Somebody else's engine joins with nobody, and is taken where it is the faster."""
    engine = node("e", 0, 6, engine=True, layer_tokens_per_s=600.0)
    swarm = [node("a", 0, 6, layer_tokens_per_s=300.0), engine]
    assert peers(route(swarm, "m")) == ["e"]
    with pytest.raises(UnavailableError):
        route([node("e", 0, 3, engine=True), node("b", 3, 6)], "m")


def refs(*nodes: Announcement) -> list[StageRef]:
    return [StageRef(each.peer, list(each.addresses), each.start, each.end) for each in nodes]


THIRDS = [node("a", 0, 2), node("b", 2, 4), node("c", 4, 6)]


@pytest.mark.parametrize(
    ("spares", "lost", "wanted"),
    [
        ([node("s", 2, 4)], {"b"}, ["a", "s", "c"]),
        ([node("s", 2, 3), node("t", 3, 4)], {"b"}, ["a", "s", "t", "c"]),
        ([node("s", 0, 2)], {"a"}, ["s", "b", "c"]),
        ([node("s", 4, 6)], {"c"}, ["a", "b", "s"]),
        ([node("s", 0, 4)], {"a", "b"}, ["s", "c"]),
        ([node("s", 0, 2), node("t", 4, 6)], {"a", "c"}, ["s", "b", "t"]),
        ([node("s", 0, 6)], {"b"}, ["s"]),
        ([node("s", 0, 4)], {"b"}, ["s", "c"]),
        ([node("s", 2, 4, dtype="f32"), node("t", 2, 6)], {"b"}, ["a", "t"]),
        ([node("s", 2, 4), node("t", 2, 4, draining=True)], {"b"}, ["a", "s", "c"]),
        ([node("s", 0, 6, dtype="f32")], {"b"}, ["s"]),
    ],
)
def test_a_route_is_patched(spares: list[Announcement], lost: set[str], wanted: list[str]) -> None:
    """A gap is filled by nodes of the same kind that join exactly; where there are none, the route is a new one."""
    gone = frozenset(f"peer-{each}" for each in lost)
    assert peers(patch([*THIRDS, *spares], refs(*THIRDS), gone, "m")) == wanted
    # the same where the lost ones' announcements have expired already
    left = [each for each in THIRDS if each.peer not in gone]
    assert peers(patch([*left, *spares], refs(*THIRDS), gone, "m")) == wanted


def test_a_stage_that_stays_keeps_its_addresses_and_span() -> None:
    """Whatever a survivor announces now, its stage of the route is the one that the session has."""
    moved = node("a", 0, 3)
    found = patch([moved, THIRDS[2], node("s", 2, 4)], refs(*THIRDS), frozenset({"peer-b"}), "m")
    assert found[0] == refs(THIRDS[0])[0]


def test_a_survivor_that_others_avoid_stays() -> None:
    """To avoid a peer is to begin nothing new there."""
    found = patch(
        [*THIRDS, node("s", 2, 4)], refs(*THIRDS), frozenset({"peer-b"}), "m", avoid=frozenset({"peer-a", "peer-c"})
    )
    assert peers(found) == ["a", "s", "c"]


def test_no_patch_and_no_route() -> None:
    """Where nobody has the lost layers, the error says which they are."""
    with pytest.raises(UnavailableError, match="nobody serves layers 2, 3"):
        patch(THIRDS, refs(*THIRDS), frozenset({"peer-b"}), "m")


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)).filter(lambda span: span[0] < span[1]), max_size=8),
    st.sets(st.sampled_from(["peer-a", "peer-b", "peer-c"]), min_size=1),
)
def test_a_patched_route_joins(spans: list[tuple[int, int]], lost: set[str]) -> None:
    """Whatever is lost and whoever is left, a patched route joins, has nobody twice and none of the lost."""
    spares = [node(f"spare{index}", start, end) for index, (start, end) in enumerate(spans)]
    try:
        found = patch([*THIRDS, *spares], refs(*THIRDS), frozenset(lost), "m")
    except UnavailableError:
        return
    assert (found[0].start, found[-1].end) == (0, 6)
    assert all(left.end == right.start for left, right in pairwise(found))
    assert len({stage.peer for stage in found}) == len(found)
    assert lost.isdisjoint(stage.peer for stage in found)
