"""A node's neighbours: a few peers, with one long-lived stream of gossip to each. The shell around `gossip`.

Each node dials `DIALLED` others, chosen at random among those that serve its model, and takes some more that dial it;
so a swarm of any size hangs together (a random graph in which each vertex chose two others is connected already), and
nobody is connected to all.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import trio
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node.gossip import Gossip, Link, Told
from p2pos.node.host import Host
from p2pos.node.streams import FrameStream
from p2pos.types import PeerId
from p2pos.wire.messages import GOSSIP_PROTOCOL, News

DIALLED = 5
"""Neighbours that a node looks for by itself; others that look for it make it ten on the average."""
MOST = 24
"""Neighbours at most. Who comes to a full node looks for another."""
TICK_S = 1.0
"""Seconds between two times that a neighbour is told marks: news crosses 2,000 nodes in four or five."""
SEARCH_S = 1.0
"""Seconds between two looks at whether there are enough neighbours."""
AVOID_S = 15.0
"""Seconds for which a peer that could not be had as a neighbour isn't tried again: an announcement's lifetime."""
ALONE_S = 2.0
"""The same for a node that has no neighbour at all: one that slept has lost its connections, and knows few peers."""
DIAL_S = 5.0
"""Seconds for a neighbour to be had."""
SEND_S = 10.0
"""Seconds for one piece of news, at most 330 KiB."""
MAX_FRAME = 512 << 10
"""Bytes of one piece of news: 64 announcements of at most 5 KiB, 1,024 marks and as many fingerprints."""
MAX_PIECES_PER_S = 50
"""Pieces of news that a neighbour may send, in the mean: one per tick, and one per newcomer, goodbye and answer."""
BURST = 500
"""Pieces that it may send at once: a swarm that starts, with some hundred newcomers in a second."""

_log = log.get("neighbours")


@dataclass(slots=True)
class _Neighbour:
    link: Link
    stream: FrameStream
    dialled: bool
    woken: trio.Event = field(default_factory=trio.Event)
    allowance: float = BURST
    counted_s: float = 0.0

    def wake(self) -> None:
        """Have it told what there is to tell."""
        self.woken.set()


class Neighbours:
    """Keeps a few streams of gossip open.

    Args:
        host: a running host.
        gossip: what is told to whom.
        clock: milliseconds since the epoch.
        on_news: called with what was news, and who told it.

    """

    def __init__(
        self, host: Host, gossip: Gossip, *, clock: Callable[[], int], on_news: Callable[[PeerId, Told], None]
    ) -> None:
        self._host = host
        self._gossip = gossip
        self._clock = clock
        self._on_news = on_news
        self._neighbours: dict[PeerId, _Neighbour] = {}
        self._tried: dict[PeerId, float] = {}
        """Who was dialled, and when, as long as it isn't dialled again."""
        self._hurry = trio.Event()

    @property
    def peers(self) -> frozenset[PeerId]:
        """Who they are."""
        return frozenset(self._neighbours)

    def hurry(self) -> None:
        """Look for neighbours at once: there are new candidates."""
        self._hurry.set()

    async def run(
        self,
        candidates: Callable[[], Mapping[PeerId, Sequence[str]]],
        *,
        task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Find and keep neighbours until cancelled.

        Args:
            candidates: who may be one, with addresses, those that are wanted most first.
            task_status: told when others can dial.

        """
        self._host.serve(GOSSIP_PROTOCOL, self._accept, max_frame=MAX_FRAME)
        task_status.started()
        async with trio.open_nursery() as nursery:
            while True:
                now_s = trio.current_time()
                avoid_s = AVOID_S if self._neighbours else ALONE_S
                self._tried = {peer: when_s for peer, when_s in self._tried.items() if when_s + avoid_s > now_s}
                dialled = sum(each.dialled for each in self._neighbours.values())
                possible = {
                    peer: where
                    for peer, where in candidates().items()
                    if peer not in self._neighbours and peer not in self._tried and not self._host.banned_s(peer)
                }
                missing = min(DIALLED - dialled, MOST - len(self._neighbours))
                for peer in list(possible)[: max(0, missing)]:
                    self._tried[peer] = now_s
                    nursery.start_soon(self._dial, peer, possible[peer])
                self._hurry = trio.Event()
                with trio.move_on_after(SEARCH_S * random.uniform(0.8, 1.2)):
                    await self._hurry.wait()

    async def flush(self, deadline_s: float) -> None:
        """Send every neighbour what can't wait, now, before this node ends."""
        with trio.move_on_after(deadline_s):
            async with trio.open_nursery() as nursery:
                for each in list(self._neighbours.values()):
                    nursery.start_soon(self._flush, each)

    async def _flush(self, neighbour: _Neighbour) -> None:
        try:
            await self._tell(neighbour, tick=False)
        except UnavailableError as exc:
            _log.debug("a neighbour did not hear the last news", peer=neighbour.link.peer, why=str(exc))

    async def _dial(self, peer: PeerId, addresses: Sequence[str]) -> None:
        try:
            with trio.fail_after(DIAL_S):
                await self._host.connect(peer, addresses, deadline_s=DIAL_S)
                stream = await self._host.open(peer, GOSSIP_PROTOCOL, deadline_s=DIAL_S, max_frame=MAX_FRAME)
        except (UnavailableError, PeerError, trio.TooSlowError) as exc:
            _log.debug("no neighbour", peer=peer, why=str(exc))
            return
        try:
            if await self._stays(peer, dialled=True):
                await self._run(stream, dialled=True)
                await stream.finish()
            else:
                await stream.reset()
        except UnavailableError as exc:
            await stream.reset()
            _log.debug("a neighbour is gone", peer=peer, why=str(exc))
        except PeerError as exc:
            await stream.reset()
            _log.info("dropped a neighbour", peer=peer, why=str(exc))
            if exc.peer == peer:
                await self._host.offended(peer, exc)
        except BaseException:
            await stream.reset()
            raise

    async def _accept(self, stream: FrameStream) -> None:
        """Be the neighbour of a peer that dialled, where there is room. Raises what `_run` does."""
        there = stream.peer in self._neighbours
        if (there or len(self._neighbours) < MOST) and await self._stays(stream.peer, dialled=False):
            await self._run(stream, dialled=False)

    async def _stays(self, peer: PeerId, *, dialled: bool) -> bool:
        """Whether a new stream is to be used, where there may be one already. The one that isn't is reset.

        Where both dialled at once, both keep the stream of the lesser id. Else the peer came back, and its old one
        is dead without our knowing yet.
        """
        there = self._neighbours.get(peer)
        if there is None:
            return True
        if dialled not in {there.dialled, self._host.peer < peer}:
            return False
        await there.stream.reset()
        return True

    async def _run(self, stream: FrameStream, *, dialled: bool) -> None:
        """Exchange news until the stream ends. Raises UnavailableError where it's lost, PeerError at its fault."""
        mine = _Neighbour(Link(stream.peer, lambda: None), stream, dialled, counted_s=trio.current_time())
        mine.link = self._gossip.joined(stream.peer, mine.wake)
        self._neighbours[stream.peer] = mine
        fault: UnavailableError | PeerError | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell_on, mine)
                try:
                    await self._hear(mine)
                except (UnavailableError, PeerError) as exc:
                    fault = exc  # raised below, outside the nursery's groups
                nursery.cancel_scope.cancel()
        finally:
            self._gossip.left(mine.link)
            if self._neighbours.get(stream.peer) is mine:
                del self._neighbours[stream.peer]
        if fault is not None:
            raise fault

    async def _hear(self, neighbour: _Neighbour) -> None:
        while (frame := await neighbour.stream.receive()) is not None:
            if not isinstance(frame.message, News) or len(frame.payload):
                raise PeerError(neighbour.link.peer, f"sent {type(frame.message).__name__} on the gossip protocol")
            await self._slow_down(neighbour)
            for told in self._gossip.receive(neighbour.link, frame.message, self._clock()):
                self._on_news(neighbour.link.peer, told)

    async def _slow_down(self, neighbour: _Neighbour) -> None:
        """Read no faster than `MAX_PIECES_PER_S`, so that no neighbour takes all of this node's time."""
        now_s = trio.current_time()
        since_s, neighbour.counted_s = now_s - neighbour.counted_s, now_s
        neighbour.allowance = min(BURST, neighbour.allowance + since_s * MAX_PIECES_PER_S) - 1
        if neighbour.allowance < 0:
            await trio.sleep(-neighbour.allowance / MAX_PIECES_PER_S)

    async def _tell_on(self, neighbour: _Neighbour) -> None:
        tick_s = trio.current_time()
        while True:
            neighbour.woken = trio.Event()
            tick = trio.current_time() >= tick_s
            try:
                await self._tell(neighbour, tick=tick)
            except UnavailableError as exc:  # whoever hears on the same stream meets it too
                _log.debug("a neighbour takes no news", peer=neighbour.link.peer, why=str(exc))
                await neighbour.stream.reset()
                return
            if tick:
                tick_s = trio.current_time() + TICK_S * random.uniform(0.8, 1.2)
            with trio.move_on_at(tick_s):
                await neighbour.woken.wait()

    async def _tell(self, neighbour: _Neighbour, *, tick: bool) -> None:
        while (news := self._gossip.compose(neighbour.link, self._clock(), tick=tick)) is not None:
            await neighbour.stream.send(news, deadline_s=SEND_S)
