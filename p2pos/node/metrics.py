"""What a node counts and times, for Prometheus: `/metrics` shows it, and others say one line where something happens.

Names follow Prometheus's rules: base units, `_total` for what only grows. A label has few values, all of them known
here or made by this program (routes, statuses); no peer, person or text ever becomes one. What can be read off the
node at any moment (sessions, cache, memory) is in `gauges`, which asks for it at each scrape.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Generic, Literal, TypeAlias, TypeVar, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics

from p2pos.shard.scheduler import Stepped

Cause: TypeAlias = Literal["lost", "hung", "stuck", "fault", "nonsense", "busy", "leaving"]
"""Why a route had to be repaired: a connection broke, a stage was silent, answered and computed nothing, said that it
can't, said what can't be, had no room, or goes."""
Refusal: TypeAlias = Literal["malformed", "forged", "replayed", "expired", "future", "impossible", "full"]
"""Why an announcement was not believed."""
LookUp: TypeAlias = Literal["found", "absent", "failed"]
"""What came of asking the DHT."""
Source: TypeAlias = Literal["disk", "hub", "peers"]
"""Where weights came from."""
End: TypeAlias = Literal["stop", "length", "cancelled", "failed"]
"""How a text ended that this node's API wrote."""

T = TypeVar("T", Counter, Histogram)

OTHER = "other"
"""Stands for a value that none of these is, so that no mistake can make series without end."""

STEP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From one token on a GPU to a chunk of a large model on a CPU."""
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""A step holds at most a chunk and 64 decode steps."""
PAUSE_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)
"""A repair is to take one second, three where a peer must first be found to hang."""
FIRST_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
NEXT_S = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0)
REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
LOOK_UP_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
HOPS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20)


