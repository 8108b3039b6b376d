"""Whether an owner's order can be: what an `Open` or a `Repair` says of a route and of a text. Pure."""

from collections.abc import Sequence
from itertools import pairwise

from p2pos.errors import PeerError
from p2pos.types import PeerId
from p2pos.wire.messages import BLOCK_TOKENS, Open, Repair, StageRef


def known(order: Open) -> int:
    """Positions whose tokens the owner knows; the tail samples after them."""
    return max(order.prompt_length, order.resume)


def room(order: Open) -> int:
    """Positions that the session may come to hold."""
    return order.prompt_length + order.max_tokens


def check(order: Open, *, me: PeerId, sender: PeerId) -> None:
    """Raise PeerError where an order contradicts itself, or isn't for this peer or from its owner."""
    if order.owner != sender:
        raise PeerError(sender, f"opened a session for {order.owner}")
    _check_route(order.stages, order.index, me=me, sender=sender)
    end = known(order)
    if len(order.history) > order.prompt_length:
        raise PeerError(sender, f"sent a history of {len(order.history)} tokens")
    if len(order.prefix) > end // BLOCK_TOKENS:
        raise PeerError(sender, f"sent {len(order.prefix)} keys for a prompt of {end} tokens")
    if end >= room(order):
        raise PeerError(sender, f"goes on at {end}, where its {order.max_tokens} tokens have ended")
    if len(order.given) != (end - order.prompt_length if order.index == len(order.stages) - 1 else 0):
        raise PeerError(sender, f"gave {len(order.given)} tokens up to position {end}")


def check_repair(order: Open, repair: Repair, *, me: PeerId) -> None:
    """Raise PeerError where a session can't go on over this route as it was opened by that order."""
    _check_route(repair.stages, repair.index, me=me, sender=PeerId(order.owner))
    mine, place = order.stages[order.index], repair.stages[repair.index]
    if (place.start, place.end) != (mine.start, mine.end):
        raise PeerError(order.owner, "moved a session to other layers")
    if repair.stages[0].start != 0 or repair.stages[-1].end != order.stages[-1].end:
        raise PeerError(order.owner, "repaired a route so that it is not whole")


def _check_route(stages: Sequence[StageRef], index: int, *, me: PeerId, sender: PeerId) -> None:
    """Raise PeerError where the stages don't join, or this peer isn't the one at the index."""
    if index >= len(stages) or stages[index].peer != me:
        raise PeerError(sender, "opened a session at a stage that is not this peer")
    if any(left.end != right.start for left, right in pairwise(stages)):
        raise PeerError(sender, "opened a session over layers that do not join")
    if any(stage.start >= stage.end for stage in stages):
        raise PeerError(sender, "opened a session with a stage that has no layers")
