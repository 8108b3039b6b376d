"""What `/metrics` says of real nodes that have just written texts, read as Prometheus reads it."""

import json
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from p2pos.wire.messages import BLOCK_TOKENS
from scripts import make_dashboard
from tests import checkpoints
from tests.swarms import Node, node, swarm

TEXTS, PROMPT, TOKENS, MANY = 3, 40, 12, 250
"""The prompt has two whole blocks of 16 positions, which later texts find in the cache."""
GREEDY = {"temperature": 0, "logit_bias": {"1": -100}}
"""The model's end token is ruled out, so that every text has all its tokens."""

Scrape = dict[tuple[str, tuple[tuple[str, str], ...]], float]
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",), "gauge": ("",)}
NOT_SHOWN = {"process_start_time_seconds", "process_max_fds", "process_virtual_memory_bytes"}
NOT_SHOWN |= {"process_resident_memory_bytes"}  # p2pos_resident_memory_bytes is the same on every system
"""What comes with the client's library and tells a person nothing more."""


def families(of: Node) -> list[Metric]:
    """What Prometheus would read."""
    with urllib.request.urlopen(f"{of.ready['api']}/metrics", timeout=10) as answer:
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = answer.read().decode()
    found = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in found)
    return found


def scrape(of: Node) -> Scrape:
    """Every sample, by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families(of)
        for sample in family.samples
    }


def value(samples: Scrape, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def ask(to: Node, **changes: Any) -> int:
    """One completion of random tokens; its status."""
    body = {"model": "m", "prompt": [5] * PROMPT, "max_tokens": TOKENS, **GREEDY, **changes}
    request = urllib.request.Request(
        f"{to.ready['api']}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] == body["max_tokens"]
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        exc.read()
        return exc.code


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six layers of random weights."""
    return checkpoints.save_chat(tmp_path_factory.mktemp("models") / "m")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[list[Node]]:
    """Head and tail, after some texts and one refusal, all asked of the head."""
    with swarm(tmp_path_factory.mktemp("swarm"), model, ("0:2", "2:6"), "--dtype", "f32") as (head, tail):
        assert any(head.status()["known_nodes"] == 2 for _ in range(500))
        assert [ask(head) for _ in range(TEXTS)] == [200] * TEXTS
        assert ask(head, model="nobody-has-it") == 404
        with urllib.request.urlopen(f"{head.ready['api']}/v1/models/m") as answer:
            answer.read()
        assert all(any(each.status()["sessions"] == 0 for _ in range(500)) for each in (head, tail))
        yield [head, tail]


@pytest.fixture(scope="module")
def loaded(pair: list[Node]) -> tuple[Scrape, Scrape]:
    """What head and tail say then."""
    head, tail = pair
    return scrape(head), scrape(tail)


def test_tokens_counted_are_tokens_generated(loaded) -> None:
    """At the node that was asked, and as chosen by the last stage; prompts and ends as well."""
    head, tail = loaded
    assert value(head, "p2pos_generation_tokens_total") == TEXTS * TOKENS
    assert value(tail, "p2pos_stage_sampled_tokens_total") == TEXTS * TOKENS
    assert value(head, "p2pos_stage_sampled_tokens_total") == value(tail, "p2pos_generation_tokens_total") == 0
    assert value(head, "p2pos_prompt_tokens_total") == TEXTS * PROMPT
    assert value(head, "p2pos_texts_total", end="length") == TEXTS
    assert value(head, "p2pos_time_to_first_token_seconds_count") == TEXTS
    assert value(head, "p2pos_inter_token_seconds_count") == TEXTS * (TOKENS - 1)


