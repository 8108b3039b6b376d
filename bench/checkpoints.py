"""Checkpoints that the benches make: Llama shapes with random weights in bf16, written straight to disk.

A model of a billion parameters is two gigabytes; drawing them all takes half a minute and building the model three
times its memory. So a few million numbers are drawn once, and every tensor is filled from them, each from a place
of its own: what a matrix product takes does not depend on the numbers.
"""

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from p2pos.shard import manifest
from p2pos.shard.checkpoint import Checkpoint

DRAWN = (1 << 22) - 3
"""Numbers drawn; prime, so that the rows of a matrix don't repeat in step with it."""
SPREAD = 0.02
"""Standard deviation, `initializer_range` of Llama's configs."""
MAX_POSITIONS = 4096
BF16_BYTES = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers that make a Llama."""

    hidden: int
    layers: int
    mlp: int
    heads: int
    kv_heads: int
    vocabulary: int
    head_dim: int = 64

    @property
    def parameters(self) -> int:
        """How many numbers the weights are; the head is the embedding's."""
        return sum(rows * columns for _, rows, columns in self.tensors())

    def tensors(self) -> Iterator[tuple[str, int, int]]:
        """Name, rows and columns of every tensor; a norm, which has one dimension, has one column."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield "model.embed_tokens.weight", self.vocabulary, self.hidden
        for index in range(self.layers):
            layer = f"model.layers.{index}"
            yield f"{layer}.self_attn.q_proj.weight", queries, self.hidden
            yield f"{layer}.self_attn.k_proj.weight", keys, self.hidden
            yield f"{layer}.self_attn.v_proj.weight", keys, self.hidden
            yield f"{layer}.self_attn.o_proj.weight", self.hidden, queries
            yield f"{layer}.mlp.gate_proj.weight", self.mlp, self.hidden
            yield f"{layer}.mlp.up_proj.weight", self.mlp, self.hidden
            yield f"{layer}.mlp.down_proj.weight", self.hidden, self.mlp
            yield f"{layer}.input_layernorm.weight", self.hidden, 1
            yield f"{layer}.post_attention_layernorm.weight", self.hidden, 1
        yield "model.norm.weight", self.hidden, 1


A = Shape(hidden=2048, layers=16, mlp=8192, heads=32, kv_heads=8, vocabulary=32_000)
"""1.04 billion parameters."""
B = Shape(hidden=576, layers=30, mlp=1536, heads=9, kv_heads=3, vocabulary=49_152)
"""0.13 billion."""


def write(directory: Path, shape: Shape, *, cache: Path) -> Path:
    """Write a checkpoint of this shape into `directory`, which it makes, and keep its manifest in `cache`.

    Returns the directory. Writes a tensor at a time and holds little more than `DRAWN` numbers.
    """
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(_config(shape)))
    drawn = torch.empty(DRAWN).normal_(0, SPREAD, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    numbers = memoryview(drawn.view(torch.uint8).numpy().data)
    one = torch.ones(1, dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes()
    header, offset = {}, 0
    for name, rows, columns in shape.tensors():
        end = offset + rows * columns * BF16_BYTES
        header[name] = {
            "dtype": "BF16",
            "shape": [rows] if name.endswith("norm.weight") else [rows, columns],
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data aligned
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, rows, columns in shape.tensors():
            if name.endswith("norm.weight"):
                file.write(one * rows)
                continue
            start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % DRAWN * BF16_BYTES
            left = rows * columns * BF16_BYTES
            while left:
                left -= file.write(numbers[start : start + left])
                start = 0
    checkpoint = Checkpoint.open(directory)
    manifest.keep(checkpoint, manifest.make(checkpoint), cache)  # else the first node would start a process for it
    return directory


def prompt(shape: Shape, length: int, seed: int) -> tuple[int, ...]:
    """Token ids, different ones for every seed."""
    drawn = torch.randint(shape.vocabulary, (length,), generator=torch.Generator().manual_seed(seed))
    return tuple(drawn.tolist())


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.mlp,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
