"""`python -m bench relay`: transfers per second by relayed batches and singly, against raw sends to the same chain.

All on one anvil, which mines when it is told to, and all timed alike: from the first transaction's making (the
owners' signatures are there already) until every one is in a block and its receipt read.

- `batch_per_s`: the relayer's own submitter, from its durable queue, in batches of 100;
- `single_per_s`: a transaction per intent, handed over in JSON arrays of 100;
- `raw_send_per_s`: as many plain `safeTransferFrom` of an owner who pays, handed over likewise;
- `accepted`, `on_chain`, `doubled`, `service_per_s`: a real relayer process, over HTTP, four clients, from the first
  request until the last intent is settled.

Gas is of warm storage: sender and receiver have dealt before and the owner's nonces follow one another, as those of
`p2pos asset sign` do (see `p2pos.ledger.nonces`); `gas_batch100_scattered` is with a word of storage for each.
"""

import itertools
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import click
from eth_account import Account

from bench.harness import Figures
from p2pos import log
from p2pos.config import Settings
from p2pos.devnet.tools import find_anvil
from p2pos.errors import InternalError, UnavailableError
from p2pos.ledger import calldata
from p2pos.ledger.chain import Chain, set_native_balance
from p2pos.ledger.client import RelayerClient
from p2pos.ledger.events import NonceSpent
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.nonces import random_nonce
from p2pos.ledger.queue import Queue
from p2pos.ledger.records import Receipt
from p2pos.ledger.rpc import Rpc
from p2pos.ledger.signer import KeySigner
from p2pos.ledger.submitter import Submitter
from p2pos.ledger.terms import Terms
from p2pos.ledger.typed_data import Lock, Transfer
from p2pos.ledger.wallet import Wallets
from scripts.build_contracts import CONTRACTS, MODULES, BuildError, find_node

COIN = 10**18
FAR = 1 << 40
"""A deadline that no run reaches, in seconds since the epoch."""
ARRAY = 100
"""Transactions in one JSON array."""
TRANSFER_GAS = 100_000
"""Gas limit of one transfer by itself; where all storage is new it takes 95,000."""
CLIENTS = 4
SETTLE_S = 120.0

PLAIN = """
// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;
import {ERC1155} from "@openzeppelin/contracts/token/ERC1155/ERC1155.sol";
contract Plain is ERC1155("") { constructor() { _mint(msg.sender, 1, 1000, ""); } }
"""


class Bench:
    """The chain and who deals on it."""

    def __init__(self, url: str) -> None:
        self.rpc = Rpc(url)
        self.operator, self.alice, self.bob = (KeySigner(Account.from_key(secrets.token_bytes(32))) for _ in range(3))
        for signer in (self.operator, self.alice, self.bob):
            set_native_balance(url, signer.address, 1000 * COIN)
        self.nonces = itertools.count(1 << 20)
        with self.mining():
            chain = Chain.connect(url)
            self.chain = chain.with_contract(chain.deploy(self.operator))
            self.item = self.chain.create_class(self.operator, bytes(32), Terms(0), bytes(32))
            self.chain.mint(self.operator, self.alice.address, self.item, 1 << 60)
            for intents in (self.transfers(1), self.transfers(1)):  # bob's balance and alice's nonces become warm
                self.chain.relay(self.operator, intents)

    def mine(self) -> None:
        """Make a block of what waits."""
        self.rpc.call("evm_mine")

    @contextmanager
    def mining(self) -> Iterator[None]:
        """Make a block whenever something waits, as the devnet's chain does."""
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(0.02):
                if int(self.rpc.call("txpool_status")["pending"], 16):
                    self.mine()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def transfers(self, count: int, *, scattered: bool = False) -> list[SignedIntent]:
        """Signed transfers of one item each, from alice to bob."""
        domain = self.chain.domain
        made = []
        for _ in range(count):
            nonce = random_nonce() if scattered else next(self.nonces)
            struct = Transfer(self.alice.address, self.bob.address, self.item, 1, nonce, FAR)
            signature = self.alice.sign_typed(domain, struct)
            made.append(SignedIntent.of(domain, struct, signature))
        return made

    def send_all(self, signer: KeySigner, calls: Sequence[bytes]) -> float:
        """One transaction per call, in arrays; returns the seconds until all receipts are read."""
        began_s = time.perf_counter()
        nonce, fees, hashes = self.chain.nonce(signer.address), self.chain.fees(), list[str]()
        for start in range(0, len(calls), ARRAY):
            signed = [
                signer.sign_transaction(
                    self.chain.transaction_fields(
                        data, to=self.chain.contract, nonce=nonce + start + offset, gas=TRANSFER_GAS, fees=fees
                    )
                )
                for offset, data in enumerate(calls[start : start + ARRAY])
            ]
            complaints = [one for one in self.chain.send_raw([one.raw for one in signed]) if one]
            if complaints:
                raise InternalError(f"the chain took not all: {complaints[0]}")
            self.mine()
            hashes += [one.hash for one in signed]
        receipts = self.chain.receipts(hashes)
        if not all(receipt and receipt.succeeded for receipt in receipts):
            raise InternalError("a transaction failed or is in no block")
        return time.perf_counter() - began_s

    def submit_all(self, directory: Path, intents: Sequence[SignedIntent]) -> float:
        """By the relayer's submitter, from a queue on disk; returns the seconds until all are settled."""
        queue = Queue(directory / f"{secrets.token_hex(4)}.sqlite")
        submitter = Submitter(self.chain, queue, self.operator)
        submitter.bind()
        for start in range(0, len(intents), ARRAY):
            queue.accept(intents[start : start + ARRAY], time.time())
        began_s = time.perf_counter()
        while submitter.tick():
            self.mine()
        took_s = time.perf_counter() - began_s
        if queue.counts()["settled"] != len(intents):
            raise InternalError(f"not all were settled: {queue.counts()}")
        queue.close()
        return took_s


