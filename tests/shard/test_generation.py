from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import GenerationConfig

from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.generation import Defaults, read
from tests import checkpoints

SAMPLED = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.05}


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"do_sample": False, "repetition_penalty": 1.1},
        SAMPLED,
        {"do_sample": True, "top_p": 0.9},
        {"do_sample": True, "min_p": 0.05, "eos_token_id": [2, 5, 9]},
    ],
    ids=range(5),
)
def test_the_defaults_are_transformers(tmp_path: Path, checkpoint_of, written: dict[str, Any]) -> None:
    """What a model's own file says of sampling means to us what it means to transformers."""
    GenerationConfig(**{"eos_token_id": 2} | written).save_pretrained(tmp_path)
    for path in checkpoint_of("llama").iterdir():
        if path.name != "generation_config.json":
            (tmp_path / path.name).symlink_to(path)
    ours = Checkpoint.open(tmp_path).defaults(256)
    model = checkpoints.whole(tmp_path)
    theirs, _ = model._prepare_generation_config(None)
    if theirs.do_sample:
        expected = (theirs.temperature, theirs.top_p, theirs.top_k, theirs.min_p or 0.0)
        assert (ours.temperature, ours.top_p, ours.top_k, ours.min_p) == expected
    else:
        assert ours.temperature == 0.0
    assert ours.repetition_penalty == theirs.repetition_penalty
    eos = theirs.eos_token_id
    assert ours.eos == tuple(eos if isinstance(eos, list) else [eos])


def test_config_names_the_end_where_the_other_file_does_not() -> None:
    """The ids that end a text come from generation_config.json, else config.json, else its text part."""
    assert read({"eos_token_id": 3}, {"eos_token_id": 4}, 10).eos == (3,)
    assert read({}, {"eos_token_id": [4, 5]}, 10).eos == (4, 5)
    assert read({}, {"text_config": {"eos_token_id": 6}}, 10).eos == (6,)
    assert read({}, {}, 10) == Defaults()


@pytest.mark.parametrize(
    "values",
    [
        {"eos_token_id": 10},
        {"eos_token_id": -1},
        {"eos_token_id": [1, 10]},
        {"eos_token_id": True},
        {"eos_token_id": "2"},
        {"eos_token_id": list(range(65))},
        {"eos_token_id": 10**5000},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": "hot"},
        {"top_p": 1.5},
        {"top_k": -1},
        {"top_k": 1.5},
        {"top_k": 10**400},
        {"min_p": 2},
        {"repetition_penalty": 0},
        {"do_sample": "yes"},
    ],
    ids=range(18),
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any]) -> None:
    """Ids outside the vocabulary and numbers that no sampler takes are named."""
    with pytest.raises(ValueError, match=f"^{next(iter(values))} "):
        read(values, {}, 10)


ATOM = st.none() | st.booleans() | st.integers() | st.floats() | st.just("text")
JUNK = ATOM | st.lists(ATOM, max_size=3) | st.just({"eos_token_id": [[]]})
NAMES = ("eos_token_id", "do_sample", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "text_config")


@given(st.dictionaries(st.sampled_from(NAMES), JUNK), st.dictionaries(st.sampled_from(NAMES), JUNK))
def test_any_json_is_defaults_or_a_clear_error(generation: dict[str, Any], config: dict[str, Any]) -> None:
    """Whatever the files hold, the answer keeps the wire's bounds or is a ValueError."""
    try:
        found = read(generation, config, 100)
    except ValueError:
        return
    assert all(0 <= token < 100 for token in found.eos)
    assert 0 <= found.temperature <= 100
    assert 0 < found.top_p <= 1