class Metrics:
    """The counters and histograms of one node. Called in the trio thread.

    Args:
        process: count the process's memory, CPU and files too; once per process.

    """

    def __init__(self, *, process: bool = False) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's own; it makes a second series for each of ours
        self.registry = CollectorRegistry()
        if process:
            ProcessCollector(registry=self.registry)

        # what the stage computes
        self._rows = self._by(
            "p2pos_stage_rows", "Positions that passed through this stage's layers.", "phase", ("prefill", "decode")
        )
        self._sampled = self._counter("p2pos_stage_sampled_tokens", "Tokens that this stage, a route's last, chose.")
        self._failed = self._counter("p2pos_stage_failed_runs", "Runs that could not be computed; each ends a session.")
        self._step_s = self._histogram("p2pos_stage_step_seconds", "Computing one step of the batch.", STEP_S)
        self._step_rows = self._histogram("p2pos_stage_step_rows", "Positions in one step of the batch.", ROWS)

        # the texts that this node's API has written
        self._prompt = self._counter("p2pos_prompt_tokens", "Tokens of the prompts that this node's API sent.")
        self._generated = self._counter(
            "p2pos_generation_tokens", "Tokens that this node's API received for its texts."
        )
        self._ends = self._by("p2pos_texts", "Texts of this node's API, by how they ended.", "end", get_args(End))
        self._first_s = self._histogram(
            "p2pos_time_to_first_token_seconds", "From opening a session to its first token.", FIRST_S
        )
        self._next_s = self._histogram(
            "p2pos_inter_token_seconds", "From one token of a text to its next, slow clients included.", NEXT_S
        )

        # routes that broke
        causes = get_args(Cause)
        self._pause_s = _Family(
            self._histogram(
                "p2pos_route_repair_pause_seconds",
                "What a repaired route cost a text: from its last token to the next. The count is that of the repairs.",
                PAUSE_S,
                "cause",
            ),
            causes,
        )
        self._restarts = self._by(
            "p2pos_route_restarts", "Repairs that computed the text again from its tokens.", "cause", causes
        )
        self._given_up = self._by(
            "p2pos_route_failures", "Sessions that ended because their route could not be repaired.", "cause", causes
        )

        # the swarm
        self._links_lost = self._counter(
            "p2pos_links_lost", "Peers whose link broke, or who could not be reached when there was something to send."
        )
        self._believed = self._counter("p2pos_announcements_accepted", "Announcements that told something new.")
        self._refused = self._by(
            "p2pos_announcements_refused", "Announcements not believed, by reason.", "reason", get_args(Refusal)
        )
        self._look_ups = self._by("p2pos_dht_lookups", "Questions to the DHT.", "outcome", get_args(LookUp))
        self._look_up_s = self._histogram("p2pos_dht_lookup_seconds", "One question to the DHT.", LOOK_UP_S)
        self._look_up_hops = self._histogram("p2pos_dht_lookup_hops", "Rounds of asking that it took.", HOPS)
        self._fetched = self._by(
            "p2pos_weights_fetched_bytes", "Bytes of weights that came here.", "source", get_args(Source)
        )
        self._served = self._counter("p2pos_content_served_bytes", "Bytes of blocks given to peers who asked for them.")
        self._moves = self._counter("p2pos_span_moves", "Times that this node took other layers.")

        # the HTTP interface
        self._requests = Counter(
            "p2pos_http_requests",
            "Requests to the HTTP interface; 499 is a client that hung up before there was an answer.",
            ["endpoint", "status"],
            registry=self.registry,
        )
        self._request_s = self._histogram(
            "p2pos_http_request_seconds", "From a request's headers to the end of its answer.", REQUEST_S, "endpoint"
        )

    def stepped(self, step: Stepped) -> None:
        """The stage has computed a step."""
        self._rows["prefill"].inc(step.prefill_rows)
        self._rows["decode"].inc(step.decode_rows)
        self._sampled.inc(step.sampled)
        self._failed.inc(step.failed)
        self._step_s.observe(step.seconds)
        self._step_rows.observe(step.prefill_rows + step.decode_rows)

    def asked(self, prompt_tokens: int) -> None:
        """A session of this node's API opens."""
        self._prompt.inc(prompt_tokens)

    def first_token(self, after_s: float) -> None:
        """Its first token came."""
        self._generated.inc()
        self._first_s.observe(after_s)

    def next_token(self, after_s: float) -> None:
        """A further one came."""
        self._generated.inc()
        self._next_s.observe(after_s)

    def ended(self, how: str) -> None:
        """It is over; how is one of `End`."""
        self._ends[how].inc()

    def noted(self, event: str, fields: Mapping[str, Any]) -> None:
        """Something happened to a session's route, as its owner notes it for the log; see `shard.owner`."""
        cause = fields.get("cause", "")
        match event:
            case "resumed":
                self.repaired(cause, fields["pause_ms"] / 1e3)
            case "beginning anew":
                self.restarted(cause)
            case "gave up":
                self.gave_up(cause)
            case _:
                pass

    def repaired(self, cause: Cause, pause_s: float) -> None:
        """A session goes on over another route, after a pause of so many seconds."""
        self._pause_s[cause].observe(pause_s)

    def restarted(self, cause: Cause) -> None:
        """To repair it, everything is computed again from the tokens."""
        self._restarts[cause].inc()

    def gave_up(self, cause: Cause) -> None:
        """A session ends because no other route was found in time."""
        self._given_up[cause].inc()

    def link_lost(self) -> None:
        """What joined us to a peer broke."""
        self._links_lost.inc()

    def believed(self) -> None:
        """An announcement told something new."""
        self._believed.inc()

    def refused(self, reason: str) -> None:
        """An announcement was not believed; the reason is one of `Refusal`."""
        self._refused[reason].inc()

    def looked_up(self, outcome: LookUp, seconds: float, hops: int) -> None:
        """The DHT was asked."""
        self._look_ups[outcome].inc()
        self._look_up_s.observe(seconds)
        self._look_up_hops.observe(hops)

    def fetched(self, source: Source, size: int) -> None:
        """So many bytes of weights more are here."""
        self._fetched[source].inc(size)

    def served(self, size: int) -> None:
        """A peer was given so many bytes."""
        self._served.inc(size)

    def moved(self) -> None:
        """The node serves other layers now."""
        self._moves.inc()

    def requested(self, endpoint: str, status: int, seconds: float) -> None:
        """A request was answered. `endpoint` is a route's pattern, never what was asked for."""
        self._requests.labels(endpoint, str(status)).inc()
        self._request_s.labels(endpoint).observe(seconds)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def _by(self, name: str, text: str, label: str, values: Iterable[str]) -> "_Family[Counter]":
        return _Family(Counter(name, text, [label], registry=self.registry), values)

    def _histogram(self, name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=tuple(buckets), registry=self.registry)


class _Family(Generic[T]):
    """A metric with one label. Each known value is there from the start, at 0, so that its first change is seen."""

    def __init__(self, family: T, values: Iterable[str]) -> None:
        self._family: T = family
        self._children: dict[str, T] = {value: family.labels(value) for value in values}

    def __getitem__(self, value: str) -> T:
        return self._children[value] if value in self._children else self._family.labels(OTHER)
