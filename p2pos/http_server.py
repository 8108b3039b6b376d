"""An HTTP/1.1 server for strangers: hypercorn's protocol code, with bounds on connections, buffers and slow readers.

hypercorn shields its writes from cancellation, so a client that reads nothing would hold its task, and what it is sent,
for ever. Here every write has a deadline, and all sockets close when the server is told to end.
"""

import errno
import logging
import socket
from collections.abc import Sequence

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app
from starlette.types import ASGIApp
from trio_typing import TaskStatus

from p2pos.errors import UserError

WRITE_DEADLINE_S = 20.0
"""Seconds for the system to take one piece of an answer; a client that reads nothing for so long is dropped."""
SEND_BUFFER = 32 << 10
"""Bytes that the system is asked to hold for one connection (Linux doubles it): many pieces of text, and at 100 ms of
round trip still some hundred kB/s."""
HEADER_DEADLINE_S = 10.0
"""Seconds for a request's headers to come, and between two requests on one connection."""
MAX_CONNECTIONS = 256
"""At a time: several times the requests that are served at once."""
MAX_REQUESTS = 1_000_000
"""On one connection: a client that has many needs no new connection after each thousand, hypercorn's default."""
BACKLOG = 128
"""Connections that wait to be accepted: some seconds' worth for a single user's tools."""


class _Stream:
    """A connection whose writes have a deadline."""

    def __init__(self, stream: trio.SocketStream, deadline_s: float) -> None:
        self._stream = stream
        self._deadline_s = deadline_s
        self.socket = stream.socket

    async def send_all(self, data: bytes) -> None:
        """Raises BrokenResourceError where the client takes too long."""
        with trio.move_on_after(self._deadline_s) as waiting:
            await self._stream.send_all(data)
        if waiting.cancelled_caught:
            self.socket.close()
            raise trio.BrokenResourceError("the client reads too slowly")

    async def receive_some(self, max_bytes: int) -> bytes:
        """What came."""
        return bytes(await self._stream.receive_some(max_bytes))

    async def send_eof(self) -> None:
        """Say that nothing more comes."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()


async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    write_deadline_s: float = WRITE_DEADLINE_S,
    task_status: TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application until cancelled. Starts with the URL.

    Raises UserError where the address can't be listened on.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=BACKLOG)
    except OSError as exc:
        in_use = exc.errno == errno.EADDRINUSE
        why = "is in use" if in_use else f"can't be listened on ({exc})"
        raise UserError(f"port {port} on {host} {why}", hint="choose another with --api") from exc
    await serve_on(app, listeners, host, write_deadline_s=write_deadline_s, task_status=task_status)


async def serve_on(
    app: ASGIApp,
    listeners: Sequence[trio.SocketListener],
    host: str,
    *,
    write_deadline_s: float = WRITE_DEADLINE_S,
    task_status: TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """As `serve`, on sockets that listen already and are closed at the end; `host` stands in the URL."""
    config = Config()
    config.keep_alive_timeout = HEADER_DEADLINE_S
    config.keep_alive_max_requests = MAX_REQUESTS
    config.errorlog = logging.getLogger("p2pos.api")
    config.errorlog.setLevel(logging.WARNING)
    wrapped = wrap_app(app, config.wsgi_max_body_size, "asgi")  # type: ignore[arg-type]  # starlette's types of the same
    context = WorkerContext(None)
    connections: set[_Stream] = set()

    async def handle(accepted: trio.SocketStream) -> None:
        if len(connections) >= MAX_CONNECTIONS:
            await trio.aclose_forcefully(accepted)
            return
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        stream = _Stream(accepted, write_deadline_s)
        connections.add(stream)
        try:
            await TCPServer(wrapped, config, context, ConnectionState({}), stream)  # type: ignore[arg-type]  # it uses what _Stream has
        finally:
            connections.discard(stream)

    async with trio.open_nursery() as handlers:
        name = f"[{host}]" if ":" in host else host
        task_status.started(f"http://{name}:{listeners[0].socket.getsockname()[1]}")
        try:
            await trio.serve_listeners(handle, list(listeners), handler_nursery=handlers)
        finally:
            for stream in connections:
                stream.socket.close()
