"""Hosts on one network hear of one another without an address to join through."""

from collections.abc import Sequence

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2pos.node import mdns
from p2pos.node.host import open_host
from p2pos.node.identity import Identity
from p2pos.types import PeerId
from tests.node.stock import LOOPBACK

DEADLINE_S = 30
"""Seconds in which a machine that is busy with other things hears a multicast."""


def test_two_hosts_hear_of_each_other() -> None:
    """Each is told of the other's addresses, and whoever has another swarm key of nobody."""
    key = bytes(32)

    async def body() -> None:
        met: dict[PeerId, set[PeerId]] = {}
        both = trio.Event()

        def meeter(own: PeerId):
            async def meet(peer: PeerId, where: Sequence[str]) -> None:
                await trio.lowlevel.checkpoint()
                assert all(address.endswith(peer) for address in where)
                met.setdefault(own, set()).add(peer)
                if len(met) == 2:
                    both.set()

            return meet

        async with (
            open_host(Identity.new(), LOOPBACK) as one,
            open_host(Identity.new(), LOOPBACK) as other,
            open_host(Identity.new(), LOOPBACK) as apart,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(mdns.run, one, meeter(one.peer))
            await nursery.start(
                lambda task_status: mdns.run(apart, meeter(apart.peer), swarm_key=key, task_status=task_status)
            )
            await nursery.start(mdns.run, other, meeter(other.peer))
            with trio.fail_after(DEADLINE_S):
                await both.wait()
            assert met == {one.peer: {other.peer}, other.peer: {one.peer}}
            nursery.cancel_scope.cancel()

    trio.run(body)


def test_a_record_says_all_addresses() -> None:
    """What a record holds is read back, by peer; an address too long for it is left out."""
    peer = Identity.new().peer
    addresses = [f"/ip4/127.0.0.1/tcp/4001/p2p/{peer}", f"/ip4/10.0.0.1/tcp/4001/p2p/{peer}"]
    long = f"/dns4/{'x' * 200}/tcp/1/p2p/{peer}"
    assert mdns.addresses_of(mdns.text_of([*addresses, long])) == {peer: addresses}


@given(st.binary(max_size=300))
def test_any_record(text: bytes) -> None:
    """Whatever a stranger's record holds is no fault of ours."""
    mdns.addresses_of(text)
    assert mdns.addresses_of(b"\x09dnsaddr=x" + text[:0]) == {}


@pytest.mark.parametrize("key", [None, bytes(32), b"x" * 32])
def test_a_service_s_name_is_short_enough(key: bytes | None) -> None:
    """A service's name has at most 15 characters, and each key its own."""
    name = mdns.service(key).removesuffix("._udp.local.").removeprefix("_")
    assert len(name) <= 15
    assert (name == "p2p") == (key is None)
