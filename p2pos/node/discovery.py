"""Who serves which layers: signed announcements that expire, and the ways by which they come to those who want them.

Whoever serves layers signs what it says of itself every `REFRESH_S` seconds; the announcement is all that anyone
believes, whoever passes it on, and it is forgotten after 15 s (`table`). It travels

- by gossip between neighbours (`gossip`, `neighbours`): the news of the models that a node follows, and of some that
  serve others;
- through the DHT (`dht`, `records`), under the model's key: a choice of some fifty, fresh, from which whoever looks for
  a model finds its servers, however large the swarm is. They say so less often the more they are (`SAMPLE`);
- by the status protocol: what a node believes, to whoever asks. So a newcomer gets all at once.

A node that leaves says goodbye, which is an announcement too. One that is killed is forgotten at once by those that
were connected to it and find that nobody listens at its addresses any more; by the others when its last word expires.
Nobody is believed about another's death.
"""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node import addresses, records
from p2pos.node.dht import Dht
from p2pos.node.gossip import Gossip, Told
from p2pos.node.host import Host
from p2pos.node.identity import Identity, verify
from p2pos.node.kademlia import Contact
from p2pos.node.losses import Losses
from p2pos.node.metrics import Metrics
from p2pos.node.neighbours import Neighbours
from p2pos.node.records import Records
from p2pos.node.status import EXCHANGE_DEADLINE_S, Clock, request, wall_ms
from p2pos.node.streams import FrameStream
from p2pos.node.table import DOMAIN, LIFETIME_MS, OTHERS, Table
from p2pos.types import PeerId
from p2pos.wire import codec
from p2pos.wire.messages import (
    MAX_ANNOUNCEMENTS,
    STATUS_PROTOCOL,
    Announcement,
    Signed,
    StatusAnswer,
    StatusRequest,
    farewell,
)

REFRESH_S = 4.0
"""Seconds between two announcements of one node; three may get lost before it's forgotten."""
FANOUT = 8
"""Peers that a node tells directly when it begins to serve, before it has neighbours."""
ANNOUNCE_S = 1.0
"""Seconds that a node which begins to serve waits for those to have heard of it; gossip reaches the slower ones."""
JOIN_DEADLINE_S = 10.0
"""Seconds in which one peer at least must answer a node that joins."""
LEAVE_DEADLINE_S = 1.0
"""Seconds for telling everyone goodbye; who doesn't hear it finds out in `LIFETIME_MS`."""
PUBLISH_S = 6.0
"""Seconds between two times that a record in the DHT is renewed; it lives 15."""
SAMPLE = 24
"""Of a model's servers, how many renew their record in each `PUBLISH_S`: with more servers each does so more seldom, so
that the 8 peers that hold the record have 60 at a time and 4 questions a second, however many there are."""
SEARCH_S = 60.0
"""Seconds between two look-ups of the models that are followed, which join swarms that had come apart."""
SWEEP_S = 5.0
"""Seconds between two looks at connections that nobody uses."""
KEEP_CONNECTIONS = 48
"""Connections that are left alone; beyond them, those without a stream for `SWEEP_S` are closed."""
MAX_MET = 32
"""Peers that are kept in mind as ones to join through, given or met."""
MAX_REQUEST = 8 << 10
"""Bytes of a question: one signed announcement of at most 5 KiB."""
MAX_REQUESTS = 1000
"""On one stream; at one per round, 50 minutes."""
IDLE_S = 30.0
"""Seconds after which a stream that asks nothing is closed."""

Describe = Callable[[int, int], Announcement]
"""Given sequence and expiry, both milliseconds since the epoch: what a node says of itself now."""

_log = log.get("discovery")


