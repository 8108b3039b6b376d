"""Which layers a node with `--layers auto` serves: at the start, and later, when others would gain by its moving.

Nobody tells it; it reads the announcements. So that not everyone runs to the same gap, those who could go have turns,
which follow from their peer ids and the gap and are the same wherever they are reckoned; whoever goes says so first,
and the others see it before their turn. A move is looked at again when its turn has come, before the sessions are sent
away, and before the old layers are let go.
"""

import random
import statistics
from collections.abc import Callable, Sequence

import trio

from p2pos import log
from p2pos.errors import P2posError
from p2pos.node.loading import Source
from p2pos.node.serving import Seat
from p2pos.shard.placement import Move, Node, Placed, Swarm, better, choose, turn
from p2pos.types import LayerSpan, PeerId
from p2pos.wire.messages import Announcement

LOOK_S = 1.0
"""Seconds between two looks at whether layers are missing."""
CONSIDER_S = 45.0
"""Seconds between two considerations whether others gain by a move, where none are missing; half as many to half as
many again, so that nodes that started together drift apart."""
PATIENCE_S = 2.0
"""Seconds that layers are to be missing before anyone moves: a node that is restarted is back by then."""
TURN_S = 2.0
"""Seconds between two turns: what one says has reached the others by then."""
LAST_TURN = 30
"""Who would come later comes at a time by chance within as long again."""
DRAIN_S = 30.0
"""Seconds that a move gives the sessions to go elsewhere: nobody waits for it, as one does for a node to end."""

_log = log.get("placing")


class Placing:
    """Chooses and changes a node's layers.

    Args:
        me: this node's peer id.
        source: the model.
        seat: where the layers are served.
        known: the announcements that this node believes, its own included.
        most: layers that its memory holds.

    """

    def __init__(
        self, me: PeerId, source: Source, seat: Seat, known: Callable[[], Sequence[Announcement]], most: int
    ) -> None:
        self._me = me
        self._source = source
        self._seat = seat
        self._known = known
        self._most = most

    def first(self) -> LayerSpan:
        """The span to begin with."""
        others = self._others()
        span = choose(self._swarm(others), Node(self._rate(others), self._most))
        _log.info("choosing layers", layers=str(span), at_most=self._most, others=len(others))
        return span

    async def run(self) -> None:
        """Move when it is time to, until cancelled."""
        while True:
            move = await self._wait_for_reason()
            others = self._others()
            place = turn(self._me, ((each.peer, each.sessions) for each in (*others, *self._own())), str(move.span))
            waits_s = TURN_S * (place if place < LAST_TURN else LAST_TURN * random.uniform(1.0, 2.0))
            _log.debug("would move", to=str(move.span), urgent=move.urgent, turn=place)
            await trio.sleep(waits_s + PATIENCE_S)
            again = self._better()
            if again is None or again.urgent != move.urgent:
                continue
            try:
                await self._seat.move(again.span, deadline_s=DRAIN_S, still=self._harmless)
            except P2posError as exc:
                _log.warning("could not move", to=str(again.span), why=str(exc))

    async def _wait_for_reason(self) -> Move:
        """Until there is a move to be made: at once where layers are missing, else now and then."""
        consider_s = trio.current_time() + random.uniform(0.5, 1.5) * CONSIDER_S
        while True:
            await trio.sleep(LOOK_S)
            others = self._others()
            if trio.current_time() < consider_s and not self._missing(others):
                continue
            consider_s = trio.current_time() + random.uniform(0.5, 1.5) * CONSIDER_S
            move = self._better()
            if move is not None:
                return move

    def _better(self) -> Move | None:
        others = self._others()
        return better(self._swarm(others), self._placed(others), self._most)

    def _missing(self, others: Sequence[Announcement]) -> int:
        swarm = self._swarm(others)
        swarm.add(self._placed(others))
        return swarm.missing

    def _harmless(self) -> bool:
        """Whether the swarm stays as whole as it is without this node, by those who serve now."""
        serving = [each for each in self._others() if not each.draining]
        swarm = self._swarm(serving)
        without = swarm.missing
        swarm.add(self._placed(serving))
        return without == 0 or swarm.missing > 0

    def _placed(self, others: Sequence[Announcement]) -> Placed:
        return Placed(self._rate(others), self._seat.span.start, self._seat.span.end)

    def _rate(self, others: Sequence[Announcement]) -> float:
        """What this node measured, before that what is usual."""
        return self._seat.rate or _usual(others)

    def _others(self) -> list[Announcement]:
        """Those of this node's kind who serve, and those who are about to: they drain, and hold no weights yet."""
        config = self._source.config
        kind = (self._source.model, config.dtype, config.quantize, self._source.layers)
        return [
            each
            for each in self._known()
            if each.peer != self._me
            and (each.model, each.dtype, each.quantize, each.layers) == kind
            and not each.engine
            and not (each.draining and each.weight_bytes)
        ]

    def _own(self) -> list[Announcement]:
        return [each for each in self._known() if each.peer == self._me]

    def _swarm(self, others: Sequence[Announcement]) -> Swarm:
        usual = _usual(others)
        return Swarm(
            self._source.layers,
            (Placed(each.layer_tokens_per_s or usual, each.start, each.end) for each in others),
        )


def _usual(announcements: Sequence[Announcement]) -> float:
    """Tokens per second that such nodes pass through a layer; 1 where nobody has measured, for then all count alike."""
    rates = [each.layer_tokens_per_s for each in announcements if each.layer_tokens_per_s > 0.0]
    return statistics.median(rates) if rates else 1.0
