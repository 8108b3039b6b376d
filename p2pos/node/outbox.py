"""Messages on their way to peers: queued at once, sent in order, so that a session's machine never waits for a socket.

A stage that waited for one peer to read, while it holds up what another peer sends it, could close a ring of stages
that all wait for one another. What may wait here is bounded by the sessions' own windows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node.links import Links
from p2pos.shard.session import MAX_SESSIONS, WINDOW
from p2pos.types import PeerId
from p2pos.wire.messages import WireMessage

QUEUE = MAX_SESSIONS * (WINDOW + 4)
"""Messages that may wait for one peer: each session's chunks in flight, and an ack, a token, a fault and an end."""

_log = log.get("outbox")


@dataclass(frozen=True, slots=True)
class _Parcel:
    addresses: tuple[str, ...]
    message: WireMessage
    payload: bytes | memoryview


class Outbox:
    """A queue and a sending task per peer, over `Links`.

    Args:
        links: sends.
        on_lost: told of a peer that could not be sent to; what waited for it is dropped.

    """

    def __init__(self, links: Links, on_lost: Callable[[PeerId], None]) -> None:
        self._links = links
        self._on_lost = on_lost
        self._queues: dict[PeerId, trio.MemorySendChannel[_Parcel]] = {}
        self._nursery: trio.Nursery | None = None
        self._idle = trio.Condition()
        self._waiting = 0

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    def post(
        self, peer: PeerId, addresses: Sequence[str], message: WireMessage, payload: bytes | memoryview = b""
    ) -> None:
        """Queue a message and return at once.

        Raises UnavailableError where so much waits for this peer that it must have broken a session's window.
        """
        queue = self._queues.get(peer)
        if queue is None:
            if self._nursery is None:
                raise UnavailableError("the node is not running", peer=peer)
            queue, arrivals = trio.open_memory_channel[_Parcel](QUEUE)
            self._queues[peer] = queue
            self._nursery.start_soon(self._deliver, peer, arrivals)
        try:
            queue.send_nowait(_Parcel(tuple(addresses), message, payload))
        except trio.WouldBlock:
            raise UnavailableError(f"peer {peer} reads too slowly", peer=peer) from None
        self._waiting += 1

    async def flush(self, deadline_s: float) -> None:
        """Wait until everything queued was sent, or for this long."""
        with trio.move_on_after(deadline_s):
            async with self._idle:
                while self._waiting:
                    await self._idle.wait()

    async def _deliver(self, peer: PeerId, arrivals: trio.MemoryReceiveChannel[_Parcel]) -> None:
        try:
            async for parcel in arrivals:
                await self._links.send(peer, parcel.addresses, parcel.message, parcel.payload)
                await self._sent(1)
        except (UnavailableError, PeerError) as exc:
            _log.info("could not send", peer=peer, why=str(exc))
            self._queues.pop(peer, None)
            dropped = 1 + arrivals.statistics().current_buffer_used
            arrivals.close()
            await self._sent(dropped)
            self._on_lost(peer)

    async def _sent(self, count: int) -> None:
        async with self._idle:
            self._waiting -= count
            if not self._waiting:
                self._idle.notify_all()
