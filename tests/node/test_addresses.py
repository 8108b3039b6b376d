"""Multiaddresses are understood, or refused at the fault of whoever gave them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import PeerError, UserError
from p2pos.node import addresses
from p2pos.types import PeerId

PEER = PeerId("12D3KooWH47sQmYEbgNZGTQuPaVGeDUL2SDXaai6TiQtGpJKJg5Z")
OTHER = PeerId("12D3KooWA7Ly78TPaaKcH4LXUNg1J3nfyd4Wrw3xt6ukbs1SpkYU")


@pytest.mark.parametrize("text", ["/ip4/127.0.0.1/tcp/0", "/ip4/0.0.0.0/tcp/4001", "/ip6/::1/tcp/4001"])
def test_listenable(text: str) -> None:
    """An IP address with a TCP port can be listened on."""
    assert str(addresses.listenable(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "127.0.0.1:4001",
        "/ip4/127.0.0.1",
        "/ip4/127.0.0.1/udp/4001",
        "/ip4/127.0.0.1/tcp/65536",
        "/ip4/127.0.0.1/tcp/-1",
        "/ip4/300.0.0.1/tcp/1",
        "/dns4/localhost/tcp/1",
        "/ip4/127.0.0.1/tcp/1/ws",
        f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}",
        "/ip4/127.0.0.1/tcp/1\x00",
        "😀",
    ],
)
def test_not_listenable(text: str) -> None:
    """Anything else is the user's mistake, with an example of how to write it."""
    with pytest.raises(UserError, match="not an address to listen on") as caught:
        addresses.listenable(text)
    assert "/ip4/127.0.0.1/tcp/4001" in caught.value.hint


@pytest.mark.parametrize("host", ["ip4/1.2.3.4", "ip6/::1", "dns4/example.org", "dns/example.org"])
def test_peer_of(host: str) -> None:
    """A bootstrap address names its peer at the end."""
    assert addresses.peer_of(f"/{host}/tcp/4001/p2p/{PEER}") == PEER


@pytest.mark.parametrize(
    "text", ["", "/ip4/1.2.3.4/tcp/1", f"/p2p/{PEER}", f"/ip4/1.2.3.4/udp/1/p2p/{PEER}", "/ip4/1.2.3.4/tcp/1/p2p/12D3"]
)
def test_no_peer(text: str) -> None:
    """A bootstrap address without a peer is the user's mistake."""
    with pytest.raises(UserError, match="not the address of a peer"):
        addresses.peer_of(text)


@given(st.text(max_size=60))
def test_announced_noise_is_a_peer_error(text: str) -> None:
    """Whatever a peer says its address is, dialling it raises PeerError or is an address."""
    with suppress(PeerError):
        assert str(addresses.dialable(text, PEER)).startswith("/")


def test_an_address_of_another_peer_is_refused() -> None:
    """A peer that announces another's address is at fault."""
    with pytest.raises(PeerError, match="another peer"):
        addresses.dialable(f"/ip4/1.2.3.4/tcp/1/p2p/{OTHER}", PEER)


@pytest.mark.parametrize("text", ["", "xyz0", "12D3KooW", "🙂", "1" * 200])
def test_not_a_peer_id(text: str) -> None:
    """What is no peer id raises PeerError, or stays one that nobody has."""
    with suppress(PeerError):
        assert addresses.library_id(PeerId(text)).to_bytes() is not None


def test_a_wildcard_is_announced_as_real_addresses() -> None:
    """Who listens on 0.0.0.0 is dialled at this machine's addresses, loopback last."""
    found = list(addresses.expanded("/ip4/0.0.0.0/tcp/4001"))
    assert "/ip4/127.0.0.1/tcp/4001" in found
    assert not any("0.0.0.0" in text for text in found)
    assert found[-1].startswith("/ip4/127.")


def test_other_addresses_stay() -> None:
    """Who listens on one address is dialled there."""
    assert list(addresses.expanded("/ip6/::1/tcp/4001")) == ["/ip6/::1/tcp/4001"]
