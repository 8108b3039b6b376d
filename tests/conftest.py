"""What all tests share: small checkpoints, made once."""

from pathlib import Path

import pytest

from tests import checkpoints

FIRST = ("integration/test_churn", "integration/", "shard/", "contract_model/", "ledger/")
"""Where the modules lie that take longest, under `tests/`: these are handed out first, in this order."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the longest modules begin first: one that begins last leaves the other cores idle."""
    here = Path(__file__).parent

    def turn(item: pytest.Item) -> int:
        name = item.path.relative_to(here).as_posix()
        return next((place for place, prefix in enumerate(FIRST) if name.startswith(prefix)), len(FIRST))

    items.sort(key=turn)


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory):
    """A function from an architecture's name to the directory of a small fp32 checkpoint of it."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = checkpoints.save(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return get
