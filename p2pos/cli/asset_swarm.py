"""An item's content from the swarm. By itself because libp2p is slow to import, and only who fetches needs it."""

from collections.abc import Mapping, Sequence

import trio

from p2pos.cli.options import swarm_key
from p2pos.cli.progress import progress_bars
from p2pos.config import Settings
from p2pos.content.store import Store
from p2pos.node import visitor
from p2pos.node.addresses import peer_of
from p2pos.node.gathering import Gathered, Gathering
from p2pos.types import PeerId


def gather(settings: Settings, store: Store, digest: bytes, most: int) -> Gathered:
    """Fetch what isn't in the store of an item from the peers that the settings lead to.

    Args:
        settings: lead to the swarm.
        store: where it goes.
        digest: of the item's descriptor.
        most: bytes of files that may come.

    Raises as `Gathering.run` and `visitor.visit`.

    """

    async def main() -> Gathered:
        with progress_bars() as progress:
            async with visitor.visit(settings.bootstrap, swarm_key=swarm_key(settings)) as swarm:
                gathering = Gathering(swarm.host, lambda: _sources(swarm), store, most=most, progress=progress)
                return await gathering.run(digest)

    return trio.run(main)


def _sources(swarm: visitor.Visitor) -> Mapping[PeerId, Sequence[str]]:
    """Every node that is known: those that the visitor came in by, and those that they told of."""
    found: dict[PeerId, Sequence[str]] = {peer_of(address): [address] for address in swarm.bootstrap}
    return found | {PeerId(each.peer): each.addresses for each in swarm.announcements}
