from typing import Any

import pytest

from p2pos.cli.generate import Wish, _sampling
from p2pos.node.client import ModelFiles
from p2pos.types import ModelId
from p2pos.wire.messages import Sampling

AUTHOR = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.05}


@pytest.mark.parametrize(
    ("author", "person", "expected"),
    [
        ({}, {}, Sampling()),
        ({}, {"temperature": 0.5, "seed": 7}, Sampling(temperature=0.5, seed=7)),
        (AUTHOR, {}, Sampling(0.6, 0.95, 20, 1.05)),
        (AUTHOR, {"temperature": 0.0}, Sampling(0.0, 0.95, 20, 1.05)),
        (AUTHOR, {"top_k": 0, "top_p": 1.0}, Sampling(0.6, 1.0, 0, 1.05)),
        (AUTHOR | {"do_sample": False}, {}, Sampling(repetition_penalty=1.05)),
    ],
    ids=range(6),
)
def test_a_flag_counts_before_the_models_author(
    author: dict[str, Any], person: dict[str, Any], expected: Sampling
) -> None:
    """generation_config.json says how to sample; a flag replaces its own value and no other."""
    files = ModelFiles(ModelId("m"), {"vocab_size": 100}, author, None)
    assert _sampling(files, Wish("", 1, person, (), ids=False, quiet=True, patience_s=1.0)) == expected
