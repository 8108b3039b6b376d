"""Engines behind nodes: transformers' own server as a real process, and an HTTP server that misbehaves."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

START_S = 60.0
"""For a process that imports torch and transformers, on a busy machine."""


@dataclass
class Served:
    """A running `transformers serve`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; where it ends the process, wait for its end."""
        self.process.send_signal(how)
        if how not in {signal.SIGSTOP, signal.SIGCONT}:
            self.process.wait(30)


def free_port() -> int:
    """A port of the loopback interface that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def transformers_serve(directory: Path, model: Path, *, port: int = 0) -> Iterator[Served]:
    """A model in fp32 behind transformers' server, ready; killed at the end where it still runs."""
    port = port or free_port()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "hf" / "hub").mkdir(parents=True, exist_ok=True)  # it lists what lies in it, and fails without one
    log = directory / "engine.log"
    command = [
        *(sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(model)),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--device", "cpu"),
    ]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "HF_HOME": str(directory / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        )
    try:
        served = Served(process, f"http://127.0.0.1:{port}", log)
        _await_health(served)
        yield served
    finally:
        process.kill()
        process.wait(30)


def _await_health(served: Served) -> None:
    deadline_s = time.monotonic() + START_S
    while True:
        try:
            with urllib.request.urlopen(f"{served.url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if served.process.poll() is not None or time.monotonic() > deadline_s:
                raise AssertionError(f"the engine did not start: {served.log.read_text()}") from None
            time.sleep(0.1)


@contextmanager
def forwarded(port: int, to: int) -> Iterator[None]:
    """From now on what connects to a loopback port reaches another one."""

    async def serve() -> None:
        async def join(client: trio.SocketStream) -> None:
            async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    while data := await source.receive_some(65536):
                        await sink.send_all(data)
                nursery.cancel_scope.cancel()

            async with client, await trio.open_tcp_stream("127.0.0.1", to) as server, trio.open_nursery() as nursery:
                nursery.start_soon(pump, client, server)
                nursery.start_soon(pump, server, client)

        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.serve_tcp, join, port, host="127.0.0.1"))
            ready.set()
            while not over.is_set():
                await trio.to_thread.run_sync(over.wait, 1.0)
            nursery.cancel_scope.cancel()

    ready, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        over.set()
        thread.join(10)


Behave = Callable[[trio.SocketStream, str, bytes], Awaitable[None]]
"""Given the connection, a request's first line and its body, answer as it likes; then the connection is closed."""


async def misbehaving(behave: Behave, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
    """Serve HTTP on a loopback port, one request a connection, as `behave` does; tells its URL once it listens."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            try:
                while b"\r\n\r\n" not in data:
                    came = await stream.receive_some(65536)
                    if not came:
                        return
                    data += came
                head, _, body = data.partition(b"\r\n\r\n")
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
                while len(body) < int(fields.get(b"content-length", b"0")):
                    body += await stream.receive_some(65536)
                await behave(stream, head.split(b"\r\n")[0].decode(), body)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the client has heard enough

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    task_status.started(f"http://127.0.0.1:{port}")
    await trio.serve_listeners(serve, listeners)


def answer(body: Any, *, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    """A whole HTTP answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{more}Connection: close\r\n\r\n"
    )
    return head.encode() + data


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
"""The head of a stream that ends with its connection."""


def event(**fields: Any) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(fields).encode() + b"\n\n"
