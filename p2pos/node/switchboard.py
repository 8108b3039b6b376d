"""Who a message of the stage protocol is for, where one node is both a stage and the owner of sessions.

A node whose API answers a request owns that request's sessions, and its own stage is often part of their route.
Messages to itself don't go through a socket, and what comes from others may be for the owner, the stage, or both:

| message | for |
|---|---|
| `Open`, `Step`, `Close` | the stage |
| `Fault` | the owner |
| `Ack` while the session opens | the owner; afterwards the stage, whose next neighbour acknowledges |
| `Tokens` from itself, before the prompt's end | the stage: the prompt |
| `Tokens` sampled by the tail | the owner, and the stage where it is the head and the text goes on |
"""

from collections.abc import Sequence

import trio
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node.client import Client
from p2pos.node.ports import Outbox, Receiver
from p2pos.shard.owner import OwnerSession, Phase
from p2pos.shard.session import MAX_WAITING
from p2pos.types import PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import Ack, Fault, StageMessage, Tokens

_log = log.get("switchboard")


class Switchboard:
    """Takes messages to peers and to this node itself, and hands what comes to the role that it is for.

    Args:
        me: this node's peer id.
        links: takes messages to others.

    `stage` is set once there is one.

    """

    def __init__(self, me: PeerId, links: Outbox) -> None:
        self._me = me
        self._links = links
        self.owner = Client(me, self)
        self.stage: Receiver | None = None
        # as many as may wait for any other peer
        self._put, self._get = trio.open_memory_channel[Frame](MAX_WAITING)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver what this node sends to itself, until cancelled."""
        task_status.started()
        async for frame in self._get:
            try:
                self.receive(self._me, frame)
            except PeerError as exc:
                _log.error("broke our own protocol", what=exc.message)

    def post(
        self, peer: PeerId, addresses: Sequence[str], message: StageMessage, payload: bytes | memoryview = b""
    ) -> None:
        """Queue a message. Raises UnavailableError where the queue to this peer is full."""
        if peer != self._me:
            self._links.post(peer, addresses, message, payload)
            return
        try:
            self._put.send_nowait(Frame(message, memoryview(payload)))
        except trio.WouldBlock:
            raise UnavailableError("too many messages of this node to itself are waiting", peer=peer) from None

    def receive(self, sender: PeerId, frame: Frame) -> None:
        """Take a frame. Raises PeerError where it is no message of the stage protocol."""
        message = frame.message
        session = None
        if isinstance(message, StageMessage):
            session = self.owner.session(message.session)
        to_owner, to_stage = (False, True) if session is None else self._whose(sender, session, message)
        if to_stage and self.stage is not None:
            self.stage.on_frame(sender, frame)
        if to_owner:
            self.owner.on_frame(sender, frame)

    def on_lost(self, peer: PeerId) -> None:
        """The connection to a peer is gone."""
        if self.stage is not None:
            self.stage.on_lost(peer)
        self.owner.on_lost(peer)

    def _whose(self, sender: PeerId, session: OwnerSession, message: object) -> tuple[bool, bool]:
        """Whether a message of a session that this node owns is for the owner, and whether for the stage."""
        match message:
            case Ack():
                return (True, False) if session.phase is Phase.OPENING else (False, True)
            case Fault():
                return True, False
            case Tokens(position=position):
                if position < session.prompt_length:
                    return False, True
                # a stage that is head and tail at once has it already
                elsewhere = sender != self._me and session.head == self._me
                return True, elsewhere and not message.finish
            case _:
                return False, True
