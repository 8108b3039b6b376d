"""`python -m bench relay`: transfers per second by relayed batches and singly, against raw sends to the same chain.

All on one anvil, which makes a block every 0.1 s while something waits, and all timed alike: from the first
transaction's making until every one is in a block and its receipt read.

- `batch_per_s`: the relayer's own code from an intent that is parsed and no more: checked (digest, signer), journalled
  (one flush per hundred), batched by the hundred, signed, sent, mined, judged by its receipt, and that journalled too.
  The owners' signatures were made before. Over 60 s and more; `_min` and `_max` are the slowest and fastest fifth;
- `single_per_s`: the same, a transaction per intent;
- `raw_send_per_s`: plain sends of the chain's coin, each signed, handed over in arrays of 100, its receipt read;
  before the batches, between and after;
- `accepted`, `on_chain`, `doubled`, `service_per_s`: a real relayer process, over HTTP, clients that hand in a hundred
  per request, from the first request until the last intent is settled; `service_single_per_s` with one per request.

`…_cpu_us` is the processor time per intent: of this process (the relayer's part, the miner's and the clock's), and of
anvil.
"""

import bisect
import itertools
import json
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import psutil

from bench.harness import Figures
from bench.relay_gas import measure_gas
from bench.relay_ground import COIN, Anvil, Ground, Signed, running_anvil
from p2pos import log
from p2pos.errors import InternalError
from p2pos.ledger import relayer
from p2pos.ledger.admission import Admission
from p2pos.ledger.chain import set_native_balance
from p2pos.ledger.client import RelayerClient
from p2pos.ledger.events import NonceSpent
from p2pos.ledger.fees import Fees
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.queue import Queue, Status
from p2pos.ledger.submitter import MAX_BATCH, MAX_OPEN, Submitter
from p2pos.ledger.wallet import Wallets

PORTION = 100
"""Intents that are checked and journalled together, and raw sends in one array."""
TICK_S = 0.04
"""Between two looks at the chain: two or three to a block."""
FULL_S = 0.002
"""Before the queue is asked again whether there is room."""
SINGLES_OPEN = 1000
"""Transactions under way where each carries one intent: half a second's, from being signed to being judged."""
RAW_GAS = 21_000
SLICES = 5
CLIENTS = 4
SETTLE_S = 120.0


@dataclass
class Rate:
    """A sustained run."""

    per_s: float
    slowest: float
    fastest: float
    seconds: float
    count: int
    relayer_cpu_us: float
    chain_cpu_us: float


class Run:
    """One relayer in this process, from intents to settled intents: one thread admits, one submits."""

    def __init__(self, ground: Ground, anvil: Anvil, directory: Path, *, max_batch: int, max_open: int) -> None:
        self._ground = ground
        self._anvil = psutil.Process(anvil.pid)
        self._queue = Queue(directory / f"{secrets.token_hex(4)}.sqlite")
        self._submitter = Submitter(ground.chain, self._queue, ground.operator, max_batch=max_batch, max_open=max_open)
        self._submitter.bind()
        self._admission = Admission(ground.chain, self._queue, ground.operator.address, preflight=False)
        self._seconds: list[float] = []
        """When so many more were settled, since the beginning."""
        self._settled: list[int] = []

    def measure(self, signed: Sequence[Signed], seconds: float) -> Rate:
        """Carry intents for so long, or until there are no more; then until all are settled."""
        before, cpu_s, chain_s = self._ground.received(), time.process_time(), self._chain_s()
        began_s = time.perf_counter()
        with self._ground.mining(), ThreadPoolExecutor(1) as pool:
            admitted = pool.submit(self._admit, signed, began_s + seconds)
            pause = threading.Event()
            while self._submitter.tick() or not admitted.done():
                self._seconds.append(time.perf_counter() - began_s)
                self._settled.append(self._queue.counts()["settled"])
                pause.wait(TICK_S)
            count = admitted.result()
        took_s = time.perf_counter() - began_s
        cpu_s, chain_s = time.process_time() - cpu_s, self._chain_s() - chain_s
        self._seconds.append(took_s)
        self._settled.append(self._queue.counts()["settled"])
        self._queue.close()
        if not count == self._settled[-1] == self._ground.received() - before:
            raise InternalError(f"{count} were accepted, {self._settled[-1]} settled")
        slices = self._slices(took_s)
        us = 1e6 / count
        return Rate(count / took_s, min(slices), max(slices), took_s, count, cpu_s * us, chain_s * us)

    def _admit(self, signed: Sequence[Signed], until_s: float) -> int:
        pause, done = threading.Event(), 0
        while time.perf_counter() < until_s and done < len(signed):
            if self._queue.room() < PORTION:
                pause.wait(FULL_S)
                continue
            outcomes = self._admission.admit(self._ground.intents(signed[done : done + PORTION]), 0.0)
            if not all(isinstance(outcome, Status) for outcome in outcomes):
                raise InternalError(f"an intent was refused: {outcomes}")
            done += len(outcomes)
        return done

    def _chain_s(self) -> float:
        times = self._anvil.cpu_times()
        return float(times.user + times.system)

    def _slices(self, took_s: float) -> list[float]:
        """The rate in each fifth of the run."""
        counts = [self._settled_at(took_s * part / SLICES) for part in range(SLICES + 1)]
        return [(more - count) * SLICES / took_s for count, more in itertools.pairwise(counts)]

    def _settled_at(self, second: float) -> float:
        """How many were settled then, between two looks in proportion."""
        at = min(bisect.bisect_left(self._seconds, second), len(self._seconds) - 1)
        earlier_s, fewer = (self._seconds[at - 1], self._settled[at - 1]) if at else (0.0, 0)
        share = min(1.0, (second - earlier_s) / max(self._seconds[at] - earlier_s, 1e-9))
        return fewer + share * (self._settled[at] - fewer)