def run(figures: Figures, *, quick: bool, device: str) -> int:
    """Set the figures of `relay`; return how often each rate was measured. `device` plays no part."""
    del device
    log.configure(level="error")
    repeats, count = (3, 400) if quick else (7, 1000)
    with tempfile.TemporaryDirectory() as directory, _anvil() as url:
        bench = Bench(url)
        _rates(bench, figures, Path(directory), repeats, count)
        _service(bench, figures, Path(directory), count)
        _gas(bench, figures)
    return repeats


def _rates(bench: Bench, figures: Figures, directory: Path, repeats: int, count: int) -> None:
    def batch() -> float:
        return bench.submit_all(directory, bench.transfers(count))

    def single() -> float:
        calls = [calldata.submit(intent) for intent in bench.transfers(count)]
        return bench.send_all(bench.operator, calls)

    def raw() -> float:
        call = calldata.safe_transfer_from(bench.alice.address, bench.bob.address, bench.item, 1, b"")
        return bench.send_all(bench.alice, [call] * count)

    kinds: dict[str, Callable[[], float]] = {"batch_per_s": batch, "single_per_s": single, "raw_send_per_s": raw}
    rates: dict[str, list[float]] = {name: [] for name in kinds}
    for repeat in range(repeats):
        for name, measure in kinds.items():
            rates[name].append(round(count / measure(), 1))
        click.echo(
            f"relay: {repeat + 1} of {repeats}: { {name: found[-1] for name, found in rates.items()} }", err=True
        )
    for name, found in rates.items():
        figures.median(name, found)


