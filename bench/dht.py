"""`python -m bench dht`: how a look-up grows with the network, and whether it survives a fifth of it dying at once.

Real: 10, 30 and 60 libp2p hosts, each with an identity and a listening socket of its own, several to a process and
without torch, since what is measured is the DHT. They join through the first, look themselves up, and put records of as
many models as there are nodes. Then one of five processes is killed, and with it a fifth of the hosts; those that are
left look up records whose server lives, before anything is refreshed. Their clocks stand still, so that no record
expires while the machine is busy. Simulated: to 10,000 nodes, with the same `RoutingTable` and `Lookup`, whose tables
hold what a node has that looked itself up and refreshed each distance: k at random of each.

`hops` is how many questions one after another it took to reach the nearest peer, in the mean.
"""

import json
import math
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from bench.harness import Figures, progress
from p2pos.errors import InternalError
from p2pos.node.kademlia import BITS, Contact, K, Lookup, RoutingTable, position
from p2pos.types import PeerId

REAL = (10, 30, 60)
SIMULATED = (100, 1_000, 10_000)
KILLED = 5
"""Every fifth."""
REPLICAS = 8
"""As `dht.REPLICAS`, which can't be imported without libp2p here."""


def run(figures: Figures, *, quick: bool, device: str) -> int:
    """Set `hops` (nodes → mean) and `success_after_20pct_killed`; return how many look-ups were made."""
    del device
    real = {count: _real(count, look_ups=40 if quick else 200) for count in (REAL[:2] if quick else REAL)}
    simulated = {count: _simulated(count, look_ups=200 if quick else 1000) for count in SIMULATED}
    everything = [*real.values(), *simulated.values()]
    figures.exact(
        hops={str(count): round(each["hops"], 3) for count, each in {**real, **simulated}.items()},
        success_after_20pct_killed=min(each["success"] for each in everything),
        success_real={str(count): round(each["success"], 4) for count, each in real.items()},
        success_simulated={str(count): round(each["success"], 4) for count, each in simulated.items()},
        questions={str(count): round(each["questions"], 1) for count, each in {**real, **simulated}.items()},
        hops_per_doubling=_slope({count: each["hops"] for count, each in simulated.items()}),
    )
    return int(sum(each["look_ups"] for each in everything))


def _slope(hops: dict[int, float]) -> float:
    """Hops that each doubling of the network adds, by least squares over log₂ of its size."""
    sizes = [math.log2(count) for count in hops]
    return round(statistics.linear_regression(sizes, list(hops.values())).slope, 3)


def _simulated(count: int, *, look_ups: int) -> dict[str, float]:
    dice = random.Random(count)
    nodes = [Contact(PeerId(str(number)), position(number.to_bytes(8, "big")), ()) for number in range(count)]
    by_position = sorted(nodes, key=lambda each: each.position)
    tables = {each.peer: _filled(each, by_position, dice) for each in nodes}
    whole = [_walk(nodes, tables, frozenset(), dice) for _ in range(look_ups)]
    dead = frozenset(each.peer for each in dice.sample(nodes, count // KILLED))
    found = [_walk(nodes, tables, dead, dice) for _ in range(look_ups)]
    figures = {
        "hops": statistics.mean(hops for hops, _, _ in whole),
        "questions": statistics.mean(questions for _, questions, _ in whole),
        "success": statistics.mean(ok for _, _, ok in found),
        "look_ups": len(whole) + len(found),
    }
    progress(f"simulated {count}: {figures}")
    return figures


def _filled(of: Contact, by_position: list[Contact], dice: random.Random) -> RoutingTable:
    """A table with k random contacts of each distance, or all where there are fewer."""
    table = RoutingTable(of.position)
    low, high = 0, len(by_position)
    for bit in range(BITS - 1, -1, -1):
        # whoever shares the first bits is in by_position[low:high]; the half that this node isn't in is a bucket
        middle = _split(by_position, low, high, bit)
        mine_is_upper = bool(of.position >> bit & 1)
        bucket = range(low, middle) if mine_is_upper else range(middle, high)
        for index in dice.sample(bucket, min(K, len(bucket))):
            table.heard(by_position[index])
        low, high = (middle, high) if mine_is_upper else (low, middle)
        if high - low <= 1:
            break
    return table


def _split(by_position: list[Contact], low: int, high: int, bit: int) -> int:
    """The index of the first in [low, high) whose position has this bit."""
    while low < high:
        middle = (low + high) // 2
        if by_position[middle].position >> bit & 1:
            high = middle
        else:
            low = middle + 1
    return low


def _walk(
    nodes: list[Contact], tables: dict[PeerId, RoutingTable], dead: frozenset[PeerId], dice: random.Random
) -> tuple[int, int, bool]:
    """One look-up, by a living node, of a record kept before anyone died: hops, questions, whether it is found."""
    target = dice.getrandbits(BITS)
    holders = sorted(nodes, key=lambda each: each.position ^ target)[:REPLICAS]
    asker = dice.choice([each for each in dice.sample(nodes, min(len(nodes), 50)) if each.peer not in dead])
    lookup = Lookup(target, tables[asker.peer].closest(target), own=asker.position)
    while not lookup.done:
        for each in lookup.ask():
            if each.peer in dead:
                lookup.failed(each.peer)
            else:
                lookup.answered(each.peer, tables[each.peer].closest(target))
    asked = {each.peer for each in lookup.closest()} | {asker.peer}
    found = any(each.peer in asked for each in holders if each.peer not in dead)
    return lookup.hops, lookup.questions, found


def _real(count: int, *, look_ups: int) -> dict[str, float]:
    with ExitStack() as stack:
        workers = [stack.enter_context(_worker(index, count)) for index in range(KILLED)]
        hosts = _tell(workers, "addresses")
        _tell(workers, "join", hosts[:1])
        _tell(workers, "publish")
        whole = _tell(workers, "look up", look_ups // KILLED, count, [])
        dead = [number for number in range(count) if number % KILLED == KILLED - 1]
        workers[-1].kill()
        workers[-1].wait(30)
        living = workers[:-1]
        found = _tell(living, "look up", look_ups // len(living), count, dead)
    figures = {
        "hops": statistics.mean(each["hops"] for each in whole),
        "questions": statistics.mean(each["questions"] for each in whole),
        "success": statistics.mean(each["found"] for each in found),
        "success_before": statistics.mean(each["found"] for each in whole),
        "look_ups": len(whole) + len(found),
    }
    progress(f"real {count}: {figures}")
    return figures


def _tell(workers: "list[subprocess.Popen[str]]", *command: Any) -> list[Any]:
    """Have workers do something, all at once, and return what each answered, one after the other."""
    for worker in workers:
        if worker.stdin is not None:
            worker.stdin.write(json.dumps(command) + "\n")
            worker.stdin.flush()
    answers: list[Any] = []
    for worker in workers:
        line = worker.stdout.readline() if worker.stdout is not None else ""
        if not line:
            raise InternalError(f"a worker ended {worker.wait(30)}")
        answers += json.loads(line)
    return answers


@contextmanager
def _worker(index: int, count: int) -> Iterator["subprocess.Popen[str]"]:
    """A process with every fifth host; killed at the end."""
    command = [sys.executable, "-m", "bench.dht_worker", str(index), str(KILLED), str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