def run(figures: Figures, *, quick: bool, device: str) -> int:
    """Set the figures of `relay`; return how often the raw sends were measured. `device` plays no part."""
    del device
    log.configure(level="error")
    relayer.spare_collector()  # as `relayer run` does
    seconds = {"batch": 10.0, "single": 4.0, "raw": 2.0} if quick else {"batch": 60.0, "single": 20.0, "raw": 10.0}
    with tempfile.TemporaryDirectory() as directory, running_anvil() as anvil:
        ground, home = Ground(anvil.url), Path(directory)

        def rate(name: str, seconds: float, count: int, max_batch: int, max_open: int) -> Rate:
            made = ground.signed(count)
            found = Run(ground, anvil, home, max_batch=max_batch, max_open=max_open).measure(made, seconds)
            click.echo(f"relay: {name}: {found}", err=True)
            return found

        raws = [_raw(ground, seconds["raw"])]
        trial = rate("batches, a trial", 2.0, 20_000, MAX_BATCH, MAX_OPEN)
        # nearly twice as many as the trial's rate would carry, so that they don't run out
        enough = int(1.8 * trial.per_s * seconds["batch"])
        batch = rate("batches", seconds["batch"], enough, MAX_BATCH, MAX_OPEN)
        raws.append(_raw(ground, seconds["raw"]))
        single = rate("singly", seconds["single"], int(4000 * seconds["single"]), 1, SINGLES_OPEN)
        raws.append(_raw(ground, seconds["raw"]))
        for name, found in (("batch", batch), ("single", single)):
            figures.exact(
                **{
                    f"{name}_per_s": round(found.per_s, 1),
                    f"{name}_per_s_min": round(found.slowest, 1),
                    f"{name}_per_s_max": round(found.fastest, 1),
                    f"{name}_seconds": round(found.seconds, 1),
                    f"{name}_intents": found.count,
                    f"{name}_relayer_cpu_us": round(found.relayer_cpu_us, 1),
                    f"{name}_chain_cpu_us": round(found.chain_cpu_us, 1),
                }
            )
        figures.median("raw_send_per_s", [round(one, 1) for one in raws])
        _service(ground, figures, home, 3_000 if quick else 20_000)
        measure_gas(ground, figures)
    return len(raws)


