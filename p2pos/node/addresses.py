"""Multiaddresses: what may be listened on, what may be dialled, and which peer one names.

Direct ones are `/ip4|ip6|dns…/…/tcp/…`, with or without `/p2p/…` at the end. One through a relay is a direct one
that names the relay, then `/p2p-circuit/p2p/…`.
"""

import errno
import ipaddress
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from p2pos.errors import PeerError, UserError
from p2pos.types import PeerId

_EXAMPLE = "/ip4/127.0.0.1/tcp/4001"
_HOSTS = {"ip4", "ip6", "dns", "dns4", "dns6"}
_ANY = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}  # noqa: S104 - recognised here, not listened on
_CIRCUIT = "/p2p-circuit"
_HASHES = {0x00, 0x12}
_LONGEST_ID = 44
"""Bytes: keys of up to 42 stand in the id themselves, https://github.com/libp2p/specs/blob/master/peer-ids."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """A way to a peer through a relay."""

    relay: PeerId
    address: Any
    """The multiaddress where the relay is dialled."""


def listenable(text: str) -> Any:
    """The multiaddress, where it names an IP address and a TCP port. Raises UserError otherwise."""
    parsed = _parse(text)
    if _names(parsed) not in (["ip4", "tcp"], ["ip6", "tcp"]):
        raise UserError(f"“{text}” is not an address to listen on", hint=f"write it like {_EXAMPLE}")
    return parsed


def peer_of(text: str) -> PeerId:
    """The peer that a multiaddress names at its end. Raises UserError where it names none, or can't be dialled."""
    relay, circuit, end = text.rpartition(f"{_CIRCUIT}/p2p/")
    parsed = _parse(f"{relay}/p2p/{end}" if circuit else text)
    names = _names(parsed)
    wanted = ["tcp", "p2p", "p2p"] if circuit else ["tcp", "p2p"]
    if not names or names[0] not in _HOSTS or names[1:] != wanted:
        raise UserError(f"“{text}” is not the address of a peer", hint=f"write it like {_EXAMPLE}/p2p/12D3KooW…")
    return PeerId(str(parsed.get_peer_id()))


def dialable(text: str, peer: PeerId) -> Any:
    """The multiaddress, or the `Circuit`, that is to be dialled for `peer`, which said so itself.

    Raises PeerError where it is none of TCP, or names another peer.
    """
    if text.endswith(tail := f"{_CIRCUIT}/p2p/{peer}"):
        return circuit_of(text.removesuffix(tail), peer)
    parsed = _parse(text)
    names = _names(parsed)
    if not names or names[0] not in _HOSTS or names[1:] not in (["tcp"], ["tcp", "p2p"]):
        raise PeerError(peer, f"has an address that can't be dialled: {text[:100]}")
    if names[-1] == "p2p" and parsed.value_for_protocol("p2p") != peer:
        raise PeerError(peer, f"has an address that names another peer: {text[:200]}")
    return parsed


def circuit_of(relay: str, peer: PeerId) -> Circuit:
    """The way through the relay that a direct address names at its end. Raises PeerError, of `peer`, for another."""
    try:
        named = peer_of(relay)
    except UserError as exc:
        raise PeerError(peer, f"has an address that can't be dialled: {relay[:100]}") from exc
    if _CIRCUIT in relay:
        raise PeerError(peer, f"has an address through two relays: {relay[:200]}")
    return Circuit(named, _parse(relay))


def relay_to_listen_at(text: str) -> str | None:
    """The relay's address, where somebody wants to listen at `…/p2p/RELAY/p2p-circuit`; None for any other address.

    Raises UserError where it is not the address of a relay.
    """
    if not text.endswith(_CIRCUIT):
        return None
    relay = text.removesuffix(_CIRCUIT)
    peer_of(relay)
    return relay


def through(relay: str, peer: PeerId) -> str:
    """The address of `peer` through the relay at this address, which names it."""
    return f"{relay}{_CIRCUIT}/p2p/{peer}"


def is_circuit(text: str) -> bool:
    """Whether an address leads through a relay."""
    return _CIRCUIT in text


