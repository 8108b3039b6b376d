"""The embedded chain as one process: anvil, a miner that works on demand, and its state on disk.

`python -m p2pos.devnet.anvil --binary PATH --state FILE --port N --chain-id N [--leash]` prints one JSON line when
the chain answers, logs to standard error, and ends on SIGTERM or, with `--leash`, at the end of its standard input.

Why not anvil's own ways (all measured with 1.7.1):
- automine stalls when transactions come in JSON arrays, so this process mines: at once when something is pending,
  and an empty block now and then, so that confirmations and deadlines move on an idle chain;
- `--block-time 1` makes 86,400 blocks a day of 1.8 kB, and mining slows with their number;
- `--state` with `--state-interval` rewrites the whole file every second, idle or not, and not atomically: a
  SIGKILL in mid-write would lose the chain. Here a state is written beside the old one and renamed, after blocks.
What a SIGKILL of this very process can lose is what the last DUMP_EVERY_S brought.
"""

import argparse
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import trio

from p2pos import leash, log
from p2pos.devnet import limits
from p2pos.errors import P2posError, UnavailableError, UserError
from p2pos.ledger.rpc import Rpc
from p2pos.ledger.rpc_http import Bounds

CHAIN_ID = 31337
"""anvil's own default; wallets know it as a local chain."""
POLL_S = 0.1
"""Between two looks at the pool. A transaction waits half of it on average; a look costs 1.8 ms of processor time."""
EMPTY_BLOCK_S = 12.0
"""An idle chain still makes a block this often, as Ethereum does: 7,200 a day, whose dump takes 0.1 s."""
DUMP_EVERY_S = 1.0
"""The least time between two dumps; and a dump may take at most a tenth of the time, however large the state."""
DUMP_SHARE = 0.1
MAX_DUMP = 1 << 30
"""Bytes of hex. The dump of a year of empty blocks, before gzip, is 4.7 GB, after it a tenth."""
KEEP_STATES = 256
"""Blocks whose state stays readable; in memory alone. Without a limit anvil writes old ones into the user's home."""
MEMORY_CAP_BYTES = 4 << 30
"""Address space of anvil. It maps 0.4 GB at rest and held 0.1 GB after 3,500 blocks; a leak must not take the
machine with it."""
START_S = 20.0
"""anvil answers after 0.05 s, and after 0.1 s with 2,000 blocks to load."""
LOOK_S = 0.02
"""Between two tries while it starts."""
STOP_S = 5.0


