"""The owner of a devnet: brings every process up in order, answers for them, and takes them down in order.

One root nursery holds a task per process. A process that dies is shown as dead and not started again, because a
devnet is for seeing what happens then. When the supervisor ends, by whatever way, so do its processes: in order where
it can still act, else by their leash (see `processes`).
"""

import signal
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import trio
from trio_typing import TaskStatus

from p2pos import log
from p2pos.devnet import accounts, control, plan
from p2pos.devnet.home import Alive, Record, outlive
from p2pos.devnet.processes import Command, Process, describe_exit
from p2pos.devnet.status import Devnet, observe
from p2pos.errors import UnavailableError, UserError
from p2pos.types import LayerSpan

STALE_S = 10.0
"""What a supervisor that was killed left behind is given to notice it; it takes a second or two."""

Report = Callable[[str, str], None]
"""Called with (process or step, what became of it), for whoever watches `up`."""


class Supervisor:
    """One devnet, from `run` until it returns."""

    def __init__(self, request: plan.Request, anvil: Callable[[], Any], report: Report) -> None:
        """Args: what was asked for; where anvil is, called when it is needed; who hears of progress."""
        self._request = request
        self._home = request.home
        self._find_anvil = anvil
        self._report = report
        self._log = log.get("devnet")
        self._spans: dict[str, LayerSpan] = plan.spans(request)
        order = (*(("chain",) if request.embedded else ()), "relayer", *self._spans)
        self.processes = {name: Process(name, self._home.log_file(name), self._note) for name in order}
        self._record = Record()
        self._ground: accounts.Ground | None = None
        self._rpc_url = request.rpc_url
        self._is_up = False
        self._told = trio.Event()
        self._lock = trio.Lock()  # one start or kill at a time, so that each sees the outcome of the one before
        self.interrupted = False
        """Whether it ended by SIGINT."""

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Bring the devnet up, report that it is ready or was told to leave before, and stay until told to leave.

        Told by `down`, SIGTERM, SIGHUP or SIGINT. A second signal kills what still runs at once.

        Raises:
            UserError: the home is in use or somebody else's, or the request can't be met.
            P2posError: a process did not start. All others are taken down first.

        """
        with self._home.locked():
            self._record = self._home.read()
            await self._clear_stale()
            try:
                with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
                    async with trio.open_nursery() as nursery:
                        self._nursery = nursery
                        nursery.start_soon(self._on_signals, signals)
                        async with trio.open_nursery() as starting:
                            starting.start_soon(self._unless_told, starting.cancel_scope)
                            await self._bring_up()
                            starting.cancel_scope.cancel()
                        task_status.started()
                        await self._told.wait()
                        await self._take_down()
                        nursery.cancel_scope.cancel()
            finally:
                self._record.supervisor = None
                self._record.control_url = self._record.token = ""
                self._record.processes.clear()
                self._home.write(self._record)

    # ---- what `control` offers

    async def status(self) -> Devnet:
        """What runs, seen now."""
        ground = self._ground
        return await observe(
            self._home,
            self.processes.values(),
            self._spans,
            rpc_url=self._rpc_url,
            chain_id=ground.chain_id if ground else 0,
            contract=ground.contract if ground else "",
        )

    async def kill(self, name: str) -> None:
        """SIGKILL a process. Raises UserError for an unknown name or one that doesn't run."""
        process = self._named(name)
        async with self._lock:
            if not process.alive:
                raise UserError(f"{name} doesn't run", hint=f"start it with `p2pos devnet start {name}`")
            await process.kill()
        self._log.info("killed", name=name)

    async def start(self, name: str) -> None:
        """Start a process that is down. Raises UserError for an unknown name or one that runs; P2posError."""
        process = self._named(name)
        async with self._lock:
            if process.alive:
                raise UserError(f"{name} runs already (pid {process.pid})")
            await self._start(name)
            self._write_settings()

    def leave(self) -> None:
        """Begin to take the devnet down."""
        self._told.set()

    @property
    def leaving(self) -> bool:
        """Whether it goes down."""
        return self._told.is_set()

    async def told_to_leave(self) -> None:
        """Return once it goes down."""
        await self._told.wait()

    # ---- up

    async def _bring_up(self) -> None:
        url, token = await self._nursery.start(control.serve, self)
        self._record.supervisor = Alive.me()
        self._record.control_url, self._record.token = url, token
        self._home.write(self._record)
        async with trio.open_nursery() as both:
            both.start_soon(self._bring_up_ledger)
            both.start_soon(self._bring_up_nodes)
        self._write_settings()
        self._is_up = True

    async def _bring_up_ledger(self) -> None:
        if self._request.embedded:
            await self._start("chain")
        self._ground = await trio.to_thread.run_sync(
            lambda: accounts.prepare(self._home, self._record, self._rpc_url, embedded=self._request.embedded)
        )
        self._home.write(self._record)
        self._report("contract", f"{self._ground.contract} on chain {self._ground.chain_id}{self._found()}")
        self._write_settings()
        await self._start("relayer")

    def _found(self) -> str:
        return "" if self._ground is None or self._ground.deployed else " (found)"

    async def _bring_up_nodes(self) -> None:
        """The first node first, because the others join through it."""
        first, *others = self._spans
        await self._start(first)
        async with trio.open_nursery() as nursery:
            for name in others:
                nursery.start_soon(self._start, name)

    async def _start(self, name: str) -> None:
        """Start one process and wait until it is ready."""
        process = self.processes[name]
        self._report(name, "starting")
        began_s = trio.current_time()
        command = await self._command(name)
        ready: dict[str, Any] = await self._nursery.start(process.run, command)
        if name == "chain":
            self._rpc_url = str(ready["rpc_url"])
        self._report(name, f"ready after {trio.current_time() - began_s:.1f} s (pid {process.pid})")

    async def _command(self, name: str) -> Command:
        taken = {
            port
            for purpose, port in self._record.ports.items()
            if (owner := self.processes.get(purpose.removesuffix("-api"))) is not None and owner.alive
        }
        port = self._home.port(self._record, name, taken)
        if name == "chain":
            anvil = await trio.to_thread.run_sync(self._find_anvil)
            return plan.chain_command(self._request, anvil, port)
        if name == "relayer":
            return plan.relayer_command(self._home, self._rpc_url, port)
        return plan.node_command(
            self._request,
            name,
            self._spans[name],
            port=port,
            api_port=self._home.port(self._record, f"{name}-api", taken),
            bootstrap=[address for each in self._ready_nodes() for address in each.ready["addresses"][:1]],
        )

    def _note(self, process: Process) -> None:
        """Keep the record of what lives in step, for a supervisor that comes after a SIGKILL of this one."""
        if process.pid is not None and process.born_s is not None:
            self._record.processes[process.name] = Alive(process.pid, process.born_s)
        else:
            self._record.processes.pop(process.name, None)
            if not self._told.is_set():
                self._report(process.name, f"dead: {describe_exit(process.exit_code or 0)}")
        self._home.write(self._record)

    # ---- down

    async def _take_down(self) -> None:
        """The chain last, because the relayer needs it to the end."""
        self._report("devnet", "going down")
        for stage in ([*self._spans, "relayer"], ["chain"]):
            async with trio.open_nursery() as nursery:
                for name in stage:
                    if name in self.processes:
                        nursery.start_soon(self.processes[name].stop)

    async def _on_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            self.interrupted |= number == signal.SIGINT
            if self._told.is_set():
                self._report("devnet", "killing what still runs")
                for process in self.processes.values():
                    process.kill_now()
            self._told.set()

    async def _unless_told(self, scope: trio.CancelScope) -> None:
        await self._told.wait()
        scope.cancel()

    async def _clear_stale(self) -> None:
        """Wait for what a killed supervisor left behind; end by force what does not notice."""
        left = [alive for alive in self._record.processes.values() if alive.find() is not None]
        if left:
            self._report("devnet", f"waiting for {len(left)} processes of an earlier run to end")
            await trio.to_thread.run_sync(_outlive, left)
        self._record.processes.clear()

    # ----

    def _named(self, name: str) -> Process:
        if name not in self.processes:
            raise UserError(f"the devnet has no process “{name}”", hint=f"it has {', '.join(self.processes)}")
        if not self._is_up or self._told.is_set():
            raise UnavailableError(f"the devnet is {'coming up' if not self._is_up else 'going down'}")
        return self.processes[name]

    def _ready_nodes(self) -> Iterable[Process]:
        return [self.processes[name] for name in self._spans if self.processes[name].state == "ready"]

    def _write_settings(self) -> None:
        """p2pos.toml, as far as things are known."""
        values: dict[str, Any] = {
            "rpc_url": self._rpc_url,
            "model": str(self._request.model),
            "passphrase_file": str(self._home.passphrase_file),
            "bootstrap": [address for each in self._ready_nodes() for address in each.ready["addresses"]],
        }
        if self._ground is not None:
            values |= {"chain_id": self._ground.chain_id, "contract": self._ground.contract}
        relayer = self.processes["relayer"]
        if relayer.state == "ready":
            values["relayer_url"] = relayer.ready["url"]
        self._home.write_settings(values)


def _outlive(processes: list[Alive]) -> None:
    left = outlive(processes, STALE_S)
    for alive in left:
        process = alive.find()
        if process is not None:
            process.kill()
    outlive(left, STALE_S)
