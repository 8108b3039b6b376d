"""What `bench.relay` stands on: an anvil of its own, the contract, people who have dealt before, and signed intents."""

import itertools
import secrets
import socket
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from eth_account import Account

from p2pos.config import Settings
from p2pos.devnet.tools import find_anvil
from p2pos.errors import UnavailableError
from p2pos.ledger.chain import Chain, set_native_balance
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.nonces import random_nonce
from p2pos.ledger.rpc import Rpc
from p2pos.ledger.signer import KeySigner
from p2pos.ledger.terms import Terms
from p2pos.ledger.typed_data import Transfer, digest

COIN = 10**18
FAR = 1 << 40
"""A deadline that no run reaches, in seconds since the epoch."""
BLOCK_S = 0.1
"""Between two blocks, so long as something waits: what the devnet's chain does."""
PEOPLE = 100
"""Who give, and as many who receive."""


@dataclass(frozen=True, slots=True)
class Signed:
    """An intent as it is kept until its turn: what can't be made again without the owner's key, and little else."""

    owner: int
    nonce: int
    signature: bytes
    digest: bytes


class Ground:
    """The chain and who deals on it. Owners, receivers and their words of nonces are warm: each has dealt before."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.rpc = Rpc(url)
        people = [KeySigner(Account.from_key(secrets.token_bytes(32))) for _ in range(2 * PEOPLE + 1)]
        self.operator, self.owners, self.receivers = people[0], people[1 : PEOPLE + 1], people[PEOPLE + 1 :]
        self._turns = itertools.cycle(range(PEOPLE))
        self._nonces = [itertools.count(1 << 20) for _ in self.owners]
        for signer in (self.operator, *self.owners):
            set_native_balance(url, signer.address, 10**9 * COIN)
        with self.mining():
            chain = Chain.connect(url)
            self.chain = chain.with_contract(chain.deploy(self.operator))
            self.item = self.chain.create_class(self.operator, bytes(32), Terms(0), bytes(32))
            first = self.owners[0]
            self.chain.mint(self.operator, first.address, self.item, 1 << 60)
            gifts = [
                Transfer(first.address, owner.address, self.item, 1 << 40, next(self._nonces[0]), FAR)
                for owner in self.owners[1:]
            ]
            domain = self.chain.domain
            signed = [SignedIntent.of(domain, gift, first.sign_typed(domain, gift)) for gift in gifts]
            self.chain.relay(self.operator, signed)
            for _ in range(2):
                self.chain.relay(self.operator, self.intents(self.signed(PEOPLE)))

    @contextmanager
    def mining(self) -> Iterator[None]:
        """Make a block every `BLOCK_S` in which something waits for one."""
        stop, rpc = threading.Event(), Rpc(self.url)

        def work() -> None:
            while not stop.wait(BLOCK_S):
                if int(rpc.call("txpool_status")["pending"], 16):
                    rpc.call("evm_mine")

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            rpc.close()

    def signed(self, count: int, *, scattered: bool = False) -> list[Signed]:
        """Transfers of one item each, by the owners in turn; their nonces follow one another, or are scattered."""
        domain = self.chain.domain
        made = []
        for owner in itertools.islice(self._turns, count):
            nonce = random_nonce() if scattered else next(self._nonces[owner])
            struct = self._transfer(owner, nonce)
            made.append(Signed(owner, nonce, self.owners[owner].sign_typed(domain, struct), digest(domain, struct)))
        return made

    def intents(self, signed: Iterable[Signed]) -> list[SignedIntent]:
        """The same, as they are once they are parsed: nothing is computed yet, nothing checked."""
        domain = self.chain.domain
        return [
            SignedIntent(domain, self._transfer(one.owner, one.nonce), (one.signature,), one.digest) for one in signed
        ]

    def _transfer(self, owner: int, nonce: int) -> Transfer:
        return Transfer(self.owners[owner].address, self.receivers[owner].address, self.item, 1, nonce, FAR)

    def received(self) -> int:
        """Items that the receivers have."""
        pairs: Sequence[tuple[str, int]] = [(receiver.address, self.item) for receiver in self.receivers]
        return sum(self.chain.balances(pairs))


@dataclass
class Anvil:
    """A running anvil."""

    url: str
    pid: int


@contextmanager
def running_anvil() -> Iterator[Anvil]:
    """An anvil that makes a block when it is told to."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--port", str(port), "--no-mining", "--silent", "--accounts", "0"]
    # as the devnet runs it: without a limit, anvil writes the states of old blocks to disk. Blocks have room for all
    # that comes in their time, as a roll-up's do, else the price of gas would rise by an eighth with each for a minute
    arguments += ["--prune-history", "256", "--threads", "1", "--gas-limit", "100000000"]
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
        yield Anvil(url, process.pid)
    finally:
        rpc.close()
        process.kill()
        process.wait()
