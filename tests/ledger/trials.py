"""Trials of the relayer: real queue, real submitter, real chain, and at random calls something goes wrong.

A trial is one seed. It hands in some intents and lets the relayer live, again and again, until all its faults have
happened and everything is settled; then the chain itself is asked what took place. Whatever a life knows in memory is
gone at its end: only the queue's file goes on to the next.
"""

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from p2pos.config import Settings
from p2pos.devnet.anvil import Anvil as DevAnvil
from p2pos.devnet.anvil import _write_whole
from p2pos.devnet.tools import find_anvil
from p2pos.errors import ChainError, UnavailableError
from p2pos.ledger.chain import Chain, set_native_balance
from p2pos.ledger.events import NonceSpent
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.queue import Queue, Status
from p2pos.ledger.rpc import Rpc
from p2pos.ledger.rpc_http import Bounds, Http
from p2pos.ledger.submitter import Submitter
from p2pos.ledger.terms import Terms
from p2pos.ledger.typed_data import BatchTransfer, Item, Lock, Signable, Spend, Swap, Transfer
from p2pos.types import Address
from tests.ledger.chains import COIN, FAR, OPERATOR, Anvil, person
from tests.ledger.faulty import Faulty, free_port

CHAIN_ID = 31337
PATIENCE = Bounds(connect_s=2.0, silence_s=0.25, total_s=0.5)
"""A relayer that waits no longer than this, so that a hung request costs a trial a quarter of a second."""
MAX_STEPS = 400
"""Looks at the chain before a trial is said to have got stuck. They end after 40 at most, when all goes well."""
MAX_IDLE = 30
"""Looks with nothing to do, while faults are left, before they are given up."""
OWNERS = [person(f"owner {number}") for number in range(6)]
SENDERS = [person(f"sender {number}") for number in range(3)]
WEALTH = 10**9
SAVED = 40
"""Blocks between two savings of the chain, which a crash goes back to."""

NET = ("error", "500", "nonsense", "cut", "lose", "half", "hang", "late", "twice")
CHAIN = ("reorg", "reorg after", "drop", "restart", "crash")
KILL = ("kill before", "kill after", "kill statement", "kill child")
LIE = ("too high", "other hash", "goes back")
"""Of one among three end points, about the head."""
KINDS = NET + CHAIN + KILL


class KilledError(BaseException):
    """The process is gone, in the midst of what it did."""


class Host:
    """A chain that can be stopped and started again from its state."""

    def __init__(self, directory: Path) -> None:
        self._binary = find_anvil(Settings())
        self._state = directory / "chain.json"
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.rpc = Rpc(self.url)
        self.anvil = Anvil(self.url, self.rpc)
        self._saved = 0
        self._start()

    def _start(self) -> None:
        self._process = DevAnvil.start(self._binary, self._state, self._port, CHAIN_ID).process
        pause = threading.Event()
        while self._process.poll() is None:
            try:
                self.rpc.call("eth_chainId")
            except UnavailableError:
                pause.wait(0.01)
            else:
                return
        raise RuntimeError(f"anvil ended with {self._process.returncode}")

    def save(self) -> None:
        _write_whole(self._state, self.rpc.call("anvil_dumpState"))
        self._saved = int(self.rpc.call("eth_blockNumber"), 16)

    def save_sometimes(self) -> None:
        if int(self.rpc.call("eth_blockNumber"), 16) - self._saved > SAVED:
            self.save()

    def restart(self, *, saved: bool) -> None:
        """Stop and start it, its pool lost; where it wasn't saved, the blocks since the last time too."""
        if saved:
            self.save()
        self.stop()
        self._start()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self.rpc.close()


@dataclass
class Fault:
    kind: str
    gap: int
    """Calls, or for `kill statement` SQL statements, that pass before it."""


