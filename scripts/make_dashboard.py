"""Write Grafana's dashboards, docs/grafana/p2pos.json and p2pos-relayer.json, from the lists of their panels below.

`--check` compares, and ends 1 where the file has drifted. Every query names the instances that are chosen at the top of
the dashboard; rates are over Grafana's own interval.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "grafana" / "p2pos.json"
UID = "p2pos-swarm"
SCHEMA = 39
"""Of Grafana 11.0; later versions read it and write their own."""
COLUMNS = 24
"""Of Grafana's grid."""
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
HERE = 'instance=~"$instance"'
RED, YELLOW, GREEN = "red", "yellow", "green"


@dataclass(frozen=True)
class Panel:
    """One panel. Widths and heights are in cells of the grid."""

    title: str
    queries: tuple[tuple[str, str], ...]
    """PromQL and what its lines are called."""
    text: str
    """What it tells, shown behind its ⓘ."""
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    steps: tuple[tuple[str, float | None], ...] = field(default=((GREEN, None),))
    """Colours of a stat, each from its value on."""


def rate(counter: str, by: str = "instance", **labels: str) -> str:
    """Per second, summed."""
    return f"sum by ({by}) (rate({counter}{{{_with(labels)}}}[$__rate_interval]))"


def quantile(q: float, histogram: str, by: str = "") -> str:
    """Of a histogram of all chosen instances."""
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({grouped}) (rate({histogram}_bucket{{{HERE}}}[$__rate_interval])))"


def quantiles(histogram: str) -> tuple[tuple[str, str], ...]:
    """The median, and what one in twenty exceeds."""
    return (quantile(0.5, histogram), "p50"), (quantile(0.95, histogram), "p95")


def gauge(name: str, **labels: str) -> str:
    """As it is."""
    return f"{name}{{{_with(labels)}}}"


def _with(labels: dict[str, str]) -> str:
    return ", ".join([HERE, *(f'{name}="{value}"' for name, value in labels.items())])


def stat(title: str, query: str, text: str, unit: str = "short", *steps: tuple[str, float | None]) -> Panel:
    """One number."""
    return Panel(title, ((query, ""),), text, unit, "stat", 4, 4, steps=steps or ((GREEN, None),))


BAD = ((GREEN, None), (RED, 1.0))
"""Any is too many."""
FEW = ((RED, None), (YELLOW, 1.0), (GREEN, 2.0))
"""None is a gap, one is lost with its node."""

USED = gauge("p2pos_kv_cache_used_tokens")

Rows = dict[str, tuple[Panel, ...]]

