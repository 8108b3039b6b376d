"""`python -m bench index`: how fast a million events become an index, in how much memory, and whether it can be upset.

A process of its own serves the events as a node does (`bench.index_load`), over HTTP. Another reads them with the real
`Reader` and `Indexer` into SQLite: JSON parsed, logs decoded, folded, stored and committed, with the undo of the newest
1,024 blocks; its resident memory at the end and at its greatest come from /proc. `node_share` is what part of the time
went by in asking and waiting for answers. A third process opens the index and asks who holds what, from its start on.
Then the trials of `bench.index_trial`.
"""

import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from bench.harness import Figures
from bench.index_trial import run_trials
from p2pos.errors import InternalError

EVENTS = 1_000_000
QUICK_EVENTS = 100_000
TRIALS = 2000
QUICK_TRIALS = 300

READ = """
import json, sys, time
from pathlib import Path
from bench.index import memory_kb
from p2pos.ledger.index import Index
from p2pos.ledger.indexer import Indexer
from p2pos.ledger.reader import Reader
url, contract, path = sys.argv[1:]
chain = Reader.connect(url)
found = Reader(chain._rpc, chain.chain_id, contract)  # there is no code to check: no EVM runs here
index = Index(Path(path))
asked_s = 0.0
inner = chain._rpc.call
def call(*arguments, **more):
    global asked_s
    began_s = time.perf_counter()
    try:
        return inner(*arguments, **more)
    finally:
        asked_s += time.perf_counter() - began_s
chain._rpc.call = call
began_s, began_cpu_s = time.perf_counter(), time.process_time()
block = Indexer(index, found).sync()
took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
rss, peak = memory_kb("VmRSS"), memory_kb("VmHWM")
index.close()
found = {"block": block, "took_s": took_s, "cpu_s": cpu_s, "asked_s": asked_s}
print(json.dumps({**found, "rss_kb": rss, "peak_kb": peak}))
"""

QUERY = """
import json, sys
from pathlib import Path
from p2pos.ledger.index import Index
index = Index(Path(sys.argv[1]))
held = index.holdings(sys.argv[2])
lines = index.history(account=sys.argv[2], most=50)
print(json.dumps({"held": {f"{id_:064x}": amount for id_, amount in held.items()}, "lines": len(lines)}))
"""


def run(figures: Figures, *, quick: bool, device: str) -> int:
    """Set the figures of `index`; return how often the rate was measured. `device` plays no part."""
    del device
    repeats, events, trials = (1, QUICK_EVENTS, QUICK_TRIALS) if quick else (3, EVENTS, TRIALS)
    rates: list[float] = []
    cpu_rates: list[float] = []
    with tempfile.TemporaryDirectory() as name, _node(events) as node:
        directory = Path(name)
        for repeat in range(repeats):
            path = directory / f"{repeat}.sqlite"
            done = _child(READ, node["url"], node["contract"], str(path))
            if done["block"] != node["head"]:
                raise InternalError(f"the index stopped at block {done['block']} of {node['head']}")
            rates.append(round(node["events"] / done["took_s"], 1))
            cpu_rates.append(round(node["events"] / done["cpu_s"], 1))
            click.echo(f"index: {repeat + 1} of {repeats}: {rates[-1]} events/s, {done}", err=True)
            figures.exact(
                rss_mb_1m=round(done["rss_kb"] / 1000, 1),
                peak_mb_1m=round(done["peak_kb"] / 1000, 1),
                node_share=round(done["asked_s"] / done["took_s"], 2),
                bytes_per_event=round(path.stat().st_size / node["events"], 1),
                events=node["events"],
            )
        figures.median("events_per_s", rates)
        figures.median("events_per_cpu_s", cpu_rates)
        _first_query(figures, path, node)
        outcome = run_trials(trials, secrets.randbits(32), directory / "trials")
    figures.exact(
        trials=outcome.done["trials"],
        wrong=len(outcome.wrong),
        kills=outcome.done["kills"],
        reorganisations=outcome.done["reorganisations"],
        deepest=outcome.deepest,
        why_wrong=outcome.wrong[:10],
    )
    return repeats


def _first_query(figures: Figures, path: Path, node: dict[str, Any]) -> None:
    """From the start of a process until it knows what somebody holds and did, and whether that is true."""
    times = []
    for _ in range(5):
        began_s = time.perf_counter()
        answer = _child(QUERY, str(path), node["someone"])
        times.append(round((time.perf_counter() - began_s) * 1000, 1))
        if answer["held"] != node["holdings"]:
            raise InternalError("the index does not say what is true")
    figures.median("first_query_ms", times)


def memory_kb(field: str) -> int:
    """Memory of the process in units of 1,000 bytes: `VmRSS` now, `VmHWM` at its greatest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 // 1000
    raise InternalError(f"/proc has no {field}")


def _child(program: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InternalError(f"a process of the bench failed: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def _node(events: int) -> Iterator[dict[str, Any]]:
    """The process that serves the events; it ends when its standard input does."""
    command = [sys.executable, "-m", "bench.index_load", str(events), "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            line = process.stdout.readline() if process.stdout else b""
            if not line:
                raise InternalError("the process that serves the events did not start")
            yield json.loads(line)
        finally:
            if process.stdin:
                process.stdin.close()
            process.wait()
