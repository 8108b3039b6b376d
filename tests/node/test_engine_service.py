"""Sessions of a node whose engine is another's: against a real HTTP server that writes as the test says."""

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import structlog
import trio

from p2pos import log
from p2pos.errors import UnavailableError
from p2pos.node import engine_client, engine_probe, engine_service, stage_service
from p2pos.node.engine_api import Abilities, Make
from p2pos.node.engine_client import EngineClient
from p2pos.node.engine_probe import Found, Model
from p2pos.node.engine_service import RemoteEngine
from p2pos.node.stage_service import SessionService
from p2pos.types import LayerSpan, ModelId, PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import (
    Ack,
    Close,
    Fault,
    Grammar,
    Open,
    Probe,
    Progress,
    Sampling,
    StageMessage,
    StageRef,
    Tokens,
)
from tests.engines import STREAM, answer, event, misbehaving

ME, OWNER = PeerId("this-stage"), PeerId("owner-peer")
PROMPT = [5, 6, 7]
CAN = Abilities(Make.VLLM, "m", tokens=True, context=64, places=1, grammars=frozenset(["regex"]))


@dataclass(frozen=True)
class Whole:
    layers: int = 6
    width: int = 0
    vocabulary: int = 100

    @property
    def span(self) -> LayerSpan:
        return LayerSpan(0, self.layers)


class Outbox:
    def __init__(self) -> None:
        self._put, self._get = trio.open_memory_channel[StageMessage](100)

    def post(self, peer: PeerId, addresses: Sequence[str], message: StageMessage, payload: Any = b"") -> None:
        assert peer == OWNER
        self._put.send_nowait(message)

    async def next(self) -> StageMessage:
        with trio.fail_after(20):
            return await self._get.receive()


@dataclass
class Behaviour:
    """What the engine does: its answer to each request for a text, in turn, the last one for all that follow."""

    texts: list[Callable[[trio.SocketStream], Awaitable[None]]]
    up: bool = True
    asked: list[dict[str, Any]] = field(default_factory=list)
    closed: trio.Event = field(default_factory=trio.Event)

    async def __call__(self, stream: trio.SocketStream, line: str, body: bytes) -> None:
        if not self.up:
            return
        if line.startswith("GET"):
            await stream.send_all(answer({"data": []}))
            return
        self.asked.append(json.loads(body))
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        try:
            await text(stream)
        finally:
            self.closed.set()


def token(*ids: int, finish: str | None = None) -> bytes:
    return event(choices=[{"text": "x" * len(ids), "token_ids": ids, "finish_reason": finish}])


def writes(*pieces: bytes) -> Callable[[trio.SocketStream], Awaitable[None]]:
    async def text(stream: trio.SocketStream) -> None:
        await stream.send_all(STREAM)
        for piece in pieces:
            await stream.send_all(piece)

    return text


def hangs_after(*pieces: bytes) -> Callable[[trio.SocketStream], Awaitable[None]]:
    async def text(stream: trio.SocketStream) -> None:
        await writes(*pieces)(stream)
        while await stream.receive_some(1):
            pass

    return text


@dataclass
class Rig:
    service: SessionService
    engine: RemoteEngine
    outbox: Outbox
    behaviour: Behaviour
    changes: trio.MemoryReceiveChannel[bool]
    """Whether the engine is up, each time that the swarm is told."""

    async def change(self) -> bool:
        with trio.fail_after(20):
            return await self.changes.receive()

    def say(self, message: StageMessage) -> None:
        self.service.on_frame(OWNER, Frame(message, memoryview(b"")))

    async def begin(self, number: int = 1, **changes: Any) -> StageMessage:
        """Open a session; give what comes of it."""
        self.say(order(number, **changes))
        return await self.outbox.next()

    async def write(self, number: int = 1, **changes: Any) -> list[StageMessage]:
        """Open a session, send the prompt, and give all that comes of it, to its end."""
        came = [await self.begin(number, **changes)]
        if isinstance(came[0], Ack):
            self.say(Tokens(session(number), 0, PROMPT))
        while isinstance(came[-1], Ack) or (isinstance(came[-1], Tokens) and not came[-1].finish):
            came.append(await self.outbox.next())
        return came[1:] if isinstance(came[0], Ack) else came


def session(number: int) -> bytes:
    return number.to_bytes(16, "big")


def order(number: int, **changes: Any) -> Open:
    values: dict[str, Any] = {
        "session": session(number),
        "model": "the-model",
        "owner": OWNER,
        "stages": [StageRef(ME, [], 0, 6)],
        "index": 0,
        "prompt_length": len(PROMPT),
        "max_tokens": 8,
        "eos": [2],
        "sampling": Sampling(),
        "history": [],
    }
    return Open(**{**values, **changes})


