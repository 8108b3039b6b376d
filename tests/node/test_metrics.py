"""What is counted, where nothing runs: bounded labels, requests by route, and help for everything."""

from typing import Any

import pytest
import trio
import trio.testing
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from p2pos.node.gateway import HUNG_UP, Counted
from p2pos.node.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {(each.name, tuple(each.labels.values())): each.value for one in families for each in one.samples}


def test_a_repair_is_counted_by_cause_with_its_pause() -> None:
    """One of half a second: in its cause's histogram, and in no other's."""
    metrics = Metrics()
    metrics.repaired("hung", 0.5)
    metrics.restarted("lost")
    metrics.gave_up("leaving")
    found = samples(metrics)
    assert found["p2pos_route_repair_pause_seconds_sum", ("hung",)] == 0.5
    assert found["p2pos_route_repair_pause_seconds_count", ("hung",)] == 1
    assert found["p2pos_route_repair_pause_seconds_count", ("lost",)] == 0
    assert found["p2pos_route_restarts_total", ("lost",)] == 1
    assert found["p2pos_route_failures_total", ("leaving",)] == 1


def test_what_an_owner_notes_is_counted() -> None:
    """Its words for the log are enough: a resumption with its pause, a new beginning, a text given up; nothing else."""
    metrics = Metrics()
    metrics.noted("lost", {"cause": "hung"})
    metrics.noted("beginning anew", {"cause": "hung"})
    metrics.noted("resumed", {"cause": "hung", "pause_ms": 250})
    metrics.noted("gave up", {"cause": "lost"})
    found = {key: value for key, value in samples(metrics).items() if value and key[0].startswith("p2pos_route")}
    assert found["p2pos_route_repair_pause_seconds_sum", ("hung",)] == 0.25
    assert found["p2pos_route_restarts_total", ("hung",)] == 1
    assert found["p2pos_route_failures_total", ("lost",)] == 1
    assert {name for name, _ in found} == {
        *(f"p2pos_route_repair_pause_seconds_{part}" for part in ("sum", "count", "bucket")),
        "p2pos_route_restarts_total",
        "p2pos_route_failures_total",
    }


def test_a_value_that_is_none_of_a_labels_makes_one_series() -> None:
    """Whatever a mistake passes in, no more than one child comes of it."""
    metrics = Metrics()
    before = len(samples(metrics))
    for number in range(100):
        metrics.refused(f"reason {number}")
    found = samples(metrics)
    assert found["p2pos_announcements_refused_total", ("other",)] == 100
    assert len(found) == before + 1


def test_the_process_is_counted_once_where_asked() -> None:
    """Its memory and CPU are there for a node, and not for whoever only needs a place to count."""
    assert not any(name.startswith("process_") for name, _ in samples(Metrics()))
    assert ("process_resident_memory_bytes", ()) in samples(Metrics(process=True))


async def ok(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


async def broken(_request: Request) -> PlainTextResponse:
    raise ValueError("a bug")


async def hang(_request: Request) -> PlainTextResponse:
    await trio.sleep_forever()
    raise AssertionError


ROUTES = [Route("/v1/models/{name:path}", ok), Route("/broken", broken), Route("/hang", hang)]


def requests(*paths: str, method: str = "GET") -> dict[tuple[str, ...], float]:
    """What is counted after these requests, each given up after a while of the test's clock."""
    metrics = Metrics()
    app = Counted(Starlette(routes=ROUTES), ROUTES, metrics)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: Any) -> None:
        await trio.lowlevel.checkpoint()

    async def main() -> None:
        for path in paths:
            scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
            with trio.move_on_after(5.0):
                try:
                    await app(scope, receive, send)
                except ValueError:
                    continue

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return {labels: value for (name, labels), value in samples(metrics).items() if name == "p2pos_http_requests_total"}


def test_a_path_is_counted_under_its_pattern() -> None:
    """A hundred names that strangers make up are one series, and so are all paths that aren't there."""
    assert requests(*(f"/v1/models/{number}" for number in range(100)), "/a", "/b?c") == {
        ("/v1/models/{name:path}", "200"): 100,
        ("other", "404"): 2,
    }


@pytest.mark.parametrize(("path", "status"), [("/broken", "500"), ("/hang", str(HUNG_UP))])
def test_what_ends_without_an_answer_is_counted_too(path: str, status: str) -> None:
    """A fault of ours is a 500, a client that is gone before there was an answer a 499."""
    assert requests(path) == {(path, status): 1}


def test_a_wrong_method_is_counted_under_the_path() -> None:
    """And with its status."""
    assert requests("/hang", method="DELETE") == {("/hang", "405"): 1}
