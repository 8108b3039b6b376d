from typing import Any

import pytest
import trio

from p2pos.errors import UnavailableError
from p2pos.node.host import open_host
from p2pos.node.identity import Identity
from p2pos.node.round_trips import RoundTrips, round_trip_ms
from p2pos.types import PeerId
from p2pos.wire.messages import Announcement

LISTEN = ("/ip4/127.0.0.1/tcp/0",)


def announced(peer: str, start: int, end: int, **changes: Any) -> Announcement:
    values: dict[str, Any] = {
        "peer": peer,
        "addresses": [],
        "sequence": 1,
        "expires": 2,
        "model": "m",
        "model_name": "m",
        "layers": 6,
        "start": start,
        "end": end,
        "dtype": "bf16",
        "tokens_per_s": 0.0,
        "sessions": 0,
        "cached_tokens": 0,
        "resident_bytes": 0,
        "weight_bytes": 0,
    }
    return Announcement(**{**values, **changes})


def test_the_round_trip_to_a_neighbour_is_measured() -> None:
    """Whose span follows, or closes the ring, is asked; whose doesn't join, or can't be reached, isn't there."""

    async def main() -> None:
        async with open_host(Identity.new(), LISTEN) as mine, open_host(Identity.new(), LISTEN) as theirs:
            own = announced(mine.peer, 0, 2)
            swarm = [
                own,
                announced(theirs.peer, 2, 6, addresses=list(theirs.addresses)),
                announced(Identity.new().peer, 1, 3, addresses=list(theirs.addresses)),
                announced(Identity.new().peer, 4, 6, addresses=["/ip4/127.0.0.1/tcp/1"]),
                announced(Identity.new().peer, 2, 6, addresses=list(theirs.addresses), dtype="f32"),
            ]
            trips = RoundTrips(mine, lambda: swarm, lambda: own)
            await trips.measure()
            assert list(trips.ms) == [theirs.peer]
            assert 0 < trips.ms[theirs.peer] < 1000
            swarm.pop(1)
            await trips.measure()
            assert trips.ms == {}

    trio.run(main)


def test_before_a_node_serves_nobody_is_asked() -> None:
    """Without a span there are no neighbours."""

    async def main() -> None:
        async with open_host(Identity.new(), LISTEN) as host:
            trips = RoundTrips(host, lambda: [announced(Identity.new().peer, 0, 2)], lambda: None)
            await trips.measure()
            assert trips.ms == {}

    trio.run(main)


def test_a_peer_that_is_not_connected_has_no_round_trip() -> None:
    """Measuring alone connects to nobody."""

    async def main() -> None:
        async with open_host(Identity.new()) as host:
            with pytest.raises(UnavailableError):
                await round_trip_ms(host, PeerId(Identity.new().peer))

    trio.run(main)