def with_engine(behaviour: Behaviour, act: Callable[[Rig], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with rig(behaviour) as made:
            return await act(made)

    return trio.run(main)


@asynccontextmanager
async def rig(behaviour: Behaviour) -> Any:
    async with trio.open_nursery() as nursery:
        url = await nursery.start(misbehaving, behaviour)
        async with EngineClient(url) as client, trio.open_nursery() as inner:
            outbox = Outbox()
            put, changes = trio.open_memory_channel[bool](10)
            service = SessionService(ME, ModelId("the-model"), Whole(), dtype="f32", outbox=outbox)

            async def find() -> Found:
                if not behaviour.up:
                    raise client.fault("is down")
                return Found(CAN, 100.0)

            async def on_change() -> None:
                put.send_nowait(engine.up)

            engine = service.engine = RemoteEngine(
                client,
                Model("m", 100, 64, None),
                Found(CAN, 100.0),
                find=find,
                on_change=on_change,
                on_admitted=service._on_admitted,
                on_done=service._on_done,
            )
            await inner.start(service.run)
            yield Rig(service, engine, outbox, behaviour, changes)
            inner.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


def ids(messages: list[StageMessage]) -> list[int]:
    return [each.tokens[0] for each in messages if isinstance(each, Tokens)]


def test_a_text_goes_from_the_engine_to_its_owner() -> None:
    """The engine is asked once, in the prompt's tokens, and each token that it writes goes to the owner at once."""

    async def act(made: Rig) -> list[StageMessage]:
        return await made.write()

    behaviour = Behaviour([writes(token(9), token(10, 11), token(2, finish="stop"))])
    came = with_engine(behaviour, act)
    assert [(each.position, each.tokens, each.finish) for each in came] == [
        (3, [9], ""),
        (4, [10], ""),
        (5, [11], ""),
        (6, [2], "stop"),
    ]
    assert [asked["prompt"] for asked in behaviour.asked] == [PROMPT]


def test_the_request_ends_with_the_session() -> None:
    """An owner that closes a session frees the engine: its request is cancelled, and the place is free."""

    async def act(made: Rig) -> int:
        await made.begin()
        made.say(Tokens(session(1), 0, PROMPT))
        assert ids([await made.outbox.next()]) == [9]
        made.say(Close(session(1)))
        with trio.fail_after(20):
            await made.behaviour.closed.wait()
        return made.engine.sessions

    assert with_engine(Behaviour([hangs_after(token(9))]), act) == 0


def test_a_text_that_others_began_goes_on() -> None:
    """A session that is taken over from its tokens asks the engine for the rest, after all tokens so far."""
    given = [9, 10]

    async def act(made: Rig) -> list[StageMessage]:
        await made.begin(given=given, resume=len(PROMPT) + len(given), epoch=1)
        made.say(Tokens(session(1), 0, PROMPT + given))
        return [await made.outbox.next(), await made.outbox.next()]

    behaviour = Behaviour([writes(token(11), token(2, finish="stop"))])
    came = with_engine(behaviour, act)
    assert [(each.position, each.tokens) for each in came] == [(5, [11]), (6, [2])]
    assert [(asked["prompt"], asked["max_tokens"]) for asked in behaviour.asked] == [([*PROMPT, 9, 10], 6)]


def test_a_probe_is_answered() -> None:
    """An owner that asks how far its session is hears so at once, while the engine writes nothing."""

    async def act(made: Rig) -> StageMessage:
        await made.begin()
        made.say(Tokens(session(1), 0, PROMPT))
        assert ids([await made.outbox.next()]) == [9]
        made.say(Probe(session(1), 7))
        return await made.outbox.next()

    progress = with_engine(Behaviour([hangs_after(token(9))]), act)
    assert isinstance(progress, Progress)
    assert (progress.number, progress.received) == (7, 4)


def test_sessions_wait_for_a_place() -> None:
    """An engine that writes one text at a time gets one; who waits is seen to wait, and comes next."""

    async def act(made: Rig) -> tuple[int, int, list[int]]:
        await made.begin(1)
        made.say(order(2))
        waiting, free = made.engine.waiting, made.engine.free_tokens
        made.say(Close(session(1)))
        assert isinstance(await made.outbox.next(), Ack)
        made.say(Tokens(session(2), 0, PROMPT))
        return waiting, free, ids([await made.outbox.next()])

    assert with_engine(Behaviour([hangs_after(token(9))]), act) == (1, 0, [9])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (writes(token(9)), "broke off in the middle of a text"),
        (writes(token(9), b"data: <html>\n\n"), "sent what is no event"),
        (writes(token(9), b"data: " + b"x" * 300_000), "sent an event of more than"),
        (writes(token(9), token(4242)), "another model's"),
        (writes(token(9), event(error={"message": "CUDA error"})), "reports: CUDA error"),
        (writes(token(9), *[event(choices=[{"text": ""}])] * 50), "broke off"),
    ],
)
def test_an_engine_that_fails_in_mid_text_is_a_fault_at_once(
    monkeypatch: pytest.MonkeyPatch, text: Any, why: str
) -> None:
    """Whatever it does, the owner hears of it in one line after the tokens that came, and the next text is written."""
    # one of its own: a logger keeps the configuration in force at its first line, whoever set that
    monkeypatch.setattr(stage_service, "_log", log.get("stage"))

    async def act(made: Rig) -> None:
        with structlog.testing.capture_logs() as logs:
            *came, last = await made.write(1)
        assert ids(came) == [9]
        assert isinstance(last, Fault)
        assert (last.code, why in last.text) == ("internal", True)
        assert [each["event"] for each in logs if each["log_level"] in {"warning", "error"}] == ["a run failed"]
        assert ids(await made.write(2)) == [9, 2]

    with_engine(Behaviour([text, writes(token(9), token(2, finish="stop"))]), act)


