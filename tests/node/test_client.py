from typing import Any

import pytest

from p2pos.errors import UserError
from p2pos.node.client import ModelFiles, prepare
from p2pos.types import ModelId


def files(**config: Any) -> ModelFiles:
    return ModelFiles(ModelId("m"), {"vocab_size": 100, "max_position_embeddings": 16, **config}, {}, None)


def test_a_text_ends_with_the_context() -> None:
    """More tokens than the context holds are not asked for."""
    assert prepare(files(), [1, 2, 3], 64) == 13
    assert prepare(files(), [1, 2, 3], 5) == 5


@pytest.mark.parametrize(
    ("prompt", "line"),
    [([], "empty"), ([1] * 16, "has 16 tokens; the model's context holds 16"), ([100], "token 100 is not in")],
)
def test_a_prompt_that_cannot_be_continued_is_refused(prompt: list[int], line: str) -> None:
    """Nothing, too much, or what is no token."""
    with pytest.raises(UserError, match=line):
        prepare(files(), prompt, 4)


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [2, 3]}, {"eos_token_id": 9}, (2, 3)),
        ({"eos_token_id": 2}, {}, (2,)),
        ({}, {"eos_token_id": 9}, (9,)),
        ({}, {}, ()),
        ({}, {"text_config": {"eos_token_id": 7, "max_position_embeddings": 4}}, (7,)),
    ],
)
def test_what_ends_a_text(generation: dict[str, Any], config: dict[str, Any], expected: tuple[int, ...]) -> None:
    """generation_config's word comes first, one id or several; then the config's, nested or not."""
    assert ModelFiles(ModelId("m"), config, generation, None).eos == expected
