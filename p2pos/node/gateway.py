"""The node's HTTP port: `/healthz`, `/metrics` (Prometheus), `/status` (JSON) and the OpenAI-compatible `/v1/`."""

from collections.abc import Sequence

import trio
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from trio_typing import TaskStatus

from p2pos import http_server
from p2pos.node.gauges import NodeCollector, Views
from p2pos.node.guard import Guard, is_loopback
from p2pos.node.metrics import OTHER, Metrics

HUNG_UP = 499
"""The status that stands for a client that left before there was one; nginx's."""


def application(views: Views, metrics: Metrics, routes: Sequence[BaseRoute] = ()) -> Starlette:
    """The ASGI application over what gives the node's state, its metrics, and further routes."""
    metrics.registry.register(NodeCollector(views))

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def show_metrics(_request: Request) -> Response:
        return Response(generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})

    async def show(_request: Request) -> Response:
        return JSONResponse(views.status())

    own = [Route("/healthz", healthz), Route("/metrics", show_metrics), Route("/status", show)]
    return Starlette(routes=[*own, *routes])


class Counted:
    """Counts the requests to an application, by the pattern of the route that takes them and by status.

    Args:
        app: answers them.
        routes: whose patterns name the end points. Whatever none of them takes counts together.
        metrics: told of each request.

    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute], metrics: Metrics) -> None:
        self._app = app
        self._routes = [route for route in routes if isinstance(route, Route)]
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when it's over."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = HUNG_UP

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began_s = trio.current_time()
        try:
            await self._app(scope, receive, watched)
        finally:
            self._metrics.requested(self._endpoint(scope), status, trio.current_time() - began_s)

    def _endpoint(self, scope: Scope) -> str:
        return next((route.path for route in self._routes if route.matches(scope)[0] is not Match.NONE), OTHER)


async def run(
    host: str,
    port: int,
    views: Views,
    metrics: Metrics,
    routes: Sequence[BaseRoute] = (),
    *,
    token: str = "",
    task_status: TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled. Starts with the URL.

    Args:
        host: a loopback address, or any where there is a token.
        port: 0 takes a free one.
        views: what `/status` and the gauges of `/metrics` show.
        metrics: the rest of `/metrics`.
        routes: further ones.
        token: what requests must bear, all but those for `/healthz`; "" for none.
        task_status: told the URL.

    Raises UserError where the port is in use, or others could reach it without a token.

    """
    app = application(views, metrics, routes)
    guard = Guard(app, token=token, local=is_loopback(host, token=token))
    await http_server.serve(Counted(guard, app.routes, metrics), host, port, task_status=task_status)
