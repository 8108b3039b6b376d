"""One HTTP exchange: a bounded body, an answer whole or in pieces, and a client that may hang up at any moment."""

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import trio
from starlette.types import Receive, Scope, Send

from p2pos.errors import P2posError
from p2pos.http_server import WRITE_DEADLINE_S
from p2pos.node.openai.errors import ApiError, from_error

MAX_BODY = 8 << 20
"""Bytes of a request: a context of a million tokens as text is half of it."""
BODY_DEADLINE_S = 30.0
"""Seconds for a body to come: the largest, at 2 Mbit/s."""


class HungUpError(Exception):
    """The client is gone, or takes nothing any more: there is nobody to answer."""


class Out:
    """The answer to one request."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        """Whether the status line is out: what goes wrong now can only be said within the answer."""

    async def json(self, value: dict[str, Any], status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Answer with JSON."""
        body = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
        await self._start(status, [("content-type", "application/json"), ("content-length", str(len(body))), *headers])
        await self._post({"type": "http.response.body", "body": body})

    async def begin_stream(self) -> None:
        """Answer with server-sent events, which follow."""
        await self._start(200, [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")])

    async def write(self, data: bytes) -> None:
        """A piece of a stream."""
        await self._post({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """No more pieces."""
        await self._post({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.started = True
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await self._post({"type": "http.response.start", "status": status, "headers": raw})

    async def _post(self, message: dict[str, Any]) -> None:
        with trio.move_on_after(WRITE_DEADLINE_S) as waiting:
            await self._send(message)
        if waiting.cancelled_caught:
            raise HungUpError


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """The body of a request. Raises ApiError where it's too large or too slow, HungUpError where the client leaves."""
    headers = dict(scope["headers"])
    if headers.get(b"content-type", b"").split(b";")[0].strip().lower() != b"application/json":
        # besides being what is read here, it's a type that no page of another site may send from a browser
        raise ApiError(415, "the body must be JSON: send content-type: application/json")
    too_large = ApiError(413, f"the body has more than {MAX_BODY} bytes", code="request_too_large")
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and (len(length) > 12 or int(length) > MAX_BODY):
        raise too_large
    body = bytearray()
    with trio.move_on_after(BODY_DEADLINE_S):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise HungUpError
            body += message.get("body", b"")
            if len(body) > MAX_BODY:
                raise too_large
            if not message.get("more_body"):
                return bytes(body)
    raise ApiError(408, f"the body did not come within {BODY_DEADLINE_S:g} s")


async def unless_hung_up(receive: Receive, work: Callable[[], Awaitable[None]]) -> None:
    """Do some work, whose cancellation frees what it holds, unless the client hangs up before it's done."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await work()
        nursery.cancel_scope.cancel()


def fault_in(error: BaseException) -> ApiError | HungUpError | None:
    """What to answer where this was raised; None where it isn't one of ours, and must be raised on."""
    if isinstance(error, BaseExceptionGroup):
        faults = [fault_in(each) for each in error.exceptions]
        if any(fault is None for fault in faults):
            return None
        gone = [fault for fault in faults if isinstance(fault, HungUpError)]
        return gone[0] if gone else faults[0]
    if isinstance(error, ApiError | HungUpError):
        return error
    return from_error(error) if isinstance(error, P2posError) else None
