from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from p2pos.errors import UnavailableError
from p2pos.node.client import Generation
from p2pos.node.switchboard import Switchboard
from p2pos.shard.effects import Emit
from p2pos.shard.request import Request
from p2pos.shard.session import MAX_WAITING
from p2pos.types import ModelId, PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import Ack, Close, Fault, Open, StageRef, StatusRequest, Step, TensorHeader, Tokens

ME, OTHER = PeerId("peer-of-mine"), PeerId("peer-of-theirs")
HEADER = TensorHeader("f32", [1, 4])


class Desk:
    """Notes what it's given, as a peer's links or as this node's stage."""

    def __init__(self) -> None:
        self.taken: list[tuple[PeerId, Any]] = []
        self.lost: list[PeerId] = []

    def post(self, peer: PeerId, addresses: Sequence[str], message: Any, payload: bytes | memoryview = b"") -> None:
        self.taken.append((peer, message))

    def on_frame(self, sender: PeerId, frame: Frame) -> None:
        self.taken.append((sender, frame.message))

    def on_lost(self, peer: PeerId) -> None:
        self.lost.append(peer)

    def take(self) -> list[Any]:
        taken, self.taken = self.taken, []
        return [message for _, message in taken]


class Parts:
    def __init__(self) -> None:
        self.links, self.stage = Desk(), Desk()
        self.board = Switchboard(ME, self.links)
        self.board.stage = self.stage

    def from_(self, sender: PeerId, message: Any) -> None:
        self.board.receive(sender, Frame(message))


def generation(parts: Parts, *peers: PeerId) -> Generation:
    stages = [StageRef(peer, [], index, index + 1) for index, peer in enumerate(peers)]
    return parts.board.owner.generate(ModelId("m"), stages, Request((5, 6, 7), 4))


async def opened(parts: Parts, made: Generation, *peers: PeerId) -> bytes:
    """Answer a generation's orders as the stages do; its id."""
    await trio.testing.wait_all_tasks_blocked()
    orders = [message for message in [*parts.links.take(), *parts.stage.take()] if isinstance(message, Open)]
    assert len(orders) == len(peers)
    session = orders[0].session
    for peer in peers:
        parts.from_(peer, Ack(session, 0, 0))
    await trio.testing.wait_all_tasks_blocked()
    return session


def run(body: Any, **how: Any) -> None:
    async def main() -> None:
        parts = Parts()
        async with trio.open_nursery() as nursery:
            await nursery.start(parts.board.run)
            await body(parts)
            nursery.cancel_scope.cancel()

    trio.run(main, **how)


def test_a_message_to_oneself_needs_no_socket() -> None:
    """What this node sends to itself reaches its stage in order; what it sends to others is theirs."""

    async def body(parts: Parts) -> None:
        for index in range(3):
            parts.board.owner.outbox.post(ME, (), Close(bytes(16), str(index)))
        parts.board.owner.outbox.post(OTHER, (), Close(bytes(16), "other"))
        assert parts.stage.taken == []  # not before the machine that sent it is done
        await trio.testing.wait_all_tasks_blocked()
        assert [message.reason for message in parts.stage.take()] == ["0", "1", "2"]
        assert [message.reason for message in parts.links.take()] == ["other"]

    run(body)


def test_messages_to_oneself_are_bounded() -> None:
    """A queue that is full is an error, as it is to any other peer."""

    async def body(parts: Parts) -> None:
        for _ in range(MAX_WAITING + 1):  # one is under way
            parts.board.owner.outbox.post(ME, (), Close(bytes(16)))
        with pytest.raises(UnavailableError, match="to itself"):
            parts.board.owner.outbox.post(ME, (), Close(bytes(16)))

    run(body)


def test_sessions_of_others_are_the_stages() -> None:
    """Everything of a session that this node doesn't own goes to its stage, and so does what is no message of one."""

    async def body(parts: Parts) -> None:
        messages = [Ack(bytes(16), 0), Tokens(bytes(16), 0, [1]), Close(bytes(16))]
        parts.from_(OTHER, Fault(bytes(16), "busy", ""))  # to an owner, of a session that is over
        for message in messages:
            parts.from_(OTHER, message)
        assert parts.stage.take() == messages
        parts.from_(OTHER, StatusRequest())
        assert parts.stage.take() == [StatusRequest()]

    run(body)


