"""Nodes find one another, and who serves a model, through the DHT; what doesn't belong there is refused."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

from p2pos.errors import PeerError
from p2pos.node import dht_wire, records
from p2pos.node.conduct import FIRST_BAN_S
from p2pos.node.dht import Dht
from p2pos.node.dht_wire import KAD_PROTOCOL, Kind, VarintStream
from p2pos.node.host import Host, open_host
from p2pos.node.identity import Identity, verify
from p2pos.node.records import Records
from p2pos.node.streams import StreamLost
from p2pos.node.table import LIFETIME_MS
from p2pos.types import PeerId
from tests.node.stock import LOOPBACK, host, run
from tests.node.test_discovery import clock
from tests.node.test_table import announcement, sign

MODEL = "m"


class Node:
    """A host in the DHT."""

    def __init__(self, running: Host, identity: Identity) -> None:
        self.host = running
        self.identity = identity
        self.kept = Records(verify)
        self.dht = Dht(running, self.kept, clock=clock, locate=lambda _: ())
        self.dht.serve()

    def said(self, **changed: Any) -> Any:
        return sign(self.identity, announcement(self.identity, clock(), **changed))


@asynccontextmanager
async def network(count: int) -> AsyncIterator[list[Node]]:
    """So many nodes, each of which knew the first and then looked itself up."""
    async with AsyncExitStack() as stack:
        nodes = []
        for index in range(count):
            identity = Identity(bytes([index + 1]) * 32)
            nodes.append(Node(await stack.enter_async_context(open_host(identity, LOOPBACK)), identity))
        for node in nodes[1:]:
            node.dht.heard(nodes[0].host.peer, nodes[0].host.addresses)
        for node in nodes:
            await node.dht.refresh()
        yield nodes


async def asked(by: Host, whom: Node, *messages: Any) -> list[Any]:
    """The answers to these messages on one stream; None where it ended, StreamLost where it was reset."""
    await by.connect(whom.host.peer, whom.host.addresses)
    stream = await by.open_raw(whom.host.peer, KAD_PROTOCOL)
    wire = VarintStream(whom.host.peer, stream, most=dht_wire.MAX_ANSWER)
    answers = []
    for message in messages:
        await wire.send(message)
        answers.append(await wire.receive())
    await stream.close()
    return answers


def test_whom_one_has_never_heard_of() -> None:
    """A node finds where any other is, from one contact."""

    async def body() -> None:
        async with network(8) as nodes:
            assert await nodes[0].dht.locate(nodes[7].host.peer) == nodes[7].host.addresses
            assert await nodes[0].dht.locate(Identity.new().peer) == ()

    run(body)


def test_who_asks_is_known() -> None:
    """A node that asks another is known there from then on; one that only looks and answers nobody isn't."""

    async def body() -> None:
        async with network(2) as (node, other), host() as looker:
            assert [each.peer for each in node.dht.table.closest(0)] == [other.host.peer]
            dht = Dht(looker, Records(verify), clock=clock, locate=lambda _: ())
            dht.heard(node.host.peer, node.host.addresses)
            await dht.refresh()
            assert len(node.dht.table) == 1

    run(body)


def test_who_serves_a_model() -> None:
    """What servers put under a model's key, a stranger who knows one node finds; others' records stay apart."""

    async def body() -> None:
        async with network(6) as nodes:
            for node in nodes[:3]:
                assert await node.dht.put(MODEL, node.said(), await node.dht.holders(MODEL)) >= 4
            await nodes[3].dht.put("n", nodes[3].said(model="n"), await nodes[3].dht.holders("n"))
            async with host(()) as stranger:
                dht = Dht(stranger, Records(verify), clock=clock, locate=lambda _: ())
                dht.heard(nodes[5].host.peer, nodes[5].host.addresses)
                found = await dht.find(MODEL)
                assert len({each.body for each in found.announcements}) == len(found.announcements) == 3
                assert len((await dht.find("n")).announcements) == 1
                assert (await dht.find("nobody's")).announcements == []

    run(body)


def test_a_record_expires() -> None:
    """A record that is not renewed is gone after its lifetime."""

    async def body() -> None:
        async with network(3) as nodes:
            await nodes[0].dht.put(MODEL, nodes[0].said(), await nodes[0].dht.holders(MODEL))
            assert (await nodes[2].dht.find(MODEL)).announcements
            await trio.sleep(LIFETIME_MS / 1000 + 1)
            assert (await nodes[2].dht.find(MODEL)).announcements == []
            assert [len(node.kept) for node in nodes] == [0, 0, 0]

    run(body)


def test_the_dead_are_passed_over() -> None:
    """A look-up goes around peers that are gone, and they leave the table."""

    async def body() -> None:
        async with network(8) as nodes:
            await nodes[1].dht.put(MODEL, nodes[1].said(), await nodes[1].dht.holders(MODEL))
            gone = PeerId(Identity.new().peer)
            nodes[0].dht.heard(gone, ["/ip4/127.0.0.1/tcp/1"])
            before = len(nodes[0].dht.table)
            for _ in range(2):
                assert len((await nodes[0].dht.find(MODEL)).announcements) == 1
            assert len(nodes[0].dht.table) == before - 1

    run(body)


