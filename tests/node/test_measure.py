import json
from dataclasses import replace
from pathlib import Path

import pytest

from p2pos.errors import UserError
from p2pos.node import measure
from p2pos.node.node_config import NodeConfig
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan, ModelId
from tests.node.configs import config_of

MODEL = ModelId("the-model")


@pytest.fixture
def config(checkpoint_of, tmp_path: Path) -> NodeConfig:
    return config_of(checkpoint_of("llama"), tmp_path, threads=1)


@pytest.fixture
def stage(config: NodeConfig) -> Stage:
    return Stage.load(config.model, LayerSpan(1, 3), dtype="f32")


def test_a_rate_is_measured_once(config: NodeConfig, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start measures, the next one reads what was kept."""
    first = measure.rate_of(config, MODEL, stage)
    assert first > 0
    monkeypatch.setattr(measure, "layer_rate", lambda _: pytest.fail("it was measured before"))
    assert measure.rate_of(config, MODEL, stage) == first


@pytest.mark.parametrize("changes", [{"dtype": "bf16"}, {"threads": 2}, {"quantize": "int8"}])
def test_what_changes_is_measured_again(config: NodeConfig, stage: Stage, changes: dict) -> None:
    """A rate is one of a model held and computed in one way; another way has another rate."""
    measure.rate_of(config, MODEL, stage)
    assert measure.kept(config.home, measure.facts(replace(config, **changes), MODEL)) is None


def test_other_hardware_is_measured_again(config: NodeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that was copied to another machine starts anew."""
    measure.keep(config.home, measure.facts(config, MODEL), 100.0)
    monkeypatch.setattr(measure, "_processor", lambda: "another one")
    assert measure.kept(config.home, measure.facts(config, MODEL)) is None


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "{", '{"%s": {"layer_tokens_per_s": "fast"}}'])
def test_a_damaged_file_is_made_again(config: NodeConfig, text: str) -> None:
    """Whatever stands in the file, the worst that comes of it is that the rate is measured again."""
    what = measure.facts(config, MODEL)
    (config.home / measure.FILE).write_text(text.replace("%s", measure._key(what)))
    assert measure.kept(config.home, what) is None
    measure.keep(config.home, what, 50.0)
    assert measure.kept(config.home, what) == 50.0


def test_the_file_is_bounded(config: NodeConfig) -> None:
    """The rates of the models that were served last are kept."""
    for number in range(measure.MAX_KEPT + 5):
        measure.keep(config.home, measure.facts(config, ModelId(f"model-{number}")), 1.0 + number)
    assert len(json.loads((config.home / measure.FILE).read_text())) == measure.MAX_KEPT
    assert measure.kept(config.home, measure.facts(config, ModelId("model-0"))) is None


def test_memory_bounds_how_many_layers_are_taken(config: NodeConfig) -> None:
    """As many layers as fit beside the embedding and the caches, one at least, and never more than was said."""
    checkpoint = Checkpoint.open(config.model)
    per_layer = sum(each.nbytes for name, each in checkpoint.tensors.items() if ".layers.0." in name)
    other = sum(each.nbytes for name, each in checkpoint.tensors.items() if ".layers." not in name)
    room = replace(config, cache_bytes=1000, memory_bytes=other + 1000 + 3 * per_layer)
    assert measure.most_layers(room, checkpoint) == 3
    assert measure.most_layers(replace(room, memory_bytes=1), checkpoint) == 1
    assert measure.most_layers(replace(room, max_layers=2), checkpoint) == 2
    assert measure.most_layers(config, checkpoint) == 6
    assert measure.most_layers(replace(room, dtype="bf16"), checkpoint) > 3


def test_bounds_are_for_layers_that_are_chosen(config: NodeConfig) -> None:
    """Who names the layers is told that a bound beside them says nothing."""
    with pytest.raises(UserError, match="--layers auto"):
        measure.check_bounds(replace(config, layers=LayerSpan(0, 2), max_layers=2))
