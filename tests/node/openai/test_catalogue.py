from typing import Any

import pytest
import trio

from p2pos.errors import UnavailableError
from p2pos.node.client import ModelFiles
from p2pos.node.openai.catalogue import MAX_MODELS, Catalogue
from p2pos.node.openai.errors import ApiError
from p2pos.node.openai.jobs import Planner
from p2pos.node.openai.templates import Renderer
from p2pos.types import ModelId
from p2pos.wire.messages import Announcement, StageRef


def announced(peer: str, model: str, name: str, start: int = 0, end: int = 6, **changes: Any) -> Announcement:
    values: dict[str, Any] = {
        "peer": peer,
        "addresses": [],
        "sequence": 1_700_000_000_000,
        "expires": 1_800_000_000_000,
        "model": model,
        "model_name": name,
        "layers": 6,
        "start": start,
        "end": end,
        "dtype": "bf16",
        "tokens_per_s": 0.0,
        "sessions": 0,
        "cached_tokens": 0,
        "resident_bytes": 0,
        "weight_bytes": 0,
    }
    return Announcement(**{**values, **changes})


def catalogue(*known: Announcement) -> Catalogue:
    async def fetch(stage: StageRef, model: ModelId) -> ModelFiles:
        raise UnavailableError(f"{stage.peer} is not there")

    return Catalogue(lambda: known, fetch)


def names(found: Catalogue) -> list[str]:
    return [each.name for each in found.served()]


def test_only_whole_models_are_served() -> None:
    """A model that lacks a layer, or whose node has said goodbye, is not there, and asking for it says what is."""
    found = catalogue(
        announced("peer-aaa", "id-whole", "whole", 0, 3),
        announced("peer-bbb", "id-whole", "whole", 3, 6),
        announced("peer-ccc", "id-half", "half", 0, 3),
        announced("peer-ddd", "id-gone", "gone", goodbye=True),
    )
    assert names(found) == ["whole"]
    assert found.find("whole") == found.find("id-whole")
    for name in ("half", "id-half", "gone", ""):
        with pytest.raises(ApiError, match="there is: whole") as caught:
            found.find(name)
        assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_models_of_one_name_go_by_their_ids() -> None:
    """Nobody gets another's model by a name that two have; what most nodes say is a model's name."""
    found = catalogue(announced("peer-aaa", "id-1", "same"), announced("peer-bbb", "id-2", "same"))
    assert names(found) == ["id-1", "id-2"]
    with pytest.raises(ApiError):
        found.find("same")
    several = [announced(f"peer-{peer}aa", "id-1", name) for peer, name in enumerate(["odd", "usual", "usual"])]
    assert names(catalogue(*several)) == ["usual"]


def test_an_id_is_nobody_elses_name() -> None:
    """A model that calls itself by another's id isn't taken for it."""
    found = catalogue(announced("peer-aaa", "id-1", "one"), announced("peer-bbb", "id-0", "id-1"))
    assert found.find("id-1").model == "id-1"


def test_a_model_keeps_the_time_that_it_was_first_heard_of() -> None:
    """Later announcements don't change it."""
    known = [announced("peer-aaa", "id-1", "one")]
    found = Catalogue(lambda: known, None)  # type: ignore[arg-type]  # nothing is fetched
    first = found.served()[0].since_s
    known[0] = announced("peer-aaa", "id-1", "one", sequence=1_790_000_000_000)
    assert found.served()[0].since_s == first == 1_700_000_000


class Library:
    """Gives files, and notes whom it was asked of."""

    def __init__(self, *, broken: str = "") -> None:
        self.asked: list[str] = []
        self.broken = broken

    async def fetch(self, stage: StageRef, model: ModelId) -> ModelFiles:
        self.asked.append(stage.peer)
        await trio.lowlevel.checkpoint()
        if stage.peer == self.broken:
            raise UnavailableError(f"{stage.peer} is not there")
        return ModelFiles(model, {"vocab_size": 10}, {}, None)


def test_files_are_fetched_once() -> None:
    """However many ask at a time; where a node fails, from the next one of the route."""
    library = Library(broken="peer-aaa")
    known = [announced("peer-aaa", "id-1", "one", 0, 3), announced("peer-bbb", "id-1", "one", 3, 6)]
    found = Catalogue(lambda: known, library.fetch)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(found.known, ModelId("id-1"))

    trio.run(main)
    assert library.asked == ["peer-aaa", "peer-bbb"]


def test_files_that_nobody_gives_are_an_error() -> None:
    """The last node's reason is told, and the next request tries again."""
    found = catalogue(announced("peer-aaa", "id-1", "one"))
    for _ in range(2):
        with pytest.raises(UnavailableError, match="peer-aaa is not there"):
            trio.run(found.known, ModelId("id-1"))


def test_the_files_of_few_models_are_kept() -> None:
    """Those that were used least lately are fetched again."""
    library = Library()
    known = [announced(f"peer-{index:03}", f"id-{index}", f"model-{index}") for index in range(MAX_MODELS + 1)]
    found = Catalogue(lambda: known, library.fetch)

    async def main() -> None:
        for index in range(MAX_MODELS):
            await found.known(ModelId(f"id-{index}"))
        await found.known(ModelId("id-0"))
        await found.known(ModelId(f"id-{MAX_MODELS}"))  # id-1 makes room for it
        await found.known(ModelId("id-0"))
        await found.known(ModelId("id-1"))

    trio.run(main)
    assert library.asked == [*(f"peer-{index:03}" for index in range(MAX_MODELS + 1)), "peer-001"]


def test_a_model_without_a_tokenizer_cannot_be_used_with_text() -> None:
    """Neither to chat nor to complete."""
    found = Catalogue(lambda: [announced("peer-aaa", "id-1", "one")], Library().fetch)

    async def main() -> None:
        planner = Planner(found, Renderer())
        with pytest.raises(ApiError, match="no tokenizer"):
            await planner.completion(b'{"model": "one", "prompt": [1]}')
        with pytest.raises(ApiError, match="no tokenizer"):
            await planner.chat(b'{"model": "one", "messages": [{"role": "user", "content": "x"}]}')

    trio.run(main)
