"""Swarms without sockets: nodes join and leave, each decides for itself by `placement`, and the moves are counted.

In a real swarm a node that would move waits for its turn (`placement.turn`), announces the move before it makes it, and
looks again before it lets its layers go. So moves come one after another, each with the ones before it in view, and
that is how they come here.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from p2pos.shard.placement import Node, Placed, Swarm, better, calm, choose


@dataclass(slots=True)
class Member:
    """A node of the simulated swarm."""

    node: Node
    placed: Placed


class Simulation:
    """A swarm of nodes that decide for themselves.

    Args:
        layers: how many the model has.
        nodes: those that join, in this order.
        seed: of whose turn it is.

    """

    def __init__(self, layers: int, nodes: Sequence[Node], *, seed: int) -> None:
        self.swarm = Swarm(layers)
        self.members: list[Member] = []
        self._random = random.Random(seed)
        for node in nodes:
            self.join(node)

    def join(self, node: Node) -> None:
        """A newcomer takes the span that it chooses."""
        span = choose(self.swarm, node)
        placed = Placed(node.rate, span.start, span.end)
        self.swarm.add(placed)
        self.members.append(Member(node, placed))

    def depart(self) -> None:
        """Any one node is gone."""
        gone = self.members.pop(self._random.randrange(len(self.members)))
        self.swarm.remove(gone.placed)

    def settle(self, most: int) -> int:
        """Let nodes move until none wants to, or so many have. Returns how many moves that took."""
        moves = 0
        while moves < most and not self.is_calm() and self._one_moves():
            moves += 1
        return moves

    def is_calm(self) -> bool:
        """Whether a look at the swarm as a whole shows that nobody can want to move."""
        return calm(self.swarm, max(member.placed.per_layer for member in self.members))

    def _one_moves(self) -> bool:
        """Ask one node after another whether it had better serve elsewhere, until one had."""
        for member in self._random.sample(self.members, len(self.members)):
            self.swarm.remove(member.placed)
            move = better(self.swarm, member.placed, member.node.most)
            if move is not None:
                member.placed = Placed(member.node.rate, move.span.start, move.span.end)
            self.swarm.add(member.placed)
            if move is not None:
                return True
        return False


def nodes(count: int, *, layers: int, seed: int) -> list[Node]:
    """Machines as volunteers have them: memory for a twentieth to a half of the model, rates within a factor of eight.

    Rates are spread log-normally (σ = 0.8: nine of ten lie within a factor of 14). The memory of all together holds the
    model at least once and a half.
    """
    chance = random.Random(seed)
    shares = (0.05, 0.05, 0.1, 0.25, 0.5)
    while True:
        made = [
            Node(chance.lognormvariate(6.0, 0.8), max(1, round(layers * chance.choice(shares)))) for _ in range(count)
        ]
        if sum(node.most for node in made) >= 1.5 * layers:
            return made