def test_rows_and_prefix_hits_add_up(loaded) -> None:
    """Every position passed through each stage once, save those that its cache held; all steps are in the histogram."""
    for samples in loaded:
        hits = value(samples, "p2pos_prefix_cache_hit_tokens_total")
        assert hits == (TEXTS - 1) * (PROMPT // BLOCK_TOKENS * BLOCK_TOKENS)
        assert value(samples, "p2pos_prefix_cache_query_tokens_total") == TEXTS * PROMPT
        assert value(samples, "p2pos_stage_rows_total", phase="prefill") == TEXTS * PROMPT - hits
        assert value(samples, "p2pos_stage_rows_total", phase="decode") == TEXTS * (TOKENS - 1)
        rows = TEXTS * (PROMPT + TOKENS - 1) - hits
        assert value(samples, "p2pos_stage_step_rows_sum") == rows
        assert value(samples, "p2pos_stage_step_seconds_count") == value(samples, "p2pos_stage_step_rows_count")
        assert value(samples, "p2pos_stage_step_seconds_sum") > 0
        assert value(samples, "p2pos_stage_failed_runs_total") == 0


def test_frames_pass_between_the_stages(loaded) -> None:
    """What one sends the other receives: a frame for each step at least, with its rows' bytes."""
    head, tail = loaded
    stage = {"protocol": "/p2pos/stage/1.0.0"}
    sent = value(head, "p2pos_frames_total", direction="out", **stage)
    assert sent == value(tail, "p2pos_frames_total", direction="in", **stage) >= TEXTS * TOKENS
    size = value(head, "p2pos_frame_bytes_total", direction="out", **stage)
    assert size == value(tail, "p2pos_frame_bytes_total", direction="in", **stage)
    assert size > value(head, "p2pos_stage_step_rows_sum") * 64 * 4  # hidden states of 64 fp32 numbers
    assert value(head, "p2pos_frames_total", direction="out", protocol="/p2pos/status/1.0.0") > 0


def test_requests_are_counted_by_route(loaded) -> None:
    """By pattern and status; a model's name in the path is no label."""
    head, _ = loaded
    assert value(head, "p2pos_http_requests_total", endpoint="/v1/completions", status="200") == TEXTS
    assert value(head, "p2pos_http_requests_total", endpoint="/v1/completions", status="404") == 1
    assert value(head, "p2pos_http_requests_total", endpoint="/v1/models/{name:path}", status="200") == 1
    assert value(head, "p2pos_http_request_seconds_count", endpoint="/v1/completions") == TEXTS + 1


def test_the_node_says_what_it_holds(loaded) -> None:
    """Gauges after the texts: nothing held, all room free, both nodes seen, every layer covered once."""
    head, tail = loaded
    for samples in (head, tail):
        assert value(samples, "p2pos_sessions") == value(samples, "p2pos_runs_waiting") == 0
        assert value(samples, "p2pos_kv_cache_used_tokens") == 0
        assert value(samples, "p2pos_kv_cache_free_tokens") > 0
        assert value(samples, "p2pos_known_nodes") == value(samples, "p2pos_model_nodes") == 2
        assert value(samples, "p2pos_model_replicas_fewest") == 1
        assert value(samples, "p2pos_announcements_accepted_total") >= 1  # the other's
        assert value(samples, "p2pos_announcements_refused_total", reason="forged") == 0
        assert value(samples, "p2pos_model_uncovered_layers") == 0
        assert value(samples, "p2pos_weights_fetched_bytes_total", source="disk") > 0
        assert value(samples, "process_resident_memory_bytes") > 0
        for cause in ("lost", "hung", "fault", "leaving"):
            assert value(samples, "p2pos_route_repair_pause_seconds_count", cause=cause) == 0


def test_labels_are_few_and_say_nothing_of_people(loaded) -> None:
    """Every label's name is one that is known here, and no series is there for each of anything."""
    names = {"phase", "le", "end", "cause", "source", "outcome", "reason", "endpoint", "status", "protocol"}
    names |= {"direction", "peer", "model", "model_name", "layers", "dtype", "quantize", "version"}
    for samples in loaded:
        assert {name for _, labels in samples for name, _ in labels} <= names
        assert len(samples) < 500
        assert not any("nobody-has-it" in text for _, labels in samples for _, text in labels)


def test_the_dashboard_asks_for_what_is_there(pair: list[Node]) -> None:
    """What panels ask for is in the node's answer, with the labels that it is grouped by; and all of it is shown."""
    found = families(pair[0])
    offered = {family.name + suffix: family for family in found for suffix in SUFFIXES[family.type]}
    shown = set()
    for panel in make_dashboard.dashboard()["panels"]:
        for target in panel.get("targets", ()):
            names = re.findall(r"\b((?:p2pos|process)_\w+)[{]", target["expr"])
            assert names
            assert set(names) <= set(offered), target["expr"]
            shown |= {offered[name].name for name in names}
            labels = {label for names_ in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in names_.split(", ")}
            for name in names:
                known = {label for sample in offered[name].samples for label in sample.labels} | {"instance", "le"}
                assert labels <= known, target["expr"]
    assert {family.name for family in found} - shown <= NOT_SHOWN


def test_the_manual_names_every_metric(pair: list[Node]) -> None:
    """docs/monitoring.md has each of ours, under the name that Prometheus stores, and none that isn't there."""
    kinds = {"counter": "_total", "info": "_info"}
    offered = {family.name + kinds.get(family.type, "") for family in families(pair[0])}
    page = (make_dashboard.PAGE.parent.parent / "monitoring.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(p2pos_\w+)`", page))
    assert named == {name for name in offered if name.startswith("p2pos_")}


def test_a_repair_is_counted_where_the_text_was_asked_for(pair: list[Node], model: Path, tmp_path: Path) -> None:
    """The stage that computes a text is killed: the text is whole, and its repair and pause are in the metrics."""
    head, tail = pair
    joining = ("--layers", "2:6", "--bootstrap", head.address, "--dtype", "f32")
    with node(tmp_path / "spare", model, *joining) as spare, ThreadPoolExecutor(1) as asking:
        assert any(head.status()["known_nodes"] == 3 for _ in range(500))
        answer = asking.submit(ask, head, max_tokens=MANY)
        victim = first_with_a_session(tail, spare)
        victim.stop(signal.SIGKILL)
        assert answer.result(120) == 200
        found = scrape(head)
    repairs = [count for (name, _), count in found.items() if name == "p2pos_route_repair_pause_seconds_count"]
    assert sum(repairs) == 1
    assert value(found, "p2pos_route_repair_pause_seconds_count", cause="lost") == 1
    assert 0 < value(found, "p2pos_route_repair_pause_seconds_sum", cause="lost") < 30
    assert value(found, "p2pos_links_lost_total") >= 1
    assert value(found, "p2pos_texts_total", end="failed") == 0
    story = [json.loads(line) for line in head.log.read_text().splitlines() if '"failover"' in line]
    assert [line["event"] for line in story if line["event"] in {"lost", "resumed"}] == ["lost", "resumed"]


def first_with_a_session(*nodes: Node) -> Node:
    """Ask until one of these holds a session: each question is a round trip, so this does not spin. Bounded."""
    for _ in range(2000):
        for each in nodes:
            if each.status()["cached_tokens"] > PROMPT:
                return each
    raise AssertionError("nobody computes")