class Wire:
    """Stands where an end point's HTTP client stands, and does to its requests what the trial says."""

    def __init__(self, name: str, host: Host, proxy: Faulty) -> None:
        self.name = name
        self._host = host
        self._proxy = proxy
        self._direct = Http(host.url, Bounds())
        self._faulty = Http(proxy.url, PATIENCE)
        self.rng = random.Random(0)
        self.faults: list[Fault] = []
        self.hits: list[str] = []
        self.in_child = False
        self.killed = False

    def post(self, body: bytes, *, within_s: float | None = None) -> bytes:
        if self.rng.random() < 0.1:
            self._host.anvil.mine()  # a block comes between two calls
        fault = self._next()
        if fault in NET or fault in LIE:
            self._proxy.let(fault if fault in NET else "pass")
            self._proxy.edit = _liar(fault)
            return self._faulty.post(body, within_s=within_s)
        if fault == "kill before":
            self._die()
        if fault in CHAIN and fault != "reorg after":
            self._shake(fault)
        answer = self._direct.post(body, within_s=within_s)
        if fault == "kill after":
            self._die()
        if fault == "reorg after":
            self._shake(fault)
        return answer

    def close(self) -> None:
        self._direct.close()
        self._faulty.close()

    def renew(self) -> None:
        """In a child of this process: connections of its own."""
        self._direct = Http(self._host.url, Bounds())
        self._faulty = Http(self._proxy.url, PATIENCE)
        self._host.rpc._http = Http(self._host.url, Bounds())

    def _next(self) -> str:
        if not self.faults or self.faults[0].kind in {"kill statement", "kill child"}:
            return ""
        self.faults[0].gap -= 1
        if self.faults[0].gap > 0:
            return ""
        self.hits.append(self.faults.pop(0).kind)
        return self.hits[-1]

    def _die(self) -> None:
        if self.in_child:
            os._exit(9)
        self.killed = True
        raise KilledError

    def _shake(self, kind: str) -> None:
        if kind.startswith("reorg"):
            self._host.anvil.reorg(self.rng.randint(1, 6))
        elif kind == "drop":
            self._host.rpc.call("anvil_dropAllTransactions")
        else:
            self._host.restart(saved=kind == "restart")


def _liar(kind: str) -> Callable[[str, list[Any], Any], Any]:
    def edit(method: str, params: list[Any], result: Any) -> Any:
        if method != "eth_getBlockByNumber" or params[0] != "latest":
            return result
        number = int(result["number"], 16)
        if kind == "too high":
            return {**result, "number": hex(number + 10_000)}
        if kind == "goes back":
            return {**result, "number": hex(max(0, number - 20)), "hash": "0x" + "55" * 32}
        return {**result, "hash": "0x" + "66" * 32} if kind == "other hash" else result

    return edit


class Scene:
    """What all trials share: the chain, the contract, owners who have plenty, senders who can pay."""

    def __init__(self, host: Host, proxy: Faulty, directory: Path) -> None:
        self.host = host
        self.directory = directory
        for signer in (OPERATOR, *SENDERS):
            set_native_balance(host.url, signer.address, 10**6 * COIN)
        plain = Chain.connect(host.url, chain_id=CHAIN_ID)
        with host.anvil.mining():
            self.plain = plain.with_contract(plain.deploy(OPERATOR))
            self.lantern = self.plain.create_class(OPERATOR, bytes(32), Terms(0), bytes(32))
            for owner in OWNERS:
                self.plain.mint(OPERATOR, owner.address, self.lantern, WEALTH)
        host.anvil.mine(20)
        host.save()
        self.one = Chain.connect(host.url, chain_id=CHAIN_ID, contract=self.plain.contract)
        self.wire = Wire("alone", host, proxy)
        self.one._rpc._http = self.wire
        names = [host.url.replace("//", f"//{number}@") for number in range(3)]
        self.three = Chain.connect(names, chain_id=CHAIN_ID, contract=self.plain.contract)
        self.wires = [Wire(name, host, proxy) for name in names]
        for lane, wire in zip(self.three._rpc._lanes, self.wires, strict=True):
            lane.rpc._http = wire


@contextmanager
def running_scene(directory: Path) -> Iterator[Scene]:
    host = Host(directory)
    proxy = Faulty(host.url)
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        scene = Scene(host, proxy, directory)
        yield scene
        scene.three._rpc.close()
        scene.wire.close()
    finally:
        proxy.close()
        thread.join()
        host.stop()


