"""Whether those whose connections ended are gone: nobody is believed about another's death, so they are dialled."""

from collections.abc import Callable

import trio

from p2pos import log
from p2pos.node import addresses
from p2pos.node.host import Host
from p2pos.node.status import Clock
from p2pos.node.table import Table
from p2pos.types import PeerId

PROBES_S = (0.0, 0.5, 1.5)
"""Seconds after a connection's end at which it is tried whether its peer still listens."""
PROBE_DEADLINE_S = 1.0
"""Seconds for one such trial."""
MAX_LOST = 256
"""Lost peers whose state is looked into at once; those beyond it are forgotten when they expire."""

_log = log.get("discovery")


class Losses:
    """Looks into every connection that ends.

    Args:
        host: whose connections.
        table: what is believed; who is gone is buried there.
        clock: tells the time.
        gone: told of each that is gone.

    """

    def __init__(self, host: Host, table: Table, *, clock: Clock, gone: Callable[[PeerId], None]) -> None:
        self._host = host
        self._table = table
        self._clock = clock
        self._gone = gone
        self._put, self._get = trio.open_memory_channel[PeerId](MAX_LOST)
        host.on_disconnect(self._on_disconnect)

    def _on_disconnect(self, peer: PeerId) -> None:
        if self._table.get(peer, self._clock()) is not None:
            try:
                self._put.send_nowait(peer)
            except trio.WouldBlock:
                _log.debug("too many peers are lost at once to look into", peer=peer)

    async def run(self) -> None:
        """See whether those whose connections ended still listen, and believe in those no more who don't."""
        async with trio.open_nursery() as nursery:
            async for peer in self._get:
                nursery.start_soon(self._look_after, peer)

    async def _look_after(self, peer: PeerId) -> None:
        for pause_s in PROBES_S:
            await trio.sleep(pause_s)
            told = self._table.get(peer, self._clock())
            if told is None or peer in self._host.connected():
                return
            with trio.move_on_after(PROBE_DEADLINE_S):
                if await addresses.all_refuse(told.addresses):
                    self._table.bury(peer)
                    self._gone(peer)
                    _log.info("a node is gone", peer=peer, layers=f"{told.start}:{told.end}")
                    return
