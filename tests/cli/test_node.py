import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from p2pos.cli.main import main
from p2pos.models import DEFAULT


def without(name: str) -> Any:
    def change(directory: Path) -> None:
        tensors = load_file(directory / "model.safetensors")
        del tensors[name]
        save_file(tensors, directory / "model.safetensors")

    return change


def reshaped(name: str) -> Any:
    def change(directory: Path) -> None:
        tensors = load_file(directory / "model.safetensors")
        tensors[name] = torch.zeros(3, 3)
        save_file(tensors, directory / "model.safetensors")

    return change


def written(name: str, text: str) -> Any:
    return lambda directory: (directory / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("model.layers.1.mlp.up_proj.weight"), "lacks model.layers.1.mlp.up_proj.weight"),
        (reshaped("model.layers.1.mlp.up_proj.weight"), "has model.layers.1.mlp.up_proj.weight in a shape"),
        (written("generation_config.json", '{"eos_token_id": 256}'), "eos_token_id 256 is not in the vocabulary"),
        (written("generation_config.json", '{"temperature": -1}'), "temperature is -1, outside 0 … 100"),
        (written("generation_config.json", '{"temperature": NaN}'), "temperature is nan, outside 0 … 100"),
        (written("generation_config.json", "nonsense"), "generation_config.json is not valid JSON"),
        (written("tokenizer.json", (DEFAULT / "tokenizer.json").read_text()), "tokenizer.json does not fit the model"),
        (written("tokenizer.json", "{}"), "tokenizer.json can't be used"),
        (written("model.safetensors.index.json", json.dumps({"weight_map": {"a": "b.safetensors"}})), "lacks b.safe"),
    ],
    ids=range(9),
)
def test_a_checkpoint_that_will_not_do_is_refused_before_anything_is_done(
    tmp_path: Path, checkpoint_of, capsys: pytest.CaptureFixture[str], change: Any, says: str
) -> None:
    """It is one line and exit code 2, before an identity is made, a port opened or a weight read."""
    directory = tmp_path / "m"
    directory.mkdir()
    for path in checkpoint_of("llama").iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    change(directory)
    home = tmp_path / "home"
    with pytest.raises(SystemExit) as end:
        main(["--home", str(home), "node", "run", "--model", str(directory), "--layers", "0:2"])
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("p2pos: ")
    assert says in line
    assert line.count("\n") == 1
    assert not home.exists()
