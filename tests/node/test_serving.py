from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pos.node.loading import Source
from p2pos.node.metrics import Metrics
from p2pos.node.serving import Seat
from p2pos.node.switchboard import Switchboard
from p2pos.shard import manifest
from p2pos.shard.checkpoint import Checkpoint
from p2pos.types import LayerSpan, PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import Ack, Close, Fault, Open, Sampling, StageMessage, StageRef
from tests.node.configs import config_of

ME, OWNER = PeerId("this-node"), PeerId("owner-peer")


class Outbox:
    """Hands what is posted to the test."""

    def __init__(self) -> None:
        self._put, self.arrivals = trio.open_memory_channel[StageMessage](100)

    def post(self, peer: PeerId, addresses: Sequence[str], message: StageMessage, payload: Any = b"") -> None:
        self._put.send_nowait(message)


def source_of(directory: Path) -> Source:
    checkpoint = Checkpoint.open(directory)
    config = config_of(directory, directory, cache_bytes=1 << 20)
    return Source(config, checkpoint, manifest.make(checkpoint), 6, lambda *_: lambda _: None, Metrics())


class Place:
    """A seat, its switchboard, what it posts, and what it told the swarm: (layers, draining)."""

    def __init__(self, directory: Path) -> None:
        self.outbox = Outbox()
        self.switchboard = Switchboard(ME, self.outbox)
        self.source = source_of(directory)
        self.told: list[tuple[str, bool]] = []
        self.seat = Seat(ME, self.source, self.switchboard, self._announce)

    async def _announce(self) -> None:
        self.told.append((str(self.seat.span), self.seat.draining))

    async def ask(self, span: str, number: int = 1) -> StageMessage:
        """What the answer is to an order for these layers."""
        layers = LayerSpan.parse(span)
        stages = [StageRef(ME, [], layers.start, layers.end)]
        if layers.start:
            stages.insert(0, StageRef("before-it", [], 0, layers.start))
        if layers.end < 6:
            stages.append(StageRef("after-it", [], layers.end, 6))
        index = next(index for index, stage in enumerate(stages) if stage.peer == ME)
        session = number.to_bytes(16, "big")
        order = Open(session, self.source.model, OWNER, stages, index, 3, 5, [], Sampling(), [])
        self.switchboard.receive(OWNER, Frame(order))
        answer = await self.outbox.arrivals.receive()
        self.switchboard.receive(OWNER, Frame(Close(session)))
        return answer


def seated(directory: Path, act: Callable[[Place], Awaitable[None]]) -> None:
    async def main() -> None:
        place = Place(directory)
        async with trio.open_nursery() as nursery:
            await nursery.start(place.seat.run)
            await act(place)
            nursery.cancel_scope.cancel()

    trio.run(main)


@pytest.fixture
def llama(checkpoint_of) -> Path:
    return checkpoint_of("llama")


def test_a_seat_moves(llama: Path) -> None:
    """After a move the new layers are served and the old ones refused, and the swarm was told in order."""

    async def act(place: Place) -> None:
        await place.seat.take(LayerSpan(0, 2))
        assert isinstance(await place.ask("0:2"), Ack)
        assert await place.seat.move(LayerSpan(3, 6), deadline_s=5.0)
        assert isinstance(await place.ask("3:6", 2), Ack)
        refused = await place.ask("0:2", 3)
        assert isinstance(refused, Fault)
        assert "3:6" in refused.text
        assert place.told == [("0:2", True), ("3:6", True), ("3:6", False)]
        assert (place.seat.moves, place.seat.status()["layers"]) == (1, "3:6")

    seated(llama, act)


def test_who_asks_a_seat_that_loads_is_refused_at_once(llama: Path) -> None:
    """Before the first span is there, an order is answered with a fault that says so."""

    async def act(place: Place) -> None:
        answer = await place.ask("0:2")
        assert isinstance(answer, Fault)
        assert (answer.code, answer.text) == ("busy", "it is loading other layers")

    seated(llama, act)


@pytest.mark.parametrize("answers", [[False], [True, False]])
def test_a_move_that_would_harm_is_called_off(llama: Path, answers: list[bool]) -> None:
    """Whether the reason goes before the sessions are sent away or after it, the old layers are served on."""

    async def act(place: Place) -> None:
        await place.seat.take(LayerSpan(0, 2))
        assert not await place.seat.move(LayerSpan(3, 6), deadline_s=5.0, still=lambda: answers.pop(0))
        assert isinstance(await place.ask("0:2"), Ack)
        assert (place.seat.moves, place.seat.draining) == (0, False)

    seated(llama, act)


def test_layers_that_cannot_be_loaded_leave_the_old_ones_served(llama: Path) -> None:
    """Where the model has no such layers, the seat goes back to those that it had."""

    async def act(place: Place) -> None:
        await place.seat.take(LayerSpan(0, 2))
        assert not await place.seat.move(LayerSpan(4, 9), deadline_s=5.0)
        assert isinstance(await place.ask("0:2"), Ack)

    seated(llama, act)
