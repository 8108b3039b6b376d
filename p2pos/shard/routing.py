"""Which nodes a session passes through: spans that join, by the least time that a token is expected to take. Pure.

What a token takes at a stage is its layers over the rate that the node measured, longer the more sessions share it;
between two stages half a round trip, as either of them measured it, or estimated from what the asker measured to both.
The hop from the tail back to the head counts as well. Where two routes differ in nothing that was measured, the one of
fewer hops is the cheaper.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from p2pos.errors import UnavailableError
from p2pos.shard.ring import HOP_S, Ring, Server, cheapest
from p2pos.types import LayerSpan
from p2pos.wire.messages import Announcement, StageRef

ROUND_TRIP_MS = 50.0
"""Between two nodes of whom nothing is known: within a continent."""
LAYER_TOKENS_PER_S = 1000.0
"""Of a node that has measured nothing, where no other of its kind has either."""
CROWDING = 0.25
"""How much longer a token takes for each session that shares a stage: eight together take some 1.2 (a whole model on
one node) to 3 times as long as one (two nodes), by `bench streams`."""
WAITING_S = 0.1
"""For each session that waits for room: up to `admission.WAIT_S`, over a text of a hundred tokens."""
NO_ROOM_S = 10.0
"""Where the caches have no room for as many tokens as are wanted: only if there is no other way."""
DRAINING_S = 1000.0
"""Where nothing new is to be begun: not even then, as long as one with room or without is left."""

Group: TypeAlias = tuple[str, str, int, str]
"""Dtype, quantization, layers, and of somebody else's engine its peer: those who can work on one text together.

Stages that compute in different dtypes can't pass hidden states to one another; one of other quantization could, but
whoever took its place later would go on with other numbers, and so perhaps with another text. A node that is wrong
about how many layers there are is no hindrance to those that agree. An engine takes and gives tokens alone.
"""


@dataclass(frozen=True)
class View:
    """What the asker knows by itself."""

    round_trips_ms: Mapping[str, float] = field(default_factory=dict)
    """Peer → milliseconds, as the asker measured them; peers' announcements say the rest."""
    penalties_s: Mapping[str, float] = field(default_factory=dict)
    """Peer → seconds that a token takes longer there than its announcement lets expect."""
    me: str = ""
    """The asker's peer id, where it may be part of the route itself."""


_BLANK = View()


def route(
    announcements: Iterable[Announcement],
    model: str,
    *,
    avoid: frozenset[str] = frozenset(),
    view: View = _BLANK,
    tokens: int = 0,
) -> list[StageRef]:
    """A chain of nodes whose spans join from layer 0 to the model's last.

    Args:
        announcements: of nodes believed to be there; those of other models are passed over.
        model: the model's id.
        avoid: peers not to use.
        view: what the asker measured itself.
        tokens: that the session may come to hold; 0 where that isn't known.

    Returns:
        The stages, head first: the least expected time per token, as far as `ring.MAX_STEPS` reaches. The choice is
        the same wherever it is made from the same announcements and view.

    Raises:
        UnavailableError: some layer is served by nobody; it says which.

    """
    mine = _of_model(announcements, model, avoid)
    if not mine:
        raise UnavailableError(f"nobody serves the model {model}", hint="see `p2pos swarm status`", model=model)
    found = [
        (ring, group)
        for group, members in _groups(mine).items()
        if (ring := cheapest(servers(members, view, tokens), group[2])) is not None
    ]
    if not found:
        layers, _ = Counter(each.layers for each in mine).most_common(1)[0]
        raise UnavailableError(
            f"no chain of nodes covers layers 0:{layers}: {_gap(mine, layers)}",
            hint="see `p2pos swarm status`",
            model=model,
        )
    ring, _ = min(found, key=lambda pair: (pair[0].cost_s, pair[1]))
    return _stages(ring, {each.peer: each for each in mine})


def patch(
    announcements: Iterable[Announcement],
    stages: Sequence[StageRef],
    lost: frozenset[str],
    model: str,
    *,
    avoid: frozenset[str] = frozenset(),
    view: View = _BLANK,
    tokens: int = 0,
) -> list[StageRef]:
    """The same route with other nodes in the place of lost ones.

    Args:
        announcements: as for `route`. What is still known of the lost ones tells which nodes are of their kind.
        stages: the route as it was.
        lost: peers of it that are gone.
        model: the model's id.
        avoid: peers not to use anew; one that is part of the route stays.
        view: what the asker measured itself.
        tokens: that the session may come to hold.

    Returns:
        The stages. Those that aren't lost stay as they are, peer and span, and each gap is filled by one or several
        nodes of the same kind; where that can't be, a whole new route, of the same kind if there is one.

    Raises:
        UnavailableError: there is no such route either.

    """
    everyone = list(announcements)
    usable = _of_model(everyone, model, avoid | lost)
    kind = _kind(everyone, model, stages)
    alike = [each for each in usable if _group(each) == kind]
    kept = {stage.peer: stage for stage in stages if stage.peer not in lost}
    gaps = _gaps(stages, lost)
    fillers = {
        each.peer: each
        for each in alike
        if each.peer not in kept and any(start <= each.start and each.end <= end for start, end in gaps)
    }
    # with these to choose from, no ring is without a stage that stays: nobody else has its layers
    choice = [*_stayers(list(kept.values()), everyone, view), *servers(list(fillers.values()), view, tokens)]
    ring = cheapest(choice, stages[-1].end)
    if ring is not None:
        return [kept.get(each.peer) or _stage_of(fillers[each.peer]) for each in ring.servers]
    # a node that stays is not new to the session, whatever others are to avoid
    usable = _of_model(everyone, model, (avoid - kept.keys()) | lost)
    try:
        return route([each for each in usable if _group(each) == kind], model, view=view, tokens=tokens)
    except UnavailableError:
        return route(usable, model, view=view, tokens=tokens)


