"""Who a message of the stage protocol is for, where one node is both a stage and the owner of sessions.

A node whose API answers a request owns that request's sessions, and its own stage is often part of their route.
Messages to itself don't go through a socket, and what comes from others may be for the owner, the stage, or both:

| message | for |
|---|---|
| any that this node's owner sends to itself | the stage |
| any that this node's stage sends to itself | the owner |
| `Open`, `Step`, `Close`, `Repair`, `Probe`, `Replay` | the stage |
| `Fault`, `Progress` | the owner |
| `Ack` that answers an `Open` | the owner; any other the stage, whose next neighbour acknowledges |
| `Tokens` | the owner, and the stage where it is the head and the text goes on |
"""

from collections.abc import Sequence
from dataclasses import dataclass

import trio
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node.client import Client
from p2pos.node.ports import Outbox, Receiver
from p2pos.node.routes import Routes
from p2pos.shard.owner import OwnerSession
from p2pos.shard.session import MAX_WAITING
from p2pos.types import PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import Ack, Fault, Progress, StageMessage, Tokens

_log = log.get("switchboard")


@dataclass(frozen=True, slots=True)
class _OwnersOutbox:
    """Takes what this node's owner sends."""

    board: "Switchboard"

    def post(
        self, peer: PeerId, addresses: Sequence[str], message: StageMessage, payload: bytes | memoryview = b""
    ) -> None:
        """Queue a message. Raises UnavailableError where the queue to this peer is full."""
        self.board.forward(peer, addresses, message, payload, to_stage=True)


class Switchboard:
    """Takes messages to peers and to this node itself, and hands what comes to the role that it is for.

    As an outbox it is the stage's; the owner, which it makes, has its own.

    Args:
        me: this node's peer id.
        links: takes messages to others.
        routes: finds routes for the owner.

    `stage` is set once there is one.

    """

    def __init__(self, me: PeerId, links: Outbox, routes: Routes | None = None) -> None:
        self._me = me
        self._links = links
        self.owner = Client(me, _OwnersOutbox(self), routes)
        self.stage: Receiver | None = None
        # as many as may wait for any other peer
        self._put, self._get = trio.open_memory_channel[tuple[bool, Frame]](MAX_WAITING)

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver what this node sends to itself, until cancelled."""
        task_status.started()
        async for to_stage, frame in self._get:
            try:
                if not to_stage:
                    self.owner.on_frame(self._me, frame)
                elif self.stage is not None:
                    self.stage.on_frame(self._me, frame)
            except PeerError as exc:
                _log.error("broke our own protocol", what=exc.message)

    def post(
        self, peer: PeerId, addresses: Sequence[str], message: StageMessage, payload: bytes | memoryview = b""
    ) -> None:
        """Queue a message of this node's stage. Raises UnavailableError where the queue to this peer is full."""
        self.forward(peer, addresses, message, payload, to_stage=False)

    def forward(
        self,
        peer: PeerId,
        addresses: Sequence[str],
        message: StageMessage,
        payload: bytes | memoryview = b"",
        *,
        to_stage: bool,
    ) -> None:
        """Queue a message for a peer; where that is this node itself, for its stage or its owner."""
        if peer != self._me:
            self._links.post(peer, addresses, message, payload)
            return
        try:
            self._put.send_nowait((to_stage, Frame(message, memoryview(payload))))
        except trio.WouldBlock:
            raise UnavailableError("too many messages of this node to itself are waiting", peer=peer) from None

    def receive(self, sender: PeerId, frame: Frame) -> None:
        """Take a peer's frame. Raises PeerError where it is no message of the stage protocol."""
        message = frame.message
        session = self.owner.session(message.session) if isinstance(message, StageMessage) else None
        if session is None and isinstance(message, Fault | Progress):
            return  # of a session that is over
        to_owner, to_stage = (False, True) if session is None else self._whose(session, message)
        if to_stage and self.stage is not None:
            self.stage.on_frame(sender, frame)
        if to_owner:
            self.owner.on_frame(sender, frame)

    def on_lost(self, peer: PeerId) -> None:
        """The connection to a peer is gone."""
        if self.stage is not None:
            self.stage.on_lost(peer)
        self.owner.on_lost(peer)

    def _whose(self, session: OwnerSession, message: object) -> tuple[bool, bool]:
        """Whether a message of a session that this node owns is for the owner, and whether for the stage."""
        match message:
            case Ack(epoch=epoch):
                return epoch is not None, epoch is None
            case Fault() | Progress():
                return True, False
            case Tokens(finish=finish):
                return True, session.head == self._me and not finish
            case _:
                return False, True
