"""Who serves which layers: signed announcements, passed on by asking one another over `/p2pos/status/1.0.0`.

The simple form, for swarms of up to some hundred nodes that all know each other: whoever serves layers signs what
it says of itself every three seconds and tells it to those whom it asks; the answer is all that they believe.
"""

import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node.addresses import peer_of
from p2pos.node.host import Host
from p2pos.node.identity import Identity, verify
from p2pos.node.streams import FrameStream
from p2pos.node.table import DOMAIN, LIFETIME_MS, Table
from p2pos.types import PeerId
from p2pos.wire import codec
from p2pos.wire.messages import (
    STATUS_PROTOCOL,
    Announcement,
    Signed,
    StatusAnswer,
    StatusRequest,
    farewell,
)

INTERVAL_S = 3.0
"""Seconds between two rounds of asking."""
FANOUT = 16
"""Peers asked per round, chosen at random where more are known: news reaches 500 nodes in three rounds."""
EXCHANGE_DEADLINE_S = 5.0
"""Seconds for one peer's answer, dialling included."""
JOIN_DEADLINE_S = 10.0
"""Seconds in which one peer at least must answer a node that joins."""
LEAVE_DEADLINE_S = 1.0
"""Seconds for telling everyone goodbye; who doesn't hear it finds out in `LIFETIME_MS`."""
MAX_REQUEST = 8 << 10
"""Bytes of a question: one signed announcement of at most 3 KiB."""
MAX_REQUESTS = 1000
"""On one stream; at one per round, 50 minutes."""
IDLE_S = 30.0
"""Seconds after which a stream that asks nothing is closed."""

Describe = Callable[[int, int], Announcement]
"""Given sequence and expiry, both milliseconds since the epoch: what a node says of itself now."""

_log = log.get("discovery")


Clock = Callable[[], int]
"""Tells the time in milliseconds since the epoch."""


