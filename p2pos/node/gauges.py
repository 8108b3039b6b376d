"""What `/metrics` reads off the node at each scrape: its state now, and counts that its parts keep themselves."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from p2pos.node.streams import Traffic
from p2pos.shard.coverage import Coverage

Status = dict[str, Any]
"""What `/status` answers: peer, model, layers, tokens_per_s, sessions, cached_tokens, weight_bytes, …"""

INFO = ("peer", "model", "model_name", "layers", "dtype", "quantize", "version")
"""Of the status: what a node is rather than does. Its own words and numbers alone; nothing that a peer says."""

GAUGES = {
    # of the status: the metric and its help
    "sessions": ("p2pos_sessions", "Sessions that this stage holds."),
    "waiting": ("p2pos_sessions_waiting", "Sessions that wait for room in its caches."),
    "owned_sessions": ("p2pos_sessions_owned", "Sessions that this node's API owns."),
    "runs_waiting": ("p2pos_runs_waiting", "Runs that wait for the next step: the queue's depth."),
    "cached_tokens": ("p2pos_kv_cache_used_tokens", "Positions in the KV caches of sessions."),
    "free_tokens": ("p2pos_kv_cache_free_tokens", "Positions that the KV caches have room for still."),
    "cached_bytes": ("p2pos_kv_cache_used_bytes", "Bytes of the KV caches of sessions."),
    "weight_bytes": ("p2pos_weight_bytes", "Bytes of weights that were read."),
    "resident_bytes": ("p2pos_resident_memory_bytes", "Resident memory of the process."),
    "uptime_s": ("p2pos_uptime_seconds", "Since the node was ready."),
    "draining": ("p2pos_draining", "1 while it begins nothing new, because it leaves or takes other layers."),
    "known_nodes": ("p2pos_known_nodes", "Nodes that this one believes to be there, itself included."),
    "linked_peers": ("p2pos_linked_peers", "Peers that a link carries sessions to or from."),
    "connected_peers": ("p2pos_connected_peers", "Peers that a connection is open to."),
    "relayed_peers": ("p2pos_relayed_peers", "Of them, those that only a relay joins this node to."),
    "reservations": ("p2pos_relay_reservations", "Peers that this node keeps a place for as their relay."),
    "circuits": ("p2pos_relay_circuits", "Circuits that run through this node as a relay."),
}
COUNTS = {
    "prefix_tokens": ("p2pos_prefix_cache_hit_tokens", "Positions of prompts that were cached here already."),
    "prompt_tokens": ("p2pos_prefix_cache_query_tokens", "Positions of the prompts that came: hits and all others."),
}


@dataclass(frozen=True, slots=True)
class Views:
    """Where the gauges come from. Each is asked at every scrape."""

    status: Callable[[], Status]
    traffic: Callable[[], Mapping[str, Traffic]] = dict
    """By protocol, of which this program has a handful."""
    coverage: Callable[[], Coverage | None] = lambda: None
    """Of the model that this node serves, as it computes; None while it serves nothing."""
    round_trips_ms: Callable[[], Mapping[str, float]] = field(default=dict)
    """To the peers that this node passes activations to, or would: an announcement holds 16 at most."""


class NodeCollector(Collector):
    """Reads the views at each scrape."""

    def __init__(self, views: Views) -> None:
        self._views = views

    def collect(self) -> Iterable[Metric]:
        """All families, whether or not they have a value now."""
        status = self._views.status()
        yield InfoMetricFamily("p2pos_node", "What this node is.", {name: str(status[name]) for name in INFO})
        for key, (name, text) in GAUGES.items():
            yield GaugeMetricFamily(name, text, value=status[key])
        for key, (name, text) in COUNTS.items():
            yield CounterMetricFamily(name, text, value=status[key])
        yield from _traffic(self._views.traffic())
        yield from _coverage(self._views.coverage())
        hops = GaugeMetricFamily(
            "p2pos_neighbour_round_trip_seconds", "To a peer that takes activations from here.", labels=["peer"]
        )
        for peer, milliseconds in self._views.round_trips_ms().items():
            hops.add_metric([peer], milliseconds / 1e3)
        yield hops


def _traffic(traffic: Mapping[str, Traffic]) -> Iterable[Metric]:
    frames = CounterMetricFamily(
        "p2pos_frames", "Frames that passed, by protocol and direction.", labels=["protocol", "direction"]
    )
    size = CounterMetricFamily(
        "p2pos_frame_bytes", "Bytes of these, before encryption.", labels=["protocol", "direction"]
    )
    for protocol, each in traffic.items():
        frames.add_metric([protocol, "in"], each.frames_in)
        frames.add_metric([protocol, "out"], each.frames_out)
        size.add_metric([protocol, "in"], each.bytes_in)
        size.add_metric([protocol, "out"], each.bytes_out)
    yield frames
    yield size


def _coverage(coverage: Coverage | None) -> Iterable[Metric]:
    """What this node knows of the model that it serves; without a value where it knows nothing."""
    known: list[tuple[str, str, Callable[[Coverage], float]]] = [
        ("p2pos_model_layers", "Layers of the model that this node serves.", lambda c: c.kind.layers),
        ("p2pos_model_nodes", "Nodes that serve it and compute as this one does.", lambda c: len(c.nodes)),
        ("p2pos_model_replicas_fewest", "Nodes that serve its least served layer.", lambda c: c.fewest),
        ("p2pos_model_uncovered_layers", "Layers of it that nobody serves.", lambda c: sum(map(len, c.gaps))),
        (
            "p2pos_model_slowest_layer_tokens_per_second",
            "What all nodes together can pass through its slowest layer; 0 where it was not measured.",
            lambda c: c.slowest.tokens_per_s if c.slowest else 0.0,
        ),
    ]
    for name, text, value in known:
        family = GaugeMetricFamily(name, text)
        if coverage is not None:
            family.add_metric([], value(coverage))
        yield family
