import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing
from tokenizers import Tokenizer

from p2pos.models import DEFAULT
from p2pos.node.client import Client, ModelFiles
from p2pos.node.openai import service
from p2pos.node.openai.answers import DONE
from p2pos.node.openai.catalogue import Catalogue
from p2pos.node.openai.service import Api
from p2pos.types import ModelId, PeerId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import Ack, Close, Fault, Open, StageRef, Tokens
from tests.node.openai.test_catalogue import announced

STAGE = PeerId("peer-of-theirs")
TOKENIZER = Tokenizer.from_file(str(DEFAULT / "tokenizer.json"))
FILES = ModelFiles(ModelId("id-1"), {"vocab_size": 3540, "eos_token_id": 1}, {}, TOKENIZER)
TEXT = TOKENIZER.encode(" lantern lamp coin road", add_special_tokens=False).ids
BODY = {"model": "one", "prompt": "The", "max_tokens": 50}


class Stage:
    """A peer that holds the whole model: it opens what is asked for, and says what the test has it say."""

    def __init__(self) -> None:
        self.open: dict[bytes, Open] = {}
        self.client = Client(PeerId("peer-of-mine"), self)
        self.refusal: Fault | None = None

    def post(self, peer: PeerId, addresses: Sequence[str], message: Any, payload: bytes | memoryview = b"") -> None:
        match message:
            case Open(session=session):
                self.open[session] = message
                answer = Ack(session, 0, 0) if self.refusal is None else Fault(session, self.refusal.code, "no room")
                trio.lowlevel.spawn_system_task(self.say, answer)
            case Close(session=session):
                self.open.pop(session, None)

    async def say(self, message: Any) -> None:
        self.client.on_frame(STAGE, Frame(message))

    async def write(self, tokens: list[int], *, finish: Any = "", start: int = 0) -> None:
        """The same tokens in every session that is open; the last one with why it's the last."""
        for session, order in list(self.open.items()):
            for index, token in enumerate(tokens):
                last = finish if index == len(tokens) - 1 else ""
                await self.say(Tokens(session, order.prompt_length + start + index, [token], last))


