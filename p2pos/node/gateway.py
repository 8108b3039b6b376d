"""The node's HTTP port: `/healthz`, `/metrics` (Prometheus) and `/status` (JSON). Loopback, for its operator."""

import errno
import logging
from collections.abc import Callable
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from trio_typing import TaskStatus

from p2pos.errors import UserError

Status = dict[str, Any]
"""What `/status` answers: peer, model, layers, tokens_per_s, sessions, cached_tokens, weight_bytes, …"""

_GAUGES = {
    "tokens_per_s": "Tokens that left this stage per second, over ten seconds.",
    "sessions": "Sessions held.",
    "cached_tokens": "Positions in the KV caches.",
    "cached_bytes": "Bytes of the KV caches.",
    "weight_bytes": "Bytes of weights read from disk.",
    "resident_bytes": "Resident memory of the process.",
    "uptime_s": "Seconds since the node was ready.",
    "known_nodes": "Nodes that this one believes to be there, itself included.",
}


class _NodeCollector(Collector):
    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> list[Metric]:
        status = self._status()
        return [GaugeMetricFamily(f"p2pos_{name}", text, value=status[name]) for name, text in _GAUGES.items()]


def application(status: Callable[[], Status]) -> Starlette:
    """The ASGI application over a function that gives the node's status."""
    registry = CollectorRegistry()
    registry.register(_NodeCollector(status))

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def show(_request: Request) -> Response:
        return JSONResponse(status())

    return Starlette(routes=[Route("/healthz", healthz), Route("/metrics", metrics), Route("/status", show)])


async def run(
    host: str,
    port: int,
    status: Callable[[], Status],
    *,
    task_status: TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. Starts with the URL.

    Raises UserError where the port is in use, or the address isn't loopback: there is no password here.
    """
    if host not in {"127.0.0.1", "::1", "localhost"}:
        raise UserError(f"--api {host} is not a loopback address", hint="use 127.0.0.1 and a tunnel")
    config = Config()
    config.bind = [f"{host}:{port}"]
    config.graceful_timeout = 1.0
    config.errorlog = logging.getLogger("p2pos.api")
    config.errorlog.setLevel(logging.WARNING)
    try:
        async with trio.open_nursery() as nursery:
            binds: list[str] = await nursery.start(serve, application(status), config)
            task_status.started(binds[0])
    except* OSError as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        in_use = isinstance(leaf, OSError) and leaf.errno == errno.EADDRINUSE
        why = "is in use" if in_use else f"can't be listened on ({leaf})"
        raise UserError(f"port {port} on {host} {why}", hint="choose another with --api") from group
