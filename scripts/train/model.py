"""The architecture: a small Llama."""

from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from scripts.train.tokenizer import BOS, EOS, PAD

INITIAL_SCALE = 0.06
"""Standard deviation of the first weights: about 1/sqrt(hidden), so that a layer's output has its input's scale.

Llama's 0.02 is for layers ten times as wide: after 200,000 tokens it stood at 4.0 nats per token, this one at 2.9.
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of the model. The defaults are the default model's."""

    layers: int = 6
    """Three nodes hold two each."""
    hidden: int = 256
    mlp: int = 640
    heads: int = 4
    kv_heads: int = 2
    """Two query heads share one key and value head, so that the shipped model has what large ones have."""
    context: int = 2048
    """Positions that the model admits; training sees `training.Plan.sequence` of them."""


def build_model(shape: Shape, tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    """A model with random fp32 weights, the same for the same seed. The head shares the embedding's weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
        pad_token_id=tokenizer.token_to_id(PAD),
        tie_word_embeddings=True,
        initializer_range=INITIAL_SCALE,
        attn_implementation="eager",  # not saved; a fifth faster to train on a CPU at this size than torch's fused one
    )
    return LlamaForCausalLM(config)
