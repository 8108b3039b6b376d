"""How well the layers of a model are served: replicas of each, gaps, and the slowest. Pure.

Nodes count together where their spans can join: same model, same number of layers, same dtype and quantization. So one
model may have several coverages, each of which is whole or isn't.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

from p2pos.types import LayerSpan
from p2pos.wire.messages import Announcement, Quantization


class Kind(NamedTuple):
    """What nodes have in common whose spans can join."""

    model: str
    dtype: str
    quantize: Quantization
    layers: int
    """How many the whole model has."""


class Replicas(NamedTuple):
    """A run of neighbouring layers that equally many nodes serve."""

    start: int
    end: int
    nodes: int
    """That take new sessions for them; those that are about to leave don't count."""


class Slowest(NamedTuple):
    """The layers that hold all others back."""

    layers: LayerSpan
    tokens_per_s: float
    """All nodes that serve them, each with its time divided evenly among its layers."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """The nodes of one kind, and what they add up to."""

    kind: Kind
    model_name: str
    """What most of them call it."""
    nodes: tuple[Announcement, ...]
    """By their first layer, then the last, then the peer id."""
    replicas: tuple[Replicas, ...]
    """From layer 0 to the last, without holes: a gap is a run with none."""
    slowest: Slowest | None
    """None where a layer isn't served, or nobody who serves it has measured itself."""

    @property
    def gaps(self) -> list[LayerSpan]:
        """Layers that nobody takes new sessions for."""
        return [LayerSpan(each.start, each.end) for each in self.replicas if not each.nodes]

    @property
    def fewest(self) -> int:
        """Replicas of the layer that has the fewest."""
        return min(each.nodes for each in self.replicas)

    @property
    def tokens_per_s(self) -> float:
        """Tokens that left the last layer per second, over the last ten seconds: prompts and texts alike."""
        return sum(each.tokens_per_s for each in self.nodes if each.end == self.kind.layers)

    @property
    def sessions(self) -> int:
        """How many go on: each is at one node that has the first layer."""
        return sum(each.sessions for each in self.nodes if each.start == 0)

    @property
    def waiting(self) -> int:
        """Sessions that wait for room, at the layers where most do. One may wait at several nodes."""
        return max(sum(each.waiting for each in there) for _, _, there in _pieces(self.kind.layers, self.nodes))

    @property
    def free_tokens(self) -> int:
        """Positions that there is room for, at the layers that have the least."""
        staying = [each for each in self.nodes if not each.draining]
        return min(sum(each.free_tokens for each in there) for _, _, there in _pieces(self.kind.layers, staying))


def coverages(announcements: Iterable[Announcement]) -> list[Coverage]:
    """One for each kind of node, in the order of the model's name, its id, and how they compute.

    Args:
        announcements: of nodes believed to be there. A span that reaches beyond its model, which no table believes, is
            taken to end with it.

    """
    kinds: dict[Kind, list[Announcement]] = defaultdict(list)
    for each in announcements:
        if not each.goodbye and each.start < min(each.end, each.layers):
            kinds[Kind(each.model, each.dtype, each.quantize, each.layers)].append(each)
    return sorted((_coverage(*each) for each in kinds.items()), key=lambda each: (each.model_name, each.kind))


def _coverage(kind: Kind, nodes: list[Announcement]) -> Coverage:
    pieces = _pieces(kind.layers, [each for each in nodes if not each.draining])
    replicas = [
        Replicas(min(start for start, _, _ in same), max(end for _, end, _ in same), count)
        for count, run in groupby(pieces, key=lambda piece: len(piece[2]))
        for same in [list(run)]
    ]
    speeds = [(sum(map(_per_layer, there)), start, end) for start, end, there in pieces]
    least, start, end = min(speeds)
    return Coverage(
        kind,
        Counter(each.model_name for each in nodes).most_common(1)[0][0],
        tuple(sorted(nodes, key=lambda each: (each.start, each.end, each.peer))),
        tuple(replicas),
        Slowest(LayerSpan(start, end), least) if least > 0 else None,
    )


def _pieces(layers: int, nodes: Sequence[Announcement]) -> list[tuple[int, int, list[Announcement]]]:
    """The model's layers cut wherever a span begins or ends: first layer, end, and who serves them."""
    cuts = {0, layers} | {layer for each in nodes for layer in (each.start, min(each.end, layers))}
    return [
        (start, end, [each for each in nodes if each.start <= start and end <= each.end])
        for start, end in pairwise(sorted(cuts))
    ]


def _per_layer(node: Announcement) -> float:
    """Tokens per second that it can pass through each of its layers, with its time divided among them."""
    return node.layer_tokens_per_s / (min(node.end, node.layers) - node.start)