def test_an_engine_that_writes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sends nothing at all, or nothing but pings, is left when its time is up."""
    monkeypatch.setattr(engine_service, "FIRST_S", 0.1)
    monkeypatch.setattr(engine_client, "FIRST_S", 0.1)

    async def nothing(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)

    async def act(made: Rig) -> StageMessage:
        return (await made.write())[0]

    for text in (hangs_after(b": ping\n\n"), nothing):
        fault = with_engine(Behaviour([text]), act)
        assert isinstance(fault, Fault)
        assert "does not answer in time" in fault.text


def test_what_the_engine_cannot_do_is_refused_by_name() -> None:
    """A session that it can't serve as asked is refused at its opening, so that its owner goes elsewhere."""
    behaviour = Behaviour([writes()])

    async def act(made: Rig) -> list[StageMessage]:
        lark = Sampling(grammar=Grammar("lark", 'start: "a"'))
        return [await made.begin(1, sampling=lark), await made.begin(2, max_tokens=62)]

    grammar, long = with_engine(behaviour, act)
    assert isinstance(grammar, Fault)
    assert (grammar.code, grammar.text) == ("busy", "its engine can't hold a text to a grammar (lark)")
    assert isinstance(long, Fault)
    assert "context of 64" in long.text
    assert behaviour.asked == []


def test_tokens_outside_the_vocabulary_never_reach_the_engine() -> None:
    """An owner that sends what the model has no token for is told so; the engine is not asked."""
    behaviour = Behaviour([writes()])

    async def act(made: Rig) -> StageMessage:
        await made.begin()
        made.say(Tokens(session(1), 0, [5, 100, 7]))
        return await made.outbox.next()

    fault = with_engine(behaviour, act)
    assert isinstance(fault, Fault)
    assert (fault.code, behaviour.asked) == ("bad_request", [])


def test_an_engine_that_is_down_takes_nobody_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sessions end, the swarm is told, nobody is let in; once it answers again, texts are written again."""
    monkeypatch.setattr(engine_service, "CHECK_S", 0.05)
    monkeypatch.setattr(engine_service, "STALL_S", 0.05)
    monkeypatch.setattr(engine_service, "RETRY_S", (0.05,))

    async def act(made: Rig) -> None:
        await made.begin(1)
        made.say(Tokens(session(1), 0, PROMPT))
        assert ids([await made.outbox.next()]) == [9]
        made.behaviour.up = False
        assert isinstance(await made.outbox.next(), Fault)
        assert await made.change() is False
        refused = await made.begin(2)
        assert isinstance(refused, Fault)
        assert refused.text == "its engine does not answer"
        assert made.engine.free_tokens == 0
        made.behaviour.up = True
        assert await made.change() is True
        assert ids(await made.write(3)) == [9, 2]

    with_engine(Behaviour([hangs_after(token(9)), writes(token(9), token(2, finish="stop"))]), act)


def test_an_engine_that_hangs_is_down_before_a_text_runs_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that says nothing in mid-text is asked whether it is there; where it doesn't say so, its text ends."""
    monkeypatch.setattr(engine_service, "STALL_S", 0.05)
    monkeypatch.setattr(engine_probe, "ALIVE_S", 0.05)

    class Hung(Behaviour):
        async def __call__(self, stream: trio.SocketStream, line: str, body: bytes) -> None:
            if line.startswith("GET"):
                await trio.sleep_forever()
            await super().__call__(stream, line, body)

    async def act(made: Rig) -> tuple[list[StageMessage], bool]:
        return await made.write(), await made.change()

    (*came, last), up = with_engine(Hung([hangs_after(token(9))]), act)
    assert ids(came) == [9]
    assert isinstance(last, Fault)
    assert "does not answer in time" in last.text
    assert not up


def test_a_session_that_waits_hears_of_an_engine_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not left to wait for a place that won't come."""
    monkeypatch.setattr(engine_service, "CHECK_S", 0.05)
    monkeypatch.setattr(engine_service, "STALL_S", 0.05)

    async def act(made: Rig) -> list[StageMessage]:
        await made.begin(1)
        made.say(order(2))
        made.behaviour.up = False
        return [await made.outbox.next(), await made.outbox.next()]

    faults = with_engine(Behaviour([writes()]), act)
    assert {each.session for each in faults if isinstance(each, Fault)} == {session(1), session(2)}


def test_the_error_of_a_fault_is_unavailability() -> None:
    """What an engine does wrong is nobody's bad request: its error says that the engine can't be had."""
    client = EngineClient("http://127.0.0.1:1")
    assert isinstance(client.fault("is gone"), UnavailableError)
    assert client.fault("is gone").exit_code == 3