def wall_ms() -> int:
    """The system's time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Discovery:
    """A node's view of the swarm, and its own place in it.

    Args:
        host: a running host.
        identity: signs what it says.
        clock: tells the time.

    """

    def __init__(self, host: Host, identity: Identity, *, clock: Clock = wall_ms) -> None:
        self._host = host
        self._identity = identity
        self._clock = clock
        self._table = Table(verify)
        self._bootstrap: dict[PeerId, str] = {}
        self._describe: Describe | None = None
        self._own: Signed | None = None
        """What this node said of itself last."""
        self._asked: set[PeerId] = set()
        """Who was asked already, of those who are known."""
        self._news = trio.Event()
        self._left = False

    async def run(self, bootstrap: Sequence[str], *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Join through these peers, then keep up with the swarm until cancelled.

        Args:
            bootstrap: multiaddresses with `/p2p/`; empty for a node that others join.
            task_status: told once somebody has answered, so that `known` holds what the swarm is.

        Raises UserError for an address that is none, UnavailableError where nobody answers.

        """
        self._host.serve(STATUS_PROTOCOL, self._answer, max_frame=MAX_REQUEST)
        if bootstrap:
            await self._join(bootstrap)
        task_status.started()
        while not self._left:
            self._news = trio.Event()
            with trio.move_on_after(INTERVAL_S):
                await self._news.wait()
            others = self._others()
            self._asked &= others.keys()
            newcomers = {peer: where for peer, where in others.items() if peer not in self._asked}
            await self._ask_some(newcomers if self._news.is_set() else others)

    async def announce(self, describe: Describe) -> None:
        """Tell the swarm of this node from now on, and those who are known already at once."""
        self._describe = describe
        await self._ask_some(self._others())

    async def leave(self) -> None:
        """Tell those who are connected that this node goes, and announce it no more. A second call does nothing."""
        self._left = True
        own, self._own, self._describe = self._own, None, None
        if own is None:
            return
        goodbye = self._sign(lambda sequence, expires: farewell(codec.decode_announcement(own.body), sequence, expires))
        with trio.move_on_after(LEAVE_DEADLINE_S):
            async with trio.open_nursery() as nursery:
                for peer in self._others().keys() & self._host.connected():
                    nursery.start_soon(self._try, self._exchange, peer, goodbye)

    def known(self) -> list[Announcement]:
        """Every announcement that is believed now, this node's own included."""
        return self._table.live(self._clock())

    async def _join(self, bootstrap: Sequence[str]) -> None:
        """Ask every bootstrap peer. Raises UnavailableError where none answers."""
        failures: list[UnavailableError | PeerError] = []

        async def ask_one(address: str) -> None:
            peer = peer_of(address)
            if peer == self._host.peer:
                return
            self._bootstrap[peer] = address
            try:
                await self._host.connect_to(address, deadline_s=JOIN_DEADLINE_S)
                await self._exchange(peer, self._own)
            except (UnavailableError, PeerError) as exc:
                failures.append(exc)
                _log.warning("a bootstrap peer does not answer", address=address, why=str(exc))

        async with trio.open_nursery() as nursery:
            for address in bootstrap:
                nursery.start_soon(ask_one, address)
        if len(failures) == len(self._bootstrap) and failures:
            raise failures[0]

    def _others(self) -> dict[PeerId, tuple[str, ...]]:
        """Whom there is to ask, and where they are."""
        peers: dict[PeerId, tuple[str, ...]] = {peer: (address,) for peer, address in self._bootstrap.items()}
        peers |= {PeerId(each.peer): tuple(each.addresses) for each in self.known()}
        peers.pop(self._host.peer, None)
        return peers

    async def _ask_some(self, peers: Mapping[PeerId, Sequence[str]]) -> None:
        """Say anew what there is to say, to some of these peers, and hear what they know."""
        if self._describe is not None:
            self._own = self._sign(self._describe)
        async with trio.open_nursery() as nursery:
            for peer in random.sample(list(peers), min(FANOUT, len(peers))):
                self._asked.add(peer)
                nursery.start_soon(self._try, self._reach, peer, peers[peer])

    async def _try(self, step: Callable[..., Awaitable[None]], peer: PeerId, *arguments: object) -> None:
        """Take a step with one peer; that it fails is no concern of the others."""
        try:
            await step(peer, *arguments)
        except (UnavailableError, PeerError) as exc:
            _log.debug("no exchange", peer=peer, why=str(exc))

    async def _reach(self, peer: PeerId, addresses: Sequence[str]) -> None:
        await self._host.connect(peer, addresses, deadline_s=EXCHANGE_DEADLINE_S)
        await self._exchange(peer, self._own)

    async def _exchange(self, peer: PeerId, mine: Signed | None) -> None:
        """Tell a connected peer of this node, and believe what of its answer is to be believed."""
        self._believe(await _request(self._host, peer, mine), teller=peer)

    async def _answer(self, stream: FrameStream) -> None:
        """Serve one stream of requests. Raises PeerError for anything else that comes."""
        for _ in range(MAX_REQUESTS):
            with trio.move_on_after(IDLE_S) as idle:
                frame = await stream.receive()
            if idle.cancelled_caught or frame is None:
                return
            if not isinstance(frame.message, StatusRequest):
                raise PeerError(stream.peer, f"sent {type(frame.message).__name__} on the status protocol")
            if frame.message.mine is not None:
                self._believe([frame.message.mine], teller=stream.peer)
            known = self._table.signed(self._clock())
            mine = [self._own] if self._own is not None else []
            await stream.send(StatusAnswer([*mine, *(each for each in known if each is not self._own)]))

    def _believe(self, told: Sequence[Signed], *, teller: PeerId) -> None:
        """Take what is new. One that can't be believed is passed over: who passes it on need not know better."""
        for signed in told:
            try:
                news = self._table.accept(signed, self._clock())
            except PeerError as exc:
                _log.debug("not believed", teller=teller, peer=exc.peer, why=exc.message)
                continue
            if news is None:
                continue
            peer = PeerId(news.peer)
            if news.goodbye:
                _log.info("a node left", peer=peer, layers=f"{news.start}:{news.end}")
            elif peer not in self._asked and peer != self._host.peer:
                _log.info("heard of a node", peer=peer, model=news.model_name, layers=f"{news.start}:{news.end}")
                self._news.set()

    def _sign(self, describe: Describe) -> Signed:
        """Say something of this node, newer than all that was said of it, and believe it."""
        now_ms = max(self._clock(), self._table.sequence_of(self._host.peer) + 1)
        body = codec.encode(describe(now_ms, now_ms + LIFETIME_MS))
        signed = Signed(body, self._identity.public_key, self._identity.sign(DOMAIN + body))
        self._table.accept(signed, self._clock())
        return signed


async def ask(host: Host, peer: PeerId, *, clock: Clock = wall_ms) -> list[Announcement]:
    """What a connected peer believes of the swarm, each announcement verified, its own first where it serves layers.

    Raises UnavailableError where it does not answer, PeerError where it answers something else.
    """
    table = Table(verify)
    await ask_into(table, host, peer, clock=clock)
    return table.live(clock())


async def ask_into(table: Table, host: Host, peer: PeerId, *, clock: Clock = wall_ms) -> None:
    """Ask a connected peer what it believes, and take into `table` what of it is to be believed.

    Raises UnavailableError where it does not answer, PeerError where it answers something else.
    """
    for signed in await _request(host, peer, None):
        try:
            table.accept(signed, clock())
        except PeerError as exc:
            _log.debug("not believed", teller=peer, peer=exc.peer, why=exc.message)


async def _request(host: Host, peer: PeerId, mine: Signed | None) -> Sequence[Signed]:
    """One question and its answer, on a stream of its own. Raises UnavailableError, PeerError."""
    stream = await host.open(peer, STATUS_PROTOCOL, deadline_s=EXCHANGE_DEADLINE_S)
    try:
        with trio.fail_after(EXCHANGE_DEADLINE_S):
            await stream.send(StatusRequest(mine))
            await stream.close()
            frame = await stream.receive()
            await stream.finish()
    except trio.TooSlowError:
        raise UnavailableError(f"peer {peer} did not answer in {EXCHANGE_DEADLINE_S:g} s", peer=peer) from None
    except BaseException:
        await stream.reset()
        raise
    if frame is None or not isinstance(frame.message, StatusAnswer):
        raise PeerError(peer, "answered something other than its status")
    return frame.message.known
