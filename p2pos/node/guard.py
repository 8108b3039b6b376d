"""Who may use the HTTP port: this machine's own programs, or whoever bears the token."""

import hmac
import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from p2pos.errors import UserError
from p2pos.node.openai.errors import ApiError

MAX_TOKEN = 4096
"""Bytes; the longest in use are JSON web tokens of some hundred."""
MIN_TOKEN = 16
"""Characters: 64 bits even in hexadecimal."""


def read_token(path: Path, *, option: str = "--api-token-file", least: int = MIN_TOKEN) -> str:
    """The bearer token in a file: its first line. Raises UserError where others can read it, or it's none.

    Args:
        path: of the file.
        option: that names it.
        least: characters; fewer than usual are for others to judge.

    """
    try:
        mode = path.stat().st_mode
        if mode & 0o077:
            raise UserError(f"{path} can be read by others", hint=f"chmod 600 {path}")
        with path.open("rb") as file:
            line = file.read(MAX_TOKEN + 1).split(b"\n", 1)[0].strip()
    except OSError as exc:
        raise UserError(f"{path} can't be read: {exc.strerror}", hint=f"give {option} a file") from exc
    token = line.decode("ascii", "replace")
    if not least <= len(token) <= MAX_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(
            f"{path} holds no token: {least} printable characters or more are needed",
            hint=f"for example: openssl rand -hex 32 > {path}",
        )
    return token


def is_loopback(host: str, *, token: str) -> bool:
    """Whether only this machine can reach an address. Raises UserError where others can, and there's no token."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local and not token:
        raise UserError(
            f"--api {host} is not a loopback address, and there is no token",
            hint="give --api-token-file, or use 127.0.0.1",
        )
    return local


class Guard:
    """Lets requests through to an application.

    Args:
        app: what answers them.
        token: what `Authorization: Bearer` must say; "" for none. `/healthz` is open.
        local: whether only this machine can reach it. Then a page in a browser could, by a name that it makes point
            here; so only requests for a loopback name are answered.

    """

    def __init__(self, app: ASGIApp, *, token: str, local: bool) -> None:
        self._app = app
        self._token = token.encode()
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            return
        refusal = self._refusal(scope["path"], dict(scope["headers"]))
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refusal(scope, receive, send)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> Response | None:
        if self._local and not _names_loopback(headers.get(b"host", b"")):
            error = ApiError(403, "this interface answers requests for 127.0.0.1, ::1 and localhost alone")
            return JSONResponse(error.body(), error.status)
        if not self._token or path == "/healthz":
            return None
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token):
            return None
        error = ApiError(
            401, "the bearer token is missing or wrong", code="invalid_api_key", kind="authentication_error"
        )
        return JSONResponse(error.body(), error.status, headers={"WWW-Authenticate": "Bearer"})


def _names_loopback(host: bytes) -> bool:
    try:
        name = urlsplit(f"//{host.decode('ascii')}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