def socket_of(address: Any) -> tuple[str, int] | None:
    """IP address and TCP port of a multiaddress that names them and nothing before; None for another."""
    names = _names(address)
    if names[:2] not in (["ip4", "tcp"], ["ip6", "tcp"]) or "p2p-circuit" in names:
        return None
    return str(ipaddress.ip_address(address.value_for_protocol(names[0]))), int(address.value_for_protocol("tcp"))


def packed(ip: str, port: int) -> Any:
    """The multiaddress of an IP address and a TCP port."""
    return Multiaddr(f"/{'ip6' if ':' in ip else 'ip4'}/{ip}/tcp/{port}")


def bare(text: str) -> Any:
    """The multiaddress without the peer that it names; None where it is none, or leads through a relay."""
    parsed = _parse(text)
    place = socket_of(parsed)
    return None if place is None else packed(*place)


def decode(packed: Iterable[bytes], limit: int) -> list[Any]:
    """The multiaddresses among what a peer sent as such, the first `limit` of them; what is none is passed over."""
    found = (_parse(each) for each, _ in zip(packed, range(limit), strict=False))
    return [address for address in found if address is not None]


def is_global(ip: str) -> bool:
    """Whether an IP address means the same everywhere."""
    return ipaddress.ip_address(ip).is_global


def library_id(peer: PeerId) -> Any:
    """The library's form of a peer id. Raises PeerError where it is none."""
    try:
        return ID.from_string(peer)
    except ValueError as exc:
        raise PeerError(peer, "is not a peer id") from exc


def peer_from(packed: bytes) -> PeerId | None:
    """The peer id that these bytes are, or None where they are none: a multihash of sha2-256, or of a short key."""
    if len(packed) < 2 or packed[1] != len(packed) - 2 or packed[0] not in _HASHES or len(packed) > _LONGEST_ID:
        return None
    return PeerId(str(ID(packed)))


def expanded(text: str) -> Iterator[str]:
    """The addresses that others can dial where this one is listened on: all of this machine's for 0.0.0.0 and ::."""
    parsed = listenable(text)
    family, port = _names(parsed)[0], parsed.value_for_protocol("tcp")
    host = parsed.value_for_protocol(family)
    if host not in _ANY:
        yield text
        return
    found = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == _ANY[host] and "%" not in address.address  # a link-local one means nothing elsewhere
    ]
    for ip in sorted(set(found), key=lambda ip: (ip.startswith("127.") or ip == "::1", ip)):
        yield f"/{family}/{ip}/tcp/{port}"


def why_not(address: Any) -> str:
    """One line that says why this multiaddress can't be listened on."""
    family = _names(address)[0]
    host, port = address.value_for_protocol(family), int(address.value_for_protocol("tcp"))
    with socket.socket(socket.AF_INET if family == "ip4" else socket.AF_INET6) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return f"{address} is in use"
            return f"{address} can't be listened on ({os.strerror(exc.errno or 0)})"
    return f"{address} could not be listened on"


def _parse(text: str | bytes) -> Any:
    try:
        address = Multiaddr(text)
        str(address)  # of bytes, only this looks at all of them
    except (MultiaddrError, ValueError):
        return None
    return address


def _names(address: Any) -> list[str]:
    return [] if address is None else [protocol.name for protocol in address.protocols()]


def tcp_ip(text: str) -> str | None:
    """The IPv4 address of a multiaddress that is one of TCP; None for others."""
    parsed = _parse(text)
    return str(parsed.value_for_protocol("ip4")) if _names(parsed)[:2] == ["ip4", "tcp"] else None


async def all_refuse(addresses: Sequence[str]) -> bool:
    """Whether it is certain that nobody listens at any of these: each is an IP address that refuses a connection.

    An address of another kind, one that can't be reached, or none at all leaves it uncertain.
    """
    refused = 0
    for text in addresses:
        parsed = _parse(text)
        if _names(parsed)[:2] not in (["ip4", "tcp"], ["ip6", "tcp"]) or "p2p-circuit" in _names(parsed):
            return False
        family = _names(parsed)[0]
        kind = socket.AF_INET if family == "ip4" else socket.AF_INET6
        with trio.socket.socket(kind, socket.SOCK_STREAM) as probe:
            try:
                await probe.connect((parsed.value_for_protocol(family), int(parsed.value_for_protocol("tcp"))))
            except ConnectionRefusedError:
                refused += 1
            except OSError:
                return False
            else:
                return False
    return refused > 0
