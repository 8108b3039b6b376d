"""What a relayer's `/metrics` says, for Prometheus.

Names follow Prometheus's rules: base units, `_total` for what only grows. Labels have few values: states, refusals, the
operator's own senders and end points (without the keys in their URLs); nothing that a stranger sends becomes one.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from p2pos.ledger.figures import Figures
from p2pos.ledger.intents import Refusal

ADMIT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""From a quiet devnet to an end point that takes its whole time."""
SIZES = (1, 2, 5, 10, 20, 50, 100)
"""Of a batch, which carries 100 at most."""
REASONS = (*Refusal, "limited", "unavailable")
"""Why an intent was not taken in: something is wrong with it, its signer asks too much, or the relayer can't now."""


class RelayerMetrics:
    """The counters of one relayer, and its registry.

    Args:
        figures: what its submitter counts.
        process: count the process's memory, CPU and files too; once per process.

    """

    def __init__(self, figures: Figures, *, process: bool = False) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's own; it makes a second series for each of ours
        self.registry = CollectorRegistry()
        if process:
            ProcessCollector(registry=self.registry)
        self._state = _State(figures)
        self.registry.register(self._state)
        self._admit_s = Histogram(
            "p2pos_relayer_admit_seconds",
            "From an intent's arrival to the answer: checked, tried on the chain, on disk.",
            buckets=ADMIT_S,
            registry=self.registry,
        )

    def render(self, summary: Mapping[str, Any]) -> bytes:
        """All of it in Prometheus's text format; `summary` is what `/status` says now."""
        self._state.summary = summary
        return generate_latest(self.registry)

    def answered(self, seconds: float) -> None:
        """An intent's admission took so long."""
        self._admit_s.observe(seconds)


class _State(Collector):
    """What a relayer is at the moment of a scrape, and what its submitter counts."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self.summary: Mapping[str, Any] | None = None

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering asks for nothing."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The relayer as it is now."""
        yield from _work(self._figures)
        if (summary := self.summary) is None:
            return
        yield _labelled("p2pos_relayer_intents", "Intents in the queue's file.", "state", summary["intents"])
        yield _one("p2pos_relayer_open_batches", "Batches under way.", summary["open_batches"])
        yield _one(
            "p2pos_relayer_queue_age_seconds", "Of the oldest intent that is not settled.", summary["queue_age_s"]
        )
        yield _one("p2pos_relayer_head_block", "The newest block seen.", summary["head"] or 0)
        yield _one(
            "p2pos_relayer_block_age_seconds", "For which no new block has been seen.", summary["no_block_for_s"]
        )
        yield _one("p2pos_relayer_trouble", "1 while something holds the work up.", int(bool(summary["trouble"])))
        yield from _senders(summary["senders"])
        yield from _end_points(summary["rpc"])


def _work(figures: Figures) -> Iterable[Metric]:
    refused = CounterMetricFamily("p2pos_relayer_refused", "Intents not taken in, by reason.", labels=["reason"])
    for reason in REASONS:
        refused.add_metric([reason], figures.refused[reason])
    yield refused
    for name, text, value in (
        ("accepted", "Intents taken in.", figures.accepted),
        ("settled", "Intents that took effect.", figures.settled),
        ("failed", "Intents given up, with a reason.", figures.failed),
        ("gas", "Gas of transactions in blocks.", figures.gas_used),
        ("fee_ether", "Paid for it, in the chain's coin.", figures.fee_paid / 10**18),
        ("transactions", "Transactions signed.", figures.sent),
        ("replacements", "Transactions that outbid an earlier one.", figures.replaced),
        ("rebroadcasts", "Transactions handed over again, because the pool had lost them.", figures.dropped),
        ("batches_lost", "Batches that could not get into a block any more.", figures.lost),
        ("batches_reorganised", "Batches whose block was taken back.", figures.reorganised),
    ):
        yield CounterMetricFamily(f"p2pos_relayer_{name}", text, value=value)
    sizes = sorted(figures.sizes.items())
    counts = [float(sum(count for size, count in sizes if size <= bound)) for bound in SIZES]
    total = float(sum(count for _, count in sizes))
    buckets = [*((f"{bound:.1f}", count) for bound, count in zip(SIZES, counts, strict=True)), ("+Inf", total)]
    carried = float(sum(size * count for size, count in sizes))
    yield HistogramMetricFamily(
        "p2pos_relayer_batch_intents", "Intents in a transaction.", buckets=buckets, sum_value=carried
    )


def _senders(senders: Sequence[Mapping[str, Any]]) -> Iterable[Metric]:
    balance = GaugeMetricFamily("p2pos_relayer_sender_balance_ether", "A sender's coin.", labels=["sender"])
    under_way = GaugeMetricFamily("p2pos_relayer_sender_open_batches", "Batches of a sender.", labels=["sender"])
    for sender in senders:
        if sender["balance_wei"] is not None:
            balance.add_metric([sender["address"]], int(sender["balance_wei"]) / 10**18)
        under_way.add_metric([sender["address"]], sender["open_batches"])
    return balance, under_way


def _end_points(end_points: Sequence[Mapping[str, Any]]) -> Iterable[Metric]:
    labels = ["endpoint"]
    good = GaugeMetricFamily("p2pos_relayer_rpc_good", "1 while the end point is believed and asked.", labels=labels)
    in_use = GaugeMetricFamily("p2pos_relayer_rpc_in_use", "1 for the one that serves reads.", labels=labels)
    block = GaugeMetricFamily("p2pos_relayer_rpc_block", "The head that it named last.", labels=labels)
    requests = CounterMetricFamily("p2pos_relayer_rpc_requests", "Requests to it.", labels=labels)
    failures = CounterMetricFamily("p2pos_relayer_rpc_failures", "Of them, not answered sensibly.", labels=labels)
    for each, number in zip(end_points, itertools.count(1), strict=False):
        label = [f"{number} {each['name']}"]  # two of one provider differ in what is not shown
        good.add_metric(label, int(each["state"] == "good"))
        in_use.add_metric(label, int(each["in_use"]))
        if each["block"] is not None:
            block.add_metric(label, each["block"])
        requests.add_metric(label, each["requests"])
        failures.add_metric(label, each["failures"])
    return good, in_use, block, requests, failures


def _one(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _labelled(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
