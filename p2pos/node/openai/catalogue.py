"""What models the swarm serves whole, by which names, over which route, and what their files say."""

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from p2pos.errors import P2posError, UnavailableError
from p2pos.node.client import ModelFiles
from p2pos.node.openai.errors import ApiError
from p2pos.node.openai.texts import Spelling
from p2pos.node.routes import Routes
from p2pos.shard.routing import route
from p2pos.types import ModelId
from p2pos.wire.messages import Announcement, StageRef

MAX_MODELS = 8
"""Models whose files are kept: a tokenizer takes some hundred MB at most."""

FetchFiles = Callable[[StageRef, ModelId], Awaitable[ModelFiles]]
"""Gets a model's files from a node that serves it."""


@dataclass(frozen=True, slots=True)
class Served:
    """A model that the swarm has a whole route for."""

    model: ModelId
    name: str
    """What most of its nodes call it; its id where another model has that name as well."""
    since_s: int
    """When this node first heard of it; seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is needed of a model to write with it."""

    files: ModelFiles
    spelling: Spelling | None
    """None where it has no tokenizer."""


class Catalogue:
    """The models of a swarm.

    Args:
        known: the announcements that this node believes, its own included.
        fetch: gets a model's files from one node.
        routes: finds routes among them.

    """

    def __init__(
        self, known: Callable[[], Sequence[Announcement]], fetch: FetchFiles, routes: Routes | None = None
    ) -> None:
        self._announced = known
        self._routes = routes or Routes(known)
        self._fetch = fetch
        self._fetching: dict[ModelId, trio.Lock] = {}
        """Of the models whose files are being fetched, so that each is fetched once."""
        self._since_s: dict[str, int] = {}
        """Of the models that are served now."""
        self._files: OrderedDict[ModelId, Known] = OrderedDict()

    def served(self) -> list[Served]:
        """The models that there's a whole route for, by name."""
        announced = [each for each in self._announced() if not each.goodbye]
        names: dict[str, Counter[str]] = {}
        for each in announced:
            names.setdefault(each.model, Counter())[each.model_name] += 1
        common = {model: min(count, key=lambda name: (-count[name], name)) for model, count in names.items()}
        shared = Counter(common.values())
        found = []
        for model, name in common.items():
            try:
                route(announced, model)
            except UnavailableError:
                continue
            since_s = self._since_s.get(model) or max(e.sequence for e in announced if e.model == model) // 1000
            found.append(Served(ModelId(model), name if name and shared[name] == 1 else model, since_s))
        self._since_s = {each.model: each.since_s for each in found}
        return sorted(found, key=lambda each: each.name)

    def find(self, wanted: str) -> Served:
        """The model that a request means. Raises ApiError where there's none of that name or id."""
        served = self.served()
        # an id first: anybody may announce a model under the name of another's id
        found = [each for each in served if each.model == wanted] or [each for each in served if each.name == wanted]
        if found:
            return found[0]
        names = ", ".join(each.name for each in served[:20]) or "none"
        raise ApiError(
            404,
            f"the model {wanted[:200]} is not served here; there is: {names}",
            param="model",
            code="model_not_found",
        )

    def route(self, model: ModelId) -> list[StageRef]:
        """The stages to write over now. Raises UnavailableError where a node has left since."""
        return self._routes.choose(model)

    async def known(self, model: ModelId) -> Known:
        """A model's files, from any node of its route. Raises what the last of them failed with."""
        if model in self._files:
            self._files.move_to_end(model)
            return self._files[model]
        lock = self._fetching.setdefault(model, trio.Lock())
        async with lock:
            if model not in self._files:
                files = await self._fetch_any(model)
                self._files[model] = Known(files, None if files.tokenizer is None else Spelling(files.tokenizer))
                if len(self._files) > MAX_MODELS:
                    self._files.popitem(last=False)
            found = self._files[model]
        self._fetching.pop(model, None)
        return found

    async def _fetch_any(self, model: ModelId) -> ModelFiles:
        failed: P2posError = UnavailableError(f"nobody serves the model {model}", model=model)
        for stage in self.route(model):
            try:
                return await self._fetch(stage, model)
            except P2posError as exc:
                failed = exc
        raise failed
