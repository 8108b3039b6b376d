"""One text through a swarm in which something fails meanwhile, as its owner gets it."""

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import trio

from p2pos.errors import InternalError, P2posError
from p2pos.node.visitor import Visitor, visit
from p2pos.shard.request import Request
from p2pos.types import ModelId
from p2pos.wire.messages import StageRef

Fault: TypeAlias = Callable[[Sequence[StageRef]], Awaitable[None]]
"""Makes something fail, given the route that the text began over."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A text, and when its tokens came: all times in seconds of trio's clock."""

    tokens: tuple[int, ...]
    finish_reason: str
    began_s: float
    arrivals_s: tuple[float, ...]
    failed_s: float | None
    """When the fault began."""
    unhurt: int
    """Tokens that were there before the fault had taken effect."""
    error: P2posError | None
    """What the owner was told in place of the rest of the text."""
    causes: tuple[str, ...] = ()
    """Why each stage that was replaced was, in order: `lost`, `hung`, `nonsense` …"""

    @property
    def pause_s(self) -> float:
        """The longest time without a token, of those that end after the fault began."""
        if self.failed_s is None:
            raise InternalError("nothing failed in this trial")
        times_s = (self.began_s, *self.arrivals_s)
        return max(later - sooner for sooner, later in itertools.pairwise(times_s) if later >= self.failed_s)


async def attempt(
    visitor: Visitor, model: ModelId, stages: Sequence[StageRef], request: Request, *, after: int, fault: Fault | None
) -> Trial:
    """Write a text over this route, and have something fail.

    Args:
        visitor: a connection to the swarm.
        model: its model.
        stages: the route to begin with.
        request: prompt and sampling.
        after: call `fault` after so many tokens; 0: at once, and it waits for its moment itself.
        fault: makes something fail; None for nothing.

    """
    tokens: list[int] = []
    arrivals_s: list[float] = []
    failed_s: float | None = None
    unhurt = 0
    error: P2posError | None = None
    causes: list[str] = []

    def note(event: str, fields: Mapping[str, Any]) -> None:
        if event == "lost":
            causes.append(fields["cause"])

    async def fail() -> None:
        nonlocal failed_s, unhurt
        if fault is None:
            return
        began = trio.current_time()
        await fault(stages)
        failed_s = began if after else trio.current_time()
        unhurt = len(tokens)

    visitor.client.on_note = note
    began_s = trio.current_time()
    async with trio.open_nursery() as nursery, visitor.client.generate(model, stages, request) as generation:
        if not after:
            nursery.start_soon(fail)
        try:
            async for token in generation:
                arrivals_s.append(trio.current_time())
                tokens.append(token)
                if len(tokens) == after:
                    nursery.start_soon(fail)
        except P2posError as exc:
            error = exc
    return Trial(
        tuple(tokens), generation.finish_reason, began_s, tuple(arrivals_s), failed_s, unhurt, error, tuple(causes)
    )


async def text(addresses: Sequence[str], request: Request, *, after: int = 0, fault: Fault | None = None) -> Trial:
    """The same as a new peer that joins through these addresses, over the route that it finds best."""
    async with visit(addresses) as visitor:
        model = visitor.choose_model("")
        stages = visitor.client.routes.choose(model)
        return await attempt(visitor, model, stages, request, after=after, fault=fault)
