"""Strangers send spoilt bytes on every protocol of a real node: it goes on, grows by nothing, and names them all."""

import json
import random
from pathlib import Path
from typing import Any

import trio

from p2pos.errors import P2posError
from p2pos.node import dht_wire, records
from p2pos.node.dht_wire import KAD_PROTOCOL, Kind
from p2pos.node.host import open_host
from p2pos.node.identity import Identity
from p2pos.node.status import ask
from p2pos.node.streams import StreamLost
from p2pos.types import PeerId
from p2pos.wire.messages import CONTENT_PROTOCOL, GOSSIP_PROTOCOL, STAGE_PROTOCOL, STATUS_PROTOCOL
from tests.node.mutations import VECTORS, mutated
from tests.node.test_table import ALICE, NOW, said
from tests.swarms import Node, node

STRANGERS = 24
STREAMS = 15
"""That each opens, three on each protocol; from its fourth fault on it's banned."""
GROWTH_BYTES = 48 << 20
"""Of the process's memory: what a start leaves to be loaded, and less than one lie that was believed would take."""
HOLD_S = 1.0
"""Seconds that a stranger waits for what it's answered."""


def framed(name: str) -> bytes:
    header = VECTORS[name]
    return (4 + len(header)).to_bytes(4, "big") + len(header).to_bytes(4, "big") + header


def valid(protocol: str, dice: random.Random) -> bytes:
    """Bytes that this protocol takes, before they are spoilt."""
    match protocol:
        case "/p2pos/kad/1.0.0":
            stale = dht_wire.put(records.key_of("m"), records.encode([said(ALICE, NOW)]))
            message = dice.choice([stale, dht_wire.request(Kind.FIND_NODE, b"k" * 38)]).SerializeToString()
            return dht_wire._varint(len(message)) + message
        case "/p2pos/stage/1.0.0":
            return framed(dice.choice(["Open", "Tokens", "Step", "Ack", "Close", "Repair", "Probe", "Replay"]))
        case "/p2pos/status/1.0.0":
            return framed(dice.choice(["StatusRequest", "StatusAnswer"]))
        case "/p2pos/gossip/1.0.0":
            return framed("News")
        case _:
            return framed(dice.choice(["Want", "Block"]))


PROTOCOLS = (STATUS_PROTOCOL, GOSSIP_PROTOCOL, KAD_PROTOCOL, STAGE_PROTOCOL, CONTENT_PROTOCOL)


async def attack(victim: Node, number: int, sent: list[int]) -> PeerId:
    """One stranger's streams; returns who it was."""
    dice = random.Random(number)
    identity = Identity(bytes([number + 1]) * 32)
    async with open_host(identity) as stranger:
        for index in range(STREAMS):
            protocol = PROTOCOLS[index % len(PROTOCOLS)]
            try:
                peer = await stranger.connect_to(victim.address)
                stream = await stranger.open_raw(peer, protocol)
                await stream.write(mutated(valid(protocol, dice), dice))
                sent[0] += 1
                await stream.close()
                with trio.move_on_after(HOLD_S):
                    while await stream.read(1 << 16):
                        pass
            except (P2posError, StreamLost):
                continue  # reset, or banned: what it deserves
    return identity.peer


def log_of(victim: Node) -> list[dict[str, Any]]:
    return [json.loads(line) for line in victim.log.read_text().splitlines() if line.startswith("{")]


def test_a_node_among_strangers(tmp_path: Path, checkpoint_of) -> None:
    """After some hundred spoilt streams a node serves as before; those who sent them are named, and banned."""
    with node(tmp_path / "n", checkpoint_of("llama"), "--layers", "0:6") as victim:
        attackers: list[PeerId] = []
        sent = [0]

        async def one(number: int) -> None:
            attackers.append(await attack(victim, number, sent))

        async def crowd(numbers: range) -> None:
            async with trio.open_nursery() as nursery:
                for number in numbers:
                    nursery.start_soon(one, number)

        trio.run(crowd, range(4))  # so that all code is loaded before memory is looked at
        before = victim.status()
        trio.run(crowd, range(4, STRANGERS))
        after = victim.status()

        async def honest() -> int:
            async with open_host(Identity.new()) as visitor:
                return len(await ask(visitor, await visitor.connect_to(victim.address)))

        assert trio.run(honest) == 1
        assert sent[0] >= STRANGERS * 4
        assert after["known_nodes"] == before["known_nodes"] == 1
        assert after["sessions"] == 0
        assert after["resident_bytes"] - before["resident_bytes"] < GROWTH_BYTES
        events = log_of(victim)
        assert not [each for each in events if each["event"] == "a handler failed"]
        dropped = {each["peer"] for each in events if each["event"] == "dropped a stream"}
        banned = {each["peer"] for each in events if each["event"] == "banned a peer"}
        assert dropped >= set(attackers)
        assert len(banned) > STRANGERS // 2
