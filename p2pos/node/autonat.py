"""Can others dial this node? They are asked to try: AutoNAT, in libp2p's own messages, for both who ask and who try.

Specification: https://github.com/libp2p/specs/blob/master/autonat/autonat-v1.md. The library's own class is not
used: asked to dial back a peer that is connected, it finds it connected, and says yes to everybody.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import trio
from libp2p.host.autonat.pb.autonat_pb2 import Message

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node import addresses as multiaddresses
from p2pos.node.pipes import Pipe
from p2pos.types import PeerId

AUTONAT_PROTOCOL = "/libp2p/autonat/1.0.0"
MAX_TRIED = 4
"""Addresses that one question has us dial; a node listens at one or two on the address that we see."""
MAX_SAID = 16
"""Addresses of one question that are looked at."""
DIAL_S = 5.0
"""Seconds for one address to answer with a handshake: a few long round trips, on a busy machine."""
ANSWER_S = 15.0
"""Seconds that the one that asks waits: dialling, and a round trip or two."""
MAX_ASKERS = 16
"""Questions that are worked on at once; whoever comes then is refused and asks elsewhere."""
PAUSE_S = 10.0
"""Seconds before the same peer's next question is worked on."""
MAX_REMEMBERED = 1024
"""Peers whose last question is remembered; the oldest are forgotten."""

_log = log.get("reach")


class Prober(Protocol):
    """What dialling back needs of a host."""

    async def answers_at(self, address: Any, peer: PeerId) -> bool:
        """Whether this peer proves that it is there; leaves no connection."""


class Asker(Protocol):
    """What asking needs of a host."""

    @property
    def peer(self) -> PeerId:
        """Its own peer id."""

    async def open_raw(self, peer: PeerId, protocol: str, *, deadline_s: float = ...) -> Pipe:
        """Open a stream to a peer that is connected. Raises UnavailableError, PeerError."""


class AutoNat:
    """Dials back whoever asks, at addresses on the IP address that they are seen at and nowhere else.

    Args:
        host: dials.

    """

    def __init__(self, host: Prober) -> None:
        self._host = host
        self._working = 0
        self._asked_s: dict[PeerId, float] = {}
        """When each peer asked last."""

    async def answer(self, _peer: PeerId, pipe: Pipe) -> None:
        """Serve one question. Raises PeerError, UnavailableError."""
        asked = await pipe.receive(Message)
        if asked.type != Message.DIAL or asked.dial.peer.id != multiaddresses.library_id(pipe.peer).to_bytes():
            _log.info("asked to have somebody else dialled", peer=pipe.peer)
            await _say(pipe, Message.E_BAD_REQUEST)
            return  # in order: a reset might overtake the answer
        seen = pipe.remote
        said = multiaddresses.decode(asked.dial.peer.addrs, MAX_SAID)
        tried = [each for each in said if seen is not None and _ip(each) == seen[0]][:MAX_TRIED]
        if not tried or not self._turn(pipe.peer):
            await _say(pipe, Message.E_DIAL_REFUSED)
            return
        self._working += 1
        try:
            found = await self._first(tried, pipe.peer)
        finally:
            self._working -= 1
        await _say(pipe, Message.E_DIAL_ERROR if found is None else Message.OK, found)

    def _turn(self, peer: PeerId) -> bool:
        """Whether a peer's question is worked on now."""
        now_s = trio.current_time()
        if self._working >= MAX_ASKERS or now_s - self._asked_s.pop(peer, -PAUSE_S) < PAUSE_S:
            return False
        self._asked_s[peer] = now_s
        if len(self._asked_s) > MAX_REMEMBERED:
            del self._asked_s[next(iter(self._asked_s))]
        return True

    async def _first(self, targets: Sequence[Any], peer: PeerId) -> Any:
        """The first address at which a peer answers, or None."""
        found: list[Any] = []

        async def attempt(address: Any) -> None:
            with trio.move_on_after(DIAL_S):
                if await self._host.answers_at(address, peer):
                    found.append(address)
                    nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for address in targets:
                nursery.start_soon(attempt, address)
        return found[0] if found else None


async def ask(host: Asker, server: PeerId, own: Sequence[Any]) -> Any:
    """Have a connected peer try to dial this host.

    Args:
        host: who asks.
        server: whom.
        own: multiaddresses to try.

    Returns the multiaddress that answered, or None where none did.

    Raises UnavailableError where it refuses or doesn't answer, PeerError where it doesn't do such things.

    """
    pipe = await host.open_raw(server, AUTONAT_PROTOCOL)
    try:
        packed = [each.to_bytes() for each in own[:MAX_SAID]]
        mine = Message.PeerInfo(id=multiaddresses.library_id(host.peer).to_bytes(), addrs=packed)
        await pipe.send(Message(type=Message.DIAL, dial=Message.Dial(peer=mine)))
        answer = await pipe.receive(Message, deadline_s=ANSWER_S)
    finally:
        await pipe.reset()
    if answer.type != Message.DIAL_RESPONSE:
        raise PeerError(server, "answered something other than whether it could dial back")
    if answer.dialResponse.status == Message.E_DIAL_ERROR:
        return None
    if answer.dialResponse.status != Message.OK:
        raise UnavailableError(f"peer {server} would not dial back", peer=server)
    found = multiaddresses.decode([answer.dialResponse.addr], 1)
    if not found or found[0] not in own:
        raise PeerError(server, "dialled back where it was not asked to")
    return found[0]


async def _say(pipe: Pipe, status: "Message.ResponseStatus.ValueType", address: Any = None) -> None:
    answer = Message.DialResponse(status=status)
    if address is not None:
        answer.addr = address.to_bytes()
    await pipe.send(Message(type=Message.DIAL_RESPONSE, dialResponse=answer))


def _ip(address: Any) -> str | None:
    found = multiaddresses.socket_of(address)
    return found[0] if found else None
