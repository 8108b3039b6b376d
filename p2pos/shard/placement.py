"""Which layers a node is to serve: a newcomer's span, and whether one that serves is to move. Pure.

A node has a rate, the tokens per second that it can pass through one layer. Serving a span it passes that rate over
the span's length through each of its layers, so a span is an area that can be laid long and flat or short and high; it
is never longer than the node's memory allows. A swarm is as fast as its slowest layer. Spans are of use only where
they join end to end from layer 0 to the last, so what counts, in this order:

1. what is missing: the fewest layers that would have to be added for a chain of whole spans;
2. the same for the chain that the node itself is part of, which is nothing once the swarm is whole;
3. the rate of the slow layers: the sum of rate⁻⁴ over all layers, of which the slowest makes up nearly all;
4. long spans before short ones, because they make for fewer hops.

Petals (arXiv:2209.01188, section 3.2) has newcomers take the window with the least throughput, of a length that is
given, wherever it begins and ends: there a route may leave a server in mid-span.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from p2pos.types import LayerSpan

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

POWER = 4
"""Of a layer's rate in what a plan makes small: high enough for the slowest layers to count for nearly everything, low
enough to see the second slowest too, without which nobody would mend one of two equal valleys."""
LENGTH = 0.3
"""How much more a gain counts for the longest span a node can have than for a span of no length."""
WORTH = 1.3
"""A node moves where the layers that it goes to are slower than those that it leaves by this factor. A move costs the
sessions a hand-over and the node a load, and others may be about to make the same one."""
FLOOR = 0.05
"""Of the mean rate, added to every layer's: the fourth power of 0 is no price that others could be compared with."""
CROWD = 16
"""Nodes from which on one may begin a chain that others must finish before it is of use: somebody will."""
BUILD = 1 / 8
"""What a gain counts for in such a chain: only where layers are two thirds as fast as those where it helps at once."""
JOINS = (0.1, 0.5, 1.0)
"""And by at how many of its ends other spans begin or end already."""