ROWS: Rows = {
    "The swarm": (
        stat("Nodes scraped", f"count({gauge('p2pos_node_info')})", "Nodes that Prometheus reaches."),
        stat("Nodes known", f"max({gauge('p2pos_known_nodes')})", "Nodes that any of these believes to be there."),
        stat(
            "Layers without a node",
            f"max({gauge('p2pos_model_uncovered_layers')})",
            "Layers of a model that nobody takes new texts for: while there is one, no text can be written.",
            "short",
            *BAD,
        ),
        stat(
            "Fewest replicas",
            f"min({gauge('p2pos_model_replicas_fewest')})",
            "Nodes that serve the least served layer. With one, its loss breaks every text until it is back.",
            "short",
            *FEW,
        ),
        stat(
            "Slowest layer",
            f"min({gauge('p2pos_model_slowest_layer_tokens_per_second')} > 0)",
            "Tokens per second that all nodes together can pass through the layer that is served worst.",
        ),
        stat("Sessions", f"sum({gauge('p2pos_sessions_owned')})", "Texts under way that were asked of these nodes."),
        Panel(
            "Nodes",
            ((gauge("p2pos_node_info"), ""),),
            "What each node is.",
            kind="table",
            width=16,
            height=7,
        ),
        Panel(
            "Leaving",
            ((gauge("p2pos_draining"), "{{instance}}"),),
            "1 while a node begins nothing new, because it leaves or takes other layers.",
            width=8,
            height=7,
        ),
        Panel(
            "Model as each node sees it",
            (
                (gauge("p2pos_model_nodes"), "nodes, {{instance}}"),
                (gauge("p2pos_model_layers"), "layers, {{instance}}"),
            ),
            "Nodes that serve the same model and compute alike, and its layers. Lines that part: nodes disagree.",
            width=12,
        ),
        Panel(
            "Layers moved",
            ((f"increase({gauge('p2pos_span_moves_total')}[$__range])", "{{instance}}"),),
            "Times that a node took other layers, in the chosen time.",
            width=12,
        ),
    ),
    "Texts": (
        Panel(
            "Tokens written",
            ((rate("p2pos_generation_tokens_total"), "{{instance}}"),),
            "Tokens per second that each node's API received for its texts.",
            stacked=True,
        ),
        Panel(
            "Time to the first token", quantiles("p2pos_time_to_first_token_seconds"), "From opening a session.", "s"
        ),
        Panel("Time between tokens", quantiles("p2pos_inter_token_seconds"), "As the API saw them.", "s"),
        Panel(
            "Prompt tokens",
            ((rate("p2pos_prompt_tokens_total"), "{{instance}}"),),
            "Tokens of prompts per second.",
            stacked=True,
        ),
        Panel("Texts by how they ended", ((rate("p2pos_texts_total", "end"), "{{end}}"),), "Per second.", stacked=True),
        Panel(
            "Prefix cache hits",
            (
                (
                    f"{rate('p2pos_prefix_cache_hit_tokens_total')} / {rate('p2pos_prefix_cache_query_tokens_total')}",
                    "{{instance}}",
                ),
            ),
            "Share of the prompts' positions that a stage held already and did not compute.",
            "percentunit",
        ),
    ),
    "Failover": (
        Panel(
            "Repairs of routes",
            ((rate("p2pos_route_repair_pause_seconds_count", "cause"), "{{cause}}"),),
            "Per second, by what was wrong: the connection broke, nothing came in time, a stage said so, or it goes.",
            stacked=True,
        ),
        Panel(
            "What a repair cost",
            quantiles("p2pos_route_repair_pause_seconds"),
            "From the text's last token before it to the next one.",
            "s",
        ),
        Panel(
            "Repairs that were not enough",
            (
                (rate("p2pos_route_restarts_total", "cause"), "computed again: {{cause}}"),
                (rate("p2pos_route_failures_total", "cause"), "given up: {{cause}}"),
            ),
            "Per second: texts computed again from their tokens, and texts that ended for want of another route.",
        ),
        Panel("Links lost", ((rate("p2pos_links_lost_total"), "{{instance}}"),), "Per second.", width=12),
        Panel(
            "Runs that failed",
            ((rate("p2pos_stage_failed_runs_total"), "{{instance}}"),),
            "Per second. Each ended, or moved, a session.",
            width=12,
        ),
    ),
    "Stages": (
        Panel(
            "Rows computed",
            ((rate("p2pos_stage_rows_total", "instance, phase"), "{{instance}}, {{phase}}"),),
            "Positions per second through each node's layers.",
            stacked=True,
        ),
        Panel("Time of a step", quantiles("p2pos_stage_step_seconds"), "One step of the batch.", "s"),
        Panel(
            "Rows in a step",
            ((f"{rate('p2pos_stage_step_rows_sum')} / {rate('p2pos_stage_step_rows_count')}", "{{instance}}"),),
            "On average: how well the batch is filled.",
        ),
        Panel(
            "Sessions and those that wait",
            (
                (gauge("p2pos_sessions"), "{{instance}}"),
                (gauge("p2pos_sessions_waiting"), "{{instance}} waiting"),
                (gauge("p2pos_runs_waiting"), "{{instance}} runs queued"),
            ),
            "Sessions at each stage, those that wait for room in its cache, and runs that wait for the next step.",
        ),
        Panel(
            "KV cache",
            ((f"{USED} / ({USED} + {gauge('p2pos_kv_cache_free_tokens')})", "{{instance}}"),),
            "Share of each node's room for positions that sessions hold.",
            "percentunit",
        ),
        Panel("KV cache bytes", ((gauge("p2pos_kv_cache_used_bytes"), "{{instance}}"),), "Held by sessions.", "bytes"),
        Panel(
            "Tokens chosen",
            ((rate("p2pos_stage_sampled_tokens_total"), "{{instance}}"),),
            "Tokens per second that each node chose as a route's last stage.",
            stacked=True,
        ),
    ),
    "Network": (
        Panel(
            "Bytes between peers",
            (
                (rate("p2pos_frame_bytes_total", "protocol", direction="out"), "{{protocol}} out"),
                (rate("p2pos_frame_bytes_total", "protocol", direction="in"), "{{protocol}} in"),
            ),
            "Per second, before encryption.",
            "Bps",
        ),
        Panel(
            "Frames between peers",
            ((rate("p2pos_frames_total", "protocol, direction"), "{{protocol}} {{direction}}"),),
            "Per second.",
        ),
        Panel(
            "Round trips between neighbours",
            ((gauge("p2pos_neighbour_round_trip_seconds"), "{{instance}} to {{peer}}"),),
            "As each node measured it last to those it passes activations to, or would.",
            "s",
        ),
        Panel(
            "Peers",
            (
                (gauge("p2pos_connected_peers"), "{{instance}} connected"),
                (gauge("p2pos_linked_peers"), "{{instance}} linked"),
            ),
            "Peers that a connection is open to, and those among them that sessions pass to or from.",
        ),
        Panel(
            "Relays",
            (
                (gauge("p2pos_relayed_peers"), "{{instance}} peers through one"),
                (gauge("p2pos_relay_reservations"), "{{instance}} reservations with it"),
                (gauge("p2pos_relay_circuits"), "{{instance}} circuits through it"),
            ),
            "Peers that a node reaches through a relay, and what it relays for others.",
        ),
        Panel(
            "Announcements",
            (
                (rate("p2pos_announcements_accepted_total"), "{{instance}} believed"),
                (rate("p2pos_announcements_refused_total", "reason"), "refused: {{reason}}"),
            ),
            "Per second. Refusals are others' faults: forged, replayed, out of their time.",
        ),
        Panel("Look-ups in the DHT", ((rate("p2pos_dht_lookups_total", "outcome"), "{{outcome}}"),), "Per second."),
        Panel("Time of a look-up", quantiles("p2pos_dht_lookup_seconds"), "One question to the DHT.", "s"),
        Panel("Hops of a look-up", quantiles("p2pos_dht_lookup_hops"), "Rounds of asking: they grow as a logarithm."),
        Panel(
            "Weights",
            (
                (rate("p2pos_weights_fetched_bytes_total", "source"), "from {{source}}"),
                (f"sum(rate({gauge('p2pos_content_served_bytes_total')}[$__rate_interval]))", "given to peers"),
            ),
            "Bytes per second that came from disk, a hub or peers, and that peers were given.",
            "Bps",
        ),
    ),
    "HTTP and processes": (
        Panel(
            "Requests",
            ((rate("p2pos_http_requests_total", "endpoint, status"), "{{endpoint}} {{status}}"),),
            "Per second. 499: the client hung up before there was an answer.",
            stacked=True,
        ),
        Panel(
            "Time of a request",
            ((quantile(0.95, "p2pos_http_request_seconds", "endpoint"), "{{endpoint}} p95"),),
            "To the end of its answer, which for a stream is the text's.",
            "s",
        ),
        Panel("Up", ((gauge("p2pos_uptime_seconds"), "{{instance}}"),), "Since the node was ready.", "s"),
        Panel(
            "Memory",
            (
                (gauge("p2pos_resident_memory_bytes"), "{{instance}}"),
                (gauge("p2pos_weight_bytes"), "{{instance}} weights read"),
            ),
            "Resident memory of each process, and bytes of weights that it read.",
            "bytes",
        ),
        Panel(
            "CPU", ((rate("process_cpu_seconds_total"), "{{instance}}"),), "Cores that each process keeps busy.", "none"
        ),
        Panel("Open files", ((gauge("process_open_fds"), "{{instance}}"),), "Sockets are most of them."),
    ),
}


