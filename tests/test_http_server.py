import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from p2pos import http_server
from p2pos.errors import UserError

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def run(app: Any, body: Callable[[int], Awaitable[None]], **limits: float) -> None:
    """Serve an application, and do something with its port."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def serve(task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
                await http_server.serve(app, "127.0.0.1", 0, **limits, task_status=task_status)

            url: str = await nursery.start(serve)
            with trio.fail_after(30):
                await body(int(url.rsplit(":", 1)[1]))
            nursery.cancel_scope.cancel()

    trio.run(main)


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": b"hello"})


class Flood:
    """Answers without end, and says when it's cut off."""

    def __init__(self) -> None:
        self.sent = 0
        self.full = trio.Event()
        self.cut_off = trio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self.cut_off.set()
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": bytes(1 << 14), "more_body": True})
                self.sent += 1 << 14
                if self.sent > 64 << 20:
                    raise AssertionError("nothing holds this client's answer back")


def test_a_client_that_reads_nothing_is_dropped() -> None:
    """After the deadline its connection is closed and its request's work ends, with little written for it."""
    flood = Flood()

    async def body(port: int) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            client.connect(("127.0.0.1", port))
            client.sendall(GET)
            await flood.cut_off.wait()
        assert flood.sent < 4 << 20

    run(flood, body, write_deadline_s=0.2)


def test_a_client_that_hangs_up_is_noticed_at_once() -> None:
    """The application hears of it although it never waits to read."""
    flood = Flood()

    async def body(port: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(GET)
        await stream.receive_some(100)
        await stream.aclose()
        await flood.cut_off.wait()

    run(flood, body)


def test_a_server_that_ends_waits_for_nobody() -> None:
    """A client that reads nothing doesn't hold up the end of the process."""
    flood = Flood()

    async def body(port: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(GET)
        await stream.receive_some(100)

    began_s = trio.run(_now)
    run(flood, body)  # its write deadline is twenty seconds
    assert trio.run(_now) - began_s < http_server.WRITE_DEADLINE_S / 2


async def _now() -> float:
    import time

    return time.monotonic()


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than the limit is closed at once; when another ends, there's room again."""
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 2)

    async def body(port: int) -> None:
        held = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        for stream in held:
            await stream.send_all(GET)
            assert b"hello" in await read(stream)
        refused = await trio.open_tcp_stream("127.0.0.1", port)
        assert await refused.receive_some(100) == b""
        await held[0].send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"hello" in await read(held[0])
        assert await held[0].receive_some(100) == b""
        again = await trio.open_tcp_stream("127.0.0.1", port)
        await again.send_all(GET)
        assert b"hello" in await read(again)

    run(hello, body)


async def read(stream: trio.SocketStream) -> bytes:
    data = b""
    while b"hello" not in data:
        piece = await stream.receive_some(4096)
        if not piece:
            break
        data += piece
    return data


@pytest.mark.parametrize(
    "junk", [b"\x00\xff" * 50, b"GET /\r\n\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000]
)
def test_what_is_no_http_harms_nobody(junk: bytes) -> None:
    """A connection that sends junk, or headers without end, is refused, and the next is served."""

    async def body(port: int) -> None:
        bad = await trio.open_tcp_stream("127.0.0.1", port)
        try:
            await bad.send_all(junk)
            while await bad.receive_some(4096):
                pass
        except trio.BrokenResourceError:
            pass
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(GET)
        assert b"hello" in await read(stream)

    run(hello, body)


def test_a_port_that_is_taken_is_named() -> None:
    """One line says which, and what to do."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            await http_server.serve(hello, "127.0.0.1", taken.getsockname()[1])

    with pytest.raises(UserError, match="is in use: choose another with --api"):
        trio.run(main)