@dataclass(frozen=True, slots=True)
class Node:
    """What a node can do."""

    rate: float
    """Tokens per second through one layer, above 0."""
    most: int
    """Layers that its memory holds, at least 1."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A node that serves."""

    rate: float
    """As `Node.rate`."""
    start: int
    end: int

    @property
    def per_layer(self) -> float:
        """Tokens per second that it passes through each of its layers."""
        return self.rate / (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Move:
    """That a node had better serve other layers."""

    span: LayerSpan
    urgent: bool
    """Whether it brings the swarm nearer to being whole."""


class Swarm:
    """Who serves what, summed up by layer.

    Args:
        layers: how many the model has.
        placed: the nodes that serve it.

    """

    def __init__(self, layers: int, placed: Iterable[Placed] = ()) -> None:
        self.layers = layers
        self._spans: dict[tuple[int, int], list[float]] = {}
        """Span → how many nodes have it, and the sum of their rates."""
        for each in placed:
            self.add(each)

    def add(self, each: Placed) -> None:
        """A node serves."""
        entry = self._spans.setdefault((each.start, each.end), [0.0, 0.0])
        entry[0] += 1
        entry[1] += each.rate

    def remove(self, each: Placed) -> None:
        """A node that was added serves no more."""
        entry = self._spans[each.start, each.end]
        entry[0] -= 1
        entry[1] -= each.rate
        if not entry[0]:
            del self._spans[each.start, each.end]

    def __len__(self) -> int:
        return int(sum(count for count, _ in self._spans.values()))

    def rates(self) -> Array:
        """Tokens per second through each layer, (layers,): of all who serve it and are of use.

        Of use is whose span is part of a chain over all layers, or of one that lacks no more than the best one does.
        """
        before, after = self.gaps()
        missing = before[-1]
        rates = np.zeros(self.layers)
        for (start, end), (_, rate) in self._spans.items():
            if before[start] + after[end] == missing:
                rates[start:end] += rate / (end - start)
        return rates

    @property
    def price(self) -> float:
        """What is to be made small: the sum of rate⁻⁴ over all layers."""
        rates = self.rates()
        return float(_price(rates, FLOOR * rates.mean()).sum())

    @property
    def slowest(self) -> float:
        """Tokens per second through the slowest layer, of those who are of use."""
        return float(self.rates().min())

    def gaps(self) -> tuple[Array, Array]:
        """How many layers are missing on the way from layer 0 to each boundary, and from there to the last layer.

        Returns two arrays (layers+1,): the fewest layers that a chain of whole spans needs filled on either side.
        """
        ending: dict[int, list[int]] = {}
        starting: dict[int, list[int]] = {}
        for start, end in self._spans:
            ending.setdefault(end, []).append(start)
            starting.setdefault(start, []).append(end)
        before, after = [0] * (self.layers + 1), [0] * (self.layers + 1)
        for layer in range(1, self.layers + 1):
            before[layer] = min(before[layer - 1] + 1, *(before[start] for start in ending.get(layer, ())), self.layers)
        for layer in range(self.layers - 1, -1, -1):
            after[layer] = min(after[layer + 1] + 1, *(after[end] for end in starting.get(layer, ())), self.layers)
        return np.array(before), np.array(after)

    @property
    def missing(self) -> int:
        """The fewest layers that would have to be added for a chain from the first to the last; 0 where it is whole."""
        return int(self.gaps()[0][-1])

    def boundaries(self) -> set[int]:
        """Where spans begin or end, the model's ends included."""
        return {0, self.layers, *(edge for span in self._spans for edge in span)}


def choose(swarm: Swarm, node: Node) -> LayerSpan:
    """The span that a newcomer to a swarm had best take."""
    starts, ends, scores = _scores(swarm, node)
    chosen = _best(starts, ends, scores)
    return LayerSpan(int(starts[chosen]), int(ends[chosen]))


def better(others: Swarm, me: Placed, most: int) -> Move | None:
    """Where a node had better serve, or None where it is right as it is.

    Args:
        others: the swarm without it: those who serve, and those who are about to.
        me: what it serves.
        most: layers that its memory holds, at least as many as it serves.

    A move never leaves a whole swarm with a layer missing, not even while it is under way.

    """
    missing_without = others.missing
    others.add(me)
    missing_now = others.missing
    others.remove(me)
    if missing_without and not missing_now:
        return None  # the others need it where it is
    starts, ends, scores = _scores(others, Node(me.rate, max(most, me.end - me.start)))
    chosen = _best(starts, ends, scores)
    there = Placed(me.rate, int(starts[chosen]), int(ends[chosen]))
    if (there.start, there.end) == (me.start, me.end):
        return None
    move = LayerSpan(there.start, there.end)
    if missing_now:
        others.add(there)
        missing_then = others.missing
        others.remove(there)
        return Move(move, urgent=True) if missing_then < missing_now else None
    here = float(scores[(starts == me.start) & (ends == me.end)][0])
    return Move(move, urgent=False) if scores[chosen] > here * WORTH ** (POWER + 1) else None


def _scores(swarm: Swarm, node: Node) -> tuple[Array, Array, Array]:
    """All spans that a node can take, and how good each is: starts, ends and scores, (n,) each; below 0 is ruled out.

    The score is what the slow layers gain, and once none is missing, somewhat more for long spans.
    """
    layers, most = swarm.layers, min(node.most, swarm.layers)
    before, after = swarm.gaps()
    starts, ends = _spans(layers, most)
    lengths = ends - starts
    scores = gains(swarm.rates(), node.rate, starts, ends)
    if before[-1] == 0:
        scores *= 1 + LENGTH * lengths / most
    lacking = before[starts] + after[ends]
    edges = np.isin(np.arange(layers + 1), list(swarm.boundaries())).astype(int)
    joins = edges[starts] + edges[ends]
    if before[-1] == 0 and len(swarm) >= CROWD:
        building = BUILD * np.square(1 - lacking / layers) * np.array(JOINS)[joins]
        return starts, ends, scores * np.where(lacking == 0, 1.0, building)
    # what its own chain lacks is also what the best one lacks then, where it lacks less than now
    allowed = lacking == lacking.min()
    if lacking.min() > 0:  # whoever comes next finds a place more easily where spans join already
        allowed &= joins == joins[allowed].max()
    return starts, ends, np.where(allowed, scores, -1.0)


def _best(starts: Array, ends: Array, scores: Array) -> int:
    """The index of the best score; of equals the longest span, of these the first."""
    best = np.flatnonzero(scores >= scores.max() * (1 - 1e-9))
    return int(max(best, key=lambda index: (ends[index] - starts[index], -starts[index])))


def turn(me: str, nodes: Iterable[tuple[str, int]], what: str) -> int:
    """How many go before a node where several could make the same move; the same wherever it is reckoned.

    Args:
        me: the node's peer id.
        nodes: peer id and sessions of all, itself included: who has fewer goes first.
        what: the move; another one has other turns, so that it isn't always the same nodes that run.

    """

    def place(peer: str) -> bytes:
        return hashlib.sha256(f"{what} {peer}".encode()).digest()

    busy = dict(nodes)
    mine = (busy.get(me, 0), place(me))
    return sum((sessions, place(peer)) < mine for peer, sessions in busy.items())


def calm(swarm: Swarm, tallest: float) -> bool:
    """Whether nobody can want to move, by a look at the whole: no layer is so much slower than any other.

    Args:
        swarm: everyone.
        tallest: the highest rate per layer of any node.

    It may say no where nobody wants to, not yes where somebody does, as long as all spans are of use.

    """
    rates = swarm.rates()
    return bool(rates.max() <= WORTH * (rates.min() - tallest)) and swarm.missing == 0


def _spans(layers: int, most: int) -> tuple[Array, Array]:
    """All spans of at most so many layers: their starts and ends, (n,) each, shortest first, then by start."""
    starts = [np.arange(layers - length + 1) for length in range(1, most + 1)]
    lengths = np.repeat(np.arange(1, most + 1), [len(each) for each in starts])
    joined = np.concatenate(starts)
    return joined, joined + lengths


def _price(rates: Array, floor: float) -> Array:
    """What is to be made small, by layer."""
    squared = np.square(rates + floor)
    return 1.0 / np.square(squared)  # POWER


def gains(rates: Array, rate: float, starts: Array, ends: Array) -> Array:
    """How much smaller the price of all layers gets where a node of this rate takes each of these spans, (n,)."""
    lengths = ends - starts
    floor = FLOOR * (rates.mean() + rate / len(rates))
    per_length, which = np.unique(lengths, return_inverse=True)
    raised = rates[None, :] + (rate / per_length)[:, None]
    saved = _price(rates, floor)[None, :] - _price(raised, floor)  # (lengths, layers)
    sums = np.zeros((len(per_length), len(rates) + 1))
    np.cumsum(saved, axis=1, out=sums[:, 1:])
    gains: Array = sums[which, ends] - sums[which, starts]
    return gains
