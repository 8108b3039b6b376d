"""From a config to a span of its own model's code, with pass-throughs where other nodes' layers would be.

No architecture is named here. transformers publishes, for each architecture that can be cut, a pipeline plan
(`base_model_pp_plan`): the modules of the base model in the order a token passes through them. The one fed by
`input_ids` is the embedding, the `ModuleList` holds the layers, and what comes after it is the final norm.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from p2pos.errors import UserError
from p2pos.types import LayerSpan

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32, "f16": torch.float16}
"""What a stage computes in, by the name that announcements and tensor headers use."""


class PassThrough(nn.Module):
    """Stands where a module of another stage would be and hands its input on.

    It keeps the module's plain attributes, because a model's forward may ask a layer what kind it is.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        plain = {name: value for name, value in vars(original).items() if not name.startswith("_")}
        vars(self).update({name: value for name, value in plain.items() if isinstance(value, str | int | float)})

    def forward(self, hidden_states: Any, *_args: Any, **_kwargs: Any) -> Any:
        """Return the first argument."""
        return hidden_states


def read_config(directory: Path) -> Any:
    """The transformers config of a model directory.

    Raises UserError where transformers doesn't know the architecture, it isn't a causal language model, it is
    quantized, or it publishes no pipeline plan.
    """
    known = f"transformers {transformers.__version__}"
    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, OSError, TypeError, AttributeError, ArithmeticError, StrictDataclassError) as exc:
        raise UserError(
            f"{known} cannot read {directory / 'config.json'}: {_first_line(exc)}",
            hint="use a checkpoint of a causal language model that it knows",
        ) from exc
    named_so = config.architectures
    architectures = [str(name) for name in named_so] if isinstance(named_so, list) else []
    if not set(architectures) & _causal_lm_classes(config.model_type):
        named = ", ".join(architectures) or config.model_type
        raise UserError(f"{directory} is not a causal language model ({named})", hint="use a …ForCausalLM checkpoint")
    if getattr(config, "quantization_config", None):
        raise UserError(f"{directory} is quantized", hint="use the bf16, fp16 or fp32 checkpoint")
    if not config.base_model_pp_plan:
        raise UserError(
            f"the architecture {architectures[0]} publishes no pipeline plan in {known}, so it can't be cut",
            hint="use another architecture, such as Llama, Qwen3 or Gemma3",
        )
    return config


def build(config: Any, span: LayerSpan, dtype: torch.dtype) -> nn.Module:
    """A causal LM on the meta device (no memory for weights) that has only what the span needs.

    The stage with layer 0 keeps the embedding; the one with the last layer keeps norm and head, and the
    embedding too where the head is tied to it. Everything else passes through.

    Raises UserError where no model can be made of the config's numbers.
    """
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as exc:
        raise UserError(
            f"config.json describes a model that can't be built: {type(exc).__name__}: {_first_line(exc)}",
            hint="copy or download it again",
        ) from exc
    base = base_model(model)
    embedding, layers, finals = _parts(config, base)
    is_head, is_tail = span.start == 0, span.end == len(getattr(base, layers))
    tied = bool(config.get_text_config(decoder=True).tie_word_embeddings)
    modules = getattr(base, layers)
    for index in range(len(modules)):
        if index not in span:
            modules[index] = PassThrough(modules[index])
    if not (is_head or (is_tail and tied)):
        setattr(base, embedding, PassThrough(getattr(base, embedding)))
    if not is_tail:
        for name in finals:
            setattr(base, name, PassThrough(getattr(base, name)))
        model.set_output_embeddings(PassThrough(model.get_output_embeddings()))
        model.all_tied_weights_keys = {}
    model.eval()
    return model  # type: ignore[no-any-return]  # transformers ships no types


def base_model(model: nn.Module) -> Any:
    """The model without its head."""
    return getattr(model, str(model.base_model_prefix))


def attention(model: nn.Module) -> str:
    """The name of the attention function that the model's layers call, as transformers registers it."""
    return str(model.config.get_text_config(decoder=True)._attn_implementation)  # type: ignore[union-attr, operator]  # transformers ships no types


def set_attention(model: nn.Module, name: str) -> None:
    """Have the model's layers call another registered attention function."""
    configs = {id(found): found for module in model.modules() if (found := getattr(module, "config", None)) is not None}
    for config in configs.values():
        config._attn_implementation = name


def depends_on_length(config: Any) -> str:
    """The kind of rotary positions that change with the length of the text, "" where they don't.

    Such a model's rows can't be computed beside those of longer texts, nor kept when a text grows past a threshold.
    """
    text = config.get_text_config(decoder=True)
    found = getattr(text, "rope_parameters", None) or {}
    kinds = [found, *(each for each in found.values() if isinstance(each, dict))]
    names = {str(kind.get("rope_type")) for kind in kinds}
    return next(iter(names & {"dynamic", "longrope"}), "")


def layer_count(config: Any) -> int:
    """Decoder layers of the whole model."""
    return int(config.get_text_config(decoder=True).num_hidden_layers)


def max_positions(config: Any) -> int:
    """Tokens that the model's context holds; architectures without a limit say nothing, and get a million."""
    return int(getattr(config.get_text_config(decoder=True), "max_position_embeddings", None) or 1 << 20)


def hidden_size(config: Any) -> int:
    """Width of the hidden states that stages pass to one another."""
    return int(config.get_text_config(decoder=True).hidden_size)


def vocabulary(config: Any) -> int:
    """Token ids that the embedding has rows for: 0 to one less than this."""
    return int(config.get_text_config(decoder=True).vocab_size)


def _parts(config: Any, base: nn.Module) -> tuple[str, str, list[str]]:
    """Names of the embedding, the list of layers, and what follows them, from the pipeline plan."""
    plan = list(config.base_model_pp_plan.items())
    embedding = next(name for name, (inputs, _) in plan if "input_ids" in inputs)
    layers = next(name for name, _ in plan if isinstance(getattr(base, name), nn.ModuleList))
    order = [name for name, _ in plan]
    return embedding, layers, order[order.index(layers) + 1 :]


def _causal_lm_classes(model_type: str) -> set[str]:
    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type, ())
    return {names} if isinstance(names, str) else set(names)


def _first_line(exc: Exception) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
