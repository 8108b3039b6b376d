"""A visitor hears of the swarm when it comes, and again when it asks."""

import trio

from p2pos.node.discovery import Discovery
from p2pos.node.host import Host, open_host
from p2pos.node.identity import Identity
from p2pos.node.visitor import Visitor, visit
from p2pos.wire.messages import Announcement
from tests.node.stock import LOOPBACK
from tests.node.test_table import announcement


class Server:
    """A host that announces one layer, in the time of the system, since a visitor believes no other."""

    def __init__(self, host: Host, identity: Identity, layer: int) -> None:
        self.host = host
        self.discovery = Discovery(host, identity)
        self._identity = identity
        self._layer = layer

    def describe(self, sequence: int, expires: int) -> Announcement:
        where = list(self.host.addresses)
        start = self._layer
        return announcement(self._identity, sequence, expires=expires, addresses=where, start=start, end=start + 1)


def layers(visitor: Visitor) -> list[int]:
    """The first layers of those that the visitor believes in."""
    return sorted(each.start for each in visitor.announcements)


def test_refresh_follows_the_swarm() -> None:
    """After `refresh` a newcomer is known, whoever said goodbye isn't, and where nobody answers all stays."""

    async def body() -> None:
        async with trio.open_nursery() as nursery, open_host(Identity(b"1" * 32), LOOPBACK) as one:
            first = Server(one, Identity(b"1" * 32), 0)
            await nursery.start(first.discovery.run, [])
            await first.discovery.announce(first.describe)
            async with visit([one.addresses[0]]) as visitor:
                assert layers(visitor) == [0]
                async with open_host(Identity(b"2" * 32), LOOPBACK) as two:
                    second = Server(two, Identity(b"2" * 32), 1)
                    await nursery.start(second.discovery.run, [one.addresses[0]])
                    await second.discovery.announce(second.describe)
                    assert await visitor.refresh() is visitor.announcements
                    assert layers(visitor) == [0, 1]
                    await second.discovery.leave()
                    await visitor.refresh()
                    assert layers(visitor) == [0]
                await visitor.host.disconnect(one.peer)
                before = trio.current_time()
                visitor.announcements[0].addresses[:] = []
                await visitor.refresh()
                assert layers(visitor) == [0]
                assert trio.current_time() - before < 5
            nursery.cancel_scope.cancel()

    trio.run(body)
