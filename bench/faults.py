"""Nodes that can be made to fail: killed, hung, cut off, out of memory; and brought back, as the peers they were.

Each is a real `p2pos node run` in a process of its own. What is done to one is done at once and from outside, so that
the node has no part in it. In a `Network` each node has a network of its own, which is what cutting needs; without,
they share the loopback interface.
"""

import json
import os
import resource
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.netns import Network, Place
from p2pos.devnet import plan
from p2pos.devnet.processes import describe_exit, last_line, tied
from p2pos.errors import InternalError, UnavailableError

STOP_S = 30.0
"""From SIGTERM to SIGKILL, and for the end of a process that was sent SIGKILL."""
STATUS_S = 10.0
"""For a node's `/status`."""
SETTLE_S = 60.0
"""For a node that came back to be known to all, or for one that is gone to be forgotten, and for all to be idle."""
LOOK_EVERY_S = 0.1
"""Between two questions whether it is so; each is a round trip."""
MAX_JOIN = 4
"""Addresses given to a node to join through: one that answers is enough, and some may be dead."""
TOKEN = "of-a-test-on-this-machine-alone"  # noqa: S105 - the nodes listen on a network that ends with the test
"""Nodes that have a network of their own answer HTTP there, beyond loopback, which needs one."""


class Node:
    """One node over its lives: the same home, identity, span and address in each.

    Args:
        directory: of its home and log.
        words: after `python -m`: the module that runs it, and what comes before `--home`.
        options: of `node run`.
        cache: where manifests are.
        place: its network; None for the loopback interface.

    """

    def __init__(
        self, directory: Path, words: Sequence[str], options: Sequence[str], *, cache: Path, place: Place | None
    ) -> None:
        self.name = directory.name
        self.log_file = directory / "log"
        self.ready: dict[str, Any] = {}
        """What its ready line said, the last time."""
        self._directory = directory
        self._words = tuple(words)
        self._options = tuple(options)
        self._environment: Mapping[str, str] = plan.environment(P2POS_CACHE=str(cache))
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None
        self._serves = False
        self._limit: tuple[int, int] | None = None
        directory.mkdir(parents=True)
        self._token_file = directory / "token"
        self._token_file.touch(0o600)
        self._token_file.write_text(TOKEN)

    @property
    def peer(self) -> str:
        """Its peer id, once it was ready."""
        return str(self.ready["peer"])

    @property
    def address(self) -> str:
        """Its multiaddress, once it was ready; the same in each life."""
        return str(self.ready["addresses"][0])

    @property
    def alive(self) -> bool:
        """Whether there is a process, hung or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def serves(self) -> bool:
        """Whether it has said in this life that it is ready; it may be hung or cut off all the same."""
        return self._serves and self.alive

    @property
    def pid(self) -> int:
        """Of its process. Raises InternalError where there is none."""
        if self._process is None:
            raise InternalError(f"{self.name} does not run")
        return self._process.pid

    def launch(self, bootstrap: Sequence[str] = ()) -> None:
        """Start its process, and don't wait."""
        ip = "127.0.0.1" if self._place is None else self._place.address
        port = self.address.split("/")[4] if self.ready else "0"
        argv = (() if self._place is None else self._place.words) + tied(*self._words)
        argv += ("--home", str(self._directory), "--log-json", "node", "run", "--listen", f"/ip4/{ip}/tcp/{port}")
        argv += ("--api", f"{ip}:0", "--api-token-file", str(self._token_file), "--threads", "1", *self._options)
        for address in bootstrap[:MAX_JOIN]:
            argv += ("--bootstrap", address)
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=output,
                env=dict(self._environment),
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait for its ready line. Raises UnavailableError where it ends instead, with its last words."""
        process = self._process
        if process is None or process.stdout is None:
            raise InternalError(f"{self.name} was not launched")
        line = process.stdout.readline()
        if not line:
            code = describe_exit(process.wait(STOP_S))
            raise UnavailableError(f"{self.name} ended with {code}: {last_line(self.log_file)} (log: {self.log_file})")
        self.ready = json.loads(line)
        self._serves = True

    def status(self) -> dict[str, Any]:
        """What its `/status` says now."""
        request = urllib.request.Request(  # noqa: S310 - an http URL that the node itself gave
            f"{self.ready['api']}/status", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request, timeout=STATUS_S) as answer:  # noqa: S310 - as above
            return dict(json.load(answer))

    def at_rest(self, known: int) -> bool:
        """Whether it knows so many nodes, itself included, and holds no session."""
        status = self.status()
        idle = status["sessions"] == status["owned_sessions"] == status["cached_tokens"] == 0
        return idle and bool(status["known_nodes"] == known)

    def resident_bytes(self) -> int:
        """Resident memory of its process; 0 where there is none."""
        return int(psutil.Process(self.pid).memory_info().rss) if self.alive else 0

    def kill(self) -> None:
        """SIGKILL it, and return when it is gone."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(STOP_S)
        self._forget()

    def stop(self) -> int:
        """SIGTERM it, and return its exit code when it is gone."""
        if self._process is None:
            raise InternalError(f"{self.name} does not run")
        self._process.terminate()
        code = self._process.wait(STOP_S)
        self._forget()
        return code

    def hang(self) -> None:
        """SIGSTOP it, and return when it stands still: its connections stay open, and nothing answers."""
        self._send(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """SIGCONT it."""
        self._send(signal.SIGCONT)

    def cut(self) -> None:
        """Drop every packet to and from it. Raises InternalError where it has no network of its own."""
        self._own_network().cut()

    def mend(self) -> None:
        """Let packets through again."""
        self._own_network().mend()

    def starve(self) -> None:
        """Give it no more address space than it has: its next large allocation fails."""
        self._limit = resource.prlimit(self.pid, resource.RLIMIT_AS)
        resource.prlimit(self.pid, resource.RLIMIT_AS, (psutil.Process(self.pid).memory_info().vms, self._limit[1]))

    def feed(self) -> None:
        """Give it memory again, where it lives."""
        if self._limit is not None and self.alive:
            resource.prlimit(self.pid, resource.RLIMIT_AS, self._limit)
        self._limit = None

    def recover(self) -> None:
        """Undo what was done to it, unless it was killed."""
        if self.alive:
            self.resume()
            self.feed()
        if self._place is not None:
            self._place.mend()

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _own_network(self) -> Place:
        if self._place is None:
            raise InternalError(f"{self.name} has no network of its own")
        return self._place

    def _forget(self) -> None:
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None
        self._serves = False


class Cluster:
    """Nodes of one model that can fail. Made by `cluster`.

    Attributes:
        nodes: all that were added, dead ones included.

    """

    def __init__(self, directory: Path, model: Path, options: Sequence[str], cache: Path, net: Network | None) -> None:
        self.nodes: list[Node] = []
        self._directory = directory
        self._options = ("--model", str(model), *options)
        self._cache = cache
        self._net = net

    def add(self, layers: str, *, words: Sequence[str] = ("p2pos",)) -> Node:
        """Another node, which doesn't run yet. `words` as `Node` has them."""
        place = self._net.place() if self._net is not None else None
        directory = self._directory / f"n{len(self.nodes)}"
        options = (*self._options, "--layers", layers)
        node = Node(directory, words, options, cache=self._cache, place=place)
        self.nodes.append(node)
        return node

    def start(self, *nodes: Node) -> None:
        """Start these and return when all are ready. They join through those that run already, else the first."""
        rest = list(nodes)
        if not self.addresses():
            rest[0].launch()
            rest[0].wait_ready()
            rest = rest[1:]
        for node in rest:
            node.launch(self.addresses())
        for node in rest:
            node.wait_ready()

    def addresses(self) -> list[str]:
        """Of the nodes that serve, hung or cut ones included."""
        return [node.address for node in self.nodes if node.serves]

    def of(self, peer: str) -> Node:
        """The node with this peer id. Raises InternalError where there is none."""
        for node in self.nodes:
            if node.ready and node.peer == peer:
                return node
        raise InternalError(f"no node of this cluster is {peer}")

    def settle(self, within_s: float = SETTLE_S) -> None:
        """Wait until all that serve know one another and no one else, and hold nothing.

        Raises InternalError, which says who is to blame, where that takes too long.
        """
        end_s = time.monotonic() + within_s
        restless = self.nodes
        while restless:
            if time.monotonic() > end_s:
                raise InternalError(f"not at rest after {within_s:g} s: {self._unrest(restless)}")
            running = [node for node in self.nodes if node.serves]
            restless = [node for node in running if not node.at_rest(len(running))]
            if restless:
                time.sleep(LOOK_EVERY_S)

    @staticmethod
    def _unrest(nodes: Sequence[Node]) -> str:
        told = {node.name: node.status() for node in nodes if node.serves}
        fields = ("layers", "known_nodes", "sessions", "owned_sessions", "cached_tokens")
        return ", ".join(f"{name} { ({field: each[field] for field in fields}) }" for name, each in told.items())

    def close(self) -> None:
        """Kill what runs, hung or not."""
        for node in self.nodes:
            node.kill()


@contextmanager
def cluster(directory: Path, model: Path, *options: str, cache: Path, net: Network | None = None) -> Iterator[Cluster]:
    """No nodes yet, for as long as the context lasts; those that run at its end are killed.

    Args:
        directory: for the nodes' homes and logs.
        model: the checkpoint.
        options: more words for `node run`.
        cache: where the model's manifest is, or will be.
        net: gives each node a network of its own.

    """
    made = Cluster(directory, model, options, cache, net)
    try:
        yield made
    finally:
        made.close()