class Anvil:
    """A running anvil, and what this process does for it."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, state: Path) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self._rpc = Rpc(self.url, Bounds(answer_bytes=MAX_DUMP))
        self._state = state
        self._log = log.get("chain")
        self._unsaved = True

    @classmethod
    def start(cls, binary: Path, state: Path, port: int, chain_id: int) -> "Anvil":
        """Start the binary. Must be called from the main thread, to which its life is tied.

        Raises UserError where the port is taken, because another chain would answer on it in place of this one, or
        where the state file is damaged.
        """
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as exc:
                raise UserError(f"port {port} can't be used: {exc.strerror}") from exc
        arguments = ["--port", str(port), "--chain-id", str(chain_id), "--accounts", "0", "--no-mining", "--silent"]
        arguments += ["--threads", "1", "--prune-history", str(KEEP_STATES)]
        if state.exists():
            _keep_one_genesis(state)
            arguments += ["--load-state", str(state)]
        process = subprocess.Popen(
            [binary, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            preexec_fn=_between_fork_and_exec,  # noqa: PLW1509 - this process has no other thread yet
        )
        return cls(process, port, state)

    async def call(self, method: str, *params: Any) -> Any:
        """One JSON-RPC call. Raises what `Rpc.call` raises."""
        return await trio.to_thread.run_sync(self._rpc.call, method, *params)

    async def answers(self) -> int:
        """Wait until it answers, and return its block number.

        Raises UnavailableError where it ends first or does not answer in START_S.
        """
        with trio.move_on_after(START_S):
            while self.process.poll() is None:
                try:
                    return int(await self.call("eth_blockNumber"), 16)
                except UnavailableError:
                    await trio.sleep(LOOK_S)
            raise UnavailableError(f"anvil ended with exit code {self.process.returncode} before it answered")
        raise UnavailableError(f"anvil did not answer on {self.url} in {START_S:.0f} s")

    async def mine_on_demand(self) -> None:
        """Mine what is pending and save what was mined, until cancelled.

        Raises UnavailableError when anvil is gone.
        """
        last_block_s = trio.current_time()
        dump_from_s = last_block_s
        while True:
            pending = await self._pending()
            if pending or trio.current_time() >= last_block_s + EMPTY_BLOCK_S:
                await self.call("evm_mine")
                last_block_s = trio.current_time()
                self._unsaved = True
                if pending:
                    self._log.info("mined", pending=pending)
            if self._unsaved and trio.current_time() >= dump_from_s:
                started_s = trio.current_time()
                await self.save()
                took_s = trio.current_time() - started_s
                dump_from_s = trio.current_time() + max(DUMP_EVERY_S, took_s / DUMP_SHARE)
            await trio.sleep(POLL_S)

    async def _pending(self) -> int:
        try:
            return int((await self.call("txpool_status"))["pending"], 16)
        except UnavailableError as exc:
            code = self.process.poll()
            if code is None:
                raise
            raise UnavailableError(f"anvil ended with exit code {code}") from exc

    async def save(self) -> None:
        """Write the whole chain to the state file, or leave the old one."""
        dump = await self.call("anvil_dumpState")
        await trio.to_thread.run_sync(_write_whole, self._state, dump)
        self._unsaved = False

    async def stop(self) -> None:
        """Save, and end anvil: politely, then by force."""
        if self.process.poll() is None:
            try:
                await self.save()
            except P2posError as exc:
                self._log.warning("state not saved", error=str(exc))
            self.process.terminate()
        try:
            await trio.to_thread.run_sync(self.process.wait, STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await trio.to_thread.run_sync(self.process.wait)
        self._rpc.close()


def _between_fork_and_exec() -> None:
    limits.die_with_parent()
    limits.cap_memory(MEMORY_CAP_BYTES)


def _keep_one_genesis(state: Path) -> None:
    """Take from the state the genesis blocks that anvil made at each start before it loaded the chain.

    It dumps them all, and of those it loads the last one in the file's arbitrary order becomes block 0, so that the
    chain would seem to be another. The true one is the oldest.
    """
    try:
        chain = json.loads(state.read_bytes())
        genesis = [block for block in chain["blocks"] if int(block["header"]["number"], 16) == 0]
        if len(genesis) > 1:
            oldest = min(genesis, key=lambda block: int(block["header"]["timestamp"], 16))
            chain["blocks"] = [block for block in chain["blocks"] if block is oldest or block not in genesis]
            _replace(state, json.dumps(chain).encode())
    except (ValueError, KeyError, TypeError) as exc:
        raise UserError(
            f"the chain's state {state} is damaged", hint="remove it to begin a new chain; what was on it is lost"
        ) from exc


def _write_whole(state: Path, dump: str) -> None:
    """Put anvil's dump on disk. It is the hex of gzip of the JSON that it loads."""
    _replace(state, gzip.decompress(bytes.fromhex(dump.removeprefix("0x"))))


def _replace(state: Path, data: bytes) -> None:
    draft = state.with_suffix(".draft")
    with draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(state)


async def run(binary: Path, state: Path, port: int, chain_id: int, *, leashed: bool) -> None:
    """Run the chain until SIGTERM, SIGINT, or the end of standard input where `leashed`.

    Raises UnavailableError where anvil does not start, or ends by itself; UserError where the port is taken.
    """
    state.parent.mkdir(parents=True, exist_ok=True)
    anvil = Anvil.start(binary, state, port, chain_id)
    try:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
                if leashed:
                    nursery.start_soon(_cancel_at_end, nursery.cancel_scope)
                block = await anvil.answers()
                ready = {"ready": True, "rpc_url": anvil.url, "chain_id": chain_id, "block": block}
                print(json.dumps(ready), flush=True)  # noqa: T201 - the line that the supervisor waits for
                await anvil.mine_on_demand()
    finally:
        with trio.CancelScope(shield=True):
            await anvil.stop()


async def _cancel_on_signal(signals: Any, scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def _cancel_at_end(scope: trio.CancelScope) -> None:
    await leash.let_go()
    scope.cancel()


def main() -> None:
    """Read the arguments, run, and exit with the code of what went wrong."""
    parser = argparse.ArgumentParser(prog="python -m p2pos.devnet.anvil", description="A local chain that lasts.")
    parser.add_argument("--binary", type=Path, required=True, help="anvil")
    parser.add_argument("--state", type=Path, required=True, help="where the chain is kept")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--chain-id", type=int, default=CHAIN_ID)
    parser.add_argument("--leash", action="store_true", help="end at the end of standard input")
    arguments = parser.parse_args()
    log.configure(as_json=True)
    code = 0
    try:
        trio.run(
            partial(run, arguments.binary, arguments.state, arguments.port, arguments.chain_id, leashed=arguments.leash)
        )
    except* P2posError as group:
        fault = group.exceptions[0]
        sys.stderr.write(f"p2pos: {fault}\n")
        code = fault.exit_code if isinstance(fault, P2posError) else 1
    sys.exit(code)


if __name__ == "__main__":
    main()
