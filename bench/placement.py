"""Placement over simulated swarms of 10 to 10,000 nodes and 80 layers: plans for all, and nodes that decide alone.

What a plan is compared with: for swarms that an integer programme can be solved for, the optimum itself (what the
solver has proved that none exceeds, where it ran out of time); for all others a ceiling that may be out of reach, so
that the share that is found is never more than the true one.
"""

import statistics
import time

from bench import harness, simulator
from bench.harness import Figures
from bench.optimum import slowest_layer
from p2pos.shard.placement import Placed, Swarm, better, choose
from p2pos.shard.planning import ceiling, plan

LAYERS = 80
COUNTS = (10, 30, 100, 300, 1000, 3000, 10_000)
SMALL_LAYERS, SMALL_COUNTS = 12, (4, 5, 6)
"""Swarms that are solved exactly: a second or ten each."""
SOLVE_S = 30.0
"""Seconds for one of these."""
DEPARTURES = 20
"""Of each swarm, one after another; after each, somebody else joins."""
ALONE = (10, 30, 100, 300)
"""Swarms whose nodes are asked one by one what they would do, each of them after each change."""


def run(figures: Figures, *, quick: bool, device: str) -> int:  # noqa: ARG001 - placing needs no device
    """Measure, and fill the figures. Returns how often."""
    repeats = 3 if quick else 10
    _plans(figures, repeats, COUNTS if not quick else COUNTS[::2])
    _optima(figures, 2 if quick else 6)
    _departures(figures, 1 if quick else 3, ALONE[:3] if quick else ALONE)
    _decisions(figures, repeats)
    return repeats


def _plans(figures: Figures, repeats: int, counts: tuple[int, ...]) -> None:
    """How long a plan for everyone takes, and how near it is to the ceiling."""
    times_ms, worst = [], {}
    for count in counts:
        shares = []
        for seed in range(repeats):
            nodes = simulator.nodes(count, layers=LAYERS, seed=seed)
            began_s = time.perf_counter()
            spans = plan(LAYERS, nodes)
            took_ms = (time.perf_counter() - began_s) * 1e3
            swarm = Swarm(LAYERS, [Placed(node.rate, *span) for node, span in zip(nodes, spans, strict=True)])
            shares.append(swarm.slowest / ceiling(LAYERS, nodes) if not swarm.missing else 0.0)
            if count == max(COUNTS):
                times_ms.append(took_ms)
        worst[count] = min(shares)
        harness.progress(f"{count} nodes: {worst[count]:.3f} of the ceiling at least")
    figures.median("plan_ms_10000", times_ms)
    figures.exact(worst_share_of_ceiling={str(count): round(share, 4) for count, share in worst.items()})


def _optima(figures: Figures, swarms: int) -> None:
    """How near plans for small swarms are to the optimum."""
    shares, proved = [], 0
    for count in SMALL_COUNTS:
        for seed in range(swarms):
            nodes = simulator.nodes(count, layers=SMALL_LAYERS, seed=seed)
            optimum = slowest_layer(SMALL_LAYERS, nodes, limit_s=SOLVE_S)
            spans = plan(SMALL_LAYERS, nodes)
            swarm = Swarm(SMALL_LAYERS, [Placed(node.rate, *span) for node, span in zip(nodes, spans, strict=True)])
            shares.append(swarm.slowest / optimum.bound)
            proved += optimum.bound <= optimum.reached * 1.001
        harness.progress(f"{count} nodes, {SMALL_LAYERS} layers: {min(shares):.3f} of the optimum at least so far")
    ceilings = list(figures.values["worst_share_of_ceiling"].values())
    figures.exact(
        worst_share_of_optimum=min(*shares, *ceilings),
        worst_share_of_solved_optimum=min(shares),
        optima_solved=len(shares),
        optima_proved=proved,
    )


def _departures(figures: Figures, swarms: int, counts: tuple[int, ...]) -> None:
    """Nodes that join and decide for themselves: what one that leaves sets in motion."""
    moves: dict[int, list[float]] = {}
    shares: dict[int, list[float]] = {}
    uncovered = broken = 0
    for count in counts:
        for seed in range(swarms):
            spare = iter(simulator.nodes(2 * DEPARTURES, layers=LAYERS, seed=1000 + seed))
            simulation = simulator.Simulation(LAYERS, simulator.nodes(count, layers=LAYERS, seed=seed), seed=seed)
            simulation.settle(4 * count)
            for _ in range(DEPARTURES):
                simulation.depart()
                nodes = [member.node for member in simulation.members]
                broken += simulation.swarm.missing > 0
                moves.setdefault(count, []).append(simulation.settle(4 * count) / count)
                if sum(node.most for node in nodes) >= LAYERS:
                    uncovered += simulation.swarm.missing > 0
                    shares.setdefault(count, []).append(simulation.swarm.slowest / ceiling(LAYERS, nodes))
                simulation.join(next(spare))
        harness.progress(f"{count} nodes: {statistics.fmean(moves[count]):.4f} of them move when one leaves")
    by_count = {str(count): round(statistics.fmean(each), 5) for count, each in moves.items()}
    figures.exact(
        moves_per_departure_share=max(share for count, share in by_count.items() if int(count) >= 50),
        moves_per_departure_by_nodes=by_count,
        departures_that_left_layers_uncovered=broken,
        uncovered_after_moves=uncovered,
        slowest_share_without_a_plan={str(count): round(statistics.median(each), 3) for count, each in shares.items()},
    )


def _decisions(figures: Figures, repeats: int) -> None:
    """What a node of 10,000 takes to choose its span, and to see whether it should move."""
    nodes = simulator.nodes(max(COUNTS), layers=LAYERS, seed=0)
    placed = [Placed(node.rate, *span) for node, span in zip(nodes, plan(LAYERS, nodes), strict=True)]
    choices_ms, looks_ms = [], []
    for index in range(repeats):
        began_s = time.perf_counter()
        swarm = Swarm(LAYERS, placed[:index] + placed[index + 1 :])
        choose(swarm, nodes[index])
        choices_ms.append((time.perf_counter() - began_s) * 1e3)
        began_s = time.perf_counter()
        better(Swarm(LAYERS, placed[:index] + placed[index + 1 :]), placed[index], nodes[index].most)
        looks_ms.append((time.perf_counter() - began_s) * 1e3)
    figures.median("choose_ms_10000", choices_ms)
    figures.median("better_ms_10000", looks_ms)
