"""`/v1/models`, `/v1/completions` and `/v1/chat/completions` over the swarm that this node belongs to.

A request becomes one session per text that it asks for. They are this node's own: when the client hangs up, or one of
them fails, all are closed and every stage's cache is free at once. A client that reads slowly holds no more than the
tokens of its own texts.
"""

import secrets
import time
from collections.abc import Awaitable, Callable

import trio
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send
from trio_typing import TaskStatus

from p2pos import log
from p2pos.errors import P2posError, PeerError
from p2pos.node.client import Client
from p2pos.node.metrics import Metrics
from p2pos.node.openai.answers import DONE, Delta, Heading, Usage, event
from p2pos.node.openai.catalogue import Catalogue, Served
from p2pos.node.openai.counts import counted
from p2pos.node.openai.errors import ApiError
from p2pos.node.openai.http import HungUpError, Out, fault_in, read_body, unless_hung_up
from p2pos.node.openai.jobs import Job, Planner
from p2pos.node.openai.requests import seed_of
from p2pos.node.openai.templates import Renderer
from p2pos.node.openai.texts import Writer
from p2pos.node.openai.tools import Called, Part, Reader, Said
from p2pos.shard.request import PATIENCE_S, Request

MAX_REQUESTS = 64
"""Served at a time: as many as a stage holds sessions."""

_log = log.get("api")

Plan = Callable[[bytes], Awaitable[Job]]


