"""The cheapest ring of servers whose spans join from a model's first layer to its last. Pure.

A token passes every stage and comes back from the tail to the head, so what a route costs is the stages, the hops
between neighbours, and the hop that closes the ring. Without that last hop it is a shortest path, found from the last
layer backwards. With it, the search goes forwards from all heads at once, each partial ring rated by what it has cost
and what it can't do without (A*, Hart, Nilsson and Raphael 1968), so that the first ring that closes is the cheapest.

Times between most servers were never measured, and those are estimated by one term of each end. That keeps it fast:
of all servers that could come next the best is the first of a list that is sorted once, apart from the few whose time
was measured.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

HOP_S = 0.0015
"""Seconds that a hop takes on top of the network: what `bench pipeline` finds over loopback."""
MAX_STEPS = 2000
"""Partial rings looked at. Beyond, the best ring so far is taken; each costs some 3 µs."""


@dataclass(eq=False, slots=True)
class Server:
    """A span that somebody serves.

    Attributes:
        peer: who.
        start: its first layer.
        end: the one after its last.
        cost_s: seconds that a token takes there.
        far_s: its part of the seconds of a hop between it and a server whose time was not measured.
        near_ms: other peers, and the milliseconds of a round trip to them, where measured; each once.

    """

    peer: str
    start: int
    end: int
    cost_s: float
    far_s: float
    near_ms: Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Ring:
    """A route, and the seconds that a token is expected to take once round it."""

    cost_s: float
    servers: tuple[Server, ...]


def hop_s(left: Server, right: Server) -> float:
    """Seconds from one server to another; none to itself. What the left one measured counts before the right's."""
    if left is right:
        return 0.0
    for one, other in ((left, right), (right, left)):
        for peer, round_trip_ms in one.near_ms:
            if peer == other.peer:
                return round_trip_ms / 2e3 + HOP_S
    return left.far_s + right.far_s


def cost_s(servers: Iterable[Server]) -> float:
    """Seconds once round a ring of these servers, in this order."""
    ring = list(servers)
    return sum(each.cost_s + hop_s(each, after) for each, after in zip(ring, (*ring[1:], ring[0]), strict=True))


def cheapest(servers: Iterable[Server], layers: int) -> Ring | None:
    """The cheapest ring over layers 0 … `layers`-1, or None where spans don't join so.

    Args:
        servers: each peer once. Among rings of equal cost, the order of servers decides.
        layers: how many the model has.

    """
    graph = _Graph(servers, layers)
    if not graph.heads:
        return None
    best = min(map(graph.shortest, graph.heads), key=lambda ring: ring.cost_s)
    return graph.search(best)