def _raw(ground: Ground, seconds: float) -> float:
    """Plain sends of coin per second, signed and handed over by one thread while the chain makes its blocks."""
    chain, signer, target = ground.chain, ground.operator, ground.receivers[0].address
    began_s = time.perf_counter()
    nonce, fees, hashes = chain.nonce(signer.address), Fees.suggest(chain.head().base_fee, 1), list[str]()
    receipts = 0
    with ground.mining():
        while time.perf_counter() < began_s + seconds:
            signed = []
            for number in range(nonce + len(hashes), nonce + len(hashes) + PORTION):
                fields = chain.transaction_fields(b"", to=target, nonce=number, gas=RAW_GAS, fees=fees)
                signed.append(signer.sign_transaction(fields | {"value": 1}))
            complaints = [one for one in chain.send_raw([one.raw for one in signed]) if one]
            if complaints:
                raise InternalError(f"the chain took not all: {complaints[0]}")
            hashes += [one.hash for one in signed]
            receipts += _good(ground, hashes[receipts : receipts + PORTION])
        pause = threading.Event()
        while receipts < len(hashes):
            more = _good(ground, hashes[receipts : receipts + PORTION])
            receipts += more
            if not more:
                pause.wait(TICK_S)
    found = len(hashes) / (time.perf_counter() - began_s)
    click.echo(f"relay: raw sends: {found:.0f}/s", err=True)
    return found


def _good(ground: Ground, hashes: Sequence[str]) -> int:
    """How many there are, once they are all in blocks; else 0."""
    receipts = ground.chain.receipts(hashes)
    if not all(receipt is None or receipt.succeeded for receipt in receipts):
        raise InternalError("a transaction failed")
    return len(receipts) if all(receipts) else 0


def _service(ground: Ground, figures: Figures, home: Path, count: int) -> None:
    """A real relayer process: what it accepted, what is on chain, and what is there twice."""
    passphrase = secrets.token_hex(16)
    Wallets(home / "wallets").create("operator", passphrase, light=True)
    file = home / "passphrase"
    file.touch(mode=0o600)
    file.write_text(passphrase)
    set_native_balance(ground.url, Wallets(home / "wallets").address("operator"), 1000 * COIN)
    many, few = ground.intents(ground.signed(count)), ground.intents(ground.signed(count // 10))
    first_block, before = ground.chain.block_number() + 1, ground.received()
    options = ["--rpc-url", ground.url, "--contract", ground.chain.contract, "--passphrase-file", str(file)]
    command = [sys.executable, "-m", "p2pos", "--log-level", "error", "relayer", "run", "--leash"]
    accepted = 0
    with (
        ground.mining(),
        subprocess.Popen(
            [*command, "--home", str(home), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process,
    ):
        line = process.stdout.readline() if process.stdout else b""
        if not line:
            raise InternalError("the relayer did not start")
        url = json.loads(line)["url"]
        for name, intents, size in (("service_per_s", many, PORTION), ("service_single_per_s", few, 1)):
            target = accepted + len(intents)
            began_s = time.perf_counter()
            portions = [intents[start : start + size] for start in range(0, len(intents), size)]
            with ThreadPoolExecutor(CLIENTS) as pool:
                accepted += sum(pool.map(_hand_in, itertools.repeat(url), portions))
            client, pause = RelayerClient(url), threading.Event()
            while client.summary()["intents"]["settled"] < target and time.perf_counter() < began_s + SETTLE_S:
                pause.wait(TICK_S)
            figures.exact(**{name: round(len(intents) / (time.perf_counter() - began_s), 1)})
        process.communicate(timeout=30)
    spent: list[tuple[str, int]] = []
    last = ground.chain.block_number()
    for block in range(first_block, last + 1, 5):
        events = ground.chain.logs(block, min(block + 4, last))
        spent += [(event.owner, event.nonce) for event in events if isinstance(event, NonceSpent)]
    wanted = {intent.struct.signers[0] for intent in (*many, *few)}
    moved = ground.received() - before
    figures.exact(accepted=accepted, on_chain=len(wanted & set(spent)), doubled=moved - len(set(spent)))


_CLIENTS = threading.local()


def _hand_in(url: str, intents: Sequence[SignedIntent]) -> int:
    """Hand in by this thread's own connection; again while the queue is full. Returns how many were taken."""
    client: RelayerClient = getattr(_CLIENTS, "client", None) or RelayerClient(url)
    _CLIENTS.client = client
    taken, pause = 0, threading.Event()
    while intents:
        outcomes = client.submit_many(intents)
        taken += sum(isinstance(outcome, Status) for outcome in outcomes)
        intents = [one for one, outcome in zip(intents, outcomes, strict=True) if not isinstance(outcome, Status)]
        if intents:
            pause.wait(0.1)
    return taken
