"""The node's HTTP port: `/healthz`, `/metrics` (Prometheus), `/status` (JSON) and the OpenAI-compatible `/v1/`."""

from collections.abc import Callable, Sequence
from typing import Any

import trio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from trio_typing import TaskStatus

from p2pos.node import http_server
from p2pos.node.guard import Guard, is_loopback

Status = dict[str, Any]
"""What `/status` answers: peer, model, layers, tokens_per_s, sessions, cached_tokens, weight_bytes, …"""

_GAUGES = {
    "tokens_per_s": "Tokens that left this stage per second, over ten seconds.",
    "sessions": "Sessions held.",
    "owned_sessions": "Sessions that this node's API owns.",
    "waiting": "Sessions that wait for room.",
    "cached_tokens": "Positions in the KV caches.",
    "prefix_tokens": "Positions that were not computed because they were cached, since the start.",
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


def application(status: Callable[[], Status], routes: Sequence[BaseRoute] = ()) -> Starlette:
    """The ASGI application over a function that gives the node's status, and further routes."""
    registry = CollectorRegistry()
    registry.register(_NodeCollector(status))

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def show(_request: Request) -> Response:
        return JSONResponse(status())

    own = [Route("/healthz", healthz), Route("/metrics", metrics), Route("/status", show)]
    return Starlette(routes=[*own, *routes])


async def run(
    host: str,
    port: int,
    status: Callable[[], Status],
    routes: Sequence[BaseRoute] = (),
    *,
    token: str = "",
    task_status: TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. Starts with the URL.

    Args:
        host: a loopback address, or any where there is a token.
        port: 0 takes a free one.
        status: gives what `/status` shows.
        routes: further ones.
        token: what requests must bear, all but those for `/healthz`; "" for none.
        task_status: told the URL.

    Raises UserError where the port is in use, or others could reach it without a token.

    """
    guard = Guard(application(status, routes), token=token, local=is_loopback(host, token=token))
    await http_server.serve(guard, host, port, task_status=task_status)
