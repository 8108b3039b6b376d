"""A peer that serves nothing: joins a swarm to ask what is there and to generate. What the command line is."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from p2pos import log
from p2pos.errors import PeerError, UnavailableError, UserError
from p2pos.node.addresses import peer_of
from p2pos.node.client import Client
from p2pos.node.dht import Dht
from p2pos.node.host import Host, open_host
from p2pos.node.identity import Identity, verify
from p2pos.node.links import Links
from p2pos.node.records import Records
from p2pos.node.routes import Routes
from p2pos.node.status import ask, ask_into, wall_ms
from p2pos.node.table import OTHERS, Table
from p2pos.shard.session import MAX_WAITING
from p2pos.types import ModelId, PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import STAGE_PROTOCOL, Announcement

FAREWELL_S = 2.0
"""Seconds for the last messages, which free the caches of a session that was broken off."""


REFRESH_S = 1.0
"""Seconds at most for `refresh`: whoever calls it has a text that waits."""
REFRESH_FANOUT = 6
"""Nodes that are asked at once: with one in five just dead, one of six answers in all but 64 of a million cases."""

_log = log.get("visitor")


@dataclass(frozen=True, slots=True)
class Visitor:
    """A connection to a swarm."""

    host: Host
    client: Client
    announcements: list[Announcement]
    """What those who were asked believed, verified, of each node the newest; `refresh` changes it in place."""
    table: Table
    bootstrap: Sequence[str]
    """Addresses that it came in by."""

    async def refresh(self) -> list[Announcement]:
        """Ask several nodes anew who serves what, for `REFRESH_S` at most, and return `announcements`.

        Whoever said goodbye is gone from them then, and so is whoever was silent for so long that its last word
        expired; where nobody answers, they stay as they were. Raises nothing of its own.
        """
        asked = {PeerId(each.peer): tuple(each.addresses) for each in self.announcements}
        chosen = random.sample(list(asked), min(REFRESH_FANOUT, len(asked)))
        # those that a connection is open to answer soonest, and the door that we came in by is one of them mostly
        near = [peer for peer in self.host.connected() & asked.keys() if peer not in chosen]
        answered = 0

        async def ask_one(peer: PeerId) -> None:
            nonlocal answered
            try:
                await self.host.connect(peer, asked[peer], deadline_s=REFRESH_S)
                await ask_into(self.table, self.host, peer)
                answered += 1
            except (UnavailableError, PeerError) as exc:
                _log.debug("no answer", peer=peer, why=str(exc))

        with trio.move_on_after(REFRESH_S):
            async with trio.open_nursery() as nursery:
                for peer in (*chosen, *near[:REFRESH_FANOUT]):
                    nursery.start_soon(ask_one, peer)
        if answered:
            self.announcements[:] = self.table.live(wall_ms())
        return self.announcements

    async def round_trip_s(self, each: Announcement) -> float:
        """Seconds from a question to a node until its answer, on a connection that is open.

        Raises UnavailableError or PeerError where it doesn't answer.
        """
        await self.host.connect(PeerId(each.peer), each.addresses)
        await ask(self.host, PeerId(each.peer))
        began_s = trio.current_time()
        await ask(self.host, PeerId(each.peer))
        return trio.current_time() - began_s

    async def find_model(self, wanted: str) -> ModelId:
        """As `choose_model`; a model's id that nobody here has heard of is looked up in the DHT first."""
        if wanted and wanted not in {name for each in self.announcements for name in (each.model, each.model_name)}:
            await self.find(wanted)
        model = self.choose_model(wanted)
        if sum(each.model == model for each in self.announcements) >= OTHERS:  # who came by other models knows no more
            await self.find(model)
        return model

    async def find(self, model: str) -> None:
        """Add to `announcements` who serves a model, as the DHT and some of them say. Never raises for peers."""
        dht = Dht(self.host, Records(verify), clock=wall_ms, locate=lambda _: ())
        for address in self.bootstrap:
            dht.heard(peer_of(address), [address])
        for each in self.announcements:
            dht.heard(PeerId(each.peer), each.addresses)
        for signed in (await dht.find(model)).announcements:
            with suppress(PeerError):  # it's for whoever keeps it to refuse it
                self.table.accept(signed, wall_ms())
        servers = [each for each in self.table.live(wall_ms()) if each.model == model]

        async def ask_one(each: Announcement) -> None:
            try:
                await self.host.connect(PeerId(each.peer), each.addresses, deadline_s=REFRESH_S)
                await ask_into(self.table, self.host, PeerId(each.peer), model=model)
            except (UnavailableError, PeerError) as exc:
                _log.debug("no answer", peer=each.peer, why=str(exc))

        with trio.move_on_after(2 * REFRESH_S):
            async with trio.open_nursery() as nursery:
                for each in random.sample(servers, min(len(servers), REFRESH_FANOUT)):
                    nursery.start_soon(ask_one, each)
        self.announcements[:] = self.table.live(wall_ms())

    def choose_model(self, wanted: str) -> ModelId:
        """The id of the model that a person means: an id, a name, or "" for the only one there.

        Raises UserError where it's one of several, UnavailableError where nobody serves it.
        """
        served = {each.model: each.model_name for each in self.announcements}
        if not served:
            raise UnavailableError("nobody in this swarm serves a model", hint="start one with `p2pos node run`")
        found = [model for model, name in served.items() if wanted in {"", model, name}]
        if not found:
            names = ", ".join(sorted(served.values()))
            raise UnavailableError(f"nobody serves the model {wanted}", hint=f"this swarm serves {names}")
        if len(found) > 1:
            names = ", ".join(f"{served[model]} ({model})" for model in sorted(found))
            raise UserError("the swarm serves several models", hint=f"choose one with --model: {names}")
        return ModelId(found[0])