RELAYER_ROWS: Rows = {
    "Intents": (
        stat(
            "Waiting",
            f"sum({gauge('p2pos_relayer_intents', state='accepted')})",
            "Taken in, and in no transaction yet.",
        ),
        stat(
            "Oldest",
            f"max({gauge('p2pos_relayer_queue_age_seconds')})",
            "Since when the oldest intent that is not settled waits.",
            "s",
            (GREEN, None),
            (YELLOW, 60.0),
            (RED, 300.0),
        ),
        stat("Trouble", f"max({gauge('p2pos_relayer_trouble')})", "1: `relayer status` says which.", "short", *BAD),
        stat(
            "Last block",
            f"max({gauge('p2pos_relayer_block_age_seconds')})",
            "For how long no new block has been seen. A devnet makes one at least each 12 s.",
            "s",
            (GREEN, None),
            (YELLOW, 60.0),
            (RED, 120.0),
        ),
        stat("Head", f"max({gauge('p2pos_relayer_head_block')})", "The newest block seen."),
        stat(
            "Coin",
            f"min({gauge('p2pos_relayer_sender_balance_ether')})",
            "Of the poorest sender.",
            "short",
            (RED, None),
            (YELLOW, 0.05),
            (GREEN, 0.5),
        ),
        Panel(
            "Taken in and done",
            (
                (rate("p2pos_relayer_accepted_total"), "{{instance}} accepted"),
                (rate("p2pos_relayer_settled_total"), "{{instance}} settled"),
                (rate("p2pos_relayer_failed_total"), "{{instance}} failed"),
            ),
            "Intents per second.",
        ),
        Panel(
            "Refused",
            ((rate("p2pos_relayer_refused_total", "reason"), "{{reason}}"),),
            "Per second. `limited`: its signer asks too much; `unavailable`: the relayer is full, or its chain away.",
            stacked=True,
        ),
        Panel(
            "In the queue's file",
            ((gauge("p2pos_relayer_intents"), "{{instance}} {{state}}"),),
            "Intents by state, since the file was made.",
        ),
        Panel("Time of an admission", quantiles("p2pos_relayer_admit_seconds"), "Checked, tried, on disk.", "s"),
        Panel(
            "Intents in a transaction",
            (
                (
                    f"{rate('p2pos_relayer_batch_intents_sum')} / {rate('p2pos_relayer_batch_intents_count')}",
                    "{{instance}}",
                ),
            ),
            "On average: how well batches are filled.",
        ),
        Panel("Batches under way", ((gauge("p2pos_relayer_open_batches"), "{{instance}}"),), "Of all senders."),
    ),
    "Transactions": (
        Panel(
            "Sent",
            (
                (rate("p2pos_relayer_transactions_total"), "{{instance}} signed"),
                (rate("p2pos_relayer_replacements_total"), "{{instance}} of them outbid another"),
                (rate("p2pos_relayer_rebroadcasts_total"), "{{instance}} handed over again"),
            ),
            "Per second.",
        ),
        Panel(
            "Undone",
            (
                (rate("p2pos_relayer_batches_lost_total"), "{{instance}} lost"),
                (rate("p2pos_relayer_batches_reorganised_total"), "{{instance}} reorganised"),
            ),
            "Batches per second that could get into no block any more, and whose block was taken back.",
        ),
        Panel(
            "Gas of an intent",
            ((f"{rate('p2pos_relayer_gas_total')} / {rate('p2pos_relayer_settled_total')}", "{{instance}}"),),
            "Gas of all transactions, by intents that took effect.",
        ),
        Panel("Fees", ((rate("p2pos_relayer_fee_ether_total"), "{{instance}}"),), "Coin per second."),
        Panel("Coin", ((gauge("p2pos_relayer_sender_balance_ether"), "{{sender}}"),), "Of each sender."),
        Panel("Batches by sender", ((gauge("p2pos_relayer_sender_open_batches"), "{{sender}}"),), "Under way."),
    ),
    "End points": (
        Panel(
            "Believed",
            (
                (gauge("p2pos_relayer_rpc_good"), "{{endpoint}}"),
                (gauge("p2pos_relayer_rpc_in_use"), "{{endpoint}} in use"),
            ),
            "1 while the end point agrees with the others and answers.",
        ),
        Panel("Heads", ((gauge("p2pos_relayer_rpc_block"), "{{endpoint}}"),), "The block that each named last."),
        Panel(
            "Requests",
            (
                (rate("p2pos_relayer_rpc_requests_total", "endpoint"), "{{endpoint}}"),
                (rate("p2pos_relayer_rpc_failures_total", "endpoint"), "{{endpoint}} failed"),
            ),
            "Per second.",
        ),
        Panel("Memory", ((gauge("process_resident_memory_bytes"), "{{instance}}"),), "Of the process.", "bytes"),
        Panel("CPU", ((rate("process_cpu_seconds_total"), "{{instance}}"),), "Cores that it keeps busy.", "none"),
        Panel("Open files", ((gauge("process_open_fds"), "{{instance}}"),), "Sockets are most of them."),
    ),
}


