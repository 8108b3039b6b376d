from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import trio
import trio.testing

from p2pos.errors import UnavailableError
from p2pos.node.stage_service import SWEEP_S, StageService
from p2pos.shard import activations, runners
from p2pos.shard.session import IDLE_S
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan, ModelId, PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import (
    Ack,
    Close,
    Fault,
    Open,
    Probe,
    Repair,
    Sampling,
    StageMessage,
    StageRef,
    Step,
    Tokens,
    Want,
)

ME, OWNER, NEXT = PeerId("this-stage"), PeerId("owner-peer"), PeerId("next-stage")
STAGES = [StageRef(ME, [], 0, 2), StageRef(NEXT, ["/ip4/127.0.0.1/tcp/9"], 2, 6)]


class Outbox:
    """Keeps what is posted, and tells a waiting test."""

    def __init__(self) -> None:
        self.posted: list[tuple[PeerId, StageMessage]] = []
        self._put, self.arrivals = trio.open_memory_channel[tuple[PeerId, StageMessage]](100)

    def post(self, peer: PeerId, addresses: Sequence[str], message: StageMessage, payload: Any = b"") -> None:
        self.posted.append((peer, message))
        self._put.send_nowait((peer, message))


@pytest.fixture(scope="module")
def head(checkpoint_of) -> Stage:
    return Stage.load(checkpoint_of("llama"), LayerSpan(0, 2), dtype="f32")


def order(number: int = 1, **changes: Any) -> Open:
    values: dict[str, Any] = {
        "session": number.to_bytes(16, "big"),
        "model": "the-model",
        "owner": OWNER,
        "stages": STAGES,
        "index": 0,
        "prompt_length": 3,
        "max_tokens": 5,
        "eos": [],
        "sampling": Sampling(),
        "history": [],
    }
    return Open(**{**values, **changes})


