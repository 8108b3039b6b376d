"""A real anvil to test against, and who lives on it."""

import ctypes
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_hash.auto import keccak

from p2pos.config import Settings
from p2pos.devnet.tools import find_anvil
from p2pos.errors import UnavailableError
from p2pos.ledger.chain import Chain, set_native_balance
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.rpc import Rpc
from p2pos.ledger.signer import KeySigner
from p2pos.ledger.terms import Terms
from p2pos.ledger.typed_data import Lock, Signable, Transfer
from p2pos.types import Address

COIN = 10**18
FAR = 1 << 40
"""A deadline that no test reaches, in seconds since the epoch."""
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass
class Anvil:
    """A chain that makes a block when it is told to, or at once while `mining`."""

    url: str
    rpc: Rpc

    def mine(self, blocks: int = 1) -> None:
        self.rpc.call("anvil_mine", hex(blocks))

    def reorg(self, depth: int) -> None:
        """Replace the newest blocks by empty ones; their transactions are dropped, from the pool as well."""
        self.rpc.call("anvil_reorg", depth, [])

    def in_pool(self) -> int:
        return int(self.rpc.call("txpool_status")["pending"], 16)

    @contextmanager
    def mining(self) -> Iterator[None]:
        """Make a block as soon as something waits for one. (anvil's own automine stalls on JSON arrays.)"""
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(0.01):
                if self.in_pool():
                    self.mine()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@contextmanager
def running_anvil(*, chain_id: int = 31337, more: Sequence[str] = ()) -> Iterator[Anvil]:
    """An anvil of the caller's own, with `more` arguments."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = ["--port", str(port), "--chain-id", str(chain_id), "--silent", "--no-mining", "--accounts", "0"]
    arguments += more
    process = subprocess.Popen(
        [find_anvil(Settings()), *arguments],
        stdin=subprocess.DEVNULL,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - one system call, safe after a fork
    )
    url = f"http://127.0.0.1:{port}"
    anvil = Anvil(url, Rpc(url))
    try:
        _until_it_answers(anvil.rpc, process)
        yield anvil
    finally:
        anvil.rpc.close()
        process.kill()
        process.wait()


def _until_it_answers(rpc: Rpc, process: "subprocess.Popen[bytes]") -> None:
    pause = threading.Event()
    while process.poll() is None:
        try:
            rpc.call("eth_chainId")
        except UnavailableError:
            pause.wait(0.01)
        else:
            return
    raise RuntimeError(f"anvil ended with {process.returncode}")


def person(name: str) -> KeySigner:
    """The same key for the same name, in every test."""
    return KeySigner(Account.from_key(keccak(name.encode())))


OPERATOR, ALICE, BOB, CAROL = map(person, ("operator", "alice", "bob", "carol"))


@dataclass
class Ground:
    """A chain with the contract, a class, and people with coin for gas."""

    anvil: Anvil
    chain: Chain
    lantern: int
    made: int = 0
    nonces: Iterator[int] = field(default_factory=lambda: iter(range(1000, 1 << 60)))

    def give_lanterns(self, to: Address, amount: int) -> None:
        with self.anvil.mining():
            self.chain.mint(OPERATOR, to, self.lantern, amount)

    def transfer(
        self,
        to: Address,
        amount: int = 1,
        *,
        by: KeySigner = ALICE,
        nonce: int | None = None,
        deadline: int = FAR,
        id_: int | None = None,
    ) -> SignedIntent:
        number = next(self.nonces) if nonce is None else nonce
        struct = Transfer(by.address, to, self.lantern if id_ is None else id_, amount, number, deadline)
        return self.sign(struct, by)

    def lock(self, world: Address, until: int, *, id_: int | None = None) -> SignedIntent:
        held = self.lantern if id_ is None else id_
        return self.sign(Lock(ALICE.address, world, held, 1, until, next(self.nonces), FAR), ALICE)

    def sign(self, struct: Signable, *by: KeySigner) -> SignedIntent:
        domain = self.chain.domain
        return SignedIntent.of(domain, struct, *[one.sign_typed(domain, struct) for one in by])

    def balance(self, of: KeySigner) -> int:
        return self.chain.balance(of.address, self.lantern)


@contextmanager
def running_ground(*, chain_id: int = 31337) -> Iterator[Ground]:
    with running_anvil(chain_id=chain_id) as anvil:
        for signer in (OPERATOR, ALICE):
            set_native_balance(anvil.url, signer.address, 1000 * COIN)
        with anvil.mining():
            chain = Chain.connect(anvil.url, chain_id=chain_id)
            chain = chain.with_contract(chain.deploy(OPERATOR))
            lantern = chain.create_class(OPERATOR, bytes(32), Terms(0), bytes(32))
        yield Ground(anvil, chain, lantern)


# A contract wallet in forty bytes: it echoes the called function's selector, which is the magic value both of
# ERC-1271's isValidSignature and of ERC-1155's onERC1155Received, but takes as a signature only the word SESAME.
SESAME = keccak(b"open sesame")


def _wallet_code() -> bytes:
    head = bytes.fromhex("60003560e01c80631626ba7e14601c57")  # selector; isValidSignature? then jump
    echo = bytes.fromhex("5b60e01b60005260206000f3")  # at 0x10: return the selector
    check = bytes.fromhex("5b6064357f") + SESAME + bytes.fromhex("1460105760006000fd")  # at 0x1c: else revert
    return head + echo + check


def contract_wallet(anvil: Anvil, at: Address) -> None:
    """Put the contract wallet at this address."""
    anvil.rpc.call("anvil_setCode", at, "0x" + _wallet_code().hex())


def toml(path: Path, values: dict[str, Any]) -> None:
    path.write_text("".join(f"{key} = {value!r}\n".replace("'", '"') for key, value in values.items()))