@asynccontextmanager
async def visit(bootstrap: Sequence[str], *, swarm_key: bytes | None = None) -> AsyncIterator[Visitor]:
    """Join a swarm for as long as the context lasts, under an identity that is made for it alone.

    Args:
        bootstrap: multiaddresses with `/p2p/`.
        swarm_key: of a private swarm, see `open_host`.

    Raises UserError without a bootstrap address, UnavailableError where none of them answers.

    """
    if not bootstrap:
        raise UserError("no peer to join through", hint="give --bootstrap, or the --home of a devnet or node")

    def receive(peer: PeerId, frame: Frame) -> None:
        client.on_frame(peer, frame)

    def on_lost(peer: PeerId) -> None:
        client.on_lost(peer)

    identity = Identity.new()
    async with open_host(identity, swarm_key=swarm_key) as host, trio.open_nursery() as nursery:
        links = Links(host, STAGE_PROTOCOL, receive=receive, on_lost=on_lost, queue_frames=MAX_WAITING)
        known: list[Announcement] = []

        async def refresh() -> Sequence[Announcement]:
            return await visitor.refresh()

        client = Client(host.peer, links, Routes(known.copy, refresh))
        await nursery.start(links.run)
        try:
            table = Table(verify)
            await _ask_all(host, bootstrap, table)
            known += table.live(wall_ms())
            visitor = Visitor(host, client, known, table, tuple(bootstrap))
            yield visitor
        finally:
            with trio.CancelScope(shield=True):
                await links.flush(FAREWELL_S)
            nursery.cancel_scope.cancel()


async def _ask_all(host: Host, bootstrap: Sequence[str], table: Table) -> None:
    """Ask every one of these peers. Raises UnavailableError where none answers."""
    failures: list[UnavailableError | PeerError] = []

    async def ask_one(address: str) -> None:
        try:
            await ask_into(table, host, await host.connect_to(address))
        except (UnavailableError, PeerError) as exc:
            failures.append(exc)

    async with trio.open_nursery() as nursery:
        for address in bootstrap:
            nursery.start_soon(ask_one, address)
    if len(failures) == len(bootstrap):
        first = failures[0]
        raise UnavailableError(first.message, hint=first.hint or "is a node running there?", bootstrap=list(bootstrap))
