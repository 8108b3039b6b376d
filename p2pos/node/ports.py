"""What the parts of a node need of one another, so that each can be used without the others."""

from collections.abc import Sequence
from typing import Protocol

from p2pos.types import PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import StageMessage


class Outbox(Protocol):
    """What takes messages to peers; `links` is one."""

    def post(
        self, peer: PeerId, addresses: Sequence[str], message: StageMessage, payload: bytes | memoryview = b""
    ) -> None:
        """Queue a message and return at once. That a peer can't be reached is told later, as its loss."""


class Receiver(Protocol):
    """What takes what peers send; `stage_service` is one."""

    def on_frame(self, sender: PeerId, frame: Frame) -> None:
        """Take a message. Raises PeerError where it isn't one of the stage protocol."""

    def on_lost(self, peer: PeerId) -> None:
        """The connection to a peer is gone."""
