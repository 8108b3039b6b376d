"""How well a model's layers are served, against a count of each layer by hand."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from p2pos.shard.coverage import Replicas, coverages
from p2pos.types import LayerSpan
from p2pos.wire.messages import Announcement
from tests.shard.test_routing import node

LAYERS = 12


@st.composite
def announced(draw: st.DrawFn) -> list[Announcement]:
    """Some nodes of one model, a few of which drain or were never measured."""
    found = []
    for number in range(draw(st.integers(1, 12))):
        start = draw(st.integers(0, LAYERS - 1))
        end = draw(st.integers(start + 1, LAYERS))
        draining, speed = draw(st.booleans()), float(draw(st.integers(0, 50)))
        how = {"layers": LAYERS, "draining": draining, "layer_tokens_per_s": speed}
        found.append(node(str(number), start, end, **how))
    return found


@given(announced())
def test_every_layer_is_counted(nodes: list[Announcement]) -> None:
    """The runs join from layer 0 to the last, neighbours differ, and each says how many nodes take new sessions."""
    (coverage,) = coverages(nodes)
    taken = Counter(layer for each in nodes if not each.draining for layer in range(each.start, each.end))
    assert [run.nodes for run in coverage.replicas for _ in range(run.start, run.end)] == [
        taken[layer] for layer in range(LAYERS)
    ]
    runs = coverage.replicas
    assert (runs[0].start, runs[-1].end) == (0, LAYERS)
    assert all(one.end == next_.start and one.nodes != next_.nodes for one, next_ in pairwise(runs))
    assert coverage.fewest == min(taken[layer] for layer in range(LAYERS))
    assert {layer for gap in coverage.gaps for layer in range(gap.start, gap.end)} == set(range(LAYERS)) - set(taken)


@given(announced())
def test_the_slowest_layer_has_the_least_speed(nodes: list[Announcement]) -> None:
    """Each node's time is divided among its layers; no layer gets less than the one named, and every one of it that."""
    (coverage,) = coverages(nodes)
    speeds = [
        sum(
            each.layer_tokens_per_s / (each.end - each.start)
            for each in nodes
            if each.start <= layer < each.end and not each.draining
        )
        for layer in range(LAYERS)
    ]
    if coverage.slowest is None:
        assert min(speeds) == 0
    else:
        span, speed = coverage.slowest
        assert speed > 0
        assert all(abs(speeds[layer] - speed) < 1e-9 for layer in range(span.start, span.end))
        assert min(speeds) >= speed - 1e-9


def test_a_gap_is_a_run_with_nobody() -> None:
    """In the middle and at the end."""
    (coverage,) = coverages([node("a", 0, 2), node("b", 0, 2), node("c", 3, 5)])
    assert coverage.replicas == (Replicas(0, 2, 2), Replicas(2, 3, 0), Replicas(3, 5, 1), Replicas(5, 6, 0))
    assert coverage.gaps == [LayerSpan(2, 3), LayerSpan(5, 6)]


def test_nodes_that_compute_otherwise_count_apart() -> None:
    """Other dtype, quantization or model: their spans don't join."""
    nodes = [
        node("a", 0, 3),
        node("b", 3, 6, dtype="f32"),
        node("c", 0, 6, quantize="int4"),
        node("d", 0, 6, model="n"),
    ]
    assert [(each.kind.model, each.fewest) for each in coverages(nodes)] == [("m", 1), ("m", 0), ("m", 0), ("n", 1)]


def test_the_name_is_what_most_say() -> None:
    """One node's own name for the model doesn't rename it."""
    nodes = [node("a", 0, 6, model_name="x"), node("b", 0, 6), node("c", 0, 6)]
    assert [each.model_name for each in coverages(nodes)] == ["m"]


def test_a_node_that_left_does_not_count() -> None:
    """Its last word is a goodbye."""
    assert coverages([node("a", 0, 6, goodbye=True)]) == []