def _service(bench: Bench, figures: Figures, directory: Path, count: int) -> None:
    """A real relayer process: what it accepted, what is on chain, and what is there twice."""
    passphrase = secrets.token_hex(16)
    Wallets(directory / "wallets").create("operator", passphrase, light=True)
    file = directory / "passphrase"
    file.touch(mode=0o600)
    file.write_text(passphrase)
    sender = Wallets(directory / "wallets").address("operator")
    set_native_balance(bench.chain.url, sender, 1000 * COIN)
    intents = bench.transfers(count)
    first_block, before = bench.chain.block_number() + 1, bench.chain.balance(bench.bob.address, bench.item)
    options = ["--rpc-url", bench.chain.url, "--contract", bench.chain.contract, "--passphrase-file", str(file)]
    command = [sys.executable, "-m", "p2pos", "--log-level", "error", "relayer", "run", "--leash"]
    with (
        bench.mining(),
        subprocess.Popen(
            [*command, "--home", str(directory), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process,
    ):
        line = process.stdout.readline() if process.stdout else b""
        if not line:
            raise InternalError("the relayer did not start")
        url = json.loads(line)["url"]
        began_s = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = itertools.cycle([RelayerClient(url) for _ in range(CLIENTS)])
            accepted = len(list(pool.map(lambda pair: pair[0].submit(pair[1]), zip(clients, intents, strict=False))))
        client, pause = RelayerClient(url), threading.Event()
        while client.summary()["intents"]["settled"] < count and time.perf_counter() < began_s + SETTLE_S:
            pause.wait(0.05)
        took_s = time.perf_counter() - began_s
        process.communicate(timeout=30)
    events = bench.chain.logs(first_block, bench.chain.block_number())
    spent = [event.nonce for event in events if isinstance(event, NonceSpent)]
    moved = bench.chain.balance(bench.bob.address, bench.item) - before
    figures.exact(
        accepted=accepted,
        on_chain=len({intent.nonce for intent in intents} & set(spent)),
        doubled=moved - len(set(spent)),
        service_per_s=round(count / took_s, 1),
    )


def _gas(bench: Bench, figures: Figures) -> None:
    chain, operator = bench.chain, bench.operator
    with bench.mining():
        chain.relay(operator, bench.transfers(200))  # the next hundred nonces lie in words that were used before
        figures.exact(
            gas_batch100=chain.relay(operator, bench.transfers(100)).gas_used // 100,
            gas_batch100_scattered=chain.relay(operator, bench.transfers(100, scattered=True)).gas_used // 100,
            gas_single_warm=chain.submit(operator, bench.transfers(1)[0]).gas_used,
        )
        held, freed = zip(*(_lock_and_unlock(bench) for _ in range(2)), strict=True)
        figures.exact(gas_lock=held[-1].gas_used, gas_unlock=freed[-1].gas_used)
        try:
            figures.exact(gas_oz_direct=_plain_transfer(bench).gas_used)
        except BuildError as exc:
            figures.missing("gas_oz_direct", str(exc))


def _lock_and_unlock(bench: Bench) -> tuple[Receipt, Receipt]:
    until = bench.chain.head().timestamp + 1000
    struct = Lock(bench.alice.address, bench.bob.address, bench.item, 1, until, next(bench.nonces), FAR)
    locked = bench.chain.lock(bench.operator, struct, bench.alice.sign_typed(bench.chain.domain, struct))
    return locked, bench.chain.unlock(bench.bob, bench.alice.address, bench.bob.address, bench.item)


def _plain_transfer(bench: Bench) -> Receipt:
    """`safeTransferFrom` of OpenZeppelin's ERC-1155 and nothing else, the receiver having some already."""
    request = {
        "language": "Solidity",
        "sources": {"Plain.sol": {"content": PLAIN}},
        "settings": {
            "evmVersion": "prague",
            "optimizer": {"enabled": True, "runs": 10_000},
            "outputSelection": {"*": {"Plain": ["evm.bytecode.object"]}},
        },
    }
    done = subprocess.run(
        [find_node(), CONTRACTS / "solcw", "--standard-json", "--include-path", MODULES],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=CONTRACTS,
        check=False,
    )
    try:
        code = json.loads(done.stdout)["contracts"]["Plain.sol"]["Plain"]["evm"]["bytecode"]["object"]
    except (ValueError, KeyError) as exc:
        raise BuildError("the plain ERC-1155 for comparison does not compile") from exc
    where = bench.chain.transact(bench.alice, bytes.fromhex(code), to=None).contract
    call = calldata.safe_transfer_from(bench.alice.address, bench.bob.address, 1, 1, b"")
    bench.chain.transact(bench.alice, call, to=where)
    return bench.chain.transact(bench.alice, call, to=where)


@contextmanager
def _anvil() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--port", str(port), "--no-mining", "--silent", "--accounts", "0"]
    process = subprocess.Popen([find_anvil(Settings()), *arguments], stdin=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    rpc, pause = Rpc(url), threading.Event()
    try:
        for _ in range(500):  # it answers after 0.05 s; five seconds allow for a loaded machine
            try:
                rpc.call("eth_chainId")
                break
            except UnavailableError:
                pause.wait(0.01)
        yield url
    finally:
        rpc.close()
        process.kill()
        process.wait()