def test_the_specification_s_messages() -> None:
    """PING is echoed; a node names itself when it is looked for; a model's servers are its key's providers."""

    async def body() -> None:
        async with network(3) as nodes, host(()) as stranger:
            key = records.key_of(MODEL)
            nodes[0].kept.put(key, records.encode([nodes[0].said()]), clock(), sender=nodes[0].host.peer)
            itself = dht_wire.request(Kind.FIND_NODE, dht_wire.peer_bytes(nodes[0].host.peer))
            ping, found, providers = await asked(
                stranger,
                nodes[0],
                dht_wire.request(Kind.PING, b""),
                itself,
                dht_wire.request(Kind.GET_PROVIDERS, key),
            )
            assert ping.type == Kind.PING
            teller = nodes[0].host.peer
            named = dht_wire.contacts(found.closerPeers, teller=teller)
            assert named[0].peer == teller
            assert named[0].addresses == nodes[0].host.addresses
            assert {each.peer for each in named} == {node.host.peer for node in nodes}
            assert [each.peer for each in dht_wire.contacts(providers.providerPeers, teller=teller)] == [teller]

    run(body)


def _puts(node: Node, other: Node) -> dict[str, Any]:
    key = records.key_of(MODEL)
    mine, now_ms = node.said(), clock()
    forged = sign(other.identity, announcement(node.identity, now_ms))
    stale = sign(node.identity, announcement(node.identity, now_ms - LIFETIME_MS))
    return {
        "of another": dht_wire.put(key, records.encode([other.said()])),
        "forged": dht_wire.put(key, records.encode([forged])),
        "stale": dht_wire.put(key, records.encode([stale])),
        "of another model": dht_wire.put(records.key_of("n"), records.encode([mine])),
        "two": dht_wire.put(key, records.encode([mine, mine])),
        "none": dht_wire.put(key, records.encode([])),
        "noise": dht_wire.put(key, b"noise"),
        "nothing": dht_wire.request(Kind.PUT_VALUE, key),
        "too long": dht_wire.put(key, b"x" * (records.MAX_VALUE + 1)),
        "a provider": dht_wire.request(Kind.ADD_PROVIDER, key),
        "no key": dht_wire.request(Kind.FIND_NODE, b""),
        "a long key": dht_wire.request(Kind.FIND_NODE, b"x" * 129),
    }


def test_what_is_refused() -> None:
    """Whatever is not a server's own fresh word about itself ends the stream, and nothing is kept of it."""

    async def body() -> None:
        async with network(2) as (node, other):
            for name, message in _puts(other, node).items():
                with pytest.raises(StreamLost):
                    pytest.fail(f"{name} was answered {await asked(other.host, node, message)}")
                node.host._conduct = type(node.host._conduct)()  # each is the first
            assert len(node.kept) == 0

    run(body)


def test_a_replay_is_refused() -> None:
    """An older announcement can't take a newer one's place."""

    async def body() -> None:
        async with network(2) as (node, other):
            older = other.said()
            await trio.sleep(1)
            newer = other.said()
            key = records.key_of(MODEL)
            await asked(other.host, node, dht_wire.put(key, records.encode([newer])))
            with pytest.raises(StreamLost):
                await asked(other.host, node, dht_wire.put(key, records.encode([older])))
            assert node.kept.get(key, clock()) == [newer]

    run(body)


async def banned(node: Node, other: Node) -> float:
    """Wait until a node bans another, and for how many seconds it does."""
    with trio.fail_after(5):
        while not node.host.banned_s(other.host.peer):  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.01)
    return node.host.banned_s(other.host.peer)


def test_who_goes_on_is_banned() -> None:
    """A peer that breaks the rules again and again is cut off, let in again, and cut off for longer."""

    async def body() -> None:
        async with network(2) as (node, other):
            bad = dht_wire.put(records.key_of(MODEL), b"noise")
            for _ in range(4):
                with pytest.raises(StreamLost):
                    await asked(other.host, node, bad)
            assert await banned(node, other) <= FIRST_BAN_S
            await trio.sleep(FIRST_BAN_S)
            (answer,) = await asked(other.host, node, dht_wire.request(Kind.PING, b""))
            assert answer.type == Kind.PING
            with pytest.raises(StreamLost):
                await asked(other.host, node, bad)
            assert await banned(node, other) > FIRST_BAN_S

    run(body)


def test_a_liar_is_not_believed() -> None:
    """A peer that answers with nonsense fails the question, and the look-up goes on with the others."""

    async def body() -> None:
        async with network(4) as nodes, host() as liar:

            async def lie(peer: PeerId, stream: Any) -> None:
                wire = VarintStream(peer, stream, most=dht_wire.MAX_REQUEST)
                question = await wire.receive()
                question.record.value = b"noise"
                await wire.send(question)
                await stream.close()

            liar.serve_raw(KAD_PROTOCOL, lie)
            await nodes[1].dht.put(MODEL, nodes[1].said(), await nodes[1].dht.holders(MODEL))
            nodes[0].dht.heard(liar.peer, liar.addresses)
            found = await nodes[0].dht.find(MODEL)
            assert len(found.announcements) == 1
            assert liar.peer not in {each.peer for each in found.lookup.closest()}

    run(body)


def test_a_length_out_of_bounds() -> None:
    """A message that says it is longer than any is refused before a byte of it is kept."""

    async def body() -> None:
        async with network(1) as (node,), host(()) as stranger:
            await stranger.connect(node.host.peer, node.host.addresses)
            for bad in (b"\xff\xff\xff\xff\x7f", b"\x81\x80\x01"):
                stream = await stranger.open_raw(node.host.peer, KAD_PROTOCOL)
                await stream.write(bad)
                with pytest.raises(StreamLost):
                    await stream.read(1)

    run(body)


def test_a_bad_peer_id_is_the_teller_s_fault() -> None:
    """An answer that names what is no peer id is refused."""
    answer = dht_wire.request(Kind.FIND_NODE, b"k")
    answer.closerPeers.add(id=b"")
    with pytest.raises(PeerError, match="id has 0 bytes"):
        dht_wire.contacts(answer.closerPeers, teller=PeerId("teller"))
