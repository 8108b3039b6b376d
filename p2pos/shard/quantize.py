"""Weight-only quantization of a stage while it loads: each linear layer is packed as its weight is read.

transformers' loader hands every tensor that a quantizer wants to it, one after the other, so a full weight lives for
the moment of its own packing and memory holds the packed span plus one weight.

What is packed, and what is left alone (`LoadQuantizer.left` says so layer by layer):
- linear layers of the decoder, in int8 or int4 as asked; int4 falls back to int8 where the shape has no groups;
- the head in int8 in both modes: it is the widest layer, and its error goes to the logits undiluted. A tied embedding
  shares the head's bytes. In fp32 the head is left alone, because the kernels' bf16 logits would tie;
- routers of experts, and layers of fewer than 64 outputs, which choose or gate: no bytes to save, much to lose;
- weights that a model keeps in fp32, shapes that the kernels don't take, and all that is no plain linear layer:
  embeddings, norms, convolutions, experts fused into one three-dimensional parameter.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional
from transformers.core_model_loading import ConversionOps
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from p2pos.errors import InternalError, UserError
from p2pos.shard import packing
from p2pos.shard.memory import TRIM_BYTES, trim
from p2pos.wire.messages import Quantization

MIN_OUTPUTS = 64
"""Linear layers with fewer are left alone."""
ROUTERS = frozenset({"gate", "router", "wg", "router_gate", "classifier"})
"""Last names of the linear layers that choose experts, in transformers 5.23. (`gate_proj` is an MLP's half.)"""


class PackedLinear(nn.Module):
    """A linear layer over packed weights. inputs: (…, inputs) of any float dtype. Returns (…, outputs) of the same.

    Inside, activations are bf16, sums fp32, results rounded to bf16.

    Attributes:
        kind: `int8` or `int4`.

    """

    packed: torch.Tensor
    scales: torch.Tensor

    def __init__(self, linear: nn.Linear, weight: torch.Tensor, kind: Literal["int8", "int4"]) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.kind = kind
        self._dtype = weight.dtype
        if kind == "int8":
            packed, scales = packing.int8_pack(weight)
        else:
            packed, scales = packing.int4_pack(weight, packing.int4_group(*weight.shape))
        self._product = packing.int8_linear if kind == "int8" else packing.int4_linear
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)
        self.bias = linear.bias
        self._is_hf_initialized = True  # transformers' loader would give it random weights otherwise

    @property
    def weight(self) -> torch.Tensor:
        """What the packed weight stands for, for model code that looks at `.weight` itself: right, not fast."""
        make = packing.int8_dequantize if self.kind == "int8" else packing.int4_dequantize
        return make(self.packed, self.scales).to(self._dtype)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Multiply, and add the bias where there is one."""
        rows = inputs.reshape(-1, self.in_features).bfloat16()
        outputs = self._product(rows, self.packed, self.scales).to(inputs.dtype)
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.view(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.in_features}, {self.out_features}, {self.kind}"


class PackedEmbedding(nn.Module):
    """An embedding that shares the int8 bytes of the head it is tied to. ids: any shape. Returns (…, width)."""

    def __init__(self, head: PackedLinear) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = head.out_features, head.in_features
        self._dtype = head._dtype
        self.register_buffer("packed", head.packed)
        self.register_buffer("scales", head.scales)
        self._is_hf_initialized = True

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Look the rows up and dequantize them."""
        rows = functional.embedding(ids, self.packed).to(self._dtype)
        return rows.mul_(functional.embedding(ids, self.scales[:, None]).to(self._dtype))

    packed: torch.Tensor
    scales: torch.Tensor


@dataclass
class Summary:
    """What quantization made of a span."""

    mode: Quantization = "none"
    saved_bytes: int = 0
    """Less than the span takes in its compute dtype."""
    layers: dict[str, int] = field(default_factory=dict)
    """`int8`, `int4` → how many linear layers are held so."""
    left: dict[str, str] = field(default_factory=dict)
    """Names of the linear layers and three-dimensional parameters that were left alone → why."""

    def why_left(self) -> dict[str, int]:
        """Each reason for leaving a layer alone → how many were left for it."""
        return dict(Counter(self.left.values()))


