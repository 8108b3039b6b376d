"""A span for every node of a swarm at once, so that its slowest layer is as fast as it can be made. Pure.

No swarm is told what to do by anybody; each node decides for itself, by `placement`. A plan says how well that could
go at best, for the simulator and the bench to compare with.

Nodes are laid end to end in rows, each of which is the whole model. In a row every node gets layers in proportion to
its rate, as far as its memory goes, so that all pass on tokens equally fast. Which nodes make up a row, and how much
memory beyond the model's size it gathers before the next begins, is tried in several ways; the best are improved by
giving one node another span, or by shifting a boundary for all whose spans meet there, until nothing helps. Of a
large swarm, where unevenness averages out, there's one way, and the last few hundred nodes even out what the rest add
up to.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np

from p2pos.shard.placement import Array, Node, Placed, Swarm, choose

SMALL, MIDDLE, LARGE = 24, 200, 1000
"""Nodes up to which every way is tried and the best are improved, up to which the best one is, and up to which several
are tried. Beyond, one way is within a few percent of what there is."""
SLACKS = (1.0, 1.15, 1.3, 1.6, 2.0)
"""Memory that a row gathers, in whole models: with more than it needs, its layers can be shared out more evenly."""
STARTS = 4
"""The best of all ways tried that are improved."""
TRIALS = 1500
"""Of changes to one plan; a plan of ten nodes stops getting better after some hundred."""
LEVEL_SHARE, LEVEL_MOST = 0.1, 600
"""The share of a large swarm's nodes that are placed one by one, and how many at most; each costs some 15 µs."""
PAIR_SPANS = 80
"""Spans that a node of a tiny model may have, for pairs of nodes to be moved together: some thousand trials."""

Spans: TypeAlias = list[tuple[int, int]]
"""Start and end, by node."""

_ORDERS: tuple[Callable[[Node], float], ...] = (
    lambda node: -node.rate / node.most,
    lambda node: node.rate / node.most,
    lambda node: -node.rate,
    lambda node: -node.most,
)
"""Who comes first. Nodes of like rate per layer make a row that is level even where their memory binds them."""


def plan(layers: int, nodes: Sequence[Node], *, trials: int = TRIALS) -> Spans:
    """Start and end for each node; where they can hold all layers together, none is left out.

    `trials` bounds the changes that are tried to improve one way, of which there are up to `STARTS`.
    """
    if len(nodes) > LARGE:
        return _large(layers, nodes)
    bounded = [Node(node.rate, min(node.most, layers)) for node in nodes]
    ways = [
        _rows(layers, bounded, sorted(range(len(nodes)), key=lambda index: order(bounded[index])), slack, spread=spread)
        for order in (_ORDERS if len(nodes) <= SMALL else _ORDERS[:1])
        for slack in SLACKS
        for spread in (True, False)
    ]
    worth = {tuple(way): _worth(layers, bounded, way) for way in ways}
    best = sorted(worth, key=lambda way: worth[way])[-STARTS if len(nodes) <= SMALL else -1 :]
    if len(nodes) > MIDDLE:
        return list(best[-1])
    return max(
        (_improve(layers, bounded, list(way), trials) for way in best), key=lambda way: _worth(layers, bounded, way)
    )


def ceiling(layers: int, nodes: Sequence[Node]) -> float:
    """Tokens per second that no placement can exceed in the slowest layer.

    A node that serves a layer faster than the slowest gives the excess to nobody, so of its rate no more counts than
    its layers times the slowest; what counts must reach that for every layer.
    """
    low, high = 0.0, sum(node.rate for node in nodes) / layers
    for _ in range(60):  # halvings: beyond the digits of a float
        middle = (low + high) / 2
        counts = sum(min(node.rate, min(node.most, layers) * middle) for node in nodes)
        low, high = (middle, high) if counts >= layers * middle * (1 - 1e-12) else (low, middle)
    return high


def _rows(layers: int, nodes: Sequence[Node], order: Sequence[int], slack: float, *, spread: bool) -> Spans:
    """Lay nodes in rows as they come. Who is left over joins a row, or is placed where most is gained."""
    rows: list[list[int]] = []
    left: list[int] = []
    held = 0
    for index in order:
        left.append(index)
        held += nodes[index].most
        if held >= layers and (held >= layers * slack or len(left) == layers):
            rows.append(left)
            left, held = [], 0
    if left and held >= layers:
        rows.append(left)
        left = []
    if spread and rows:
        for number, index in enumerate(reversed(left)):
            rows[-1 - number % len(rows)].append(index)
        left = [index for row in rows for index in row[layers:]]  # no row has more nodes than there are layers
    spans: list[tuple[int, int]] = [(0, 0)] * len(nodes)
    swarm = Swarm(layers)
    for row in rows:
        end = 0
        chosen = row[:layers]
        for index, length in zip(chosen, _share_out(layers, [nodes[index] for index in chosen]), strict=True):
            spans[index] = (end, end := end + length)
            swarm.add(Placed(nodes[index].rate, *spans[index]))
    for index in left:
        span = choose(swarm, nodes[index])
        spans[index] = (span.start, span.end)
        swarm.add(Placed(nodes[index].rate, span.start, span.end))
    return spans


def _share_out(layers: int, row: Sequence[Node]) -> list[int]:
    """How many layers each node of a row gets: at least one, at most what it holds, and all of them together.

    One layer after another goes to whoever passes tokens fastest with it, which makes the slowest as fast as can be.
    """
    lengths = [1] * len(row)
    queue = [(-node.rate / 2, index) for index, node in enumerate(row) if node.most > 1]
    heapq.heapify(queue)
    for _ in range(layers - len(row)):
        _, index = heapq.heappop(queue)
        lengths[index] += 1
        if lengths[index] < row[index].most:
            heapq.heappush(queue, (-row[index].rate / (lengths[index] + 1), index))
    return lengths