@dataclass
class Trial:
    """One seed's life of a relayer."""

    scene: Scene
    seed: int
    accepted: set[str] = field(default_factory=set)
    """Ids of which `accept` has returned."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.path = self.scene.directory / f"queue-{self.seed}.sqlite"
        self.senders = self.rng.sample(SENDERS, self.rng.randint(1, len(SENDERS)))
        self.options = {
            "confirmations": self.rng.choice((1, 1, 2, 4)),
            "max_batch": self.rng.randint(1, 4),
        }
        self.first = self.scene.plain.block_number()
        self.gifts: dict[Address, dict[str, int]] = {}
        """Per receiver, who has nothing else: what each intent would give it."""
        self.intents = [self._intent() for _ in range(self.rng.randint(2, 9))]
        self.todo = list(self.intents)
        several = self.rng.random() < 0.2
        self.chain = self.scene.three if several else self.scene.one
        self.wire = self.rng.choice(self.scene.wires) if several else self.scene.wire
        # the chain is not restarted, and the process not forked, while threads wait for it
        choice = (*NET, *CHAIN[:3], *KILL[:2], *LIE) if several else KINDS
        kinds = [self.rng.choice(choice) for _ in range(self.rng.randint(1, 3))]
        for wire in (self.scene.wire, *self.scene.wires):
            wire.rng = random.Random(self.seed + 1)
            wire.faults, wire.hits, wire.killed = [], [], False
        self.wire.faults = [Fault(kind, self.rng.randint(1, 12)) for kind in kinds]

    def run(self) -> list[str]:
        """Live, then compare with the chain. Returns the kinds of the faults that happened."""
        steps = count()
        while self._live(steps):
            pass
        self._compare()
        self.path.unlink()
        return self.wire.hits

    # ---- living

    def _live(self, steps: Iterator[int]) -> bool:
        """One life of the process. Returns whether another must follow."""
        faults = self.wire.faults
        if faults and faults[0].kind in {"kill statement", "kill child"}:
            self._live_in_child(steps)
            return True
        queue = Queue(self.path)
        submitter: Submitter | None = None
        quiet_since, idle = -1, 0
        try:
            while True:
                busy = True
                try:
                    if faults and faults[0].kind in {"kill statement", "kill child"}:
                        return True  # killed while it sleeps; the next dies at work
                    submitter = submitter or self._submitter(queue)
                    self._hand_in(queue)
                    busy = submitter.tick()
                except (UnavailableError, ChainError):
                    pass
                except KilledError:
                    pass
                if self.wire.killed:
                    self.wire.killed = False
                    return True
                idle = 0 if busy or self.todo else idle + 1
                if idle > MAX_IDLE:
                    faults.clear()  # one of three end points that is put aside is asked too seldom to come to them
                over = not (busy or faults or self.todo) and self._is_pool_empty()
                if over and quiet_since == len(self.wire.hits):
                    return False  # it has looked once more since the last fault
                quiet_since = len(self.wire.hits) if over else -1
                self._go_on(steps, queue)
        finally:
            queue.close()

    def _live_in_child(self, steps: Iterator[int]) -> None:
        """A life in a process of its own, that ends for good at some statement or call."""
        wire = self.wire
        fault = wire.faults[0]
        fault.gap = self.rng.randint(1, 60 if fault.kind == "kill statement" else 25)
        batch = self.rng.randint(0, len(self.todo))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            try:
                self._be_child(fault, writer, batch)
            finally:
                os._exit(8)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            told = pipe.read()
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code not in {0, -signal.SIGKILL, 9}:
            raise AssertionError(f"seed {self.seed}: the child ended with {code}")
        if b"a" in told:
            self._note(self.todo[:batch])
        if code == 9:
            wire.hits.append(fault.kind)
        wire.faults.pop(0)
        self._go_on(steps, None)

    def _be_child(self, fault: Fault, writer: int, batch: int) -> None:
        wire = self.wire
        wire.renew()
        wire.in_child = True
        wire.faults = [] if fault.kind == "kill statement" else [Fault(self.rng.choice(KILL[:2]), fault.gap)]
        queue = Queue(self.path)
        if fault.kind == "kill statement":
            _die_at_statement(queue, fault.gap)
        try:
            submitter = self._submitter(queue)
            if batch:
                queue.accept(self.todo[:batch], 0.0)
                os.write(writer, b"a")
            for _ in range(12):
                submitter.tick()
                self.scene.host.anvil.mine()
        except (UnavailableError, ChainError):
            os._exit(0)
        os._exit(0)

    def _submitter(self, queue: Queue) -> Submitter:
        submitter = Submitter(self.chain, queue, *self.senders, **self.options)
        submitter.bind()
        return submitter

    def _hand_in(self, queue: Queue) -> None:
        """Some of what is left arrives; now and then something a second time."""
        if self.todo and self.rng.random() < 0.6:
            some = self.todo[: self.rng.randint(1, len(self.todo))]
            queue.accept(some, 0.0)
            self._note(some)
        if self.accepted and self.rng.random() < 0.1:
            again = self.rng.choice(self.intents)
            if again.id in self.accepted and queue.status(again.id).state != "failed":
                queue.accept([again], 0.0)

    def _note(self, intents: list[SignedIntent]) -> None:
        self.accepted |= {intent.id for intent in intents}
        self.todo = [intent for intent in self.todo if intent.id not in self.accepted]

    def _go_on(self, steps: Iterator[int], queue: Queue | None) -> None:
        if next(steps) > MAX_STEPS:
            counts = queue.counts() if queue else ""
            raise AssertionError(f"seed {self.seed}: stuck after {self.wire.hits}: {counts}")
        if self.rng.random() < 0.7:
            self.scene.host.anvil.mine()

    def _is_pool_empty(self) -> bool:
        return int(self.scene.host.rpc.call("txpool_status")["pending"], 16) == 0

    # ---- what is handed in

    def _intent(self) -> SignedIntent:
        owner, other = self.rng.sample(OWNERS, 2)
        receiver = Address(person(f"receiver {self.seed} {self.rng.randint(0, 2)}").address)
        nonce, deadline = self.rng.getrandbits(64), FAR
        amount = self.rng.randint(1, 5)
        lantern = self.scene.lantern
        kind = self.rng.random()
        if self.rng.random() < 0.1:
            deadline = self.scene.plain.head().timestamp + self.rng.randint(0, 12)
        struct: Signable
        if kind < 0.55:
            struct = Transfer(owner.address, receiver, lantern, amount, nonce, deadline)
        elif kind < 0.65:
            struct = Transfer(owner.address, receiver, lantern, WEALTH * 100, nonce, deadline)
        elif kind < 0.75:
            struct = BatchTransfer(owner.address, receiver, (lantern, lantern), (amount, amount), nonce, deadline)
            amount *= 2
        elif kind < 0.85:
            until = self.scene.plain.head().timestamp + 10_000
            struct = Lock(owner.address, receiver, lantern, amount, until, nonce, deadline)
        elif kind < 0.92:
            struct = Spend(owner.address, receiver, lantern, amount, FAR, nonce, deadline)
        else:
            items = (Item(lantern, amount),), (Item(lantern, 1),)
            struct = Swap(owner.address, other.address, *items, nonce, self.rng.getrandbits(64), deadline)
        domain = self.scene.plain.domain
        signers = [owner, other] if isinstance(struct, Swap) else [owner]
        intent = SignedIntent.of(domain, struct, *(signer.sign_typed(domain, struct) for signer in signers))
        if isinstance(struct, Transfer | BatchTransfer):
            self.gifts.setdefault(receiver, {})[intent.id] = amount
        return intent

    # ---- what came of it

    def _compare(self) -> None:
        """Every accepted intent is settled and on chain once, or failed with a reason and not on chain."""
        plain = self.scene.plain
        spent: dict[tuple[Address, int], list[str]] = {}
        head = plain.block_number()
        nonces = [one for one in plain.logs(max(0, self.first - 300), head) if isinstance(one, NonceSpent)]
        blocks = sorted({one.place.block for one in nonces})
        hashes = dict(zip(blocks, plain.block_hashes(blocks), strict=True))
        for event in nonces:
            if (
                event.place.block_hash == hashes[event.place.block]
            ):  # anvil has been seen to tell of blocks it took back
                spent.setdefault((event.owner, event.nonce), []).append(event.place.transaction)
        queue = Queue(self.path)
        try:
            statuses = {intent.id: queue.status(intent.id) for intent in self.intents}
        finally:
            queue.close()
        for intent in self.intents:
            found = [spent.get(pair, []) for pair in intent.struct.signers]
            self._require(intent, statuses[intent.id], found)
        settled = {id_ for id_, status in statuses.items() if status and status.state == "settled"}
        for receiver, gifts in self.gifts.items():
            wanted = sum(amount for id_, amount in gifts.items() if id_ in settled)
            balance = plain.balance(receiver, self.scene.lantern)
            assert balance == wanted, f"{self._where()}: {receiver} has {balance}, not {wanted}"

    def _require(self, intent: SignedIntent, status: Status | None, found: list[list[str]]) -> None:
        assert intent.id in self.accepted, f"{self._where()}: {intent.id} was never accepted"
        assert status is not None, f"{self._where()}: {intent.id} is lost"
        if status.state == "settled":
            assert found == [[status.transaction]] * len(found), f"{self._where()}: {status} but on chain: {found}"
        else:
            assert status.state == "failed", f"{self._where()}: {status}"
            assert status.reason, f"{self._where()}: {status} gives no reason"
            assert found == [[]] * len(found), f"{self._where()}: {status} but on chain: {found}"

    def _where(self) -> str:
        return f"seed {self.seed}, faults {self.wire.hits}"


def _die_at_statement(queue: Queue, number: int) -> None:
    left = iter(range(number))

    def statement(_sql: str) -> None:
        if next(left, None) is None:
            os._exit(9)

    queue._file.db.set_trace_callback(statement)