class Discovery:
    """A node's view of the swarm, and its own place in it.

    Args:
        host: a running host.
        identity: signs what it says.
        clock: tells the time.
        metrics: count what is believed, what isn't, and the look-ups.

    """

    def __init__(
        self, host: Host, identity: Identity, *, clock: Clock = wall_ms, metrics: Metrics | None = None
    ) -> None:
        self._metrics = metrics
        self._host = host
        self._identity = identity
        self._clock = clock
        self._table = Table(verify, others=OTHERS)
        self._records = Records(verify)
        self._gossip = Gossip(self._table, count=self._count)
        self._neighbours = Neighbours(host, self._gossip, clock=clock, on_news=self._heard)
        self.dht = Dht(host, self._records, clock=clock, locate=self._locate, metrics=metrics)
        self._bootstrap: dict[PeerId, str] = {}
        self._describe: Describe | None = None
        self._own: Signed | None = None
        """What this node said of itself last."""
        self._holders: list[Contact] = []
        """Who keeps its record in the DHT."""
        self._announced = trio.Event()
        self._left = trio.Event()
        self._losses = Losses(host, self._table, clock=clock, gone=self.dht.gone)

    async def run(self, bootstrap: Sequence[str], *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Join through these peers, then keep up with the swarm until it leaves or is cancelled.

        Args:
            bootstrap: multiaddresses with `/p2p/`; empty for a node that others join.
            task_status: told once somebody has answered, so that `known` holds what the swarm is.

        Raises UserError for an address that is none, UnavailableError where nobody answers.

        """
        self._host.serve(STATUS_PROTOCOL, self._answer, max_frame=MAX_REQUEST)
        self.dht.serve()
        if bootstrap:
            await self._join(bootstrap)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._neighbours.run, self._candidates)
            for loop in (self._refresh, self._publish, self._search, self._sweep, self._losses.run):
                nursery.start_soon(loop)
            task_status.started()
            await self._left.wait()
            nursery.cancel_scope.cancel()

    async def announce(self, describe: Describe) -> None:
        """Tell the swarm of this node from now on, and some of those who are known already at once."""
        self._describe = describe
        self._say()
        self._announced.set()
        with trio.move_on_after(ANNOUNCE_S):
            await self._ask_some(self._candidates())
        self._neighbours.hurry()

    def say_anew(self) -> None:
        """Tell the neighbours now what `describe` says now, because it changed in a way that can't wait."""
        if self._describe is not None:
            self._say()

    def follow(self, model: str) -> None:
        """Keep all servers of this model in mind from now on; those of this node's own model are anyway."""
        self._table.follow(model)

    async def find(self, model: str) -> list[Announcement]:
        """Follow a model, and look up in the DHT and at some that serve it who does; all that are known then.

        Takes some 20 s where peers don't answer; never raises for what they do.
        """
        self.follow(model)
        found = await self.dht.find(model)
        for signed, teller in zip(found.announcements, found.tellers, strict=True):
            await self._believe([signed], teller=teller)
        servers = {peer: where for peer, where in self._others().items() if self._model_of(peer) == model}
        if len(servers) >= OTHERS // 2:  # there may be more than the DHT and those we asked so far can tell
            await self._ask_some(servers, model=model)
        return [each for each in self.known() if each.model == model]

    async def meet(self, peer: PeerId, where: Sequence[str]) -> None:
        """Exchange news with a peer that was heard of in another way, and keep it in mind as one to join through."""
        if peer == self._host.peer or self._table.get(peer, self._clock()) is not None or not where:
            return
        if len(self._bootstrap) < MAX_MET:
            self._bootstrap[peer] = where[0]
        await self._try(self._reach, peer, where, "")
        self._neighbours.hurry()

    async def leave(self) -> None:
        """Tell the neighbours and all connected peers that this node goes. A second call does nothing."""
        own, self._own, self._describe = self._own, None, None
        if own is not None:
            goodbye = self._sign(
                lambda sequence, expires: farewell(codec.decode_announcement(own.body), sequence, expires)
            )
            model = codec.decode_announcement(own.body).model
            with trio.move_on_after(LEAVE_DEADLINE_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._neighbours.flush, LEAVE_DEADLINE_S)
                    nursery.start_soon(self.dht.put, model, goodbye, self._holders)
                    for peer in self._others().keys() & self._host.connected() - self._neighbours.peers:
                        nursery.start_soon(self._try, self._exchange, peer, goodbye)
        self._left.set()

    def known(self) -> list[Announcement]:
        """Every announcement that is believed now, this node's own included."""
        return self._table.live(self._clock())

    async def _join(self, bootstrap: Sequence[str]) -> None:
        """Ask every bootstrap peer. Raises UnavailableError where none answers."""
        failures: list[UnavailableError | PeerError] = []

        async def ask_one(address: str) -> None:
            peer = addresses.peer_of(address)
            if peer == self._host.peer:
                return
            self._bootstrap[peer] = address
            try:
                await self._host.connect_to(address, deadline_s=JOIN_DEADLINE_S)
                await self._exchange(peer, self._own)
                self.dht.heard(peer, [address])
            except (UnavailableError, PeerError) as exc:
                failures.append(exc)
                _log.warning("a bootstrap peer does not answer", address=address, why=str(exc))

        async with trio.open_nursery() as nursery:
            for address in bootstrap:
                nursery.start_soon(ask_one, address)
        if len(failures) == len(self._bootstrap) and failures:
            raise failures[0]

    async def _refresh(self) -> None:
        """Say anew what there is to say, again and again."""
        while True:
            await self._announced.wait()
            await trio.sleep(REFRESH_S * random.uniform(0.9, 1.0))
            self.say_anew()

    async def _publish(self) -> None:
        """Have the record of this node's model in the DHT name this node, as often as its share of `SAMPLE` is."""
        await self._announced.wait()
        looked_up_s = -SEARCH_S
        while True:
            own = self._own
            if own is not None and self._keep_record(own):
                model = codec.decode_announcement(own.body).model
                servers = sum(each.model == model for each in self.known())
                if random.random() * servers < SAMPLE:
                    if not self._holders or trio.current_time() >= looked_up_s + SEARCH_S:
                        self._holders = await self.dht.holders(model)
                        looked_up_s = trio.current_time()
                    taken = await self.dht.put(model, own, self._holders)
                    if 2 * taken < len(self._holders):
                        self._holders = []
            await trio.sleep(PUBLISH_S * random.uniform(0.8, 1.0))

    def _keep_record(self, own: Signed) -> bool:
        """Hold this node's own record too. False where it is out of its time: we slept, or the clock was set."""
        key, value = records.key_of(codec.decode_announcement(own.body).model), records.encode([own])
        try:
            self._records.put(key, value, self._clock(), sender=self._host.peer)
        except PeerError as exc:
            _log.info("our own record is out of its time", why=exc.message)
            return False
        return True

    async def _search(self) -> None:
        """Look for others in the DHT, and ask those whom this node came by, again and again."""
        await self._announced.wait()
        while True:
            await self.dht.refresh()
            if self._own is not None:
                await self.find(codec.decode_announcement(self._own.body).model)
            await self._ask_some({peer: (where,) for peer, where in self._bootstrap.items()})
            await trio.sleep(SEARCH_S * random.uniform(0.8, 1.2))

    async def _sweep(self) -> None:
        """Close connections that nobody uses, where there are many."""
        idle: frozenset[PeerId] = frozenset()
        while True:
            before, idle = idle, self._host.idle()
            excess = len(self._host.connected()) - KEEP_CONNECTIONS
            for peer in list(before & idle)[: max(0, excess)]:
                await self._host.disconnect(peer)
            await trio.sleep(SWEEP_S)

    def _candidates(self) -> dict[PeerId, tuple[str, ...]]:
        """Who may be a neighbour, in random order: those of the models that are followed, then the others."""
        others = self._others()
        peers = random.sample(list(others), len(others))
        followed = [peer for peer in peers if self._table.follows(self._model_of(peer))]
        return {peer: others[peer] for peer in (*followed, *peers)}

    def _others(self) -> dict[PeerId, tuple[str, ...]]:
        """Whom there is to ask, and where they are."""
        peers: dict[PeerId, tuple[str, ...]] = {peer: (address,) for peer, address in self._bootstrap.items()}
        peers |= {PeerId(each.peer): tuple(each.addresses) for each in self.known()}
        peers.pop(self._host.peer, None)
        return peers

    def _model_of(self, peer: PeerId) -> str:
        told = self._table.get(peer, self._clock())
        return "" if told is None else told.model

    def _locate(self, peer: PeerId) -> Sequence[str]:
        told = self._table.get(peer, self._clock())
        return () if told is None else told.addresses

    async def _ask_some(self, peers: Mapping[PeerId, Sequence[str]], *, model: str = "") -> None:
        """Tell some of these peers of this node, and hear what they know."""
        async with trio.open_nursery() as nursery:
            for peer in list(peers)[:FANOUT]:
                nursery.start_soon(self._try, self._reach, peer, peers[peer], model)

    async def _try(self, step: Callable[..., Awaitable[None]], peer: PeerId, *arguments: object) -> None:
        """Take a step with one peer; that it fails is no concern of the others."""
        try:
            await step(peer, *arguments)
        except UnavailableError as exc:
            _log.debug("no exchange", peer=peer, why=str(exc))
        except PeerError as exc:
            _log.info("a bad answer", peer=peer, why=str(exc))
            if exc.peer == peer and "protocol" not in exc.fields:  # not to speak it is no fault
                await self._host.offended(peer, exc)

    async def _reach(self, peer: PeerId, where: Sequence[str], model: str) -> None:
        await self._host.connect(peer, where, deadline_s=EXCHANGE_DEADLINE_S)
        await self._exchange(peer, self._own, model)

    async def _exchange(self, peer: PeerId, mine: Signed | None, model: str = "") -> None:
        """Tell a connected peer of this node, and believe what of its answer is to be believed."""
        await self._believe(await request(self._host, peer, StatusRequest(mine, model)), teller=peer)

    async def _answer(self, stream: FrameStream) -> None:
        """Serve one stream of requests. Raises PeerError for anything else that comes."""
        for _ in range(MAX_REQUESTS):
            with trio.move_on_after(IDLE_S) as idle:
                frame = await stream.receive()
            if idle.cancelled_caught or frame is None:
                return
            if not isinstance(frame.message, StatusRequest) or len(frame.payload):
                raise PeerError(stream.peer, f"sent {type(frame.message).__name__} on the status protocol")
            if frame.message.mine is not None:
                await self._believe([frame.message.mine], teller=stream.peer)
            known = self._table.signed(self._clock(), frame.message.model)
            mine = [self._own] if self._own is not None else []
            others = [each for each in known if each is not self._own]
            await stream.send(StatusAnswer([*mine, *_some(others, MAX_ANNOUNCEMENTS - 1)]))

    async def _believe(self, told: Sequence[Signed], *, teller: PeerId) -> None:
        """Take what is new. Raises PeerError where the teller should have known that it's forged."""
        for number, signed in enumerate(told):
            news = self._gossip.take(signed, self._clock(), teller=teller)
            if news is not None:
                self._heard(teller, news)
            if number % 64 == 63:
                await trio.lowlevel.checkpoint()  # each takes some 0.1 ms to verify

    def _count(self, reason: str) -> None:
        if self._metrics is not None and reason:
            self._metrics.refused(reason)
        elif self._metrics is not None:
            self._metrics.believed()

    def _heard(self, _teller: PeerId, told: Told) -> None:
        """Something new was told."""
        each = told.announcement
        peer = PeerId(each.peer)
        if peer == self._host.peer:
            return
        if each.goodbye:
            _log.info("a node left", peer=peer, layers=f"{each.start}:{each.end}")
            self.dht.gone(peer)
            return
        self.dht.heard(peer, each.addresses)
        if told.first:
            _log.info("heard of a node", peer=peer, model=each.model_name, layers=f"{each.start}:{each.end}")
            if len(self._neighbours.peers) < FANOUT:
                self._neighbours.hurry()

    def _say(self) -> None:
        if self._describe is not None:
            self._own = self._sign(self._describe)

    def _sign(self, describe: Describe) -> Signed:
        """Say something of this node, newer than all that was said of it, believe it, and tell the neighbours."""
        now_ms = max(self._clock(), self._table.sequence_of(self._host.peer) + 1)
        told = describe(now_ms, now_ms + LIFETIME_MS)
        body = codec.encode(told)
        signed = Signed(body, self._identity.public_key, self._identity.sign(DOMAIN + body))
        self._table.follow(told.model)
        try:
            self._table.accept(signed, self._clock())
        except PeerError as exc:  # the clock was set back; until it comes by again, others know better as well
            _log.warning("what this node says of itself is out of its time", why=exc.message)
        else:
            self._gossip.spread(told)
        return signed


def _some(announcements: Sequence[Signed], most: int) -> Sequence[Signed]:
    """All of them, or a random choice where there are too many."""
    return announcements if len(announcements) <= most else random.sample(announcements, most)
