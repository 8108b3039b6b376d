import json
from typing import Any

import pytest
import trio

from p2pos.errors import PeerError
from p2pos.models import DEFAULT
from p2pos.node.vetting import vet
from p2pos.types import PeerId

WHOLE = json.loads((DEFAULT / "tokenizer.json").read_bytes())


def changed(*path: str, to: Any) -> bytes:
    """The default model's tokenizer with one entry replaced."""
    value = json.loads(json.dumps(WHOLE))
    place = value
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return json.dumps(value).encode()


def test_a_tokenizer_that_works_passes() -> None:
    """The default model's does."""
    trio.run(lambda: vet(json.dumps(WHOLE).encode(), peer=PeerId("p")))


@pytest.mark.parametrize(
    "tokenizer",
    [
        b"{}",
        # ends the process that reads it: a merge's first bytes are cut off within a character
        changed("model", "continuing_subword_prefix", to="x"),
        # panics when it's used
        changed("pre_tokenizer", to={"type": "FixedLength", "length": 0}),
    ],
    ids=["no tokenizer", "aborts", "panics"],
)
def test_a_tokenizer_that_does_not_is_refused(tokenizer: bytes) -> None:
    """Whatever it does to the process that tries it, this one goes on."""
    with pytest.raises(PeerError, match="whose tokenizer can't be used"):
        trio.run(lambda: vet(tokenizer, peer=PeerId("p")))
