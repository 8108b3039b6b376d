"""What a host is told of its connections: that one begins or ends, and whether it is relayed."""

from collections.abc import Callable
from typing import Any

from libp2p.abc import INotifee
from libp2p.connection_types import ConnectionType
from multiaddr import Multiaddr

from p2pos.node import addresses as multiaddresses
from p2pos.types import PeerId


class Notifier(INotifee):  # type: ignore[misc]  # the library ships no types that mypy follows
    """Hears of every connection that begins or ends."""

    def __init__(self, begun: Callable[[PeerId], None], ended: Callable[[PeerId], None]) -> None:
        self._begun = begun
        self._ended = ended

    async def connected(self, network: Any, conn: Any) -> None:  # noqa: ARG002 - the library's signature
        """One begins."""
        _describe(conn)
        self._begun(PeerId(str(conn.muxed_conn.peer_id)))

    async def disconnected(self, network: Any, conn: Any) -> None:  # noqa: ARG002
        """One has ended."""
        self._ended(PeerId(str(conn.muxed_conn.peer_id)))

    async def opened_stream(self, network: Any, stream: Any) -> None:
        """Not of interest."""

    async def closed_stream(self, network: Any, stream: Any) -> None:
        """Not of interest."""

    async def listen(self, network: Any, multiaddr: Any) -> None:
        """Not of interest."""

    async def listen_close(self, network: Any, multiaddr: Any) -> None:
        """Not of interest."""


def _describe(connection: Any) -> None:
    """Say of a connection whether it is relayed.

    Stock: the layers above a socket lose it, all connections are of an unknown kind, and a stream may be opened
    through a relay though a direct connection is there.
    """
    remote = connection.muxed_conn.get_remote_address()
    if remote is None:
        address = Multiaddr(multiaddresses.through("", PeerId(str(connection.muxed_conn.peer_id))))
        connection.set_transport_info([address], ConnectionType.RELAYED)
    else:
        connection.set_transport_info([multiaddresses.packed(*remote[:2])], ConnectionType.DIRECT)
