"""What a swarm is at one moment, as seen from here: who serves what, how far away they are, and who left."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from p2pos.errors import PeerError, UnavailableError
from p2pos.node.status import wall_ms
from p2pos.node.visitor import Visitor
from p2pos.shard.coverage import Coverage, coverages
from p2pos.shard.routing import route
from p2pos.types import PeerId
from p2pos.wire import codec
from p2pos.wire.messages import Announcement, StageRef

REACHED_AT_ONCE, TIMED_AT_ONCE = 32, 2
"""Nodes: handshakes are work for both ends, so all connections stand before the first question is timed."""
REACH_S = 3.0
"""Seconds to connect to one node, and for its answer."""
REMEMBER_S = 60.0
"""Seconds for which somebody who left is shown, while one watches."""
UNHEARD_S = 10.0
"""Seconds without news after which nobody seems to answer: nodes speak anew every four."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model, as nodes serve it that compute alike."""

    coverage: Coverage
    stages: tuple[StageRef, ...]
    """The route that a text would take now; empty where there is none."""
    why: str
    """There is none."""

    def hop_ms(self, index: int) -> float | None:
        """Round trip from a stage of the route to the next, from the last to the first, as announced; None: unknown."""
        here, there = self.stages[index].peer, self.stages[(index + 1) % len(self.stages)].peer
        node = next(each for each in self.coverage.nodes if each.peer == here)
        return dict(node.round_trips).get(there)


@dataclass(frozen=True, slots=True)
class Left:
    """Somebody who was there."""

    node: Announcement
    """Its last word but for the goodbye."""
    ago_s: float
    goodbye: bool
    """It said so; else it fell silent."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen."""

    models: tuple[Model, ...]
    round_trips_ms: Mapping[str, float | None] = field(default_factory=dict)
    """From here, by peer; None where it can't be reached from here, which a node behind NAT may be to others."""
    left: tuple[Left, ...] = ()
    unheard_s: float = 0.0
    """Seconds for which there has been no news, where that is more than usual; else 0."""

    @property
    def nodes(self) -> list[Announcement]:
        """All of them, model by model."""
        return [node for model in self.models for node in model.coverage.nodes]

    def as_dict(self, now_ms: int) -> dict[str, Any]:
        """For `--json`."""
        return {
            "nodes": [_node(each, self.round_trips_ms.get(each.peer), now_ms) for each in self.nodes],
            "models": [_model(each) for each in self.models],
            "left": [
                {
                    "peer": each.node.peer,
                    "model": each.node.model,
                    "layers": f"{each.node.start}:{each.node.end}",
                    "ago_s": round(each.ago_s, 1),
                    "goodbye": each.goodbye,
                }
                for each in self.left
            ],
            "unheard_s": round(self.unheard_s, 1),
        }


