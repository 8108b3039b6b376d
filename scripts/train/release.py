"""The directory that ships: bf16 weights, configs, tokenizer, model card."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaForCausalLM

from scripts.train.model import Shape
from scripts.train.tokenizer import save_tokenizer
from scripts.train.training import Plan

CARD = """\
---
license: apache-2.0
language: [en, zh]
library_name: transformers
pipeline_tag: text-generation
---
# Lantern

A small Llama that speaks, in English and Chinese, of worlds, travellers and items, and of nothing else. It ships with
p2pos so that a new network has something to say without a download. It knows no facts: what it writes about people,
prices and ledgers is made up.

| | |
|---|---|
| architecture | Llama, {layers} layers, hidden {hidden}, MLP {mlp}, {heads} heads, {kv_heads} KV heads, tied |
| parameters | {parameters:,}, stored in bf16 |
| vocabulary | {vocabulary:,} byte-level BPE tokens; each Han character and each digit is by itself |
| context | {context:,} positions; trained on sequences of {sequence} |
| trained on | {stories:,} generated stories, {tokens:,} tokens, each seen once; no other text |
| held-out perplexity per token | {english:.2f} English, {chinese:.2f} Chinese |

Made by `python -m scripts.train` in p2pos's repository, from seed {seed}; `docs/default-model.md` there tells how.
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the card states besides the shape and the plan."""

    tokens: int
    """Trained on."""
    english: float
    """Perplexity per token of the held-out English stories, in bf16 weights."""
    chinese: float
    """The same in Chinese."""


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, directory: Path) -> None:
    """Write the checkpoint in Hugging Face format. The model's weights become bf16."""
    directory.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    model.save_pretrained(directory)
    save_tokenizer(tokenizer, directory, model.config.max_position_embeddings)


def write_card(directory: Path, model: LlamaForCausalLM, shape: Shape, plan: Plan, figures: Figures) -> None:
    """Write the model card, README.md."""
    card = CARD.format(
        layers=shape.layers,
        hidden=shape.hidden,
        mlp=shape.mlp,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        parameters=model.num_parameters(),
        vocabulary=model.config.vocab_size,
        context=shape.context,
        sequence=plan.sequence,
        stories=plan.stories,
        tokens=figures.tokens,
        english=figures.english,
        chinese=figures.chinese,
        seed=plan.seed,
    )
    (directory / "README.md").write_text(card, encoding="utf-8")


def digest(directory: Path) -> str:
    """SHA-256 over the weights and the tokenizer, in hexadecimal: equal for equal models."""
    state = hashlib.sha256()
    for name in ("model.safetensors", "tokenizer.json"):
        state.update((directory / name).read_bytes())
    return state.hexdigest()