@dataclass(frozen=True)
class Dashboard:
    """What one dashboard is."""

    page: Path
    uid: str
    title: str
    text: str
    rows: Rows
    metric: str
    """Whose instances can be chosen."""
    label: str
    """What an instance is."""


SWARM = Dashboard(
    PAGE,
    UID,
    "p2pos swarm",
    "Nodes of a p2pos swarm: coverage, texts, failover, stages, network.",
    ROWS,
    "p2pos_node_info",
    "Node",
)
RELAYERS = Dashboard(
    PAGE.with_name("p2pos-relayer.json"),
    "p2pos-relayer",
    "p2pos relayers",
    "Relayers: intents, transactions and what they cost, end points.",
    RELAYER_ROWS,
    "p2pos_relayer_head_block",
    "Relayer",
)


def dashboard(one: Dashboard = SWARM) -> dict[str, Any]:
    """The whole dashboard, as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row, members in one.rows.items():
        panels.append({"id": len(panels) + 1, "type": "row", "title": row, "collapsed": False, "panels": []})
        panels[-1]["gridPos"] = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        y += 1
        x, height = 0, 0
        for panel in members:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            panels.append(_panel(panel, len(panels) + 1, x, y))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return {
        "uid": one.uid,
        "title": one.title,
        "description": one.text,
        "tags": ["p2pos"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": _variables(one)},
        "panels": panels,
    }


def _variables(one: Dashboard) -> list[dict[str, Any]]:
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}
    query = f"label_values({one.metric}, instance)"
    instance = {
        "name": "instance",
        "label": one.label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "instances"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }
    return [source, instance]


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    instant = panel.kind == "table"
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": SOURCE,
            "expr": query,
            "legendFormat": legend or "__auto",
            **({"instant": True, "range": False, "format": "table"} if instant else {"range": True}),
        }
        for index, (query, legend) in enumerate(panel.queries)
    ]
    custom: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {"lineWidth": 1, "fillOpacity": 20 if panel.stacked else 5, "showPoints": "never"}
        custom["stacking"] = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    steps = [{"color": colour, "value": value} for colour, value in panel.steps]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "custom": custom,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.kind == "timeseries":
        defaults["min"] = 0
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel.kind),
        "targets": targets,
        **({"transformations": [_hidden("Time", "Value", "__name__", "job")]} if instant else {}),
    }


def _options(kind: str) -> dict[str, Any]:
    if kind == "stat":
        return {"colorMode": "value", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}}
    if kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}


def _hidden(*columns: str) -> dict[str, Any]:
    return {"id": "organize", "options": {"excludeByName": dict.fromkeys(columns, True)}}


def text(one: Dashboard = SWARM) -> str:
    """The file."""
    return json.dumps(dashboard(one), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files, or check them."""
    for one in (SWARM, RELAYERS):
        if "--check" not in sys.argv[1:]:
            one.page.parent.mkdir(exist_ok=True)
            one.page.write_text(text(one), encoding="utf-8")
        elif one.page.read_text(encoding="utf-8") != text(one):
            print(f"{one.page.name} is not what it is made from: run `make docs`", file=sys.stderr)
            sys.exit(1)


if __name__ == "__main__":
    main()
