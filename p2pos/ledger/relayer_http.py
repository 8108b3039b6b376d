"""The relayer's HTTP face: `POST /intents`, `GET /intents/{id}`, `/status`, `/healthz`, `/metrics`.

An error's body is `{"error": …}` with the fields of `P2posError.as_dict()`; `client` turns it back into the error.
"""

from collections.abc import Awaitable, Callable

import trio
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from p2pos.content import strict_json
from p2pos.errors import P2posError, UnavailableError
from p2pos.ledger.intents import MAX_BYTES, Refusal, RefusedError, SignedIntent
from p2pos.ledger.limits import LimitedError
from p2pos.ledger.queue import Status
from p2pos.ledger.relayer import Relayer

CONFLICTS = {Refusal.REPLAYED, Refusal.CONFLICT}
"""Refusals that are answered with 409: the intent is sound but its nonce is spent. The others are 422."""

CLOSING = {408, 413}
MAX_MANY = 100
"""Intents in one request: what is checked and written together."""
MAX_BODY = 512 << 10
"""Bytes of a request. A hundred transfers take 80 KiB, a hundred swaps of three items each 180."""

BODY_S = 10.0
"""For a request's body to come: half a megabyte over a line of half a megabit."""
RETRY_S = 5
"""When to come back where the queue is full or the chain can't be asked: a block, a reconnection."""

Handler = Callable[[Request], Awaitable[Response]]


def application(relayer: Relayer) -> Starlette:
    """The ASGI application."""

    async def post_intents(request: Request) -> Response:
        """One intent, or an array of up to `MAX_MANY`: then an array comes back, with each one's status or error."""
        body = await _body(request)
        if not body.lstrip().startswith(b"["):
            if len(body) > MAX_BYTES:
                raise _TooLargeError(f"the intent is larger than {MAX_BYTES} bytes")
            status = await relayer.submit(SignedIntent.parse(body))
            return JSONResponse(status.as_json(), status_code=202)
        read = _read_many(body)
        taken = iter(await relayer.submit_many([one for one in read if isinstance(one, SignedIntent)]))
        outcomes = [next(taken) if isinstance(one, SignedIntent) else one for one in read]
        return JSONResponse(
            [one.as_json() if isinstance(one, Status) else {"error": one.as_dict()} for one in outcomes]
        )

    async def get_intent(request: Request) -> Response:
        status = await relayer.status(request.path_params["id"])
        if status is None:
            return JSONResponse({"error": {"fault": "user", "message": "no such intent was handed in"}}, 404)
        return JSONResponse(status.as_json())

    async def get_status(_request: Request) -> Response:
        return JSONResponse(await relayer.summary())

    async def healthz(_request: Request) -> Response:
        if relayer.unreachable:
            return JSONResponse({"ok": False, "because": relayer.unreachable}, 503)
        return JSONResponse({"ok": True})

    async def metrics(_request: Request) -> Response:
        return Response(relayer.metrics.render(await relayer.summary()), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return Starlette(
        routes=[
            Route("/intents", _guarded(post_intents), methods=["POST"]),
            Route("/intents/{id}", _guarded(get_intent)),
            Route("/status", _guarded(get_status)),
            Route("/healthz", _guarded(healthz)),
            Route("/metrics", _guarded(metrics)),
        ]
    )


def _read_many(body: bytes) -> list[SignedIntent | RefusedError]:
    """Each intent of a JSON array, or what is wrong with it. Raises RefusedError where it is no such array."""
    try:
        values = strict_json.loads(body, unique_keys=True)
    except (ValueError, RecursionError) as exc:
        raise RefusedError(Refusal.MALFORMED, "the request is not JSON", hint="send an array of intents") from exc
    if not isinstance(values, list) or not 0 < len(values) <= MAX_MANY:
        raise RefusedError(Refusal.MALFORMED, f"the request is not an array of 1 to {MAX_MANY} intents")
    read: list[SignedIntent | RefusedError] = []
    for value in values:
        try:
            read.append(SignedIntent.from_json(value))
        except RefusedError as exc:
            read.append(exc)
    return read


class _TooLargeError(RefusedError):
    """A body that no intent needs."""

    def __init__(self, message: str) -> None:
        super().__init__(Refusal.MALFORMED, message)


async def _body(request: Request) -> bytes:
    """The whole body. Raises _TooLargeError; TooSlowError where it doesn't come in time; ClientDisconnect."""
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated[:20]) > MAX_BODY:
        raise _TooLargeError(f"the request is larger than {MAX_BODY} bytes")
    body = bytearray()
    with trio.fail_after(BODY_S):
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise _TooLargeError(f"the request is larger than {MAX_BODY} bytes")
    return bytes(body)


def _guarded(handler: Handler) -> Handler:
    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except _TooLargeError as exc:
            return _error(exc, 413)
        except RefusedError as exc:
            return _error(exc, 409 if exc.refusal in CONFLICTS else 422)
        except LimitedError as exc:
            return _error(exc, 429, exc.retry_after_s)
        except UnavailableError as exc:
            return _error(exc, 503, RETRY_S)
        except trio.TooSlowError:
            return _error(RefusedError(Refusal.MALFORMED, f"the body did not come within {BODY_S:.0f} s"), 408)
        except ClientDisconnect:
            return Response(status_code=400)
        except P2posError as exc:
            return _error(exc, 502)

    return guarded


def _error(exc: P2posError, code: int, retry_after_s: int = 0) -> Response:
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else {}
    if code in CLOSING:
        headers["Connection"] = "close"  # the rest of the body is not waited for
    return JSONResponse({"error": exc.as_dict()}, code, headers)
