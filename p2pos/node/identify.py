"""What a connected peer says of itself, and of us: identify, in libp2p's own message.

The library asks everybody too, and keeps the answers for itself. Here it is asked when the answer is needed.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from libp2p.identity.identify.pb.identify_pb2 import Identify

from p2pos.node import addresses as multiaddresses
from p2pos.node.pipes import Pipe
from p2pos.types import PeerId

IDENTIFY_PROTOCOL = "/ipfs/id/1.0.0"
MAX_IDENTIFY = 64 << 10
"""Bytes: keys, protocols, addresses and a signed record of them; other implementations send some 4 KiB."""
MAX_LISTEN = 16
"""Addresses that are looked at."""


class Opener(Protocol):
    """What asking needs of a host."""

    async def open_raw(self, peer: PeerId, protocol: str, *, deadline_s: float = ...) -> Pipe:
        """Open a stream to a peer that is connected. Raises UnavailableError, PeerError."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a peer says."""

    listening: tuple[Any, ...]
    """Multiaddresses where it listens."""
    sees_us: tuple[str, int] | None
    """IP address and port that our connection comes from; None where it leads through a relay."""


async def ask(host: Opener, peer: PeerId) -> Said:
    """Ask a connected peer. Raises UnavailableError, PeerError."""
    pipe = await host.open_raw(peer, IDENTIFY_PROTOCOL)
    return await read(pipe)


async def read(pipe: Pipe) -> Said:
    """Take what a peer says on a stream that was opened for it. Raises UnavailableError, PeerError."""
    try:
        said = await pipe.receive(Identify, limit=MAX_IDENTIFY)
    finally:
        await pipe.reset()
    seen = multiaddresses.decode([said.observed_addr], 1)
    listening = multiaddresses.decode(said.listen_addrs, MAX_LISTEN)
    return Said(tuple(listening), multiaddresses.socket_of(seen[0]) if seen else None)