class _Graph:
    """Servers from which the last layer can be reached, and the least seconds that each needs to get there."""

    def __init__(self, servers: Iterable[Server], layers: int) -> None:
        self._layers = layers
        self._by_peer: dict[str, Server] = {}
        starting: dict[int, list[Server]] = defaultdict(list)
        for each in servers:
            if 0 <= each.start < each.end <= layers:
                self._by_peer[each.peer] = each
                starting[each.start].append(each)
        self._known = self._measured()
        self.togo_s: dict[Server, float] = {}
        """Seconds from a server's beginning to the last layer's end."""
        self._next: dict[Server, Server] = {}
        self._ready: dict[int, list[tuple[float, int, Server]]] = defaultdict(list)
        """By boundary: the servers that begin there, sorted by `togo_s + far_s`."""
        for start in sorted(starting, reverse=True):
            for each in starting[start]:
                self._reach(each)
            there = (each for each in starting[start] if each in self.togo_s)
            self._ready[start] = sorted(
                (self.togo_s[each] + each.far_s, number, each) for number, each in enumerate(there)
            )
        self.heads = [each for _, _, each in self._ready[0]]

    def _measured(self) -> dict[Server, dict[Server, float]]:
        """Server → those that may come after it in a ring and whose time from it was measured, with that time."""
        known: dict[Server, dict[Server, float]] = {each: {} for each in self._by_peer.values()}
        layers = self._layers
        beginning: dict[int, dict[str, Server]] = defaultdict(dict)
        ending: dict[int, dict[str, Server]] = defaultdict(dict)
        for each in known:
            beginning[each.start][each.peer] = each
            ending[each.end % layers][each.peer] = each
        for each, after in known.items():
            follows, precedes = beginning[each.end % layers], ending[each.start]
            for peer, round_trip_ms in each.near_ms:
                # as `hop_s` has it: what the one before measured counts first
                if peer in follows and (other := follows[peer]) is not each:
                    after[other] = round_trip_ms / 2e3 + HOP_S
                if peer in precedes and (other := precedes[peer]) is not each:
                    known[other].setdefault(each, round_trip_ms / 2e3 + HOP_S)
        return known

    def _reach(self, server: Server) -> None:
        if server.end == self._layers:
            self.togo_s[server] = server.cost_s
            return
        least_s, best = float("inf"), None
        known, togo_s = self._known[server], self.togo_s
        for each, seconds in known.items():
            if each.start == server.end and each in togo_s and seconds + togo_s[each] < least_s:
                least_s, best = seconds + togo_s[each], each
        for rest_s, _, each in self._ready[server.end]:
            if each not in known:
                if rest_s + server.far_s < least_s:
                    least_s, best = rest_s + server.far_s, each
                break
        if best is not None:
            self.togo_s[server] = server.cost_s + least_s
            self._next[server] = best

    def _after(self, server: Server) -> Iterator[tuple[float, Server]]:
        """The servers that can come next, with the seconds from here over each to the end, the best first."""
        known = self._known[server]
        measured = sorted(
            ((seconds + self.togo_s[each], each) for each, seconds in known.items() if each.start == server.end
             and each in self.togo_s),
            key=lambda pair: pair[0],
        )  # fmt: skip
        estimated = ((rest_s + server.far_s, each) for rest_s, _, each in self._ready[server.end] if each not in known)
        return heapq.merge(measured, estimated, key=lambda pair: pair[0])

    def shortest(self, head: Server) -> Ring:
        """The ring from this head that is cheapest as far as the tail."""
        path = [head]
        while path[-1] in self._next:
            path.append(self._next[path[-1]])
        return Ring(self.togo_s[head] + hop_s(path[-1], head), tuple(path))

    def _closing_s(self) -> dict[Server, float]:
        """Head → the least seconds that any tail needs to it; none for one that is its own tail."""
        tails = [each for each in self.togo_s if each.end == self._layers]
        far_s = min(tail.far_s for tail in tails)
        least = {head: 0.0 if head.end == self._layers else head.far_s + far_s for head in self.heads}
        for tail in tails:
            for head, seconds in self._known[tail].items():
                if head in least and seconds < least[head]:
                    least[head] = seconds
        return least

    def search(self, best: Ring) -> Ring:
        """The cheapest ring, where it costs less than this one."""
        closing_s = self._closing_s()
        order = count()
        # what it will cost at least, a tie-break, what it has cost, the path, and what else could follow it
        queue: list[tuple[float, int, float, tuple[Server, ...]]] = [
            (self.togo_s[head] + closing_s[head], next(order), head.cost_s, (head,)) for head in self.heads
        ]
        heapq.heapify(queue)
        others: dict[int, Iterator[tuple[float, Server]]] = {}
        seen: set[tuple[Server, Server]] = set()
        for _ in range(MAX_STEPS):
            if not queue or queue[0][0] >= best.cost_s:
                break
            _, number, spent_s, path = heapq.heappop(queue)
            head, last = path[0], path[-1]
            if number in others:  # a place in somebody's list: take the next of it
                self._push_next(queue, order, others, number, spent_s, path, closing_s[head])
                continue
            if (last, head) in seen:
                continue  # reached before, and for no more
            seen.add((last, head))
            if last.end == self._layers:
                if (whole_s := cost_s(path)) < best.cost_s:
                    best = Ring(whole_s, path)
                continue
            place = next(order)
            others[place] = self._after(last)
            self._push_next(queue, order, others, place, spent_s, path, closing_s[head])
        return best

    def _push_next(
        self,
        queue: list[tuple[float, int, float, tuple[Server, ...]]],
        order: "count[int]",
        others: dict[int, Iterator[tuple[float, Server]]],
        place: int,
        spent_s: float,
        path: tuple[Server, ...],
        closing_s: float,
    ) -> None:
        """Queue the best successor that a path has left, and the place in the list behind it."""
        found = next(others[place], None)
        if found is None:
            del others[place]
            return
        rest_s, after = found
        least_s = spent_s + rest_s + closing_s
        reached_s = spent_s + rest_s - self.togo_s[after] + after.cost_s
        heapq.heappush(queue, (least_s, next(order), reached_s, (*path, after)))
        heapq.heappush(queue, (least_s, place, spent_s, path))
