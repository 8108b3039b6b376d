"""Routes over simulated swarms: how long choosing one takes, and how near it is to the exact shortest.

Servers lie in a square in which light takes a tenth of a second across; each has measured the way to some whose spans
join its own, and the asker to some of all. The exact shortest ring is found without the search that is measured: for
each head by itself, the cheapest way to every server in the order of their layers, over all pairs.
"""

import math
import random
import time

from bench import harness
from bench.harness import Figures
from p2pos.errors import InternalError
from p2pos.shard import ring
from p2pos.shard.ring import Server, hop_s
from p2pos.shard.routing import View, route, servers
from p2pos.wire.messages import Announcement

LAYERS = 80
SEGMENT = 8
"""Layers that the shortest spans have; longer ones have two or three times as many."""
ACROSS_MS = 100.0
"""The longest side's round trip."""
MEASURED = 16
"""Round trips that a server announces."""
SERVERS = 2000
EXACT_SERVERS = (50, 200, 600)
"""Swarms that are solved exactly as well; the last one takes seconds."""
TOKENS = 600
"""Room that a session wants."""


def run(figures: Figures, *, quick: bool, device: str) -> int:  # noqa: ARG001 - routing needs no device
    """Measure, and fill the figures. Returns how often."""
    repeats = 10 if quick else 40
    times_ms = []
    for seed in range(repeats):
        harness.progress(f"{SERVERS} servers, swarm {seed + 1} of {repeats}")
        announcements, view = swarm(SERVERS, seed)
        began_s = time.perf_counter()
        route(announcements, "model", view=view, tokens=TOKENS)
        times_ms.append((time.perf_counter() - began_s) * 1e3)
    figures.median("route_ms_2000", times_ms)
    worst = 1.0
    for count in EXACT_SERVERS[: 2 if quick else None]:
        for seed in range(5 if quick else 20):
            worst = max(worst, _share_of_shortest(count, seed))
        harness.progress(f"{count} servers: at most {worst:.4f} of the shortest so far")
    figures.exact(worst_share_of_shortest=worst, servers_solved_exactly=max(EXACT_SERVERS[: 2 if quick else None]))
    return repeats


def swarm(count: int, seed: int) -> tuple[list[Announcement], View]:
    """So many announcements, and what the asker measured."""
    chance = random.Random(seed)
    places = [(chance.random(), chance.random()) for _ in range(count)]
    spans = []
    for _ in range(count):
        segments = chance.choice((1, 1, 1, 2, 2, 3))
        start = chance.randrange(LAYERS // SEGMENT - segments + 1) * SEGMENT
        spans.append((start, start + segments * SEGMENT))
    starting: dict[int, list[int]] = {}
    for index, (start, _) in enumerate(spans):
        starting.setdefault(start, []).append(index)

    def apart_ms(one: tuple[float, float], other: tuple[float, float]) -> float:
        return 1.0 + ACROSS_MS * math.dist(one, other)

    made = []
    for index, (start, end) in enumerate(spans):
        following = starting.get(end % LAYERS, [])
        measured = chance.sample(following, min(MEASURED, len(following)))
        made.append(
            Announcement(
                peer=f"peer-{index:05}",
                addresses=["/ip4/192.0.2.1/tcp/1"],
                sequence=1,
                expires=2,
                model="model",
                model_name="model",
                layers=LAYERS,
                start=start,
                end=end,
                dtype="bf16",
                tokens_per_s=0.0,
                sessions=chance.randrange(6),
                cached_tokens=0,
                resident_bytes=0,
                weight_bytes=1,
                layer_tokens_per_s=chance.lognormvariate(6.5, 0.8),
                free_tokens=chance.choice((100, 5000, 50_000)),
                waiting=chance.choice((0, 0, 0, 1)),
                round_trips=[(f"peer-{other:05}", apart_ms(places[index], places[other])) for other in measured],
            )
        )
    asker = (chance.random(), chance.random())
    known = chance.sample(range(count), count // 4)
    return made, View({f"peer-{index:05}": apart_ms(asker, places[index]) for index in known})


def _share_of_shortest(count: int, seed: int) -> float:
    """How much longer the route that is chosen takes than the exact shortest; 1 where it is that."""
    announcements, view = swarm(count, seed)
    known = servers(announcements, view, TOKENS)
    by_peer = {each.peer: each for each in known}
    chosen = [by_peer[stage.peer] for stage in route(announcements, "model", view=view, tokens=TOKENS)]
    return ring.cost_s(chosen) / shortest_s(known)


def shortest_s(known: list[Server]) -> float:
    """Seconds once round the cheapest ring, by looking at every pair of servers for every head."""
    by_start: dict[int, list[Server]] = {}
    for each in known:
        by_start.setdefault(each.start, []).append(each)
    after = {each: [(other, hop_s(each, other)) for other in by_start.get(each.end, [])] for each in known}
    least = float("inf")
    for head in by_start.get(0, []):
        reached = {head: head.cost_s}
        for each in sorted(known, key=lambda server: server.start):
            if each not in reached:
                continue
            if each.end == LAYERS:
                least = min(least, reached[each] + hop_s(each, head))
                continue
            for other, seconds in after[each]:
                through = reached[each] + seconds + other.cost_s
                if through < reached.get(other, float("inf")):
                    reached[other] = through
    if least == float("inf"):
        raise InternalError("no ring covers the model")
    return least