class LoadQuantizer(HfQuantizer):  # type: ignore[misc]  # transformers ships no types
    """Packs linear layers as transformers' loader reads their weights.

    Args:
        mode: `int8` or `int4`.
        model: the span, on the meta device.
        dtype: what the stage computes in.

    """

    def __init__(self, mode: Literal["int8", "int4"], model: Any, dtype: torch.dtype) -> None:
        super().__init__(QuantizationConfigMixin(quant_method=f"p2pos-{mode}"), pre_quantized=False)
        self.mode = mode
        self.summary = Summary(mode)
        self._dtype = dtype
        self._head = model.get_output_embeddings()
        self._tied = bool(model.all_tied_weights_keys)
        self._kinds: dict[str, Literal["int8", "int4"]] = {}
        for name, module in model.named_modules():
            if type(module) is nn.Linear and not (module is self._head and self._tied):
                self._sort(f"{name}.weight", module)
        for name, parameter in model.named_parameters():
            if parameter.dim() > 2 and parameter.shape[-1] >= MIN_OUTPUTS:
                self.summary.left[name] = "it is no linear layer but one parameter of several matrices"

    def _sort(self, name: str, module: nn.Linear) -> None:
        kind = choose(name.removesuffix(".weight"), module, self.mode, self._dtype, is_head=module is self._head)
        if kind in {"int8", "int4"}:
            self._kinds[name] = kind  # type: ignore[assignment]  # these two literals alone
        else:
            self.summary.left[name] = kind

    # ---- what transformers asks of a quantizer

    def param_needs_quantization(self, _model: Any, param_name: str, **_kwargs: Any) -> bool:
        """Whether the loader is to hand this weight over."""
        return param_name in self._kinds

    def get_quantize_ops(self) -> ConversionOps:
        """What the loader hands weights to."""
        return _Pack(self)

    def is_serializable(self) -> bool:
        """Packed stages are not saved."""
        return False

    @property
    def is_trainable(self) -> bool:
        """Nor trained."""
        return False

    # ---- packing

    def pack(self, model: Any, name: str, weight: torch.Tensor) -> None:
        """Put a packed layer where the linear layer of this weight is. Raises ValueError where the shape is another."""
        parent, _, attribute = name.removesuffix(".weight").rpartition(".")
        owner = model.get_submodule(parent)
        linear = getattr(owner, attribute)
        if weight.shape != linear.weight.shape:
            raise ValueError(f"{name} has the shape {tuple(weight.shape)}, not {tuple(linear.weight.shape)}")
        setattr(owner, attribute, self._packed(linear, weight, self._kinds[name]))

    def _packed(self, linear: nn.Linear, weight: torch.Tensor, kind: Literal["int8", "int4"]) -> PackedLinear:
        layer = PackedLinear(linear, weight, kind)
        self.summary.saved_bytes += _nbytes(weight) - _nbytes(layer.packed) - _nbytes(layer.scales)
        self.summary.layers[kind] = self.summary.layers.get(kind, 0) + 1
        return layer

    def finish(self, model: Any, *, looks_up: bool) -> None:
        """Pack a head that is tied to the embedding, once both are there.

        Args:
            model: the loaded span.
            looks_up: whether the stage uses its embedding for tokens, and not for its head alone.

        Raises UserError where nothing at all could be packed.

        """
        head, embedding = self._head, model.get_input_embeddings()
        if self._tied and type(head) is nn.Linear:
            kind = choose("lm_head", head, self.mode, self._dtype, is_head=True)
            shared = head.weight is embedding.weight
            if shared and looks_up and type(embedding) is not nn.Embedding:
                kind = "it is tied to an embedding that does more than look up"
            if kind == "int8":
                packed = self._packed(head, head.weight.detach(), "int8")
                model.set_output_embeddings(packed)
                if shared:
                    model.set_input_embeddings(PackedEmbedding(packed) if looks_up else nn.Identity())
                trim()
            else:
                self.summary.left["lm_head.weight"] = kind
        for name in self._kinds:  # a loader that merges or splits tensors asks about the first of several alone
            if type(model.get_submodule(name.removesuffix(".weight"))) is nn.Linear:
                self.summary.left[name] = "its checkpoint stores it together with others"
        if not self.summary.layers:
            why = next(iter(self.summary.left.values()), "it has no linear layers")
            raise UserError(f"no layer of this span can be held in {self.mode}: {why}", hint="leave out --quantize")


