from collections.abc import Iterator

import pytest

from tests.ledger.chains import Ground, running_ground


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """One chain per module: its tests share it, so each says what it needs and uses nonces of its own."""
    with running_ground() as made:
        yield made
