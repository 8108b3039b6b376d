"""Linear layers whose weights lie as oneDNN multiplies them fastest, for a stage that computes in bf16 on a CPU.

A decode step reads every weight once and does little else, so its time is that of reading them. torch multiplies a
weight as it is stored, row by row; oneDNN has a layout in blocks, which torch's compiler uses and its eager layers
don't. Measured on one core with AVX-512: 11 GB/s as stored and 16 in blocks for one row, 12 and 21 for four, 10 and 15
for eight; docs/performance.md says how. The numbers that come out are those of bf16 products with sums in fp32, as
before.
"""

import torch
from torch import nn

from p2pos.shard.memory import TRIM_BYTES, trim

MIN_BYTES = 1 << 16
"""Weights smaller than this stay in a core's cache however they lie."""


class BlockedLinear(nn.Module):
    """A linear layer over a weight in oneDNN's layout. inputs: (…, inputs) bf16. Returns (…, outputs) bf16."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        # no buffer: an opaque tensor can't be saved, moved or shared, and nothing should try
        self._blocked = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)

    @property
    def weight(self) -> torch.Tensor:
        """The weight as it was, for model code that looks at `.weight` itself: right, not fast."""
        dense: torch.Tensor = self._blocked.to_dense()
        return dense

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Multiply, and add the bias where there is one."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self._blocked, self.bias, "none", [], "")
        return product

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.in_features}, {self.out_features}"


def supported() -> bool:
    """Whether this torch and this CPU have the products."""
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return built and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@torch.no_grad()
def arrange(model: nn.Module) -> int:
    """Put a blocked layer where each plain linear layer of bf16 on the CPU is; those tied to another are left alone.

    Each weight is freed as soon as its copy is made, so memory holds the span and one weight more.

    Returns:
        How many layers were put.

    """
    if not supported():
        return 0
    holders: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear and _suits(child.weight) and holders[id(child.weight)] == 1
    ]
    for parent, name, child in found:
        size = child.weight.numel() * child.weight.element_size()
        setattr(parent, name, BlockedLinear(child))
        del child.weight
        if size > TRIM_BYTES:
            trim()
    return len(found)


def _suits(weight: torch.Tensor) -> bool:
    return weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and weight.numel() * 2 >= MIN_BYTES
