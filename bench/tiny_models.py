"""A valid, tiny config and a checkpoint with random weights for each causal-LM type that transformers knows.

The list of types comes from the installed transformers. A config is made from the type's own defaults by shrinking
every field whose name is known (`SMALL`); `OVERRIDES` holds what a type needs besides that.
"""

import inspect
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from p2pos.shard import exceptions

LAYERS = 6
"""Enough for a cut in three with inner stages of their own, and for every kind of layer to occur."""

WIDTH, HEADS, HEAD, INNER = 64, 4, 16, 96
VOCABULARY = 128
TEXT = range(3, 120)
"""The tokens that are neither special nor stand for something else than text."""
WINDOW = 8
"""Shorter than the texts of the comparison, so that sliding windows slide."""

TINY = 50_000_000
"""Weights: most types have under a million; one that looks at pictures brings an encoder of 36 million."""

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    # what stands for pictures and sounds: beyond `TEXT`, and no two alike
    "image_token_id": 120,
    "image_token_index": 120,
    "video_token_id": 121,
    "audio_token_id": 122,
    # widths
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "embedding_dim", "emb_dim", "word_embed_proj_dim"), WIDTH),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "ffn_hidden_size"), INNER),
    # layers
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers", "encoder_layers", "num_encoder_layers"), LAYERS),
    # heads
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads", "num_heads"), HEADS),
    **dict.fromkeys(("encoder_attention_heads", "attention_heads", "num_decoder_attention_heads"), HEADS),
    "num_key_value_heads": 2,
    "head_dim": HEAD,
    # experts
    **dict.fromkeys(("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 32),
    # compressed keys and values
    **dict.fromkeys(("q_lora_rank", "o_lora_rank"), 32),
    **dict.fromkeys(("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "swa_head_dim"), HEAD),
    "qk_head_dim": 2 * HEAD,
    # indexers of sparse attention
    **dict.fromkeys(("index_n_heads", "indexer_n_heads"), 16),
    **dict.fromkeys(("index_head_dim", "indexer_head_dim"), HEAD),
    "index_topk": 4,
    # linear attention and state spaces
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "linear_num_heads"), HEADS),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), HEAD),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size"), HEAD),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim"), HEAD),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8),
    "mamba_d_ssm": 8 * HEAD,
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), WINDOW),
    "n_group": 2,
    "topk_group": 1,
    # windows
    **dict.fromkeys(("sliding_window", "window_size", "attention_window_size", "local_attention"), WINDOW),
}

ROPE = {"rope_type": "default", "rope_theta": 10_000.0}

