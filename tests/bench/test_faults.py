"""The harness that makes nodes fail: what it does to a node is so, and it leaves nothing behind."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from bench import netns
from bench.faults import Node, cluster
from bench.trial import Trial
from p2pos.errors import InternalError

needs_networks = pytest.mark.skipif(bool(netns.why_not()), reason=netns.why_not() or "there can be networks")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, checkpoint_of) -> Iterator[Node]:
    """A node on loopback."""
    directory = tmp_path_factory.mktemp("faults")
    with cluster(directory / "c", checkpoint_of("llama"), cache=directory / "cache") as nodes:
        node = nodes.add("0:6")
        nodes.start(node)
        yield node


def heard(address: str, port: int) -> bool:
    """Whether somebody takes a connection there within a second."""
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except TimeoutError:
        return False


def test_a_hung_node_stays_and_does_nothing(one: Node) -> None:
    """SIGSTOP stops the process that serves, not one around it; SIGCONT lets it answer."""
    one.hang()
    assert psutil.Process(one.pid).status() == psutil.STATUS_STOPPED
    one.resume()
    assert one.status()["layers"] == "0:6"


def test_a_starved_node_has_a_limit_that_is_taken_back(one: Node) -> None:
    """The limit is what it has, and it can grow again afterwards."""
    limit = Path(f"/proc/{one.pid}/limits")

    def address_space() -> str:
        return next(line for line in limit.read_text().splitlines() if line.startswith("Max address space")).split()[3]

    one.starve()
    assert int(address_space()) <= psutil.Process(one.pid).memory_info().vms
    one.feed()
    assert address_space() == "unlimited"


def test_a_node_that_was_killed_comes_back_as_it_was(one: Node) -> None:
    """Its identity and its address are the same in the next life, and its process is another."""
    before = one.peer, one.address, one.pid
    one.kill()
    assert not psutil.pid_exists(before[2])
    one.launch()
    one.wait_ready()
    assert (one.peer, one.address) == before[:2]
    assert one.pid != before[2]


def test_a_node_on_loopback_cannot_be_cut(one: Node) -> None:
    """It shares its network with all others."""
    with pytest.raises(InternalError, match="no network of its own"):
        one.cut()


@needs_networks
def test_a_cut_place_is_silent_until_it_is_mended() -> None:
    """Nothing comes back from it: no answer and no refusal. What was lost is sent again once it is mended."""
    with netns.network() as net:
        place = net.place()
        listening = "import socket; s = socket.create_server(('0.0.0.0', 5000)); print(flush=True); input()"
        process = subprocess.Popen(
            [*place.words, "python3", "-c", listening], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout
        assert process.stdout.readline() == b"\n"
        assert heard(place.address, 5000)
        place.cut()
        assert not heard(place.address, 5000)
        place.mend()
        assert any(heard(place.address, 5000) for _ in range(10))
        process.communicate(timeout=10)


@needs_networks
def test_a_network_leaves_nothing_behind() -> None:
    """Bridge, links and namespaces are gone with it."""
    with netns.network() as net:
        name = net.place().name
        assert (netns.NAMES / name).exists()
    assert not (netns.NAMES / name).exists()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert name.partition("-")[0] not in links


@needs_networks
def test_two_networks_do_not_meet() -> None:
    """Benches and tests that run at once get networks of their own."""
    with netns.network() as one_, netns.network() as other:
        assert one_.address != other.address


@needs_networks
def test_nodes_in_a_network_answer_from_outside(tmp_path: Path, checkpoint_of) -> None:
    """A node in a namespace is reached on its own address, by peers and over HTTP."""
    with (
        netns.network() as net,
        cluster(tmp_path / "c", checkpoint_of("llama"), cache=tmp_path / "cache", net=net) as nodes,
    ):
        node = nodes.add("0:6")
        nodes.start(node)
        host = urlsplit(node.ready["api"]).hostname
        assert host != "127.0.0.1"
        assert f"/ip4/{host}/" in node.address
        assert node.status()["layers"] == "0:6"
        assert Path(f"/proc/{node.pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()


def test_a_pause_is_the_longest_wait_that_ends_after_the_fault() -> None:
    """Gaps that were over before don't count; the one that the fault fell into counts whole."""
    trial = Trial((1, 2, 3, 4), "length", 0.0, (5.0, 6.0, 8.0, 9.0), failed_s=6.5, unhurt=2, error=None)
    assert trial.pause_s == 2.0


def test_a_fault_before_the_first_token_makes_that_late() -> None:
    """While the prompt goes through, the pause is the whole time to the first token."""
    trial = Trial((1, 2), "length", 1.0, (4.0, 4.5), failed_s=2.0, unhurt=0, error=None)
    assert trial.pause_s == 3.0