def uncovered(announcements: Iterable[Announcement], model: str, layers: int) -> LayerSpan | None:
    """The first run of layers that nobody serves, or None where all are served."""
    covered = {
        layer for each in announcements if each.model == model for layer in range(each.start, min(each.end, layers))
    }
    missing = [layer for layer in range(layers) if layer not in covered]
    if not missing:
        return None
    end = missing[0]
    while end < layers and end not in covered:
        end += 1
    return LayerSpan(missing[0], end)


def _of_model(announcements: Iterable[Announcement], model: str, avoid: frozenset[str]) -> list[Announcement]:
    """The nodes that may be used, in the order of their ids, of each the newest announcement."""
    newest: dict[str, Announcement] = {}
    for each in announcements:
        if each.model == model and each.peer not in avoid:
            known = newest.get(each.peer)
            if known is None or known.sequence < each.sequence:
                newest[each.peer] = each
    return [newest[peer] for peer in sorted(newest) if not newest[peer].goodbye]


def _group(each: Announcement) -> Group:
    return each.dtype, each.quantize, each.layers, each.peer if each.engine else ""


def _groups(announcements: Iterable[Announcement]) -> dict[Group, list[Announcement]]:
    alike: dict[Group, list[Announcement]] = defaultdict(list)
    for each in announcements:
        alike[_group(each)].append(each)
    return alike


def servers(members: Sequence[Announcement], view: View, tokens: int) -> list[Server]:
    """The nodes of one group as the search for the cheapest ring sees them; arguments as for `route`."""
    measured = [each.layer_tokens_per_s for each in members if each.layer_tokens_per_s > 0.0]
    usual = statistics.median(measured) if measured else LAYER_TOKENS_PER_S
    return [
        Server(
            each.peer,
            each.start,
            each.end,
            _stage_s(each, usual, tokens) + view.penalties_s.get(each.peer, 0.0),
            _far_s(each.peer, view),
            _near_ms(each, view),
        )
        for each in members
    ]


def _stage_s(each: Announcement, usual: float, tokens: int) -> float:
    """Seconds that a token takes at a node, by what it says of itself."""
    seconds = (each.end - each.start) / (each.layer_tokens_per_s or usual)
    seconds *= 1.0 + CROWDING * each.sessions
    seconds += WAITING_S * each.waiting
    if each.free_tokens < tokens:
        seconds += NO_ROOM_S
    if each.draining:
        seconds += DRAINING_S
    return seconds


def _far_s(peer: str, view: View) -> float:
    """A node's part of a hop that nobody measured: what is between two is taken as the mean of what is to both."""
    return view.round_trips_ms.get(peer, ROUND_TRIP_MS) / 4e3 + HOP_S / 2


def _near_ms(each: Announcement, view: View) -> Sequence[tuple[str, float]]:
    """Milliseconds of a round trip between a node and those to whom it, or the asker as that node, measured the way."""
    return each.round_trips if each.peer != view.me else list({**dict(each.round_trips), **view.round_trips_ms}.items())


def _stages(ring: Ring, announcements: Mapping[str, Announcement]) -> list[StageRef]:
    return [_stage_of(announcements[server.peer]) for server in ring.servers]


def _stage_of(each: Announcement) -> StageRef:
    return StageRef(each.peer, list(each.addresses), each.start, each.end)


def _kind(announcements: Iterable[Announcement], model: str, stages: Sequence[StageRef]) -> Group | None:
    """The group that a route belongs to, by what its nodes say or said of themselves; None where none is known."""
    peers = {stage.peer for stage in stages}
    layers = stages[-1].end
    kinds = Counter(
        _group(each)
        for each in announcements
        if each.peer in peers and each.model == model and each.layers == layers and not each.engine
    )
    return min(kinds, key=lambda kind: (-kinds[kind], kind), default=None)


def _gaps(stages: Sequence[StageRef], lost: frozenset[str]) -> list[tuple[int, int]]:
    """The runs of layers whose nodes are lost."""
    gaps: list[tuple[int, int]] = []
    for stage in stages:
        if stage.peer not in lost:
            continue
        if gaps and gaps[-1][1] == stage.start:
            gaps[-1] = (gaps[-1][0], stage.end)
        else:
            gaps.append((stage.start, stage.end))
    return gaps


def _stayers(kept: Sequence[StageRef], announcements: Iterable[Announcement], view: View) -> list[Server]:
    """The stages that stay. What they take doesn't count, because it isn't for choice; how near they are does."""
    known = {each.peer: each for each in announcements}
    return [
        Server(
            stage.peer,
            stage.start,
            stage.end,
            0.0,
            _far_s(stage.peer, view),
            _near_ms(known[stage.peer], view) if stage.peer in known else (),
        )
        for stage in kept
    ]


def _gap(announcements: list[Announcement], layers: int) -> str:
    covered = {layer for each in announcements for layer in range(each.start, each.end)}
    missing = [layer for layer in range(layers) if layer not in covered]
    if missing:
        return f"nobody serves layer{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
    return "their spans do not join end to end in one dtype and quantization"
