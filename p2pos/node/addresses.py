"""Multiaddresses: what may be listened on, what may be dialled, and which peer one names.

Only `/ip4|ip6|dns…/…/tcp/…` for now, with or without `/p2p/…` at the end.
"""

import errno
import os
import socket
from collections.abc import Iterator, Sequence
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


def listenable(text: str) -> Any:
    """The multiaddress, where it names an IP address and a TCP port. Raises UserError otherwise."""
    parsed = _parse(text)
    if _names(parsed) not in (["ip4", "tcp"], ["ip6", "tcp"]):
        raise UserError(f"“{text}” is not an address to listen on", hint=f"write it like {_EXAMPLE}")
    return parsed


def peer_of(text: str) -> PeerId:
    """The peer that a multiaddress names at its end. Raises UserError where it names none, or no TCP port."""
    parsed = _parse(text)
    names = _names(parsed)
    if not names or names[0] not in _HOSTS or names[1:] != ["tcp", "p2p"]:
        raise UserError(f"“{text}” is not the address of a peer", hint=f"write it like {_EXAMPLE}/p2p/12D3KooW…")
    return PeerId(parsed.value_for_protocol("p2p"))


def dialable(text: str, peer: PeerId) -> Any:
    """The multiaddress that is to be dialled for `peer`, which said so itself.

    Raises PeerError where it is none of TCP, or names another peer.
    """
    parsed = _parse(text)
    names = _names(parsed)
    if not names or names[0] not in _HOSTS or names[1:] not in (["tcp"], ["tcp", "p2p"]):
        raise PeerError(peer, f"has an address that can't be dialled: {text[:100]}")
    if names[-1] == "p2p" and parsed.value_for_protocol("p2p") != peer:
        raise PeerError(peer, f"has an address that names another peer: {text[:200]}")
    return parsed


def library_id(peer: PeerId) -> Any:
    """The library's form of a peer id. Raises PeerError where it is none."""
    try:
        return ID.from_string(peer)
    except ValueError as exc:
        raise PeerError(peer, "is not a peer id") from exc


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


def _parse(text: str) -> Any:
    try:
        return Multiaddr(text)
    except (MultiaddrError, ValueError):
        return None


def _names(address: Any) -> list[str]:
    return [] if address is None else [protocol.name for protocol in address.protocols()]


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
