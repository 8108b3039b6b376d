from pathlib import Path

import pytest
import torch

from bench import tiny_models
from p2pos.shard.cache import SpanCache
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan
from tests import checkpoints


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_layers_of_other_stages_know_their_length(kind: str) -> None:
    """The lengths from which masks are made are the same for every layer, held here or not."""
    cache = SpanCache(checkpoints.config(kind), LayerSpan(2, 4))
    cache.advance(5)
    cache.advance(1)
    elsewhere = [index for index in range(6) if index not in {2, 3}]
    assert [cache.get_seq_length(index) for index in elsewhere] == [6] * 4
    assert cache.positions == 6


def test_a_sliding_window_elsewhere_masks_as_one_that_is_here() -> None:
    """Past its window, a sliding layer that lives elsewhere gives the mask sizes of a real one."""
    cache = SpanCache(checkpoints.config("gemma3"), LayerSpan(5, 6))
    cache.advance(20)
    sliding = [index for index, kind in enumerate(checkpoints.config("gemma3").layer_types) if "sliding" in kind]
    assert cache.get_mask_sizes(3, sliding[0]) == (8 - 1 + 3, 20 - 8 + 1)


def test_an_empty_cache_holds_no_bytes() -> None:
    """Before a token has passed, nothing is held."""
    assert SpanCache(checkpoints.config("llama"), LayerSpan(0, 6)).nbytes == 0


def test_states_elsewhere_count_as_begun() -> None:
    """Linear attention layers of other stages have a state once tokens have passed, and the cache knows how many."""
    config = tiny_models.config("mamba")
    cache = SpanCache(config, LayerSpan(2, 4))
    assert cache.get_seq_length() == 0
    cache.advance(5)
    assert cache.has_previous_state(0)
    assert (cache.get_seq_length(), cache.get_mask_sizes(3, 0)) == (5, (8, 0))


def test_the_bytes_of_states_are_counted(tmp_path: Path) -> None:
    """What a linear attention layer keeps is counted as keys and values are."""
    stage = Stage.load(tiny_models.save(tmp_path / "m", "mamba"), LayerSpan(0, 2), dtype="f32")
    cache = stage.new_cache()
    stage.run(torch.arange(3, 9), cache)
    inner = 2 * tiny_models.WIDTH  # mamba expands by two
    taps, states = 4, 16  # of the convolution, and numbers for each
    assert cache.nbytes == 2 * inner * (taps + states) * 4
