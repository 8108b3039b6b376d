"""Who serves which layers, and what is started."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from p2pos import config
from p2pos.devnet import plan
from p2pos.devnet.home import Home
from p2pos.errors import UserError
from p2pos.models import DEFAULT
from p2pos.types import LayerSpan


@given(st.integers(1, 200), st.integers(1, 32))
def test_layers_are_split_evenly(layers: int, parts: int) -> None:
    """The spans follow one another, cover every layer once, and differ by one layer at most, larger ones first."""
    if parts > layers:
        with pytest.raises(UserError, match=f"--nodes {layers}"):
            plan.split_layers(layers, parts)
        return
    spans = plan.split_layers(layers, parts)
    assert [layer for span in spans for layer in range(span.start, span.end)] == list(range(layers))
    sizes = [len(span) for span in spans]
    assert len(sizes) == parts
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


@pytest.mark.parametrize("count", [-1, 0, 33])
def test_counts_that_make_no_sense(count: int) -> None:
    """No nodes, or more than a machine holds, is the user's mistake."""
    with pytest.raises(UserError, match="--nodes"):
        plan.node_names(count)


def model(directory: Path, config: dict, *names: str) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    save_file({name: torch.zeros(1) for name in names}, directory / "model.safetensors")
    return directory


def test_layer_count_of_a_plain_config(tmp_path: Path) -> None:
    """The usual name for the number of layers."""
    assert plan.layer_count(model(tmp_path / "m", {"num_hidden_layers": 7}, "model.layers.0.w")) == 7


def test_layer_count_of_a_model_that_also_sees(tmp_path: Path) -> None:
    """Of a multimodal config, the text part counts."""
    config = {"num_hidden_layers": 99, "text_config": {"num_hidden_layers": 5}}
    assert plan.layer_count(model(tmp_path / "m", config, "model.layers.0.w")) == 5


def test_layer_count_of_an_old_name(tmp_path: Path) -> None:
    """Where the config calls it otherwise, the tensors tell."""
    assert plan.layer_count(model(tmp_path / "m", {"n_layer": 3}, "h.0.w", "h.2.attn.w", "wte.weight")) == 3


def test_a_missing_model_is_the_users_mistake(tmp_path: Path) -> None:
    """A model directory that isn't there is said in one line."""
    with pytest.raises(UserError, match="no model directory"):
        plan.layer_count(tmp_path / "none")


def test_children_do_not_inherit_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A person's P2POS_* variables are for their own commands; a node gets its home, bits and 3 addresses at most.

    It serves the content of the devnet's home, where its people issue.
    """
    monkeypatch.setenv("P2POS_RPC_URL", "http://elsewhere")
    request = plan.Request(Home(tmp_path), tmp_path / "cache", 3, Path("/model"), "", "int8")
    command = plan.node_command(
        request, "node-2", LayerSpan(2, 4), port=1, api_port=2, bootstrap=["/a", "/b", "/c", "/d"]
    )
    assert "P2POS_RPC_URL" not in command.environment
    assert command.argv.count("--bootstrap") == 3
    assert command.argv[command.argv.index("--quantize") + 1] == "int8"
    assert str(tmp_path / "nodes" / "node-2") in command.argv
    assert command.argv[command.argv.index("--content") + 1] == str(config.Settings(home=tmp_path).content)


def test_nodes_beyond_the_stages_hold_a_span_once_more(tmp_path: Path) -> None:
    """So that each span has somebody to take its place, from the first on."""
    request = plan.Request(Home(tmp_path), tmp_path, 5, DEFAULT, "", stages=3)
    found = {name: str(span) for name, span in plan.spans(request).items()}
    assert found["node-4"] == found["node-1"]
    assert found["node-5"] == found["node-2"]
    assert len(set(found.values())) == 3


@pytest.mark.parametrize("stages", [-1, 4])
def test_more_stages_than_nodes_are_the_users_mistake(tmp_path: Path, stages: int) -> None:
    """Some layers would have nobody."""
    with pytest.raises(UserError, match="3 nodes can't serve"):
        plan.spans(plan.Request(Home(tmp_path), tmp_path, 3, DEFAULT, "", stages=stages))
