"""A small internet of network namespaces: machines with public addresses, and homes behind routers that translate.

`python -m tests.node.natlab SPEC` builds it, prints which process holds each machine's namespace, and takes it all
away when its standard input ends. It needs root, or a kernel that lets everyone have namespaces (`unshare -Ur`).
Nothing of it touches the machine's own network.
"""

import ctypes
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000  # linux/sched.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h
NF_DROP, NF_ACCEPT = 0, 1  # linux/netfilter.h
NFPROTO_IPV4 = 2
NFT_META_OIF = 5  # linux/netfilter/nf_tables.h
SYMMETRIC = ("NF_NAT_RANGE_PROTO_RANDOM_FULLY",)
"""Every connection from a port of its own, so that nobody can foretell it."""


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _hold() -> int:
    """A process in a network namespace of its own, which ends with this one."""
    ready, said = os.pipe()
    pid = os.fork()
    if pid:
        os.close(said)
        if os.read(ready, 1) != b"+":
            raise OSError("no network namespace")
        os.close(ready)
        return pid
    try:
        _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if _libc().unshare(CLONE_NEWNET):
            os._exit(1)
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        os.write(said, b"+")
        while True:
            signal.pause()
    finally:
        os._exit(1)


def _inside(pid: int, do: Callable[[], None]) -> None:
    """Do something in another process's network namespace."""
    child = os.fork()
    if child == 0:
        try:
            place = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
            if not _libc().setns(place, CLONE_NEWNET):
                do()
                os._exit(0)
        finally:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    if status:
        raise OSError("the network could not be set up")


def _cable(one: int, its: str, other: int, theirs: str) -> None:
    """A pair of interfaces between two namespaces."""
    from pyroute2 import IPRoute

    def lay() -> None:
        with IPRoute() as route:
            route.link("add", ifname=its, kind="veth", peer={"ifname": theirs, "net_ns_pid": other})

    _inside(one, lay)


def _address(pid: int, name: str, ip: str, bits: int, gateway: str = "") -> None:
    from pyroute2 import IPRoute

    def give() -> None:
        with IPRoute() as route:
            for each in ("lo", name):
                route.link("set", index=route.link_lookup(ifname=each)[0], state="up")
            route.addr("add", index=route.link_lookup(ifname=name)[0], address=ip, prefixlen=bits)
            if gateway:
                route.route("add", dst="0.0.0.0/0", gateway=gateway)

    _inside(pid, give)


def _translate(pid: int, name: str, flags: Sequence[str]) -> None:
    """Masquerade what leaves through an interface, and take nothing for the router itself, as home routers do."""
    from pyroute2 import IPRoute
    from pyroute2.nftables.main import NFTables

    def expression(kind: str, **values: Any) -> dict[str, Any]:
        data = [(f"NFTA_{kind.upper()}_{key.upper()}", value) for key, value in values.items()]
        return {"attrs": [("NFTA_EXPR_NAME", kind), ("NFTA_EXPR_DATA", {"attrs": data})]}

    def rule() -> None:
        with IPRoute() as route:
            out = struct.pack("=I", route.link_lookup(ifname=name)[0])
        tables = NFTables(nfgen_family=NFPROTO_IPV4)
        tables.table("add", name="home")
        tables.chain("add", table="home", name="out", hook="postrouting", type="nat", policy=NF_ACCEPT)
        tables.chain("add", table="home", name="in", hook="input", type="filter", policy=NF_DROP)
        tables.rule(
            "add",
            table="home",
            chain="out",
            expressions=[
                [expression("meta", key=NFT_META_OIF, dreg=1)],
                [expression("cmp", sreg=1, op=0, data={"attrs": [("NFTA_DATA_VALUE", out)]})],
                [expression("masq", **({"flags": flags} if flags else {}))],
            ],
        )
        tables.close()

    _inside(pid, rule)