class _Pack(ConversionOps):  # type: ignore[misc]  # transformers ships no types
    """The last operation of the loader on a weight: pack it, and leave nothing to be stored."""

    def __init__(self, quantizer: LoadQuantizer) -> None:
        self._quantizer = quantizer

    @torch.no_grad()
    def convert(
        self, input_dict: dict[str, Any], *, model: Any, missing_keys: set[str], **_kwargs: Any
    ) -> dict[str, Any]:
        kept = {}
        for name, value in list(input_dict.items()):
            if not self._quantizer.param_needs_quantization(model, name):
                kept[name] = value  # another weight that came of the same tensors
                continue
            missing_keys.discard(name)  # it is there, even where it can't be packed
            weight = value[0] if isinstance(value, list) else value
            self._quantizer.pack(model, name, weight)
            if weight.is_cpu and _nbytes(weight) > TRIM_BYTES:
                del value, weight, input_dict[name]
                trim()
        return kept


def choose(name: str, linear: nn.Linear, mode: str, dtype: torch.dtype, *, is_head: bool) -> str:
    """`int8` or `int4` for a linear layer, or else why it is left alone."""
    outputs, inputs = linear.out_features, linear.in_features
    last = name.rpartition(".")[2]
    if is_head and dtype != torch.bfloat16:
        return "the head's logits would be bf16"
    if last in ROUTERS or last.endswith("_router"):
        return "it chooses experts"
    if outputs < MIN_OUTPUTS:
        return f"it has {outputs} outputs, fewer than {MIN_OUTPUTS}"
    if linear.weight.dtype != dtype:
        return "the model keeps it in a dtype of its own"
    if mode == "int4" and not is_head and packing.int4_group(outputs, inputs):
        return "int4"
    if packing.int8_fits(outputs, inputs):
        return "int8"
    return f"no kernel takes its shape {outputs} × {inputs}"


def check_kernels(mode: Quantization, device: str) -> None:
    """Try the kernels of a mode on a device. Raises UserError where torch has none for it."""
    if mode == "none":
        return
    try:
        weight = torch.ones(MIN_OUTPUTS, 128, dtype=torch.bfloat16, device=device)
        row = torch.ones(1, 128, dtype=torch.bfloat16, device=device)
        product = packing.int8_linear(row, *packing.int8_pack(weight))  # the head's kernel in both modes
        if mode == "int4":
            product = packing.int4_linear(row, *packing.int4_pack(weight, 128))
    except (NotImplementedError, RuntimeError, AttributeError) as exc:
        raise UserError(
            f"torch {torch.__version__} has no {mode} kernel for this {device}", hint="leave out --quantize"
        ) from exc
    if abs(product.float().mean().item() - 128) > 1:
        raise InternalError(f"the {mode} kernel of torch {torch.__version__} miscounts on {device}")


def packed_tensors(model: nn.Module) -> list[torch.Tensor]:
    """The packed weights and their scales, which are not parameters."""
    return [
        tensor
        for module in model.modules()
        if isinstance(module, PackedLinear | PackedEmbedding)
        for tensor in (module.packed, module.scales)
    ]


def _nbytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
