"""Network namespaces: nodes with a network of their own each, which can be cut so that packets vanish without a word.

A bridge joins them, and this machine is on it too. A place that is cut keeps its address and its link; what it sends,
and what is sent to it, is dropped on the way, as when a cable breaks behind the next switch: no FIN, no RST. Needs
root on Linux, and `ip` (iproute2).
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from p2pos.errors import UnavailableError

SUBNETS = 256
"""198.18.0.0/24 … 198.18.255.0/24: RFC 2544 sets them aside for benchmarks, so no real network is hidden by them."""
MAX_PLACES = 250
"""In one /24, beside the bridge."""
NAMES = Path("/run/netns")
"""Where `ip` keeps the namespaces that have names."""


class Place:
    """A network namespace with one address."""

    def __init__(self, name: str, link: str, bridge: str, address: str) -> None:
        self.name = name
        self.address = address
        """IPv4; reachable from every other place of the network, and from this machine."""
        self._link = link
        self._bridge = bridge

    @property
    def words(self) -> tuple[str, ...]:
        """What stands before a command that is to run there; the process keeps its id."""
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        """Drop all packets to and from it from now on."""
        _ip("link", "set", self._link, "nomaster")

    def mend(self) -> None:
        """Let packets through again."""
        _ip("link", "set", self._link, "master", self._bridge)

    def delete(self) -> None:
        """Take it down; processes that still run there lose their network."""
        _ip("link", "delete", self._link)  # both ends; the kernel would take its time
        _ip("netns", "delete", self.name)


class Network:
    """Places on one bridge. Made by `network`.

    Attributes:
        address: of this machine on it.

    """

    def __init__(self, bridge: str, subnet: str) -> None:
        self._bridge = bridge
        self._subnet = subnet
        self.address = f"{subnet}.1"
        self._places: list[Place] = []

    def place(self) -> Place:
        """Another namespace, joined to the others."""
        number = len(self._places) + 2
        if number > MAX_PLACES:
            raise UnavailableError(f"a network holds {MAX_PLACES} places")
        name, link, address = f"{self._bridge}-{number}", f"{self._bridge}v{number}", f"{self._subnet}.{number}"
        _ip("netns", "add", name)
        place = Place(name, link, self._bridge, address)
        self._places.append(place)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", link, "master", self._bridge, "up")
        _ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        return place

    def close(self) -> None:
        """Take it all down."""
        for place in self._places:
            place.delete()
        _ip("link", "delete", self._bridge)


def why_not() -> str:
    """Why there can be no networks here, or "" where there can."""
    if shutil.which("ip") is None:
        return "there is no `ip` here (iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return f"no network namespace can be made here: {tried.stderr.strip()}" if tried.returncode else ""


@contextmanager
def network() -> Iterator[Network]:
    """A bridge that places can join, for as long as the context lasts.

    Raises UnavailableError where there can be none (see `why_not`).
    """
    made = _bridge()
    try:
        yield made
    finally:
        made.close()


def _bridge() -> Network:
    if why := why_not():
        raise UnavailableError(why)
    for number in range(SUBNETS):
        # from a number of this process's own on, so that two that run at once seldom ask for the same
        index = (os.getpid() + number) % SUBNETS
        bridge, subnet = f"p2p{index}", f"198.18.{index}"
        done = subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], capture_output=True, check=False)
        if done.returncode:
            continue  # another process has it: the kernel lets one of us make it
        _ip("address", "add", f"{subnet}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        return Network(bridge, subnet)
    raise UnavailableError(f"all {SUBNETS} bridges are taken", hint="see `ip link` for what earlier runs left")


def _ip(*words: str) -> None:
    command: Sequence[str] = ("ip", *words)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
