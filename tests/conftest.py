"""What all tests share: small checkpoints, made once."""

from pathlib import Path

import pytest

from tests import checkpoints


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory):
    """A function from an architecture's name to the directory of a small fp32 checkpoint of it."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = checkpoints.save(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return get
