"""From a config to a span of its own model's code, with pass-throughs where other nodes' layers would be.

No architecture is named here. Which of a model's modules is its list of layers, transformers says for most in a
pipeline plan (`base_model_pp_plan`); for the others it is the one `nn.ModuleList` of the text model that is as long as
the config says. A stage that isn't the head runs its model's own code from the start all the same, on nothing: the
code makes the masks, the positions and the rotary tables that the layers want, and an `Entry` where the first layer
would be puts the hidden states that came from upstream in place of what it made of no embedding. An `Exit` behind the
span keeps what leaves it, so that nothing that follows can change it.

What is small and stands outside of the layers (position embeddings; of types without a plan, norms) every stage holds,
because no list says which of it comes before the layers and which after.
"""

import inspect
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from p2pos.errors import UserError
from p2pos.shard import exceptions, layer_code, support
from p2pos.shard.checkpoint import read_json
from p2pos.types import LayerSpan

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32, "f16": torch.float16}
"""What a stage computes in, by the name that announcements and tensor headers use."""

CACHE_NAMES = ("past_key_values", "cache_params")
"""What a model's forward calls its cache."""

MAX_LAYERS = 4096
"""As many as an announcement can name."""

_COUNTS = re.compile(r"(\w+_)?(num_(hidden_)?layers|n_layers?|(en|de)coder_layers|depth)|layers", re.ASCII)
"""What configs call their counts of layers; transformers makes something of each layer as it reads them."""