def serving(
    head: Stage, act: Callable[[StageService, Outbox], Any], *, clock: Any = None, max_tokens: int = 100
) -> Outbox:
    """Run a service, let `act` speak to it, and give what it posted."""

    async def main() -> Outbox:
        outbox = Outbox()
        service = StageService(
            ME,
            ModelId("the-model"),
            head,
            runners.choose(head, max_tokens=max_tokens, max_bytes=1 << 30),
            dtype="f32",
            outbox=outbox,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            result = act(service, outbox)
            if result is not None:
                await result
            nursery.cancel_scope.cancel()
        return outbox

    return trio.run(main, clock=clock)


def test_a_session_is_opened_and_runs(head: Stage) -> None:
    """The owner hears an ack, and the next stage gets hidden states of the prompt."""

    async def act(service: StageService, outbox: Outbox) -> None:
        service.on_frame(OWNER, Frame(order()))
        service.on_frame(OWNER, Frame(Tokens(order().session, 0, [5, 6, 7])))
        assert await outbox.arrivals.receive() == (OWNER, Ack(order().session, 0, 0))
        peer, step = await outbox.arrivals.receive()
        assert peer == NEXT
        assert isinstance(step, Step)
        assert step.tensor.shape == [3, 64]

    serving(head, act)


@pytest.mark.parametrize(
    ("changes", "sender", "code"),
    [
        ({"model": "another"}, OWNER, "wrong_model"),
        ({"index": 1}, OWNER, "bad_request"),
        ({"index": 7}, OWNER, "bad_request"),
        ({"stages": [StageRef(ME, [], 0, 3), StageRef(NEXT, [], 3, 6)]}, OWNER, "bad_request"),
        ({"stages": STAGES[:1]}, OWNER, "bad_request"),
        ({}, PeerId("mallory-x"), "bad_request"),
        ({"prompt_length": 90, "max_tokens": 11}, OWNER, "busy"),
        ({"prompt_length": 513}, OWNER, "busy"),
    ],
)
def test_an_order_that_cannot_be_is_refused(head: Stage, changes: Any, sender: PeerId, code: str) -> None:
    """Another model, layers or peer, a stranger's word, or too long a text: a fault goes back, nothing is held."""

    def act(service: StageService, _outbox: Outbox) -> None:
        service.on_frame(sender, Frame(order(**changes)))
        assert service.engine.sessions == 0

    ((peer, fault),) = serving(head, act).posted
    assert peer == sender
    assert isinstance(fault, Fault)
    assert fault.code == code


def test_the_same_session_is_not_opened_twice(head: Stage) -> None:
    """A second order with the same id is refused, and the first goes on."""

    def act(service: StageService, _outbox: Outbox) -> None:
        service.on_frame(OWNER, Frame(order()))
        service.on_frame(OWNER, Frame(order()))
        assert service.engine.sessions == 1

    assert [type(message) for _, message in serving(head, act).posted] == [Ack, Fault]


def test_a_peer_that_reads_nothing_is_told_to_the_owner(head: Stage) -> None:
    """Where no more can be queued for the next stage, the session waits for another in its place."""

    class Full(Outbox):
        def post(self, peer: PeerId, addresses: Sequence[str], message: StageMessage, payload: Any = b"") -> None:
            if peer == NEXT:
                raise UnavailableError("its queue is full")
            super().post(peer, addresses, message, payload)

    async def main() -> tuple[Outbox, int]:
        outbox = Full()
        service = StageService(
            ME,
            ModelId("the-model"),
            head,
            runners.choose(head, max_tokens=100, max_bytes=1 << 30),
            dtype="f32",
            outbox=outbox,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            service.on_frame(OWNER, Frame(order()))
            service.on_frame(OWNER, Frame(Tokens(order().session, 0, [5, 6, 7])))
            await outbox.arrivals.receive()
            await outbox.arrivals.receive()
            nursery.cancel_scope.cancel()
        return outbox, service.engine.sessions

    outbox, sessions = trio.run(main)
    assert sessions == 1
    assert outbox.posted[-1] == (OWNER, Fault(order().session, "next_stage", f"lost the connection to {NEXT}", NEXT))


def test_a_stranger_cannot_end_a_session(head: Stage) -> None:
    """What breaks the rules and comes from outside the session does nothing to it."""

    def act(service: StageService, _outbox: Outbox) -> None:
        service.on_frame(OWNER, Frame(order()))
        service.on_frame(PeerId("mallory-x"), Frame(Close(order().session)))
        assert service.engine.sessions == 1

    assert [type(message) for _, message in serving(head, act).posted] == [Ack]


def test_a_neighbour_that_breaks_the_rules_is_named(head: Stage) -> None:
    """The owner hears of it, and the session waits for another in its place."""
    header, payload = activations.to_wire(torch.ones(1, 64))

    def act(service: StageService, _outbox: Outbox) -> None:
        service.on_frame(OWNER, Frame(order(1)))
        service.on_frame(OWNER, Frame(order(2)))
        service.on_frame(NEXT, Frame(Step(order(1).session, 0, header), payload))
        assert service.engine.sessions == 2

    peer, fault = serving(head, act).posted[-1]
    assert peer == OWNER
    assert isinstance(fault, Fault)
    assert (fault.session, fault.code, fault.peer) == (order(1).session, "bad_peer", NEXT)


def test_an_owner_that_breaks_the_rules_ends_its_session(head: Stage) -> None:
    """Nobody can take its place."""

    def act(service: StageService, _outbox: Outbox) -> None:
        service.on_frame(OWNER, Frame(order(1)))
        service.on_frame(OWNER, Frame(Tokens(order(1).session, 0, [head.vocabulary] * 3)))
        assert service.engine.sessions == 0

    fault = serving(head, act).posted[-1][1]
    assert isinstance(fault, Fault)
    assert fault.code == "bad_request"


def test_a_payload_that_lies_does_not_wait_for_its_turn(checkpoint_of) -> None:
    """Bytes beyond what the header may promise are refused as they come, though an earlier run is under way."""
    tail = Stage.load(checkpoint_of("llama"), LayerSpan(2, 6), dtype="f32")
    stages = [StageRef(NEXT, [], 0, 2), StageRef(ME, [], 2, 6)]

    def act(service: StageService, _outbox: Outbox) -> None:
        service.on_frame(OWNER, Frame(order(stages=stages, index=1)))
        header, payload = activations.to_wire(torch.ones(1, 64))
        service.on_frame(NEXT, Frame(Step(order().session, 0, header), payload))
        service.on_frame(NEXT, Frame(Step(order().session, 1, header), bytes(1 << 20)))

    posted = serving(tail, act).posted
    assert posted[-1][1].peer == NEXT


def test_the_loss_of_the_owner_frees_its_sessions(head: Stage) -> None:
    """Nobody is told, because there is nobody."""

    def act(service: StageService, _outbox: Outbox) -> None:
        service.on_frame(OWNER, Frame(order()))
        service.on_lost(OWNER)
        assert service.engine.sessions == 0

    assert [type(message) for _, message in serving(head, act).posted] == [Ack]


def test_the_loss_of_a_neighbour_is_told_to_the_owner(head: Stage) -> None:
    """The session waits here, with the neighbour named."""

    def act(service: StageService, _outbox: Outbox) -> None:
        service.on_frame(OWNER, Frame(order()))
        service.on_lost(NEXT)
        assert service.engine.sessions == 1

    fault = serving(head, act).posted[-1][1]
    assert isinstance(fault, Fault)
    assert (fault.code, fault.peer) == ("next_stage", NEXT)


def test_a_session_that_is_not_here_is_denied(head: Stage) -> None:
    """An owner that believes a session to be here, as before a restart, hears that it isn't."""

    def act(service: StageService, _outbox: Outbox) -> None:
        service.on_frame(OWNER, Frame(Repair(bytes(16), 1, STAGES, 0, 3)))
        service.on_frame(OWNER, Frame(Probe(bytes(16), 1)))

    faults = [message for _, message in serving(head, act).posted]
    assert [fault.code for fault in faults if isinstance(fault, Fault)] == ["unknown", "unknown"]


def test_an_order_of_a_later_epoch_begins_the_session_anew(head: Stage) -> None:
    """Its owner gave it up in between; what it held is freed first."""

    def act(service: StageService, _outbox: Outbox) -> None:
        service.on_frame(OWNER, Frame(order()))
        service.on_frame(OWNER, Frame(order(epoch=1)))
        assert service.engine.sessions == 1

    assert [type(message) for _, message in serving(head, act).posted] == [Ack, Ack]


def test_a_message_of_no_session_is_passed_over(head: Stage) -> None:
    """It ended here while the message was under way."""
    assert serving(head, lambda service, _: service.on_frame(OWNER, Frame(Close(bytes(16))))).posted == []


def test_another_protocols_message_is_the_peers_fault(head: Stage) -> None:
    """A `Want` has no place here."""
    from p2pos.errors import PeerError

    def act(service: StageService, _outbox: Outbox) -> None:
        with pytest.raises(PeerError):
            service.on_frame(OWNER, Frame(Want("x")))

    serving(head, act)


def test_a_silent_session_is_swept_away(head: Stage) -> None:
    """After the idle time its owner hears of a deadline, and the cache is free. (A virtual clock: no waiting.)"""

    async def act(service: StageService, _outbox: Outbox) -> None:
        service.on_frame(OWNER, Frame(order()))
        await trio.sleep(IDLE_S + 2 * SWEEP_S)
        assert service.engine.sessions == 0

    fault = serving(head, act, clock=trio.testing.MockClock(autojump_threshold=0)).posted[-1][1]
    assert isinstance(fault, Fault)
    assert fault.code == "deadline"


def test_draining_admits_nobody_and_ends_the_rest(head: Stage) -> None:
    """A leaving node offers its sessions to others, refuses newcomers, and after the deadline ends what is left."""

    async def act(service: StageService, _outbox: Outbox) -> None:
        service.on_frame(OWNER, Frame(order(1)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.drain, 10.0)
            await trio.testing.wait_all_tasks_blocked()
            service.on_frame(OWNER, Frame(order(2)))
        assert service.engine.sessions == 0

    posted = serving(head, act, clock=trio.testing.MockClock(autojump_threshold=0)).posted
    faults = [message for _, message in posted if isinstance(message, Fault)]
    assert [(fault.session[-1], fault.code) for fault in faults] == [(1, "leaving"), (2, "busy"), (1, "deadline")]


def test_draining_waits_for_the_last_session(head: Stage) -> None:
    """When the last session ends by itself, draining is over before its deadline."""

    async def act(service: StageService, _outbox: Outbox) -> None:
        service.on_frame(OWNER, Frame(order()))
        began_s = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.drain, 1000.0)
            await trio.testing.wait_all_tasks_blocked()
            service.on_frame(OWNER, Frame(Close(order().session)))
        assert trio.current_time() - began_s < 1000.0

    posted = serving(head, act, clock=trio.testing.MockClock(autojump_threshold=0)).posted
    assert [message.code for _, message in posted if isinstance(message, Fault)] == ["leaving"]
