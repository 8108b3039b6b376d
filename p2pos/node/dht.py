"""The Kademlia DHT on `/p2pos/kad/1.0.0`: the pure machines of `kademlia` and `records` over libp2p streams.

Why not py-libp2p's `KadDHT` 0.8.1: it speaks `/ipfs/kad/1.0.0` whatever prefix it is given; it opens streams through
the host's own dialling, which tries one address and then refuses the peer for a minute; a look-up ends at the first
round that brings nobody nearer, with most of the k nearest not asked; every peer that an answer names enters its table
unasked; and one value per key cannot hold many servers. The wire format is the specification's, so that other
libp2p implementations find our nodes; see `docs/discovery.md`.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node import dht_wire, records
from p2pos.node.dht_wire import KAD_PROTOCOL, Kind, VarintStream
from p2pos.node.host import Host
from p2pos.node.kademlia import Contact, K, Lookup, RoutingTable, position
from p2pos.node.metrics import LookUp, Metrics
from p2pos.node.records import Records
from p2pos.node.streams import ByteStream, StreamLost
from p2pos.types import PeerId
from p2pos.wire import codec
from p2pos.wire.messages import Signed

REPLICAS = 8
"""Of the 20 nearest, how many are given a record. It lives 15 s: that all eight die meanwhile is as good as never."""
QUESTION_S = 4.0
"""Seconds for one peer's answer, dialling included."""
LOOKUP_S = 20.0
"""Seconds for a whole look-up: five rounds of peers that don't answer."""
IDLE_S = 30.0
"""Seconds after which a stream that asks nothing is closed."""
MAX_QUESTIONS = 1000
"""On one stream."""

_log = log.get("dht")


@dataclass(slots=True)
class Found:
    """What a look-up came back with."""

    lookup: Lookup
    announcements: list[Signed] = field(default_factory=list)
    """From the records on the way, none of them verified, each once."""
    tellers: list[PeerId] = field(default_factory=list)
    """Who told each of them."""


