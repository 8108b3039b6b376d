"""Routes for the sessions that this peer owns: over what is known of the swarm, past those that failed lately."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import trio

from p2pos.errors import UnavailableError
from p2pos.shard.backoff import Backoff
from p2pos.shard.routing import View, patch, route
from p2pos.types import ModelId, PeerId
from p2pos.wire.messages import Announcement, StageRef

Known = Callable[[], Sequence[Announcement]]
"""Gives what is believed of the swarm now."""
Refresh = Callable[[], Awaitable[Sequence[Announcement]]]
"""Asks anew, in bounded time; raises nothing of its own."""

MAX_FAILED = 4096
"""Peers that failed whose last word is remembered, as many as `Backoff` remembers."""
GAP = "gap-{}"
"""The peer of a stage that nobody holds; no peer id looks like this."""


async def _nothing_new() -> Sequence[Announcement]:
    return ()


@dataclass(slots=True)
class Routes:
    """Finds routes, and remembers whom to avoid.

    Args:
        known: what is believed of the swarm.
        refresh: for a peer that isn't told by itself: asks anew.
        view: what this peer measured itself.

    """

    known: Known = list
    refresh: Refresh = _nothing_new
    backoff: Backoff = field(default_factory=Backoff)
    view: Callable[[], View] = View
    _last: dict[PeerId, int] = field(default_factory=dict)
    """What a peer that failed had announced last: its sequence."""

    def choose(self, model: ModelId) -> list[StageRef]:
        """A route for a new session. Raises UnavailableError where there is none."""
        announcements = self.known()
        try:
            return route(announcements, model, avoid=self.backoff.avoided(trio.current_time()), view=self.view())
        except UnavailableError:
            return route(announcements, model, view=self.view())  # better one that failed lately than none

    def failed(self, peer: PeerId) -> None:
        """A peer did not do what was asked of it."""
        self.backoff.failed(peer, trio.current_time())
        self._last.pop(peer, None)
        self._last[peer] = max((each.sequence for each in self.known() if each.peer == peer), default=0)
        if len(self._last) > MAX_FAILED:
            del self._last[next(iter(self._last))]  # the one that failed longest ago

    async def replace(self, model: ModelId, stages: Sequence[StageRef], lost: frozenset[PeerId]) -> list[StageRef]:
        """The same route with others in the place of those that were lost, who may be they themselves, come back.

        Raises UnavailableError where there is none.
        """
        try:
            return self._replace(self.known(), model, stages, lost)
        except UnavailableError:
            await self.refresh()
        return self._replace(self.known(), model, stages, lost)

    def _replace(
        self, announcements: Sequence[Announcement], model: ModelId, stages: Sequence[StageRef], lost: frozenset[PeerId]
    ) -> list[StageRef]:
        avoided = self.backoff.avoided(trio.current_time())
        silent = frozenset(
            each.peer for each in announcements if each.sequence <= self._last.get(PeerId(each.peer), -1)
        )
        # better one that failed lately than none; but one that has not been heard of since would fail again at once
        for avoid in (avoided | silent, silent):
            try:
                return patch(announcements, stages, lost, model, avoid=avoid, view=self.view())
            except UnavailableError:
                pass
        back = {each.peer for each in announcements if each.peer in lost and self._is_back(each)}
        torn = [
            StageRef(GAP.format(index), [], stage.start, stage.end) if stage.peer in lost else stage
            for index, stage in enumerate(stages)
        ]
        gaps = frozenset(stage.peer for stage in torn) - {stage.peer for stage in stages}
        return patch(announcements, torn, gaps, model, avoid=(lost | silent) - back, view=self.view())

    def _is_back(self, announced: Announcement) -> bool:
        """Whether a peer that was lost has said since that it serves."""
        return not announced.draining and announced.sequence > self._last.get(
            PeerId(announced.peer), announced.sequence
        )