class Request:
    """One HTTP request, sent at once, and what has come back so far."""

    def __init__(self, api: Api, **changes: Any) -> None:
        self._api = api
        self._body = json.dumps({**BODY, **changes}).encode()
        self._messages, self._receive = trio.open_memory_channel[dict[str, Any]](4)
        self._messages.send_nowait({"type": "http.request", "body": self._body})
        self.status = 0
        self.data = b""
        self.ended = trio.Event()

    async def run(self) -> None:
        plan = api_plan(self._api)
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers}
        await self._api.answer(plan, scope, self._receive.receive, self._send)
        self.ended.set()

    def hang_up(self) -> None:
        self._messages.send_nowait({"type": "http.disconnect"})

    async def _send(self, message: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.status = message.get("status", self.status)
        self.data += message.get("body", b"")

    @property
    def events(self) -> list[Any]:
        return [json.loads(line[6:]) for line in self.data.decode().splitlines() if line.startswith("data: {")]


def api_plan(api: Api) -> Any:
    return api._planner.completion


def run(body: Callable[[Stage, Api, Callable[..., Request]], Awaitable[None]]) -> None:
    async def main() -> None:
        stage = Stage()

        async def fetch(_stage: StageRef, _model: ModelId) -> ModelFiles:
            return FILES

        api = Api(stage.client, Catalogue(lambda: [announced(STAGE, "id-1", "one")], fetch), patience_s=0.0)
        async with trio.open_nursery() as nursery:

            def ask(**changes: Any) -> Request:
                request = Request(api, **changes)
                nursery.start_soon(request.run)
                return request

            with trio.fail_after(30):
                await body(stage, api, ask)
            nursery.cancel_scope.cancel()

    trio.run(main)


async def until(true: Callable[[], bool]) -> None:
    """Let the others run until something holds; bounded by the test's own deadline."""
    while not true():
        await trio.lowlevel.checkpoint()


def test_a_stream_that_fails_does_not_look_whole() -> None:
    """A node that is lost in mid-text ends the stream with an error, and without the mark of its end."""

    async def body(stage: Stage, api: Api, ask: Callable[..., Request]) -> None:
        request = ask(stream=True)
        await until(lambda: bool(stage.open))
        await trio.testing.wait_all_tasks_blocked()
        await stage.write(TEXT)
        await until(lambda: len(request.events) == len(TEXT))
        stage.client.on_lost(STAGE)
        await request.ended.wait()
        assert request.status == 200
        assert "lost the node" in request.events[-1]["error"]["message"]
        assert DONE.strip() not in request.data
        assert stage.client.sessions == 0

    run(body)


def test_a_text_that_fails_ends_the_others_of_its_request() -> None:
    """All of a request or none of it: the sessions of the other texts are closed."""

    async def body(stage: Stage, api: Api, ask: Callable[..., Request]) -> None:
        request = ask(n=3)
        await until(lambda: len(stage.open) == 3)
        await trio.testing.wait_all_tasks_blocked()
        first = next(iter(stage.open))
        await stage.say(Fault(first, "internal", "out of luck"))
        await request.ended.wait()
        assert request.status == 503
        assert json.loads(request.data)["error"]["code"] == "unavailable"
        assert stage.open == {}
        assert stage.client.sessions == 0

    run(body)


def test_a_refusal_before_the_first_token_has_its_own_status() -> None:
    """A stream isn't begun before it's known that there will be one."""

    async def body(stage: Stage, api: Api, ask: Callable[..., Request]) -> None:
        stage.refusal = Fault(bytes(16), "busy", "no room")
        request = ask(stream=True)
        await request.ended.wait()
        assert request.status == 429
        assert json.loads(request.data)["error"]["code"] == "rate_limit_exceeded"

    run(body)


def test_a_client_that_hangs_up_closes_its_sessions() -> None:
    """All of them, before the first token as well as after it, and nothing more is written."""

    async def body(stage: Stage, api: Api, ask: Callable[..., Request]) -> None:
        for stream in (False, True):
            request = ask(n=2, stream=stream)
            await until(lambda: len(stage.open) == 2)
            await trio.testing.wait_all_tasks_blocked()
            if stream:
                await stage.write(TEXT[:1])
                await until(lambda request=request: len(request.events) == 2)
            before = request.data
            request.hang_up()
            await request.ended.wait()
            assert request.data == before
            assert stage.open == {}
            assert stage.client.sessions == 0

    run(body)


def test_a_whole_text_is_answered_once_it_ends() -> None:
    """With its usage, and why it ended."""

    async def body(stage: Stage, api: Api, ask: Callable[..., Request]) -> None:
        request = ask()
        await until(lambda: bool(stage.open))
        await trio.testing.wait_all_tasks_blocked()
        await stage.write([*TEXT, 1], finish="stop")
        await request.ended.wait()
        answer = json.loads(request.data)
        assert answer["choices"][0]["text"] == " lantern lamp coin road"
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] == len(TEXT) + 1

    run(body)


def test_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than the limit is told to come again; when another is done, it's served."""
    monkeypatch.setattr(service, "MAX_REQUESTS", 1)

    async def body(stage: Stage, api: Api, ask: Callable[..., Request]) -> None:
        held = ask()
        await until(lambda: bool(stage.open))
        refused = ask()
        await refused.ended.wait()
        assert refused.status == 429
        held.hang_up()
        await held.ended.wait()
        served = ask()
        await until(lambda: bool(stage.open))
        served.hang_up()
        await served.ended.wait()

    run(body)


def test_a_node_that_leaves_finishes_what_it_began() -> None:
    """New requests get a 503; draining waits for the last answer."""

    async def body(stage: Stage, api: Api, ask: Callable[..., Request]) -> None:
        held = ask()
        await until(lambda: bool(stage.open))
        await trio.testing.wait_all_tasks_blocked()
        api.leaving = True
        refused = ask()
        await refused.ended.wait()
        assert refused.status == 503
        async with trio.open_nursery() as nursery:
            nursery.start_soon(api.drain, 30.0)
            await stage.write(TEXT[:1], finish="length")
        assert held.ended.is_set()
        await api.drain(30.0)

    run(body)