def _worth(layers: int, nodes: Sequence[Node], spans: Sequence[tuple[int, int]]) -> tuple[int, float, float]:
    """The larger the better: fewest layers missing, then the slowest layer, then what is to be made small."""
    swarm = _swarm(layers, nodes, spans)
    return -swarm.missing, swarm.slowest, -swarm.price


def _swarm(layers: int, nodes: Sequence[Node], spans: Sequence[tuple[int, int]], without: Sequence[int] = ()) -> Swarm:
    pairs = enumerate(zip(nodes, spans, strict=True))
    return Swarm(layers, (Placed(node.rate, *span) for index, (node, span) in pairs if index not in without))


def _improve(layers: int, nodes: Sequence[Node], spans: Spans, left: int) -> Spans:
    worth, before = _worth(layers, nodes, spans), None
    while left > 0 and worth != before:
        before = worth
        for trials in (_moved, _shifted, _moved_in_pairs):
            for trial in islice(trials(layers, nodes, spans), left):
                left -= 1
                if (found := _worth(layers, nodes, trial)) > worth:
                    spans[:], worth = trial, found
    return spans


def _moved(layers: int, nodes: Sequence[Node], spans: Spans) -> Iterator[Spans]:
    """One node where it gains most."""
    for index, node in enumerate(nodes):
        span = choose(_swarm(layers, nodes, spans, (index,)), node)
        yield [*spans[:index], (span.start, span.end), *spans[index + 1 :]]


def _shifted(layers: int, nodes: Sequence[Node], spans: Spans) -> Iterator[Spans]:
    """One boundary elsewhere, for all spans that end or begin there, so that they go on joining."""
    for boundary in sorted({edge for span in spans for edge in span} - {0, layers}):
        for by in (-2, -1, 1, 2):
            moved = {boundary: boundary + by}
            trial = [(moved.get(start, start), moved.get(end, end)) for start, end in spans]
            if all(
                0 <= start < end <= min(layers, start + node.most)
                for node, (start, end) in zip(nodes, trial, strict=True)
            ):
                yield trial


def _moved_in_pairs(layers: int, nodes: Sequence[Node], spans: Spans) -> Iterator[Spans]:
    """Two nodes at once: one to any span, the other where it gains most then."""
    if max(node.most for node in nodes) * layers > PAIR_SPANS or len(nodes) > layers:
        return
    for one, node in enumerate(nodes):
        for start in range(layers):
            for end in range(start + 1, min(layers, start + node.most) + 1):
                for other in range(len(nodes)):
                    if other != one:
                        swarm = _swarm(layers, nodes, spans, (one, other))
                        swarm.add(Placed(node.rate, start, end))
                        span = choose(swarm, nodes[other])
                        trial = list(spans)
                        trial[one], trial[other] = (start, end), (span.start, span.end)
                        yield trial


def _large(layers: int, nodes: Sequence[Node]) -> Spans:
    """In arrays: rows of nodes of like rate per layer, in proportion to their memory, then the rest one by one."""
    most = np.minimum(np.array([node.most for node in nodes]), layers)
    rates = np.array([node.rate for node in nodes])
    order = np.argsort(-rates / most, kind="stable")
    rows, row, held = [], 0, 0
    for size in most[order].tolist():
        rows.append(row)
        held += size
        if held >= layers:
            row, held = row + 1, 0
    starts, ends = _in_proportion(layers, most[order], np.array(rows), row)
    # whoever has least to give comes last, and is best for evening out; but one row at least stays whole
    singly = min(LEVEL_MOST, int(len(nodes) * LEVEL_SHARE))
    alone = (ends <= starts) | (np.array(rows) >= max(1, rows[-singly]))
    per_layer = np.where(alone, 0.0, rates[order] / np.maximum(ends - starts, 1))
    steps = np.bincount(starts, per_layer, layers + 1) - np.bincount(ends, per_layer, layers + 1)
    level = np.cumsum(steps)[:layers]
    for place in np.flatnonzero(alone).tolist():
        length = int(most[order[place]])
        starts[place] = _lowest(level, float(rates[order[place]]) / length, length)
        ends[place] = starts[place] + length
    spans = np.empty((len(nodes), 2), int)
    spans[order, 0], spans[order, 1] = starts, ends
    return [(start, end) for start, end in spans.tolist()]


def _lowest(level: Array, height: float, length: int) -> int:
    """Where a span of this length and rate per layer gains most; the level is raised there."""
    squared, raised = np.square(level), np.square(level + height)
    saved = np.zeros(len(level) + 1)
    np.cumsum(1.0 / np.square(squared) - 1.0 / np.square(raised), out=saved[1:])
    start = int(np.argmax(saved[length:] - saved[: len(saved) - length]))
    level[start : start + length] += height
    return start


def _in_proportion(layers: int, most: Array, rows: Array, whole: int) -> tuple[Array, Array]:
    """Starts and ends, (n,) each, of nodes whose rows share the model by memory; 0 in one that can't hold it."""
    sums = np.cumsum(most)
    held = np.bincount(rows, most, minlength=whole + 1)
    begun = np.concatenate(([0.0], np.cumsum(held)))[rows]
    scale = np.where(rows < whole, layers / held[rows], 0.0)
    ends = np.rint((sums - begun) * scale).astype(int)
    starts = np.rint((sums - most - begun) * scale).astype(int)
    return starts, ends
