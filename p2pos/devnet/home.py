"""The devnet's directory: who runs it now, what it remembers, and the settings it leaves for other commands.

```
p2pos.toml        settings, so that every command with `--home` finds the devnet
devnet.json       the supervisor, its processes, ports and contracts (mode 0600: it holds the control token)
passphrase        opens the wallets (mode 0600)
wallets/  chain/  relayer/  nodes/NAME/  logs/NAME.log  content/
```
"""

import fcntl
import json
import os
import random
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from p2pos.config import FILE_NAME
from p2pos.errors import UserError

MARK = "# written by `p2pos devnet up`; it is written anew each time"
"""First line of the devnet's p2pos.toml. A file without it is somebody's own and is not overwritten."""

PORTS = range(20_000, 32_000)
"""Below what Linux (32768) and macOS (49152) hand out to outgoing connections, one of which could otherwise take a
port while its process is down."""
PORT_TRIES = 200
"""Of random ports; on a machine with half of them taken, all would fail once in 10⁶⁰ times."""


CLOCK_S = 1.0
"""Linux counts a process's birth from boot; where the clock is set meanwhile, two readings of it differ."""


LOOK_S = 0.05
"""Between two looks at a process that is not our child, for whose end the kernel sends us no word."""


@dataclass(frozen=True, slots=True)
class Alive:
    """A process, named so that a later one with the same pid is not mistaken for it."""

    pid: int
    born_s: float
    """psutil's create_time: seconds since the epoch."""

    @classmethod
    def me(cls) -> Self:
        """The process that asks."""
        return cls(os.getpid(), psutil.Process().create_time())

    def find(self) -> psutil.Process | None:
        """The process, or None where it is gone or a zombie."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.born_s) > CLOCK_S or process.status() == psutil.STATUS_ZOMBIE:
                return None
        except psutil.Error:
            return None
        return process


def outlive(processes: Sequence[Alive], within_s: float) -> list[Alive]:
    """Wait until all of these are gone or zombies. Returns those that are still there after `within_s`.

    psutil's own wait takes a zombie for alive, and where process 1 is no init, an orphan stays one for long.
    """
    until_s = time.monotonic() + within_s
    left = [process for process in processes if process.find() is not None]
    while left and time.monotonic() < until_s:
        time.sleep(LOOK_S)
        left = [process for process in left if process.find() is not None]
    return left


@dataclass(slots=True)
class Record:
    """What devnet.json holds."""

    supervisor: Alive | None = None
    control_url: str = ""
    token: str = ""
    processes: dict[str, Alive] = field(default_factory=dict)
    """Those that were started and not seen to end; after a SIGKILL of the supervisor, those to wait for."""
    ports: dict[str, int] = field(default_factory=dict)
    """By name and purpose, kept from one `up` to the next."""
    contracts: dict[str, str] = field(default_factory=dict)
    """The asset contract's address by chain id."""


class Home:
    """One devnet's directory. `path` is absolute."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.record_file = self.path / "devnet.json"
        self.passphrase_file = self.path / "passphrase"
        self.settings_file = self.path / FILE_NAME
        self.wallets = self.path / "wallets"
        self.chain_state = self.path / "chain" / "state.json"

    def node(self, name: str) -> Path:
        """The home of a node."""
        return self.path / "nodes" / name

    def log_file(self, name: str) -> Path:
        """Where a process's standard error goes."""
        return self.path / "logs" / f"{name}.log"

    def read(self) -> Record:
        """The record; an empty one where there is none. Raises UserError where it is damaged."""
        try:
            data = json.loads(self.record_file.read_text())
            return Record(
                supervisor=Alive(**data["supervisor"]) if data["supervisor"] else None,
                control_url=str(data["control_url"]),
                token=str(data["token"]),
                processes={name: Alive(**alive) for name, alive in data["processes"].items()},
                ports={name: int(port) for name, port in data["ports"].items()},
                contracts={chain: str(contract) for chain, contract in data["contracts"].items()},
            )
        except FileNotFoundError:
            return Record()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            raise UserError(
                f"{self.record_file} can't be read ({type(exc).__name__})", hint="remove it; the chain stays"
            ) from exc

    def write(self, record: Record) -> None:
        """Write the record, whole or not at all, mode 0600."""
        write_private(self.record_file, json.dumps(asdict(record), indent=1))

    def write_settings(self, values: dict[str, Any]) -> None:
        """Write p2pos.toml, for all other commands. `values` are strings, whole numbers and lists of strings."""
        # a JSON string, number or array of strings is also TOML
        lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
        write_private(self.settings_file, "\n".join((MARK, *lines, "")))

    def passphrase(self) -> str:
        """The wallets' passphrase, made on first use."""
        if not self.passphrase_file.exists():
            write_private(self.passphrase_file, secrets.token_urlsafe(24) + "\n")
        return self.passphrase_file.read_text().splitlines()[0]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory as its only supervisor; the kernel lets go when this process dies, however it dies.

        Makes the directory. Raises UserError where another supervisor has it, or where it is not the devnet's.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as exc:
            raise UserError(f"{self.path} can't be the devnet's home: {exc.strerror}", hint="choose --home") from exc
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise UserError(
                    f"a devnet already runs in {self.path}", hint="see `p2pos devnet status`, or end it: `devnet down`"
                ) from exc
            if self.settings_file.exists() and not self.settings_file.read_text().startswith(MARK):
                raise UserError(
                    f"{self.settings_file} was not written by the devnet and would be overwritten",
                    hint="give --home another directory",
                )
            yield
        finally:
            os.close(handle)

    def port(self, record: Record, purpose: str, taken: set[int]) -> int:
        """A free port of 127.0.0.1 for `purpose`: the one it had before if that is free. Notes it in the record.

        `taken` are ports already promised, and gains this one.
        """
        before = record.ports.get(purpose)
        candidates = [before] if before is not None else []
        candidates += random.sample(PORTS, PORT_TRIES)
        for port in candidates:
            if port not in taken and is_free(port):
                record.ports[purpose] = port
                taken.add(port)
                return port
        raise UserError(f"no free port between {PORTS.start} and {PORTS.stop} on 127.0.0.1")


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
