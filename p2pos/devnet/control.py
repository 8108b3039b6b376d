"""How `status`, `kill`, `start` and `down` reach the supervisor: HTTP on loopback with a token from devnet.json.

HTTP rather than a Unix socket, because a socket's path is limited to 108 bytes (104 on macOS) and a `--home` is not.
The token keeps out other users of the machine, who can reach the port but can't read the file.
"""

import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import httpx
import trio
from hypercorn.config import Config
from hypercorn.trio import serve as serve_http
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from trio_typing import TaskStatus

from p2pos.devnet.home import Home, Record, outlive
from p2pos.devnet.plan import NODE_READY_S
from p2pos.devnet.status import Devnet
from p2pos.errors import P2posError, UnavailableError, UserError

TOKEN_BYTES = 32
ANSWER_S = NODE_READY_S + 10
"""`start` answers when the process is ready."""
DOWN_S = 40.0
"""Nodes and relayer have 15 s to stop, and then the chain 10 s."""

Handler = Callable[[Request], Awaitable[JSONResponse]]


class Controlled(Protocol):
    """What of the supervisor can be reached from outside."""

    async def status(self) -> Devnet:
        """What runs, seen now."""
        ...

    async def kill(self, name: str) -> None:
        """SIGKILL a process."""
        ...

    async def start(self, name: str) -> None:
        """Start a process that is down."""
        ...

    def leave(self) -> None:
        """Begin to take the devnet down."""
        ...


def application(devnet: Controlled, token: str) -> Starlette:
    """The ASGI application. Errors of ours travel as JSON under `error`."""

    def guarded(handler: Handler) -> Handler:
        async def checked(request: Request) -> JSONResponse:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                return JSONResponse({"error": {"message": "a wrong token"}}, status_code=401)
            try:
                return await handler(request)
            except P2posError as exc:
                return _refused(exc)
            except BaseExceptionGroup as group:
                ours = _first(group)
                if ours is None:
                    raise
                return _refused(ours)

        return checked

    async def status(_: Request) -> JSONResponse:
        return JSONResponse((await devnet.status()).as_dict())

    async def kill(request: Request) -> JSONResponse:
        await devnet.kill(request.query_params.get("name", ""))
        return JSONResponse({})

    async def start(request: Request) -> JSONResponse:
        await devnet.start(request.query_params.get("name", ""))
        return JSONResponse({})

    async def down(_: Request) -> JSONResponse:
        devnet.leave()
        return JSONResponse({})

    return Starlette(
        routes=[
            Route("/status", guarded(status)),
            Route("/kill", guarded(kill), methods=["POST"]),
            Route("/start", guarded(start), methods=["POST"]),
            Route("/down", guarded(down), methods=["POST"]),
        ]
    )


def _refused(exc: P2posError) -> JSONResponse:
    body = {"message": exc.message, "hint": exc.hint, "code": exc.exit_code}
    return JSONResponse({"error": body}, status_code=409)


def _first(group: BaseExceptionGroup[BaseException]) -> P2posError | None:
    """The first error of ours in a group, or None where there is one that isn't."""
    found, rest = group.split(P2posError)
    if rest is not None or found is None:
        return None
    leaf: BaseException = found
    while isinstance(leaf, BaseExceptionGroup):
        leaf = leaf.exceptions[0]
    return leaf if isinstance(leaf, P2posError) else None


async def serve(devnet: Controlled, *, task_status: TaskStatus[tuple[str, str]]) -> None:
    """Serve until cancelled. Starts with (URL, token)."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 1.0
    config.errorlog = logging.getLogger("p2pos.devnet.control")
    config.errorlog.setLevel(logging.WARNING)
    async with trio.open_nursery() as nursery:
        binds: list[str] = await nursery.start(serve_http, application(devnet, token), config)
        task_status.started((binds[0], token))


# ---- the other end


class Remote:
    """The supervisor of a home, from another process. Synchronous."""

    def __init__(self, home: Home) -> None:
        """Raises UserError where nothing runs there."""
        self.home = home
        self.record = running(home)

    def status(self) -> Devnet:
        """What runs, seen now. Raises UnavailableError."""
        return Devnet.from_dict(self._ask("GET", "/status"))

    def kill(self, name: str) -> None:
        """SIGKILL a process. Raises UserError for an unknown name or one that doesn't run."""
        self._ask("POST", "/kill", name=name)

    def start(self, name: str) -> None:
        """Start a process that is down, and return when it is ready. Raises UserError; P2posError."""
        self._ask("POST", "/start", name=name)

    def down(self) -> None:
        """Take the devnet down, and return when its supervisor is gone. Raises UnavailableError."""
        self._ask("POST", "/down")
        left = outlive([self.record.supervisor], DOWN_S) if self.record.supervisor else []
        if left:
            raise UnavailableError(
                f"the devnet has not gone down in {DOWN_S:.0f} s", hint=f"end its supervisor: kill {left[0].pid}"
            )

    def _ask(self, method: str, path: str, **parameters: str) -> dict[str, Any]:
        try:
            answer = httpx.request(
                method,
                self.record.control_url + path,
                params=parameters,
                headers={"Authorization": f"Bearer {self.record.token}"},
                timeout=ANSWER_S,
            )
            body = answer.json()
        except (httpx.HTTPError, ValueError) as exc:
            raise UnavailableError(
                f"the devnet's supervisor does not answer ({type(exc).__name__})", hint="see `p2pos devnet status`"
            ) from exc
        if "error" in body:
            error = body["error"]
            kinds = {UserError.exit_code: UserError, UnavailableError.exit_code: UnavailableError}
            raise kinds.get(error.get("code"), P2posError)(error["message"], hint=error.get("hint", ""))
        return dict(body)


def running(home: Home) -> Record:
    """The record of the devnet that runs in a home. Raises UserError where none does."""
    record = home.read()
    if record.supervisor is None or record.supervisor.find() is None or not record.control_url:
        raise UserError(f"no devnet runs in {home.path}", hint="start one with `p2pos devnet up`")
    return record
