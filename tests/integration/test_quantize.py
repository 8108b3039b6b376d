"""Nodes that hold their weights in int8, as an operator and a client meet them."""

import json
from pathlib import Path

import torch

from p2pos.models import DEFAULT
from p2pos.shard.stage import Stage
from tests.swarms import p2pos, swarm

PROMPT = "The traveller lifted the bronze lantern and"
TOKENS = 16


def in_one_process(prompt: list[int]) -> list[int]:
    """Greedy text of the quantized default model, without a network."""
    stage = Stage.load(DEFAULT, dtype="f32", quantize="int8")
    cache, inputs, text = stage.new_cache(), prompt, []
    while len(text) < TOKENS:
        text.append(int(stage.run(torch.tensor(inputs), cache, want_logits=True).argmax()))
        inputs = text[-1:]
    return text


def test_text_through_two_int8_nodes(tmp_path: Path) -> None:
    """Two nodes give the text of one quantized process; status and the swarm's table say how the weights are held."""
    with swarm(tmp_path, None, ["0:3", "3:6"], "--dtype", "f32", "--quantize", "int8") as (first, second):
        arguments = ("--bootstrap", second.address, "--json")
        done = p2pos("generate", PROMPT, "--max-tokens", str(TOKENS), *arguments, home=tmp_path / "c")
        answer = json.loads(done.stdout)
        shown = json.loads(p2pos("swarm", "status", *arguments, home=tmp_path / "c").stdout)
        status = first.status()
    assert len(answer["route"]) == 2
    assert answer["token_ids"] == in_one_process(answer["prompt_ids"])
    assert {node["quantize"] for node in shown["nodes"]} == {"int8"}
    assert status["quantize"] == "int8"
    assert status["quantized_layers"] == {"int8": 21}
    assert status["saved_bytes"] > status["span_bytes"] / 2