def test_an_owner_that_is_the_head() -> None:
    """The prompt is the stage's, a sampled token both's, the last one the owner's; later acks are the stage's."""

    async def body(parts: Parts) -> None:
        async with generation(parts, ME, OTHER) as made:
            session = await opened(parts, made, ME, OTHER)
            assert parts.stage.take() == [Tokens(session, 0, [5, 6, 7])]
            parts.from_(OTHER, Ack(session, 3))
            assert parts.stage.take() == [Ack(session, 3)]
            parts.from_(OTHER, Tokens(session, 3, [9]))
            assert parts.stage.take() == [Tokens(session, 3, [9])]
            parts.from_(OTHER, Tokens(session, 4, [8], "stop"))
            assert parts.stage.take() == []
            assert [await made.emitted() for _ in range(3)] == [Emit((9,)), Emit((8,)), None]
            assert made.finish_reason == "stop"

    run(body)


def test_an_owner_that_is_the_tail() -> None:
    """Hidden states are the stage's; what it samples itself is the owner's alone, for the head is told apart."""

    async def body(parts: Parts) -> None:
        async with generation(parts, OTHER, ME) as made:
            session = await opened(parts, made, OTHER, ME)
            assert Tokens(session, 0, [5, 6, 7]) in parts.links.take()
            parts.from_(OTHER, Step(session, 0, HEADER))
            assert parts.stage.take() == [Step(session, 0, HEADER)]
            parts.board.post(ME, (), Tokens(session, 3, [9]))
            await trio.testing.wait_all_tasks_blocked()
            assert parts.stage.take() == []
            assert await made.emitted() == Emit((9,))

    run(body)


def test_an_owner_that_is_every_stage() -> None:
    """A node that holds the whole model hands its tokens from stage to owner within the process."""

    async def body(parts: Parts) -> None:
        async with generation(parts, ME) as made:
            session = await opened(parts, made, ME)
            assert parts.stage.take() == [Tokens(session, 0, [5, 6, 7])]
            parts.board.post(ME, (), Tokens(session, 3, [9]))
            await trio.testing.wait_all_tasks_blocked()
            assert parts.stage.take() == []
            assert await made.emitted() == Emit((9,))
        await trio.testing.wait_all_tasks_blocked()
        assert parts.stage.take() == [Close(session, "cancelled")]
        assert parts.board.owner.sessions == 0
        assert parts.links.taken == []

    run(body)


def test_a_fault_is_the_owners() -> None:
    """Of whichever stage, this node's own included."""

    async def body(parts: Parts) -> None:
        for peer in (ME, OTHER):
            async with generation(parts, ME, OTHER) as made:
                session = await opened(parts, made, ME, OTHER)
                parts.stage.take()
                if peer == ME:
                    parts.board.post(ME, (), Fault(session, "bad_request", "no room"))
                    await trio.testing.wait_all_tasks_blocked()
                else:
                    parts.from_(peer, Fault(session, "bad_request", "no room"))
                assert made.broken
                assert not any(isinstance(message, Fault) for message in parts.stage.take())

    run(body)


def test_a_token_of_a_stranger_is_passed_over() -> None:
    """Only the tail may say what the text is; what others send reaches nobody as a token."""

    async def body(parts: Parts) -> None:
        async with generation(parts, ME, OTHER) as made:
            session = await opened(parts, made, ME, OTHER)
            parts.from_(PeerId("mallory-peer"), Tokens(session, 3, [8]))
            parts.from_(OTHER, Tokens(session, 3, [9]))
            assert await made.emitted() == Emit((9,))

    run(body)


def test_a_loss_is_told_to_both() -> None:
    """The stage's sessions and the owner's may both hang on the peer."""

    async def body(parts: Parts) -> None:
        async with generation(parts, OTHER) as made:
            parts.board.on_lost(OTHER)
            assert parts.stage.lost == [OTHER]
            with pytest.raises(UnavailableError, match="lost the node"):
                await made.emitted()

    run(body)


def test_a_text_is_read_to_its_end_however_late() -> None:
    """Its last tokens and its end wait for a slow reader, long after every deadline of its session."""

    async def body(parts: Parts) -> None:
        async with generation(parts, OTHER) as made:
            session = await opened(parts, made, OTHER)
            for index in range(4):
                parts.from_(OTHER, Tokens(session, 3 + index, [10 + index], "length" if index == 3 else ""))
            await trio.sleep(1000)
            with trio.fail_after(1):
                assert [token async for token in made] == [10, 11, 12, 13]
            assert made.finish_reason == "length"

    run(body, clock=trio.testing.MockClock(autojump_threshold=0.01))