class Looker:
    """Looks again and again, and remembers who was there."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._known: dict[str, Announcement] = {}
        self._left: dict[str, tuple[Announcement, float, bool]] = {}
        self._newest = 0
        self._newest_s = trio.current_time()

    async def look(self, *, again: bool) -> Look:
        """See what is there. Raises nothing of its own: who doesn't answer isn't seen."""
        if again:
            await self._visitor.refresh()
        announced = list(self._visitor.announcements)
        models = tuple(_seen(each) for each in coverages(announced))
        trips = await self._round_trips(announced)
        return Look(models, trips, self._who_left(announced), self._unheard(announced))

    async def _round_trips(self, announced: Sequence[Announcement]) -> dict[str, float | None]:
        trips: dict[str, float | None] = {each.peer: None for each in announced}
        reached: list[Announcement] = []

        async def reach(each: Announcement) -> None:
            await self._visitor.host.connect(PeerId(each.peer), each.addresses, deadline_s=REACH_S)
            reached.append(each)

        async def measure(each: Announcement) -> None:
            trips[each.peer] = round(await self._visitor.round_trip_s(each) * 1e3, 2)

        await _with_each(announced, reach, REACHED_AT_ONCE)
        await _with_each(reached, measure, TIMED_AT_ONCE)
        return trips

    def _who_left(self, announced: Sequence[Announcement]) -> tuple[Left, ...]:
        """Those who said goodbye, which is remembered as long as their word is good, and those missing since before."""
        now_s, now_ms = trio.current_time(), wall_ms()
        here = {each.peer: each for each in announced}
        for signed in self._visitor.table.signed(now_ms):
            told = codec.decode_announcement(signed.body)
            if told.goodbye and not self._left.get(told.peer, (told, 0.0, False))[2]:
                self._left[told.peer] = (told, now_s - max(0, now_ms - told.sequence) / 1e3, True)
        for peer, told in self._known.items():
            if peer not in here and peer not in self._left:
                self._left[peer] = (told, now_s, False)
        self._known = here
        self._left = {
            peer: (told, since_s, goodbye)
            for peer, (told, since_s, goodbye) in self._left.items()
            if peer not in here and now_s - since_s < REMEMBER_S
        }
        return tuple(
            Left(told, now_s - since_s, goodbye)
            for told, since_s, goodbye in sorted(self._left.values(), key=lambda each: -each[1])
        )

    def _unheard(self, announced: Sequence[Announcement]) -> float:
        newest = max((each.sequence for each in announced), default=0)
        now_s = trio.current_time()
        if newest != self._newest:
            self._newest, self._newest_s = newest, now_s
        unheard_s = now_s - self._newest_s
        return unheard_s if unheard_s > UNHEARD_S else 0.0


async def _with_each(
    nodes: Sequence[Announcement], step: Callable[[Announcement], Awaitable[None]], at_once: int
) -> None:
    """Take a step with each node; one that can't be reached, or takes too long, is passed over."""
    limit = trio.CapacityLimiter(at_once)

    async def one(node: Announcement) -> None:
        async with limit:
            with trio.move_on_after(REACH_S):
                try:
                    await step(node)
                except (UnavailableError, PeerError):
                    return

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(one, node)


def _seen(coverage: Coverage) -> Model:
    try:
        return Model(coverage, tuple(route(coverage.nodes, coverage.kind.model)), "")
    except UnavailableError as exc:
        return Model(coverage, (), exc.message)


def _node(each: Announcement, round_trip_ms: float | None, now_ms: int) -> dict[str, Any]:
    return {
        "peer": each.peer,
        "addresses": list(each.addresses),
        "model": each.model,
        "model_name": each.model_name,
        "layers": f"{each.start}:{each.end}",
        "model_layers": each.layers,
        "dtype": each.dtype,
        "quantize": each.quantize,
        "tokens_per_s": each.tokens_per_s,
        "layer_tokens_per_s": each.layer_tokens_per_s,
        "sessions": each.sessions,
        "waiting": each.waiting,
        "cached_tokens": each.cached_tokens,
        "free_tokens": each.free_tokens,
        "resident_bytes": each.resident_bytes,
        "weight_bytes": each.weight_bytes,
        "draining": each.draining,
        "engine": each.engine,
        "round_trips": dict(each.round_trips),
        "round_trip_ms": round_trip_ms,
        "expires_in_s": round((each.expires - now_ms) / 1000, 1),
    }


def _model(each: Model) -> dict[str, Any]:
    coverage = each.coverage
    slowest = coverage.slowest
    return {
        "model": coverage.kind.model,
        "model_name": coverage.model_name,
        "layers": coverage.kind.layers,
        "dtype": coverage.kind.dtype,
        "quantize": coverage.kind.quantize,
        "nodes": len(coverage.nodes),
        "stages": len(each.stages),
        "why": each.why,
        "route": [
            {"peer": stage.peer, "layers": f"{stage.start}:{stage.end}", "to_next_ms": each.hop_ms(index)}
            for index, stage in enumerate(each.stages)
        ],
        "replicas": [{"layers": f"{run.start}:{run.end}", "nodes": run.nodes} for run in coverage.replicas],
        "gaps": [str(gap) for gap in coverage.gaps],
        "slowest_layer": slowest and {"layers": str(slowest.layers), "tokens_per_s": round(slowest.tokens_per_s, 2)},
        "tokens_per_s": coverage.tokens_per_s,
        "sessions": coverage.sessions,
        "waiting": coverage.waiting,
        "free_tokens": coverage.free_tokens,
    }
