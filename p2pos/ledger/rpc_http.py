"""One HTTP exchange with an end point that may be slow, endless or hostile: deadlines and a bound on the answer.

httpx bounds each read, so that an end point which sends a byte a second holds its caller for ever. Here a request as
a whole has a deadline, which every single read and write is held to.
"""

import base64
import socket
import threading
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import httpcore

from p2pos.errors import UnavailableError, UserError

MAX_ANSWER = 32 << 20
"""Bytes. 10,000 logs, the most that public end points answer with, are 8 MB."""
MAX_CONNECTIONS = 8
"""To one end point at a time; a relayer's admission, its submitter and its status need three."""
KEEP_ALIVE_S = 5.0
"""For which an idle connection is kept; servers close theirs after 5 (Node.js) to 75 s (nginx)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one request."""

    connect_s: float = 5.0
    """A TCP or TLS handshake: two lost packets' retries."""
    silence_s: float = 15.0
    """Without a byte. Public end points answer within 1 s; a slow link may retry once."""
    total_s: float = 30.0
    """All in all. A batch of 100 preflights takes anvil 0.2 s, 8 MB of logs take 7 s at 10 Mbit/s."""
    answer_bytes: int = MAX_ANSWER


class TooLargeError(Exception):
    """The answer passes `Bounds.answer_bytes`."""


class Http:
    """Posts to one URL. May be used from several threads.

    Args:
        url: http or https; a name and password in it are sent as HTTP's basic authentication.
        bounds: of each request.

    Raises:
        UserError: the URL can't be one.

    """

    def __init__(self, url: str, bounds: Bounds | None = None) -> None:
        parts = check_url(url)
        self.name = public_name(url)
        self._bounds = bounds or Bounds()
        self._headers = [(b"Content-Type", b"application/json"), (b"Accept", b"application/json")]
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self._headers.append((b"Authorization", b"Basic " + base64.b64encode(pair.encode())))
        self._url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path or "/", parts.query, ""))
        self._timer = _Timer()
        self._pool = _pool(parts, _Backend(self._timer))

    def post(self, body: bytes, *, within_s: float | None = None) -> bytes:
        """Send a body and return the answer's, whatever its status.

        Raises:
            UnavailableError: nobody answers, in time and as HTTP.
            TooLargeError: it answers without end.

        """
        limits = self._bounds
        self._timer.start(min(within_s or limits.total_s, limits.total_s))
        timeouts = {
            "connect": limits.connect_s,
            "read": limits.silence_s,
            "write": limits.silence_s,
            "pool": limits.connect_s,
        }
        answer = bytearray()
        try:
            with self._pool.stream(
                b"POST", self._url, headers=self._headers, content=body, extensions={"timeout": timeouts}
            ) as response:
                for chunk in response.iter_stream():
                    answer += chunk
                    if len(answer) > limits.answer_bytes:
                        raise TooLargeError(f"the answer is larger than {limits.answer_bytes / (1 << 20):.0f} MiB")
        except (
            httpcore.TimeoutException,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.ProxyError,
            httpcore.UnsupportedProtocol,
        ) as exc:
            raise unreachable(self.name, exc) from exc
        return bytes(answer)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


def check_url(url: str) -> SplitResult:
    """The parts of an end point's URL. Raises UserError where it can't be one."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        (parts.netloc.rpartition("@")[2] + parts.path + parts.query).encode("ascii")
    except ValueError:
        sound = False
    if not sound or any(ord(letter) <= 0x20 for letter in url):
        raise UserError(f"“{public_name(url)}” is not an http or https URL", hint="check --rpc-url")
    return parts


def public_name(url: str) -> str:
    """The URL without what may be secret: name and password, and the path, where providers have their keys."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "…"
    path = parts.path.rstrip("/")
    netloc = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{netloc}" + ("/…" if path or parts.query else "") if netloc else "…"


def unreachable(name: str, cause: BaseException) -> UnavailableError:
    """The error for an end point that did not answer."""
    return UnavailableError(
        f"the chain at {name} can't be reached ({type(cause).__name__})", hint="is it running? check --rpc-url"
    )


class _Timer(threading.local):
    """When the request of this thread must be over; httpcore reads and writes in the thread that asked."""

    ends_s = 0.0

    def start(self, seconds: float) -> None:
        self.ends_s = time.monotonic() + seconds

    def left(self, most_s: float | None, late: type[Exception]) -> float:
        """Seconds until then, at most `most_s`. Raises `late` where none are left."""
        left = self.ends_s - time.monotonic()
        if left <= 0:
            raise late("the request as a whole took too long")
        return left if most_s is None else min(left, most_s)


class _Stream(httpcore.NetworkStream):
    """A connection whose every step is held to the request's deadline."""

    def __init__(self, inner: httpcore.NetworkStream, timer: _Timer) -> None:
        self._inner = inner
        self._timer = timer

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._timer.left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # not httpcore's own, which gives each packet the whole time again
        connection: socket.socket = self._inner.get_extra_info("socket")
        view = memoryview(buffer)
        try:
            while view:
                connection.settimeout(self._timer.left(timeout, httpcore.WriteTimeout))
                view = view[connection.send(view) :]
        except TimeoutError as exc:
            raise httpcore.WriteTimeout(str(exc)) from exc
        except OSError as exc:
            raise httpcore.WriteError(str(exc)) from exc

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        limit_s = self._timer.left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, limit_s), self._timer)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """Opens such connections."""

    def __init__(self, timer: _Timer) -> None:
        self._inner = httpcore.SyncBackend()
        self._timer = timer

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        limit_s = self._timer.left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.connect_tcp(host, port, limit_s, local_address, socket_options), self._timer)


def _pool(parts: SplitResult, backend: _Backend) -> httpcore.ConnectionPool:
    """Connections to a URL, through the proxy that the environment names for it, if any."""
    proxy = urllib.request.getproxies().get(parts.scheme)
    options: dict[str, Any] = {
        "max_connections": MAX_CONNECTIONS,
        "keepalive_expiry": KEEP_ALIVE_S,
        "network_backend": backend,
    }
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        return httpcore.HTTPProxy(proxy, **options)
    return httpcore.ConnectionPool(**options)
