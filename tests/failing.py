"""Six real nodes, two to a span, that fail and come back; and texts that go through those that a test names."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import trio

from bench import netns
from bench.faults import Cluster, Node, cluster
from bench.trial import Fault, Trial, attempt
from p2pos.node.visitor import visit
from p2pos.shard.request import Request
from p2pos.types import ModelId
from p2pos.wire.messages import Sampling, StageRef

HEAD, MIDDLE, TAIL = 0, 1, 2
SPANS = ("0:2", "2:4", "4:6")
TOKENS = 80
AFTER = 16
"""Tokens after which a fault comes, where it comes in mid-sentence."""
VOCABULARY = 3540
"""Of the model that `checkpoints.save_chat` makes."""
GREEDY = Request((17, 101, 5, 88, 240, 33, 9, 150, 77, 12), TOKENS, vocabulary=VOCABULARY)
SAMPLED = replace(GREEDY, sampling=Sampling(temperature=1.0, top_p=0.95, seed=7, repetition_penalty=1.2))
LONG = Request(tuple(3 + number * 7 % 2000 for number in range(6000)), 8, vocabulary=VOCABULARY)
"""Its prompt takes seconds, and passes through each stage in some fifty pieces."""
UNDER_WAY = 512
"""Positions in a stage's cache that show a long prompt to be under way there."""
APPEARS_S = 60.0
"""For a node that came back to be known to the others."""


class Swarm:
    """Two nodes for each third of a model.

    Attributes:
        pairs: by span, the node that texts go through unless a test says otherwise, and its spare, which may be told
            to lie.

    """

    def __init__(self, nodes: Cluster, directory: Path) -> None:
        self._nodes = nodes
        self._directory = directory
        self.pairs: list[tuple[Node, Node]] = []
        self._coming: list[Node] = []
        self._due: dict[str, tuple[int, ...]] = {}
        for index, span in enumerate(SPANS):
            self._orders(index).write_text("")
            words = ("tests.hostile", str(self._orders(index)))
            self.pairs.append((nodes.add(span), nodes.add(span, words=words)))
        nodes.start(*(node for pair in self.pairs for node in pair))

    def route(self) -> list[Node]:
        """One node of each span that serves, the first where both do."""
        for pair in self.pairs:
            if not any(node.serves for node in pair):
                self._wait(next(node for node in pair if node in self._coming))
        return [next(node for node in pair if node.serves) for pair in self.pairs]

    def addresses(self) -> list[str]:
        """Of all that serve."""
        return self._nodes.addresses()

    def lie(self, index: int, kind: str, position: int) -> None:
        """Have the spare of a span send nonsense from this position on."""
        self._orders(index).write_text(f"{kind} {position}")

    def recover(self) -> None:
        """Undo whatever was done to any of them. Those that are gone start again; `whole` waits for them."""
        for index, pair in enumerate(self.pairs):
            self._orders(index).write_text("")
            for node in pair:
                node.recover()
                if not node.alive:
                    self.restart(node)

    def restart(self, node: Node) -> None:
        """Start a node that is gone, and don't wait."""
        node.launch(self.addresses())
        self._coming.append(node)

    def pair(self, place: int) -> tuple[Node, Node]:
        """Both nodes of a span, and who comes first, once both serve."""
        for node in self.pairs[place]:
            self._wait(node)
        return self.pairs[place]

    def whole(self) -> None:
        """Wait until all six serve, know one another, and hold nothing."""
        for node in list(self._coming):
            self._wait(node)
        self._nodes.settle()

    def due(self, request: Request) -> tuple[int, ...]:
        """The text as it is where nothing fails."""
        if repr(request) not in self._due:
            trial = self.text(request)
            assert trial.error is None
            self._due[repr(request)] = trial.tokens
        return self._due[repr(request)]

    def text(
        self,
        request: Request,
        fail: Callable[[], None] | None = None,
        *,
        route: Sequence[Node] = (),
        after: int = AFTER,
    ) -> Trial:
        """Write a text through these nodes, or the usual ones, and call `fail` in another thread after some tokens."""

        async def fault(_: Sequence[StageRef]) -> None:
            if fail is not None:
                await trio.to_thread.run_sync(fail)

        return trio.run(self._text, request, fault if fail is not None else None, route or self.route(), after)

    async def _text(self, request: Request, fault: Fault | None, route: Sequence[Node], after: int) -> Trial:
        async with visit(self.addresses()) as visitor:
            serving = {node.peer for pair in self.pairs for node in pair if node.serves}
            with trio.fail_after(APPEARS_S):
                while not serving <= (known := {each.peer: each for each in await visitor.refresh()}).keys():
                    pass
            chosen = [known[node.peer] for node in route]
            stages = [StageRef(each.peer, list(each.addresses), each.start, each.end) for each in chosen]
            return await attempt(visitor, ModelId(chosen[0].model), stages, request, after=after, fault=fault)

    def _wait(self, node: Node) -> None:
        if node in self._coming:
            node.wait_ready()
            self._coming.remove(node)

    def _orders(self, index: int) -> Path:
        return self._directory / f"orders-{index}"


def when_under_way(node: Node, fail: Callable[[], None]) -> Callable[[], None]:
    """Wait until a long prompt is under way at this node, then fail."""

    def wait_and_fail() -> None:
        while node.status()["cached_tokens"] < UNDER_WAY:
            pass
        fail()

    return wait_and_fail


@contextmanager
def failing_swarm(directory: Path, model: Path) -> Iterator[Swarm]:
    """Six nodes, each with a network of its own where this machine can make those."""
    with ExitStack() as stack:
        net = None if netns.why_not() else stack.enter_context(netns.network())
        nodes = stack.enter_context(
            cluster(directory / "nodes", model, "--dtype", "f32", cache=directory / "cache", net=net)
        )
        yield Swarm(nodes, directory)