def _internet() -> int:
    """A namespace with a switch that all public interfaces hang on."""
    from pyroute2 import IPRoute

    pid = _hold()

    def switch() -> None:
        with IPRoute() as route:
            route.link("add", ifname="switch", kind="bridge")
            route.link("set", index=route.link_lookup(ifname="switch")[0], state="up")

    _inside(pid, switch)
    return pid


def _plug(internet: int, pid: int, name: str, ip: str) -> None:
    """Give a machine a public address."""
    from pyroute2 import IPRoute

    port = f"to-{pid}"
    _cable(internet, port, pid, name)

    def attach() -> None:
        with IPRoute() as route:
            index = route.link_lookup(ifname=port)[0]
            route.link("set", index=index, master=route.link_lookup(ifname="switch")[0], state="up")

    _inside(internet, attach)
    _address(pid, name, ip, 8)


def build(spec: Mapping[str, Any]) -> dict[str, int]:
    """Make the machines; returns the process that holds each.

    Args:
        spec: `public` names machines with addresses of their own; `homes` lists routers, each with `symmetric` and
            the `machines` behind it.

    """
    internet = _internet()
    held: dict[str, int] = {}
    for place, name in enumerate(spec["public"]):
        held[name] = _hold()
        _plug(internet, held[name], "eth0", f"5.1.0.{10 + place}")
    for place, home in enumerate(spec["homes"], start=1):
        router = held[f"router{place}"] = _hold()
        _plug(internet, router, "wan", f"5.2.0.{place}")
        for desk, name in enumerate(home["machines"], start=1):
            held[name] = _hold()
            _cable(router, f"lan{desk}", held[name], "eth0")
            _address(router, f"lan{desk}", f"192.168.{place}.{16 * desk + 1}", 28)
            _address(held[name], "eth0", f"192.168.{place}.{16 * desk + 2}", 28, f"192.168.{place}.{16 * desk + 1}")
        _translate(router, "wan", SYMMETRIC if home["symmetric"] else ())
    return held


@dataclass(frozen=True)
class Machine:
    """One machine of the lab."""

    pid: int
    """Of the process that holds its namespace."""
    own_users: bool
    """Whether that is in a user namespace of its own."""

    @property
    def prefix(self) -> list[str]:
        """The command that runs a command there."""
        return self.command()

    def command(self, *command: str) -> list[str]:
        """What runs this command there."""
        users = ["--user", "--preserve-credentials"] if self.own_users else []
        return ["nsenter", f"--target={self.pid}", *users, "--net", "--", *command]


def _prefix() -> list[str]:
    return [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]


def why_not() -> str:
    """Why there can be no lab on this machine; "" where there can."""
    if sys.platform != "linux" or shutil.which("nsenter") is None or shutil.which("unshare") is None:
        return "network namespaces need Linux, with nsenter and unshare of util-linux"
    tried = subprocess.run([*_prefix(), "unshare", "--net", "true"], check=False, capture_output=True, text=True)
    if tried.returncode:
        return f"network namespaces are not allowed here: {tried.stderr.strip()}"
    return ""


@contextmanager
def lab(spec: Mapping[str, Any]) -> Iterator[dict[str, Machine]]:
    """The machines of a lab, for as long as the context lasts."""
    prefix = _prefix()
    builder = subprocess.Popen(
        [*prefix, sys.executable, "-m", "tests.node.natlab", json.dumps(spec)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert builder.stdout is not None
    assert builder.stdin is not None
    try:
        line = builder.stdout.readline()
        assert line, "the lab could not be built"
        yield {name: Machine(pid, own_users=bool(prefix)) for name, pid in json.loads(line).items()}
    finally:
        builder.stdin.close()
        builder.wait(timeout=10)


def main() -> None:
    """Build, say so, and wait."""
    _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    held = build(json.loads(sys.argv[1]))
    sys.stdout.write(json.dumps(held) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    for pid in held.values():
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
