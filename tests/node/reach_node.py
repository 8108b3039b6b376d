"""A real process for tests: a node that keeps itself reachable, does as it is told on standard input, and says so.

Run as `python -m tests.node.reach_node LISTEN…`. It prints its peer id and addresses, then one JSON line for each
that it reads: `connect` (to a peer at addresses), `echo` (to a peer, over a stream that is opened for it), `post`
(a number to a peer, over its link, to come back), `posted` (how many came back, in order or not), `state`.
"""

import json
import sys
from typing import Any

import trio

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node.host import Host, open_host
from p2pos.node.identity import Identity
from p2pos.node.links import Links
from p2pos.node.reach import Reach
from p2pos.node.relay import Relay
from p2pos.types import PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import STAGE_PROTOCOL, Ack
from tests.node.stock import echo

SESSION = b"0123456789abcdef"
THERE, BACK = b"there" * 200, b"back" * 200


class Node:
    """What runs here."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.relay = Relay(host)
        self.reach = Reach(host, self.relay)
        self.links = Links(host, STAGE_PROTOCOL, receive=self.receive, on_lost=self.on_lost, queue_frames=256)
        self.back: list[int] = []
        self.lost: list[str] = []

    def receive(self, peer: PeerId, frame: Frame) -> None:
        assert isinstance(frame.message, Ack)
        if bytes(frame.payload) == THERE:
            self.links.post(peer, [], frame.message, BACK)
        else:
            self.back.append(frame.message.position)

    def on_lost(self, peer: PeerId) -> None:
        self.lost.append(peer)

    async def do(self, order: dict[str, Any]) -> dict[str, Any]:
        peer = PeerId(order.get("peer", ""))
        match order["do"]:
            case "connect":
                began_s = trio.current_time()
                await self.host.connect(peer, order["addresses"], deadline_s=20)
                return {"seconds": trio.current_time() - began_s}
            case "echo":
                with trio.fail_after(20):
                    stream = await self.host.open(peer, "/echo")
                    await stream.send(Ack(SESSION, 1), b"x" * order.get("bytes", 1))
                    frame = await stream.receive()
                    await stream.finish()
                return {"bytes": 0 if frame is None else len(frame.payload)}
            case "post":
                self.links.post(peer, order.get("addresses", []), Ack(SESSION, order["number"]), THERE)
        return {
            "addresses": list(self.host.addresses),
            "verdict": self.reach.verdict.value,
            "relays": list(self.reach.relays),
            "offering": self.relay.offering,
            "reservations": self.relay.reservations,
            "circuits": self.relay.circuits,
            "back": self.back,
            "lost": self.lost,
            "peers": {
                each: ["relayed" if way.relayed else "direct" for way in self.host.connections(each)]
                for each in self.host.connected()
            },
        }


async def main() -> None:
    """Serve until standard input ends."""
    async with open_host(Identity.new(), sys.argv[1:]) as host, trio.open_nursery() as nursery:
        node = Node(host)
        host.serve("/echo", echo)
        await nursery.start(node.links.run)
        await nursery.start(node.reach.run)
        say({"peer": host.peer, "addresses": list(host.addresses)})
        async with trio.lowlevel.FdStream(0) as stdin:
            rest = b""
            while data := await stdin.receive_some():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    try:
                        say(await node.do(json.loads(line)))
                    except (UnavailableError, PeerError, trio.TooSlowError) as exc:
                        say({"error": str(exc) or repr(exc), **getattr(exc, "fields", {})})
        nursery.cancel_scope.cancel()


def say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    log.configure()
    trio.run(main)
