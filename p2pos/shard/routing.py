"""Which nodes a session passes through: whole spans that join, as few as can be, the least busy first. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TypeAlias

from p2pos.errors import UnavailableError
from p2pos.types import LayerSpan
from p2pos.wire.messages import Announcement, StageRef

_Chain: TypeAlias = tuple[tuple[int, int, tuple[str, ...]], list[Announcement]]
"""Cost (hops, sessions, peers in order) and the nodes."""


def route(announcements: Iterable[Announcement], model: str, *, avoid: frozenset[str] = frozenset()) -> list[StageRef]:
    """A chain of nodes whose spans join from layer 0 to the model's last.

    Args:
        announcements: of nodes believed to be there; those of other models are passed over.
        model: the model's id.
        avoid: peers not to use.

    Returns:
        The stages, head first. Fewest hops win, then fewest sessions, then peer ids in order, so that the choice
        is the same wherever it is made.

    Raises:
        UnavailableError: some layer is served by nobody; it says which.

    """
    mine = [each for each in announcements if each.model == model and each.peer not in avoid and not each.goodbye]
    if not mine:
        raise UnavailableError(f"nobody serves the model {model}", hint="see `p2pos swarm status`", model=model)
    # stages that compute in different dtypes can't pass hidden states to one another; a stage of other quantization
    # could, but whoever takes its place later would go on with other numbers, and so perhaps with another text; and a
    # node that is wrong about how many layers there are is no hindrance to those that agree
    alike: dict[tuple[str, str, int], list[Announcement]] = defaultdict(list)
    for each in mine:
        alike[each.dtype, each.quantize, each.layers].append(each)
    chains = [_best_chain(group, layers) for (_, _, layers), group in alike.items()]
    found = [chain for chain in chains if chain is not None]
    if not found:
        layers, _ = Counter(each.layers for each in mine).most_common(1)[0]
        raise UnavailableError(
            f"no chain of nodes covers layers 0:{layers}: {_gap(mine, layers)}",
            hint="see `p2pos swarm status`",
            model=model,
        )
    _, stages = min(found, key=lambda chain: chain[0])
    return [StageRef(each.peer, list(each.addresses), each.start, each.end) for each in stages]


def _best_chain(announcements: list[Announcement], layers: int) -> _Chain | None:
    """The cheapest chain of these nodes from layer 0 to the last, with its cost; None where there is none."""
    starting: dict[int, list[Announcement]] = defaultdict(list)
    for each in announcements:
        if each.start < each.end <= layers:
            starting[each.start].append(each)
    # shortest path from the last layer back to 0; the cost of a stage is one hop, then its sessions
    best: dict[int, _Chain] = {layers: ((0, 0, ()), [])}
    for start in sorted(starting, reverse=True):
        options = []
        for each in starting[start]:
            if each.end in best:
                (hops, sessions, peers), rest = best[each.end]
                if each.peer not in peers:
                    options.append(((hops + 1, sessions + each.sessions, (each.peer, *peers)), [each, *rest]))
        if options:
            best[start] = min(options, key=lambda option: option[0])
    return best.get(0)


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


def _gap(announcements: list[Announcement], layers: int) -> str:
    covered = {layer for each in announcements for layer in range(each.start, each.end)}
    missing = [layer for layer in range(layers) if layer not in covered]
    if missing:
        return f"nobody serves layer{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))}"
    return "their spans do not join end to end in one dtype and quantization"