class Api:
    """The API's routes.

    Args:
        client: opens sessions.
        catalogue: knows the models.
        metrics: count its texts.
        patience_s: seconds that a text waits for somebody to take a lost node's place.

    """

    def __init__(
        self,
        client: Client,
        catalogue: Catalogue,
        metrics: Metrics | None = None,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._client = client
        self._catalogue = catalogue
        self._metrics = metrics or Metrics()
        self._patience_s = patience_s
        self._renderer = Renderer()
        self._planner = Planner(catalogue, self._renderer)
        self._serving = 0
        self._idle = trio.Event()
        """Set, and replaced, when the last request is answered."""
        self.leaving = False
        """Set when the node is told to leave: requests under way go on, new ones are refused."""

    @property
    def routes(self) -> list[BaseRoute]:
        """For the gateway."""
        return [
            Route("/v1/models", self._models),
            Route("/v1/models/{name:path}", self._model),
            Route("/v1/completions", _Endpoint(self, self._planner.completion)),
            Route("/v1/chat/completions", _Endpoint(self, self._planner.chat)),
            Route("/v1/{rest:path}", _not_found, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ]

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold what requests share, until cancelled."""
        await self._renderer.run(task_status=task_status)

    async def drain(self, deadline_s: float) -> None:
        """Wait until what is being answered has reached its clients, or for this long."""
        with trio.move_on_after(deadline_s):
            if self._serving:
                await self._idle.wait()

    async def answer(self, plan: Plan, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request to write text."""
        out = Out(send)
        try:
            self._admit(scope)
            self._serving += 1
            try:
                body = await read_body(scope, receive)
                await unless_hung_up(receive, lambda: self._write(plan, body, out))
            finally:
                self._serving -= 1
                if not self._serving:
                    self._idle.set()
                    self._idle = trio.Event()
        except (P2posError, ApiError, HungUpError, BaseExceptionGroup) as exc:
            fault = fault_in(exc)
            if fault is None:
                raise
            if isinstance(fault, ApiError):
                await _tell(fault, out)

    def _admit(self, scope: Scope) -> None:
        """Raise ApiError where a request isn't to be served now."""
        if scope["method"] != "POST":
            raise ApiError(405, f"{scope['path']} takes POST")
        if self.leaving:
            raise ApiError(503, "this node is leaving", code="unavailable")
        if self._serving >= MAX_REQUESTS:
            text = f"{MAX_REQUESTS} requests are being served"
            raise ApiError(429, text, code="rate_limit_exceeded", kind="rate_limit_error")

    async def _write(self, plan: Plan, body: bytes, out: Out) -> None:
        job = await plan(body)
        usage = Usage(sum(len(prompt) for prompt in job.prompts))
        heading = Heading(
            f"{job.prefix}-{secrets.token_hex(12)}", job.request.model, int(time.time()), str(job.model)[:16]
        )
        put, get = trio.open_memory_channel[Delta](0)
        deltas: dict[int, list[Delta]] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_all, job, usage, put)
            if job.request.stream:
                await _stream(job, heading, get, out)
            else:
                async for delta in get:
                    deltas.setdefault(delta.index, []).append(delta)
        # only here is it known that every text came to its end
        if job.request.stream:
            if job.request.include_usage:
                await out.write(event(heading.around(job.shape.chunk_kind, [], usage.as_dict())))
            await out.write(DONE)
            await out.end()
        else:
            choices = [job.shape.whole(deltas[index]) for index in sorted(deltas)]
            await out.json(heading.around(job.shape.kind, choices, usage.as_dict()))

    async def _write_all(self, job: Job, usage: Usage, put: trio.MemorySendChannel[Delta]) -> None:
        async with put, trio.open_nursery() as nursery:
            for index in range(job.count):
                nursery.start_soon(self._write_one, job, index, usage, put)

    async def _write_one(self, job: Job, index: int, usage: Usage, put: trio.MemorySendChannel[Delta]) -> None:
        """One session, from its opening to its last token."""
        try:
            await self._write_text(job, index, usage, put)
        except PeerError as exc:
            if job.grammar is None or exc.fields.get("code") != "bad_request":
                raise
            # the tail sees what only it can: whether the grammar can be met, step by step, with the model's tokens
            raise ApiError(400, exc.message, param=job.grammar_param, code="invalid_schema") from exc

    async def _write_text(self, job: Job, index: int, usage: Usage, put: trio.MemorySendChannel[Delta]) -> None:
        prompt = job.prompts[index // job.request.n]
        sampling = job.sampling(seed_of(job.seed, index))
        files = job.files
        request = Request(
            tuple(prompt), job.room(prompt), files.eos, sampling, files.vocabulary, patience_s=self._patience_s
        )
        writer = Writer(job.tokenizer, job.spelling, job.request.stops, job.files.eos)
        parts = _Parts(job.form.reader() if job.form is not None else None, once=job.one_call)
        generating = self._client.generate(job.model, self._catalogue.route(job.model), request)
        with counted(self._metrics, len(prompt)) as count:
            async with generating as generation:
                while not (writer.stopped or parts.full) and (emitted := await generation.emitted()) is not None:
                    usage.completion += 1
                    count.token()
                    piece = writer.push(emitted)
                    delta = Delta(index, parts.push(piece.text), piece.scored)
                    if delta.parts or delta.scored:
                        await put.send(delta)
                count.end = finish = generation.finish_reason or "stop"
        piece = writer.end()
        last = (*parts.push(piece.text), *parts.end())
        await put.send(Delta(index, last, piece.scored, "tool_calls" if parts.called and finish == "stop" else finish))

    async def _models(self, _request: HttpRequest) -> Response:
        return JSONResponse({"object": "list", "data": [_as_model(each) for each in self._catalogue.served()]})

    async def _model(self, request: HttpRequest) -> Response:
        try:
            return JSONResponse(_as_model(self._catalogue.find(request.path_params["name"])))
        except ApiError as exc:
            return JSONResponse(exc.body(), exc.status)


class _Parts:
    """What of a text is said and what called, for models that call tools; else all is said."""

    def __init__(self, reader: Reader | None, *, once: bool) -> None:
        self._reader = reader
        self._once = once
        self.called = False

    @property
    def full(self) -> bool:
        """Whether nothing more is wanted."""
        return self._once and self.called

    def push(self, text: str) -> tuple[Part, ...]:
        if self._reader is None:
            return (Said(text),) if text else ()
        return self._take(self._reader.push(text)) if text else ()

    def end(self) -> tuple[Part, ...]:
        return () if self._reader is None else self._take(self._reader.end())

    def _take(self, parts: list[Part]) -> tuple[Part, ...]:
        taken: list[Part] = []
        for part in parts:
            if not self.full:
                taken.append(part)
                self.called = self.called or isinstance(part, Called)
        return tuple(taken)


class _Endpoint:
    """An ASGI application of its own, so that it sees the client hang up."""

    def __init__(self, api: Api, plan: Plan) -> None:
        self._api = api
        self._plan = plan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._api.answer(self._plan, scope, receive, send)


async def _stream(job: Job, heading: Heading, get: trio.MemoryReceiveChannel[Delta], out: Out) -> None:
    """The chunks of a stream, all but its end."""
    begun: set[int] = set()

    async def write(choice: dict[str, object]) -> None:
        await out.write(event(heading.around(job.shape.chunk_kind, [choice], None)))

    async for delta in get:
        if not out.started:  # only now: until the first token came, a refusal has a status of its own
            await out.begin_stream()
        if delta.index not in begun:
            begun.add(delta.index)
            opening = job.shape.opening(delta.index)
            if opening is not None:
                await write(opening)
        await write(job.shape.chunk(delta))


async def _tell(fault: ApiError, out: Out) -> None:
    """Answer with an error, within the stream where one has begun."""
    _log.info("refused", status=fault.status, why=fault.message)
    try:
        if out.started:
            await out.write(event(fault.body()))
            await out.end()
        else:
            await out.json(fault.body(), fault.status, fault.headers.items())
    except HungUpError:
        return


async def _not_found(request: HttpRequest) -> Response:
    error = ApiError(404, f"there is no {request.method} {request.url.path[:200]}", code="not_found")
    return JSONResponse(error.body(), error.status)


def _as_model(served: Served) -> dict[str, object]:
    return {"id": served.name, "object": "model", "created": served.since_s, "owned_by": "p2pos", "root": served.model}
