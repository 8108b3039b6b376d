"""Real nodes in real processes, started and stopped by a test."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

P2POS = (sys.executable, "-m", "p2pos")


@dataclass
class Node:
    """A running `p2pos node run`."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    log: Path

    @property
    def address(self) -> str:
        """Its first multiaddress."""
        return str(self.ready["addresses"][0])

    def status(self) -> dict[str, Any]:
        """What its `/status` says now."""
        with urllib.request.urlopen(f"{self.ready['api']}/status", timeout=10) as answer:
            return dict(json.load(answer))

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end."""
        self.process.send_signal(how)
        return self.process.wait(30)


def p2pos(
    *arguments: str, home: Path, check: bool = True, prefix: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        [*prefix, *P2POS, "--home", str(home), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "P2POS_CACHE": str(home.parent / "cache"), **environment},
    )
    if check and done.returncode:
        raise AssertionError(f"{arguments} ended {done.returncode}: {done.stderr}")
    return done


@contextmanager
def node(
    directory: Path,
    model: Path | str | None,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[Node]:
    """One node, ready; killed at the end where it still runs. `prefix` runs a command elsewhere."""
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "log"
    chosen = ["--model", str(model)] if model else []
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [
                *prefix,
                *P2POS,
                "--home",
                str(directory),
                "--log-json",
                "node",
                "run",
                *chosen,
                "--threads",
                "1",
                *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "P2POS_CACHE": str(directory.parent / "cache"), **(environment or {})},
        )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line:
            raise AssertionError(f"the node ended {process.wait(30)}: {log.read_text()}")
        yield Node(process, json.loads(line), log)
    finally:
        process.kill()
        process.wait(30)
        if process.stdout:
            process.stdout.close()


@contextmanager
def swarm(directory: Path, model: Path | None, spans: Sequence[str], *arguments: str) -> Iterator[list[Node]]:
    """A node per span, each joining through the first."""
    with node(directory / "n0", model, "--layers", spans[0], *arguments) as first:
        if len(spans) == 1:
            yield [first]
            return
        with _more(directory, model, spans, 1, first.address, arguments) as others:
            yield [first, *others]


@contextmanager
def _more(
    directory: Path, model: Path | None, spans: Sequence[str], index: int, bootstrap: str, arguments: tuple[str, ...]
) -> Iterator[list[Node]]:
    if index == len(spans):
        yield []
        return
    joining = ("--layers", spans[index], "--bootstrap", bootstrap, *arguments)
    with (
        node(directory / f"n{index}", model, *joining) as this,
        _more(directory, model, spans, index + 1, bootstrap, arguments) as rest,
    ):
        yield [this, *rest]
