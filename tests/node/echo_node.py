"""A real process for tests: a host with an echo, a link, and a status; prints its address, then serves until killed.

Run as `python -m tests.node.echo_node`.
"""

import json
import sys

import trio

from p2pos.node.discovery import Discovery
from p2pos.node.host import open_host
from p2pos.node.identity import Identity
from p2pos.node.links import Links
from p2pos.types import PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import STAGE_PROTOCOL
from tests.node.stock import LOOPBACK, echo


async def main() -> None:
    """Serve."""
    identity = Identity.new()

    def send_back(peer: PeerId, frame: Frame) -> None:
        links.post(peer, [], frame.message, frame.payload)

    async with open_host(identity, LOOPBACK) as host, trio.open_nursery() as nursery:
        # room for all that a test sends at once: a post to a full queue is refused
        links = Links(host, STAGE_PROTOCOL, receive=send_back, on_lost=lambda _: None, queue_frames=256)
        host.serve("/echo", echo)
        await nursery.start(links.run)
        await nursery.start(Discovery(host, identity).run, [])
        sys.stdout.write(json.dumps({"address": host.addresses[0]}) + "\n")
        sys.stdout.flush()
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main)
