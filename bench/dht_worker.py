"""Some hosts of `bench dht`, in a process of their own: commands come as lines of JSON, and so do the answers."""

import json
import random
import sys
from contextlib import AsyncExitStack
from typing import Any

import trio

from p2pos import log
from p2pos.node.addresses import peer_of
from p2pos.node.dht import Dht
from p2pos.node.host import Host, open_host
from p2pos.node.identity import Identity, verify
from p2pos.node.records import Records
from p2pos.node.table import DOMAIN, LIFETIME_MS
from p2pos.wire import codec
from p2pos.wire.messages import Announcement, Signed

NOW_MS = 1_700_000_000_000
"""What the clocks of all hosts show, in milliseconds since the epoch."""
LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


class Node:
    """A host in the DHT that says it serves a model of its own."""

    def __init__(self, host: Host, identity: Identity, number: int) -> None:
        self.host = host
        self.identity = identity
        self.model = f"model-{number}"
        self.dht = Dht(host, Records(verify), clock=lambda: NOW_MS, locate=lambda _: ())
        self.dht.serve()

    async def publish(self) -> None:
        """Put this node's record where it belongs."""
        told = Announcement(
            peer=self.host.peer,
            addresses=list(self.host.addresses),
            sequence=NOW_MS,
            expires=NOW_MS + LIFETIME_MS,
            model=self.model,
            model_name=self.model,
            layers=1,
            start=0,
            end=1,
            dtype="bf16",
            tokens_per_s=0.0,
            sessions=0,
            cached_tokens=0,
            resident_bytes=0,
            weight_bytes=0,
        )
        body = codec.encode(told)
        signed = Signed(body, self.identity.public_key, self.identity.sign(DOMAIN + body))
        await self.dht.put(self.model, signed, await self.dht.holders(self.model))


async def main(index: int, step: int, count: int) -> None:
    """Run the hosts whose number is `index` more than a multiple of `step`, and do what comes on standard input."""
    log.configure(level="error")
    async with AsyncExitStack() as stack:
        nodes = []
        for number in range(index, count, step):
            identity = Identity.new()
            nodes.append(Node(await stack.enter_async_context(open_host(identity, LOOPBACK)), identity, number))
        async for line in trio.wrap_file(sys.stdin):
            command, *arguments = json.loads(line)
            print(json.dumps(await _do(command, arguments, nodes)), flush=True)


async def _do(command: str, arguments: list[Any], nodes: list[Node]) -> Any:
    if command == "addresses":
        return [node.host.addresses[0] for node in nodes]
    if command == "join":
        for node in nodes:
            if node.host.addresses[0] not in arguments[0]:
                for address in arguments[0]:
                    node.dht.heard(peer_of(address), [address])
            await node.dht.refresh()
        return []
    if command == "publish":
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(node.publish)
        return []
    look_ups, count, dead = arguments
    return [await _look_up(random.choice(nodes), count, dead) for _ in range(look_ups)]


async def _look_up(by: Node, count: int, dead: list[int]) -> dict[str, Any]:
    """Look up the record of a model whose server lives."""
    number = random.choice([each for each in range(count) if each not in dead])
    found = await by.dht.find(f"model-{number}")
    return {
        "hops": found.lookup.hops,
        "questions": found.lookup.questions,
        "found": bool(found.announcements),
    }


if __name__ == "__main__":
    trio.run(main, *map(int, sys.argv[1:4]))
