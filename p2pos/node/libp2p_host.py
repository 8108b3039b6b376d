"""The library's host as ours is made of: what secures it, what carries its streams, and what bounds it."""

import logging
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.x25519 import create_new_key_pair as new_noise_key
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.rcmgr import ResourceLimits, ResourceManager
from libp2p.rcmgr.connection_limits import ConnectionLimits
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.security.tls.transport import PROTOCOL_ID as TLS
from libp2p.security.tls.transport import TLSTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.tcp.tcp import TCP

from p2pos.node import libp2p_patches
from p2pos.node.identity import Identity

MAX_CONNECTIONS = 2000
"""Open at once, in both directions; each costs some 100 KiB and a file descriptor."""
MAX_STREAMS = 20_000
"""Open at once over all connections."""
MAX_CONNECTIONS_PER_PEER = 4
"""Two when both ends dial at once, and two more while lost ones are not yet noticed."""
PING_INTERVAL_S = 10.0
"""Between two questions whether a connected peer's process still answers; TCP can't see one that hangs."""
PING_TIMEOUT_S = 5.0
"""After which such a peer counts as gone."""
GOODBYE_S = 2.0
"""For closing all connections when the host ends; after that their sockets are closed without a word."""


def make(identity: Identity, swarm_key: bytes | None) -> Any:
    """One that does not run yet. `swarm_key`: 32 bytes that all nodes of a private swarm share, or None."""
    libp2p_patches.apply()
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)  # what it calls an error, we raise or log ourselves
    library = new_host(
        key_pair=identity.key_pair,
        sec_opt=_security(identity),
        muxer_opt={YAMUX: Yamux},
        transports=[TCP()],
        psk=None if swarm_key is None else swarm_key.hex(),
        resource_manager=_limits(),
        connection_config=ConnectionConfig(
            max_connections=MAX_CONNECTIONS,
            min_connections=0,  # all may come from outside
            low_watermark=0,
            high_watermark=MAX_CONNECTIONS,
            max_connections_per_peer=MAX_CONNECTIONS_PER_PEER,
            enable_health_monitoring=True,
            health_initial_delay=PING_INTERVAL_S,
            health_check_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
            abort_connection_on_ping_failure=True,
        ),
    )
    network = library.get_network()
    network.retry_config = RetryConfig(max_retries=0)  # who dials decides about trying again
    network.set_resource_manager(_limits(), enable_stream_semaphore=False)  # refuse the excess, don't queue it
    return library


async def close(library: Any) -> None:
    """Close all connections at once, in bounded time, then what is left."""
    with trio.move_on_after(GOODBYE_S):
        async with trio.open_nursery() as nursery:
            for connection in library.get_network().get_connections():
                nursery.start_soon(connection.close)
    await library.close()


def _security(identity: Identity) -> dict[Any, Any]:
    """How a connection may be secured, first choice first."""
    return {
        NOISE: Noise(identity.key_pair, noise_privkey=new_noise_key().private_key),
        TLS: TLSTransport(identity.key_pair),
    }


def _limits() -> ResourceManager:
    """The library's own limits, without its circuit breaker: five refusals close that to everyone for a minute."""
    return ResourceManager(
        limits=ResourceLimits(max_connections=MAX_CONNECTIONS, max_streams=MAX_STREAMS),
        connection_limits=ConnectionLimits(
            max_established_total=MAX_CONNECTIONS, max_established_per_peer=2 * MAX_CONNECTIONS_PER_PEER
        ),
        enable_metrics=False,
        enable_memory_limits=False,
        enable_circuit_breaker=False,
        enable_graceful_degradation=False,
        enable_rate_limiting=False,
    )
