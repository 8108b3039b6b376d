"""Small checkpoints with random weights, in Hugging Face format, made in moments."""

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, MixtralConfig, Qwen3Config

from p2pos.models import DEFAULT

SHAPE = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
CONFIGS = {
    "llama": (LlamaConfig, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, {"head_dim": 16}),
    # a window shorter than the texts of the tests, so that sliding layers do slide
    "gemma3": (Gemma3TextConfig, {"head_dim": 16, "sliding_window": 8}),
    "mixtral": (MixtralConfig, {"num_local_experts": 4}),
}


def config(kind: str, **changes: Any) -> Any:
    """The config of a small model of this kind."""
    make, extra = CONFIGS[kind]
    return make(**{**SHAPE, **extra, **changes})


def save(directory: Path, kind: str, *, dtype: torch.dtype = torch.float32, seed: int = 0, **changes: Any) -> Path:
    """Write a checkpoint with random weights, large enough that texts differ. Returns its directory."""
    torch.manual_seed(seed)
    transformers.logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_config(config(kind, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    model.to(dtype).save_pretrained(directory)
    return directory


def whole(directory: Path) -> Any:
    """The whole model as transformers loads it, in fp32."""
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


CHAT_TEMPLATE = """
{%- if tools %}{{ 'Tools, to be called as <tool_call>{"name": …, "arguments": …}</tool_call>:\n' }}
{%- for tool in tools %}{{ tool | tojson }}{{ '\n' }}{% endfor %}{% endif %}
{%- for message in messages %}
{{- message.role + ': ' + message.content }}
{%- for call in message.tool_calls or [] %}{{ '<tool_call>' + (call.function | tojson) + '</tool_call>' }}{% endfor %}
{{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"""
"""In the form that Hermes and Qwen have."""


def save_chat(directory: Path, **changes: Any) -> Path:
    """Write a checkpoint with random weights that has the default model's tokenizer, and a chat template with tools."""
    tokens = {
        "max_position_embeddings": 1024,
        "vocab_size": 3540,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    save(directory, "llama", **{**tokens, **changes})
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(DEFAULT / name, directory / name)
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return directory