class PassThrough(nn.Module):
    """Stands where a module of another stage would be and hands its input on.

    What a model asks it besides, such as what kind of layer it is, the original answers, which has no weights.

    Args:
        original: the module.
        results: how many values it returns; 0 where it returns one, and not in a tuple.

    """

    def __init__(self, original: nn.Module, results: int = 0) -> None:
        super().__init__()
        vars(self)["_original"] = original  # not as a submodule: its parameters are not ours to load
        self._results = results

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(vars(self)["_original"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the first argument, in a tuple with nothing besides where the module returns one."""
        hidden = self.taken(args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values()), None)))
        return (hidden, *[None] * (self._results - 1)) if self._results else hidden

    def taken(self, hidden: Any) -> Any:
        """What it makes of its input: nothing new."""
        return hidden


class Entry(PassThrough):
    """In the first layer's place, gives the hidden states that came from upstream, whatever it is given."""

    hidden: torch.Tensor | None = None
    """(batch, rows, width)."""
    nothing: torch.Tensor | None = None
    """What the model was fed instead."""

    def taken(self, hidden: Any) -> Any:
        """The hidden states from upstream."""
        del hidden
        given, self.hidden, self.nothing = self.hidden, None, None
        return given


class Exit(PassThrough):
    """Behind the span's last layer, keeps what left it."""

    hidden: torch.Tensor | None = None
    """(batch, rows, width)."""

    def taken(self, hidden: Any) -> Any:
        """Hand it on, and keep it."""
        self.hidden = hidden
        return hidden


class Blank(nn.Module):
    """In the embedding's place: zeros of its shape, without its weights."""

    def __init__(self, original: nn.Embedding, dtype: torch.dtype) -> None:
        super().__init__()
        self._width, self._dtype = original.embedding_dim, dtype
        vars(self)["weight"] = original.weight  # on the meta device: some models set it, which does nothing there

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Zeros (batch, rows, width) for ids (batch, rows)."""
        return torch.zeros((*ids.shape, self._width), dtype=self._dtype, device=ids.device)


def read_config(directory: Path) -> Any:
    """The transformers config of a model directory.

    Raises UserError where transformers doesn't know the architecture, it isn't a causal language model, it is
    quantized, a number of it is none that a model can have, or its type is not one whose spans were found to answer as
    the whole model does.
    """
    known = f"transformers {transformers.__version__}"
    _check_counts(directory, read_json(directory / "config.json"))
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
    why = support.why_not(config.model_type) or _asks_for(config)
    if why:
        raise UserError(f"{directory} is of the type {config.model_type}, which can't be cut: {why}", hint=support.HINT)
    _check_sizes(directory, config)
    return config


def build(config: Any, span: LayerSpan, dtype: torch.dtype, *, attn_implementation: str | None = None) -> nn.Module:
    """A causal LM on the meta device (no memory for weights) that has only what the span needs.

    The stage with layer 0 keeps the embedding; the one with the last layer keeps norm and head, and the
    embedding too where the head is tied to it. Everything else passes through.

    Args:
        config: of the whole model.
        span: the layers to keep.
        dtype: of the weights.
        attn_implementation: by transformers' name; None takes what transformers would.

    Raises:
        UserError: no model can be made of the config's numbers, or it has no one list of layers.

    """
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attn_implementation)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as exc:
        raise UserError(
            f"config.json describes a model that can't be built: {type(exc).__name__}: {_first_line(exc)}",
            hint="copy or download it again",
        ) from exc
    _cut(model, config, span, dtype)
    model.eval()
    return model  # type: ignore[no-any-return]  # transformers ships no types


def base_model(model: nn.Module) -> Any:
    """The text model without its head.

    Fed `inputs_embeds`, a stage that isn't the head takes them as the hidden states before its first layer; the
    `last_hidden_state` of one that isn't the tail is what left its last.
    """
    whole: Any = model
    found = whole.get_decoder()
    if isinstance(found, PreTrainedModel) and found is not whole:
        return found
    if whole.base_model is not whole:  # one calls its head's matrix a decoder
        return whole.base_model
    return next((part for part in whole.children() if isinstance(part, PreTrainedModel)), whole)


def cache_name(model: nn.Module) -> str:
    """What the model's forward calls its cache."""
    known = inspect.signature(type(model).forward).parameters
    return next((name for name in CACHE_NAMES if name in known), CACHE_NAMES[0])


def takes(module: nn.Module, name: str) -> bool:
    """Whether the module's forward has an argument of this name."""
    return name in inspect.signature(type(module).forward).parameters


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
    text = config.get_text_config(decoder=True)
    if text.model_type in exceptions.LAYER_COUNTS:
        return int(getattr(text, exceptions.LAYER_COUNTS[text.model_type]))
    # those with an encoder besides count that one's layers under the usual name
    return int(getattr(text, "decoder_layers", None) or text.num_hidden_layers)


def max_positions(config: Any) -> int:
    """Tokens that the model's context holds; architectures without a limit say nothing, and get a million."""
    return int(getattr(config.get_text_config(decoder=True), "max_position_embeddings", None) or 1 << 20)


def hidden_size(config: Any) -> int:
    """Width of the hidden states that stages pass to one another."""
    text = config.get_text_config(decoder=True)
    streams = exceptions.STREAMS.get(text.model_type)
    return int(text.hidden_size) * (int(getattr(text, streams)) if streams else 1)


def vocabulary(config: Any) -> int:
    """Token ids that the embedding has rows for: 0 to one less than this."""
    return int(config.get_text_config(decoder=True).vocab_size)


def _cut(model: Any, config: Any, span: LayerSpan, dtype: torch.dtype) -> None:
    base = base_model(model)
    owner, name = _layer_list(base, layer_count(config), config)
    layers: nn.ModuleList = getattr(owner, name)
    is_head, is_tail = span.start == 0, span.end == len(layers)
    results = layer_code.results(type(layers[0]).forward)
    words = model.get_input_embeddings()
    paths = {module: path for path, module in model.named_modules()}
    tied = f"{paths[words]}.weight" in {*model.all_tied_weights_keys, *model.all_tied_weights_keys.values()}
    finals = _finals(config, base)
    for index in range(len(layers)):
        if index not in span:
            kind = Entry if index == 0 else Exit if index == span.end else PassThrough
            layers[index] = kind(layers[index], results)
    if not is_head:
        if not (is_tail and tied):
            model.set_submodule(paths[words], Blank(words, dtype))
        _enter_at(model, base, layers[0], int(words.embedding_dim))
    if not is_tail:
        for final in finals:
            setattr(base, final, PassThrough(getattr(base, final)))
        model.all_tied_weights_keys = {}
        _leave_at(base, layers[span.end])
    inside = {id(module) for module in base.modules()}
    around = paths[base]
    for path, module in list(model.named_modules()):
        if id(module) in inside or not path or around.startswith(f"{path}."):
            continue
        # the head of a stage that isn't the tail, and the parts of a model that see or hear
        if not is_tail or isinstance(module, PreTrainedModel):
            model.set_submodule(path, PassThrough(module))


def _layer_list(base: nn.Module, count: int, config: Any) -> tuple[nn.Module, str]:
    """The module that has the list of layers, and the list's name in it."""
    found: list[tuple[nn.Module, str]] = []
    stops = (nn.ModuleList, PreTrainedModel)
    inner = [path for path, module in base.named_modules() if path and isinstance(module, stops)]
    for path, module in base.named_modules():
        within = any(path.startswith(f"{other}.") for other in inner)
        if isinstance(module, nn.ModuleList) and len(module) == count and not within:
            parent, _, name = path.rpartition(".")
            found.append((base.get_submodule(parent), name))
    if len(found) != 1:
        raise UserError(
            f"the type {config.model_type} has {len(found)} lists of {count} layers, so it can't be cut",
            hint=support.HINT,
        )
    return found[0]


def _finals(config: Any, base: nn.Module) -> list[str]:
    """Names of what follows the layers, from the pipeline plan."""
    text = config.get_text_config(decoder=True)
    plan = list((text.base_model_pp_plan or {}).items())
    order = [name for name, _ in plan]
    lists = [name for name in order if isinstance(getattr(base, name, None), nn.ModuleList)]
    return order[order.index(lists[0]) + 1 :] if lists else []


def _enter_at(model: nn.Module, base: nn.Module, entry: Any, width: int) -> None:
    """Have both take `inputs_embeds` for the hidden states before the span.

    The model's own code gets zeros for them, because some of it writes into what it is given, and because an
    embedding may be narrower than the layers. One that knows no `inputs_embeds` gets a token.
    """
    knows = takes(base, "inputs_embeds") and takes(model, "inputs_embeds")
    pad = getattr(base.config, "pad_token_id", None)
    token = 1 if pad == 0 else 0  # not padding, from which some make a mask

    def take(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        hidden = kwargs.get("inputs_embeds")
        if hidden is None or hidden is entry.nothing:
            return None
        entry.hidden = hidden
        if knows:
            entry.nothing = hidden.new_zeros((*hidden.shape[:2], width))
            return args, {**kwargs, "inputs_embeds": entry.nothing}
        rest = {name: value for name, value in kwargs.items() if name != "inputs_embeds"}
        ids = torch.full(hidden.shape[:2], token, dtype=torch.long, device=hidden.device)
        return args, {**rest, "input_ids": ids}

    for module in {id(base): base, id(model): model}.values():
        module.register_forward_pre_hook(take, with_kwargs=True)


def _leave_at(base: nn.Module, exit_: Any) -> None:
    def give(_module: nn.Module, _args: Any, output: Any) -> Any:
        output.last_hidden_state = exit_.hidden
        exit_.hidden = None
        return output

    base.register_forward_hook(give)


def _asks_for(config: Any) -> str:
    """What the config asks for that a span can't give, or ""."""
    text = config.get_text_config(decoder=True)
    return next((why for asked, why in exceptions.FEATURES if asked(text)), "")


def _check_counts(directory: Path, value: Any) -> None:
    """Raise UserError where a config, as it stands in its file, counts more layers than any model has."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        if isinstance(inner, int) and inner > MAX_LAYERS and _COUNTS.fullmatch(name):
            raise _impossible(directory, name, inner, f"at most {MAX_LAYERS}")
        _check_counts(directory, inner)


def _check_sizes(directory: Path, config: Any) -> None:
    """Raise UserError where a model that a config describes has no layers, no context or no vocabulary."""
    text = config.get_text_config(decoder=True)
    sizes = {name: getattr(text, name, None) for name in ("max_position_embeddings", "vocab_size")}
    for name, size in {"num_hidden_layers": layer_count(config), **sizes}.items():
        if isinstance(size, int) and size < 1:
            raise _impossible(directory, name, size, "at least 1")


def _impossible(directory: Path, name: str, value: int, bound: str) -> UserError:
    shown = str(value)[:30]
    return UserError(
        f"{directory / 'config.json'} says {name[:100]}: {shown}; it can be {bound}", hint="copy or download it again"
    )


def _causal_lm_classes(model_type: str) -> set[str]:
    names = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type, ())
    return {names} if isinstance(names, str) else set(names)


def _first_line(exc: Exception) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
