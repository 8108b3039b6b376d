from typing import Any

import pytest
import trio

from p2pos.errors import UnavailableError
from p2pos.node.routes import Routes
from p2pos.types import ModelId, PeerId
from p2pos.wire.messages import Announcement, StageRef

ONLY = PeerId("the-only-node")
STAGES = [StageRef(ONLY, [], 0, 6)]


def announced(sequence: int, **changes: Any) -> Announcement:
    values: dict[str, Any] = {
        "peer": ONLY,
        "addresses": [],
        "sequence": sequence,
        "expires": sequence + 1000,
        "model": "m",
        "model_name": "m",
        "layers": 6,
        "start": 0,
        "end": 6,
        "dtype": "f32",
        "tokens_per_s": 0.0,
        "sessions": 0,
        "cached_tokens": 0,
        "resident_bytes": 0,
        "weight_bytes": 0,
    }
    return Announcement(**{**values, **changes})


def test_a_node_is_back_when_it_says_that_it_serves() -> None:
    """One that was lost is no route again for saying that it serves nobody now, but for saying that it does."""

    async def main() -> None:
        known = [announced(1)]
        routes = Routes(lambda: known)
        routes.failed(ONLY)
        known[0] = announced(2, draining=True)
        with pytest.raises(UnavailableError):
            await routes.replace(ModelId("m"), STAGES, frozenset([ONLY]))
        known[0] = announced(3)
        assert await routes.replace(ModelId("m"), STAGES, frozenset([ONLY])) == STAGES

    trio.run(main)
