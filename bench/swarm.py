"""Nodes in processes of their own, joined over loopback, and texts that are timed through them.

Every node is a `p2pos node run` with one torch thread. The bench's own process is the client: it has no weights and
only sends and receives tokens.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import trio

from p2pos.devnet import plan
from p2pos.devnet.processes import Command, Process, tied
from p2pos.errors import InternalError
from p2pos.node.visitor import Visitor, visit
from p2pos.shard.request import Request
from p2pos.shard.routing import route
from p2pos.types import LayerSpan, ModelId
from p2pos.wire.messages import StageRef

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Text:
    """One text as it came: all times in seconds of trio's clock."""

    tokens: tuple[int, ...]
    began_s: float
    arrivals_s: tuple[float, ...]

    @property
    def first_s(self) -> float:
        """Seconds from sending `Open` to the first token."""
        return self.arrivals_s[0] - self.began_s

    @property
    def gaps_s(self) -> list[float]:
        """Seconds between each token and the next."""
        return [later - sooner for sooner, later in zip(self.arrivals_s, self.arrivals_s[1:], strict=False)]

    @property
    def token_s(self) -> float:
        """Seconds per token after the first, on average."""
        return (self.arrivals_s[-1] - self.arrivals_s[0]) / (len(self.arrivals_s) - 1)


class Arrivals:
    """When the tokens of one text came, for who wants to know before it is whole."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self._another = trio.Event()

    def add(self, now_s: float) -> None:
        """A token is here."""
        self.times_s.append(now_s)
        self._another.set()
        self._another = trio.Event()

    async def another(self) -> None:
        """Wait for the next token."""
        await self._another.wait()


class Swarm:
    """Running nodes that cover a model, and a client that is connected to them."""

    def __init__(self, visitor: Visitor, model: ModelId, stages: list[StageRef]) -> None:
        self._client = visitor.client
        self._model = model
        self._stages = stages

    async def text(self, prompt: Sequence[int], tokens: int, arrivals: "Arrivals | None" = None) -> Text:
        """Generate so many tokens greedily; `arrivals` is told of each as it comes."""
        chosen, seen = [], arrivals or Arrivals()
        began_s = trio.current_time()
        # no end-of-sequence token: the same number of tokens every time
        async with self._client.generate(self._model, self._stages, Request(tuple(prompt), tokens)) as generation:
            async for token in generation:
                seen.add(trio.current_time())
                chosen.append(token)
        if len(chosen) != tokens:
            raise InternalError(f"{len(chosen)} tokens came in place of {tokens}")
        return Text(tuple(chosen), began_s, tuple(seen.times_s))

    async def texts(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[Text]:
        """The same for several prompts at once."""
        done: dict[int, Text] = {}

        async def one(number: int, prompt: Sequence[int]) -> None:
            done[number] = await self.text(prompt, tokens)

        async with trio.open_nursery() as nursery:
            for number, prompt in enumerate(prompts):
                nursery.start_soon(one, number, prompt)
        return [done[number] for number in range(len(prompts))]


def aggregate_tok_s(texts: Sequence[Text]) -> float:
    """Tokens per second of several texts together, while all of them were being written.

    From the last one's first token to the first one's last; what came before or after had less company.
    """
    begin_s = max(text.arrivals_s[0] for text in texts)
    end_s = min(text.arrivals_s[-1] for text in texts)
    if end_s <= begin_s:
        raise InternalError("the texts were not all under way at once; give them more tokens")
    count = sum(sum(begin_s < arrival_s <= end_s for arrival_s in text.arrivals_s) for text in texts)
    return count / (end_s - begin_s)


Measure: TypeAlias = Callable[[], Awaitable[T]]


async def in_turn(left: Measure[T], right: Measure[T], repeats: int) -> list[tuple[T, T]]:
    """Measure both, one right after the other, so often; who goes first alternates, so that a drift hits both alike."""
    pairs = []
    for number in range(repeats):
        if number % 2:
            second = await right()
            pairs.append((await left(), second))
        else:
            first = await left()
            pairs.append((first, await right()))
    return pairs


@asynccontextmanager
async def swarm(
    directory: Path, model: Path, stages: int, *, cache: Path, device: str, options: Sequence[str] = ()
) -> AsyncIterator[Swarm]:
    """Run a model in so many nodes, its layers spread evenly, for as long as the context lasts.

    Args:
        directory: for the nodes' homes and logs.
        model: the checkpoint.
        stages: how many nodes.
        cache: where the model's manifest is.
        device: `cpu` or `cuda`.
        options: more words for `node run`.

    Raises:
        P2posError: a node ended at its start, with its own last words.

    """
    spans = plan.split_layers(plan.layer_count(model), stages)
    addresses: list[str] = []

    async def start(number: int, span: LayerSpan) -> None:
        name = f"node-{number}"
        argv = tied("p2pos", "--home", str(directory / name), "--log-json", "node", "run", "--model", str(model))
        argv += ("--layers", str(span), "--threads", "1", "--device", device, "--leash", *options)
        for address in addresses[:1]:
            argv += ("--bootstrap", address)
        command = Command(argv, plan.NODE_READY_S, plan.NODE_STOP_S, plan.environment(P2POS_CACHE=str(cache)))
        ready = await nursery.start(Process(name, directory / f"{name}.log", lambda _: None).run, command)
        addresses.append(ready["addresses"][0])

    async with trio.open_nursery() as nursery:
        try:
            await start(0, spans[0])
            async with trio.open_nursery() as starting:
                for number, span in enumerate(spans[1:], 1):
                    starting.start_soon(start, number, span)
            async with visit(addresses) as visitor:
                chosen = visitor.choose_model("")
                found = route(visitor.announcements, chosen)
                if len(found) != stages:
                    raise InternalError(f"the route has {len(found)} stages in place of {stages}")
                yield Swarm(visitor, chosen, found)
        finally:
            nursery.cancel_scope.cancel()
