"""How far the nodes are to whom this one passes activations, or would: round trips by libp2p's ping, now and then.

A route goes from a span's end to where another begins, so those are asked whose spans join this node's. Of many, some
are asked anew each time, by chance, and the nearest are kept.
"""

import random
import secrets
from collections.abc import Callable, Sequence

import trio

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node.host import Host
from p2pos.node.streams import StreamLost
from p2pos.types import PeerId
from p2pos.wire.messages import Announcement

PING = "/ipfs/ping/1.0.0"
PING_BYTES = 32
"""As the protocol has it."""
PINGS = 3
"""On one stream; the least time counts, for what is above it was waiting for something else."""
PING_DEADLINE_S = 3.0
"""Seconds for one peer, dialling included. Who takes longer is no neighbour to have."""
INTERVAL_S = 10.0
"""Seconds between two rounds: a route is chosen by what was true a moment ago."""
FIRST_S = 1.0
"""Seconds before the first one, by when those who joined together have heard of one another."""
MOST = 16
"""Round trips kept, as many as an announcement holds."""
NEW = 4
"""Of them, how many places are given up each round to peers that weren't asked, where there are more than `MOST`."""

_log = log.get("round_trips")


class RoundTrips:
    """Measures round trips to neighbours.

    Args:
        host: whose connections.
        known: the announcements that this node believes.
        mine: this node's own announcement among them, or None before it serves.

    """

    def __init__(
        self, host: Host, known: Callable[[], Sequence[Announcement]], mine: Callable[[], Announcement | None]
    ) -> None:
        self._host = host
        self._known = known
        self._mine = mine
        self._ms: dict[PeerId, float] = {}

    @property
    def ms(self) -> dict[str, float]:
        """Peer → milliseconds, the nearest first."""
        return dict(sorted(self._ms.items(), key=lambda pair: pair[1]))

    async def run(self) -> None:
        """Measure until cancelled."""
        await trio.sleep(FIRST_S)
        while True:
            await self.measure()
            await trio.sleep(random.uniform(0.5, 1.5) * INTERVAL_S)

    async def measure(self) -> None:
        """One round: those who are kept, and some others."""
        mine = self._mine()
        joining = {
            PeerId(each.peer): each.addresses for each in self._known() if mine is not None and _join(mine, each)
        }
        self._ms = {peer: ms for peer, ms in self._ms.items() if peer in joining}
        others = [peer for peer in joining if peer not in self._ms]
        places = max(NEW, MOST - len(self._ms))
        async with trio.open_nursery() as nursery:
            for peer in (*self._ms, *random.sample(others, min(places, len(others)))):
                nursery.start_soon(self._measure_one, peer, joining[peer])
        self._ms = {PeerId(peer): ms for peer, ms in list(self.ms.items())[:MOST]}

    async def _measure_one(self, peer: PeerId, addresses: Sequence[str]) -> None:
        try:
            with trio.fail_after(PING_DEADLINE_S):
                await self._host.connect(peer, addresses, deadline_s=PING_DEADLINE_S)
                self._ms[peer] = round(await round_trip_ms(self._host, peer), 2)
        except (UnavailableError, PeerError, trio.TooSlowError) as exc:
            self._ms.pop(peer, None)
            _log.debug("no round trip", peer=peer, why=str(exc))


async def round_trip_ms(host: Host, peer: PeerId) -> float:
    """Milliseconds to a connected peer and back. Raises UnavailableError or PeerError where it doesn't answer so."""
    stream = await host.open_raw(peer, PING, deadline_s=PING_DEADLINE_S)
    least_s = float("inf")
    try:
        for _ in range(PINGS):
            sent, got = secrets.token_bytes(PING_BYTES), b""
            began_s = trio.current_time()
            await stream.write(sent)
            while len(got) < PING_BYTES:
                more = await stream.read(PING_BYTES - len(got))
                if not more:
                    raise UnavailableError(f"peer {peer} closed the stream", peer=peer)
                got += more
            least_s = min(least_s, trio.current_time() - began_s)
            if got != sent:
                raise PeerError(peer, "answered a ping with other bytes")
    except StreamLost as exc:
        raise UnavailableError(f"peer {peer} is gone", peer=peer) from exc
    finally:
        with trio.CancelScope(shield=True):
            await stream.reset()
    return least_s * 1e3


def _join(mine: Announcement, other: Announcement) -> bool:
    """Whether a route may lead from one to the other: same model and kind, and the spans meet, around the ring too."""
    if other.peer == mine.peer or other.engine or mine.engine:
        return False
    if (other.model, other.dtype, other.quantize, other.layers) != (mine.model, mine.dtype, mine.quantize, mine.layers):
        return False
    return other.start == mine.end % mine.layers or mine.start == other.end % mine.layers