class Dht:
    """A node's part in the DHT.

    Args:
        host: a running host.
        kept: the records that this node keeps for others.
        clock: milliseconds since the epoch.
        locate: addresses that a peer said it is at, where it's known by other ways; empty where it isn't.
        metrics: count the look-ups.

    """

    def __init__(
        self,
        host: Host,
        kept: Records,
        *,
        clock: Callable[[], int],
        locate: Callable[[PeerId], Sequence[str]],
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics
        self._host = host
        self._own = dht_wire.peer_position(host.peer)
        self._kept = kept
        self._clock = clock
        self._locate = locate
        self._serving = False
        self.table = RoutingTable(self._own)

    def serve(self) -> None:
        """Answer others from now on, and let those who are asked know where this node can be asked in turn."""
        self._serving = True
        self._host.serve_raw(KAD_PROTOCOL, self._answer)

    def heard(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """A peer has shown that it is there and answers for the DHT."""
        self.table.heard(dht_wire.contact(peer, addresses))

    def gone(self, peer: PeerId) -> None:
        """A peer has left, or is dead."""
        self.table.remove(dht_wire.contact(peer, ()))

    async def look_up(self, key: bytes, *, kind: Any = Kind.FIND_NODE, start: Sequence[Contact] = ()) -> Found:
        """Find the peers nearest to a key, and with `Kind.GET_VALUE` what they keep under it.

        Takes `LOOKUP_S` at most; never raises for what peers do.
        """
        target = position(key)
        lookup = Lookup(target, [*start, *self.table.closest(target)], own=self._own)
        found = Found(lookup)
        seen: set[bytes] = set()
        began_s = trio.current_time()

        async def ask(contact: Contact) -> None:
            try:
                answer = await self._call(contact, dht_wire.request(kind, key))
                closer = dht_wire.contacts(answer.closerPeers, teller=contact.peer)
                told = records.decode(answer.record.value, teller=contact.peer) if answer.record.value else []
            except (UnavailableError, PeerError) as exc:
                await self._failed(contact, exc)
                lookup.failed(contact.peer)
            else:
                for each in told:
                    if each.signature not in seen and len(seen) < records.MAX_ANNOUNCEMENTS:
                        seen.add(each.signature)
                        found.announcements.append(each)
                        found.tellers.append(contact.peer)
                lookup.answered(contact.peer, closer)
            more()

        def more() -> None:
            for contact in lookup.ask():
                nursery.start_soon(ask, contact)

        with trio.move_on_after(LOOKUP_S):
            async with trio.open_nursery() as nursery:
                more()
        self._tell(found, trio.current_time() - began_s, wants_value=kind == Kind.GET_VALUE)
        return found

    def _tell(self, found: Found, seconds: float, *, wants_value: bool) -> None:
        if self._metrics is None or not found.lookup.questions:
            return  # whoever knows nobody has not looked anything up
        here = bool(found.announcements) or not wants_value
        outcome: LookUp = "failed" if not found.lookup.closest() else "found" if here else "absent"
        self._metrics.looked_up(outcome, seconds, found.lookup.hops)

    async def holders(self, model: str) -> list[Contact]:
        """The peers that are to keep the record of a model."""
        return (await self.look_up(records.key_of(model))).lookup.closest()[:REPLICAS]

    async def put(self, model: str, mine: Signed, holders: Sequence[Contact]) -> int:
        """Have holders keep what this node says of itself; returns how many took it."""
        key, value, taken = records.key_of(model), records.encode([mine]), 0

        async def give(contact: Contact) -> None:
            nonlocal taken
            try:
                await self._call(contact, dht_wire.put(key, value))
                taken += 1
            except (UnavailableError, PeerError) as exc:
                await self._failed(contact, exc)

        async with trio.open_nursery() as nursery:
            for each in holders:
                nursery.start_soon(give, each)
        return taken

    async def find(self, model: str) -> Found:
        """Look up who serves a model."""
        key = records.key_of(model)
        found = await self.look_up(key, kind=Kind.GET_VALUE)
        told = {each.signature for each in found.announcements}
        for each in self._kept.get(key, self._clock()):
            if each.signature not in told:
                found.announcements.append(each)
                found.tellers.append(self._host.peer)
        return found

    async def locate(self, peer: PeerId) -> tuple[str, ...]:
        """Where a peer is, as the DHT says; empty where nobody knows. Raises PeerError where its id is none."""
        found = await self.look_up(dht_wire.peer_bytes(peer))
        return next((each.addresses for each in found.lookup.closest() if each.peer == peer), ())

    async def refresh(self) -> None:
        """Look up this node's own surroundings and a place at one other distance, so that the table stays filled."""
        await self.look_up(dht_wire.peer_bytes(self._host.peer))
        if keys := self.table.refresh_keys(secrets.token_bytes(16)):
            await self.look_up(secrets.choice(keys))

    async def _call(self, contact: Contact, message: Any) -> Any:
        """One question and its answer. Raises UnavailableError, PeerError."""
        peer = contact.peer
        try:
            with trio.fail_after(QUESTION_S):
                await self._connect(contact)
                stream = await self._host.open_raw(peer, KAD_PROTOCOL, deadline_s=QUESTION_S)
                try:
                    messages = VarintStream(peer, stream, most=dht_wire.MAX_ANSWER)
                    if self._serving and self._host.addresses and not message.closerPeers:
                        own = Contact(self._host.peer, self._own, self._host.addresses)
                        dht_wire.add_peers(message.closerPeers, [own], connected=())
                    await messages.send(message)
                    answer = await messages.receive()
                    await stream.close()
                except BaseException:
                    with trio.CancelScope(shield=True), trio.move_on_after(1.0):
                        await stream.reset()
                    raise
        except (trio.TooSlowError, StreamLost) as exc:
            raise UnavailableError(f"peer {peer} did not answer the DHT's question", peer=peer) from exc
        if answer is None or answer.type != message.type:
            raise PeerError(peer, "answered another question than the DHT's")
        self.table.heard(contact)
        return answer

    async def _connect(self, contact: Contact) -> None:
        """Raises UnavailableError; addresses that make no sense are the fault of whoever named them."""
        try:
            await self._host.connect(contact.peer, contact.addresses, deadline_s=QUESTION_S)
        except PeerError as exc:
            raise UnavailableError(f"peer {contact.peer} can't be dialled", peer=contact.peer) from exc

    async def _failed(self, contact: Contact, exc: UnavailableError | PeerError) -> None:
        _log.debug("no answer", peer=contact.peer, why=str(exc))
        self.table.failed(contact)
        if isinstance(exc, PeerError) and "protocol" not in exc.fields:  # not to speak it is no fault
            await self._host.offended(contact.peer, exc)

    async def _answer(self, peer: PeerId, stream: ByteStream) -> None:
        """Serve one stream of questions. Raises PeerError for anything else that comes."""
        messages = VarintStream(peer, stream, most=dht_wire.MAX_REQUEST)
        try:
            for _ in range(MAX_QUESTIONS):
                with trio.move_on_after(IDLE_S) as idle:
                    message = await messages.receive()
                if idle.cancelled_caught or message is None:
                    break
                await messages.send(self._reply(peer, message))
            await stream.close()
        except StreamLost as exc:
            raise UnavailableError(f"the stream from peer {peer} is gone", peer=peer) from exc

    def _reply(self, peer: PeerId, message: Any) -> Any:
        """What to answer. Raises PeerError for a question that makes no sense."""
        for each in dht_wire.contacts(message.closerPeers, teller=peer):
            if each.peer == peer and each.addresses:  # it can be asked too, as it says
                self.table.heard(each)
        kind, key = message.type, bytes(message.key)
        answer = dht_wire.request(kind, key)
        if kind == Kind.PING:
            return answer
        if not key:
            raise PeerError(peer, "asked the DHT about no key")
        if kind == Kind.PUT_VALUE:
            self._keep(peer, key, message)
            answer.record.CopyFrom(message.record)
            return answer
        if kind == Kind.ADD_PROVIDER:
            raise PeerError(peer, "wants to be a provider, which only an announcement makes it here")
        kept = self._kept.get(key, self._clock()) if kind in {Kind.GET_VALUE, Kind.GET_PROVIDERS} else []
        if kind == Kind.GET_VALUE and kept:
            answer.record.key = key
            answer.record.value = records.encode(kept)
        connected = self._host.connected()
        if kind == Kind.GET_PROVIDERS:
            dht_wire.add_peers(answer.providerPeers, self._providers(kept), connected=connected)
        closer = [each for each in self.table.closest(position(key), K) if each.peer != peer]
        dht_wire.add_peers(answer.closerPeers, [*self._target(key, closer), *closer], connected=connected)
        return answer

    def _keep(self, peer: PeerId, key: bytes, message: Any) -> None:
        """Raises PeerError where the record is refused; where there is merely no room for it, nothing happens."""
        if bytes(message.record.key) != key:
            raise PeerError(peer, "puts a record under a key that it does not name")
        try:
            self._kept.put(key, bytes(message.record.value), self._clock(), sender=peer)
        except PeerError as exc:
            if not exc.fields.get("full"):
                raise
            _log.debug("a record was not kept", peer=peer, why=exc.message)

    def _providers(self, kept: Sequence[Signed]) -> list[Contact]:
        told = [codec.decode_announcement(each.body) for each in kept]
        return [dht_wire.contact(PeerId(each.peer), each.addresses) for each in told if not each.goodbye]

    def _target(self, key: bytes, closer: Sequence[Contact]) -> list[Contact]:
        """The peer whose id the key is, where it is this node or known by other ways; the specification wants it."""
        peer = dht_wire.peer_of(key)
        if peer is None or any(each.peer == peer for each in closer):
            return []
        addresses = self._host.addresses if peer == self._host.peer else self._locate(peer)
        return [dht_wire.contact(peer, addresses)] if addresses else []