OVERRIDES: dict[str, dict[str, Any]] = {
    # encoders, which read leftwards only when told to
    **{name: {"is_decoder": True} for name in exceptions.ENCODERS},
    "big_bird": {"is_decoder": True, "attention_type": "original_full"},
    "bamba": {"attn_layer_indices": [1, 4]},
    "codegen": {"rotary_dim": 8},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 3,
        "rope_parameters": {
            "sliding_attention": {**ROPE, "mrope_section": [4, 2, 2]},
            "full_attention": {**ROPE, "mrope_section": [4, 2, 2]},
        },
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10_000.0},
        "ffn_config": {"ffn_hidden_size": 32},
    },
    "dots1": {"n_shared_experts": 1, "first_k_dense_replace": 1},
    "dots3_note_text": {
        "head_dim": 2 * HEAD,
        "shared_experts_intermediate_size": 32,
        **dict.fromkeys(("swa_num_attention_heads", "swa_num_key_value_heads"), HEADS),
        **dict.fromkeys(("swa_q_lora_rank", "swa_kv_lora_rank", "swa_head_dim"), 2 * HEAD),
        **dict.fromkeys(("swa_qk_nope_head_dim", "swa_v_head_dim"), HEAD),
    },
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "gemma3n_text": {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": 128, "hidden_size_per_layer_input": 8},
    "gemma4_text": {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0, "global_head_dim": 32},
    "gpt_neo": {"attention_types": [[["global", "local"], 3]]},
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": {"layer_types": ["mamba", "mamba", "attention"] * 2},
    "moshi": {"sliding_window": 256},  # its masks have no window: it is as long as the text may be
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention"] * 2},
    "llama4_text": {"attention_chunk_size": WINDOW, "interleave_moe_layer_step": 2},
    "mamba2": {"head_dim": HEAD, "num_heads": 8, "n_groups": 2},
    "nemotron_h": {"layers_block_type": ["linear_attention", "moe", "full_attention"] * 2},
    "qwen4_exp_text": {
        "indexer_kv_heads": 1,
        "indexer_budget": 4,
        "indexer_compress_ratio": 2,
        "hc_lowrank": 8,
        "ngram_vocab_size_base": 64,
        "split_ngram_parts": 2,
    },
    "phi4_multimodal": {"sliding_window": None},
    "recurrent_gemma": {"lru_width": WIDTH},
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": (32, 32), "axial_pos_shape": (16, 16)},
    "rembert": {"is_decoder": True, "input_embedding_size": 32, "output_embedding_size": 48},
    "roc_bert": {
        "is_decoder": True,
        "pronunciation_vocab_size": 128,
        "shape_vocab_size": 128,
        "pronunciation_embed_dim": 16,
        "shape_embed_dim": 16,
    },
    "xlstm": {"num_heads": 4},
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid", "linear_attention"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}
"""What a type's config needs besides, and what makes every kind of its layers occur."""


def types() -> list[str]:
    """Every model type with a causal language model, in alphabetical order."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def has_plan(model_type: str) -> bool:
    """Whether transformers publishes a pipeline plan for the type."""
    return model_type in CONFIG_MAPPING and bool(CONFIG_MAPPING[model_type].base_model_pp_plan)


def config(model_type: str) -> Any:
    """A tiny config of the type. Raises what transformers raises where it finds it invalid."""
    return _shrunk(CONFIG_MAPPING[model_type], OVERRIDES.get(model_type, {}))


def save(directory: Path, model_type: str, *, seed: int = 0) -> Path:
    """Write a checkpoint of the type with random weights in fp32, large enough that faults show."""
    torch.manual_seed(seed)
    transformers.logging.disable_progress_bar()
    with torch.device("meta"):
        outline = AutoModelForCausalLM.from_config(config(model_type))
    if sum(parameter.numel() for parameter in outline.parameters()) > TINY:
        raise ValueError(f"the config of {model_type} is not tiny: `OVERRIDES` lacks something")
    model = AutoModelForCausalLM.from_config(config(model_type), dtype=torch.float32).eval()
    disturb(model)
    model.save_pretrained(directory)
    return directory


@torch.no_grad()
def disturb(model: torch.nn.Module) -> None:
    """Give every weight a value of its own: matrices normal with deviation 0.1, vectors moved by a tenth.

    A norm whose weights are all ones, or a bias of zeros, would hide that it was left out.
    """
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(0, 0.1)
        else:
            parameter.add_(torch.randn_like(parameter) * 0.1)


def _shrunk(kind: Any, extra: dict[str, Any]) -> Any:
    known = inspect.signature(kind.__init__).parameters
    fields = {name: value for name, value in SMALL.items() if name in known}
    if "kv_lora_rank" in known:  # keys and values are made of one compressed row, for each head its own
        fields["num_key_value_heads"] = HEADS
    for name, part in getattr(kind, "sub_configs_defaults", {}).items():
        part_type = str(getattr(part, "model_type", None) or getattr(part.config_class, "model_type", ""))
        part_kind = CONFIG_MAPPING[part_type] if part_type in CONFIG_MAPPING else part  # noqa: SIM401 - its get is blind
        if isinstance(part_kind, type):
            fields[name] = _shrunk(part_kind, OVERRIDES.get(part_type, {})).to_dict()
    return kind(**{**fields, **extra})
