"""Weights as few bits, and products with them: int8 per output channel, int4 per group, by torch's own kernels.

A weight is (outputs, inputs). The kernels take bf16 activations alone (the int8 one takes fp32 too, twenty times
slower), so activations are bf16 here whatever a stage computes in. They are made for few rows: each passes over the
packed weights row by row. From some number of rows on it is faster to dequantize a piece of the weights that fits a
core's L2 cache, multiply by torch's bf16 `linear`, and go on with the next piece; no bf16 copy of the whole stays.

The int8 kernel reads outside its input where a row is not whole vectors of 16 (torch 2.13), so shapes are looked at
by `int8_fits` and `int4_group` before a weight gets here.
"""

import functools
from collections.abc import Iterator

import torch
from torch.nn import functional

INT8_VECTOR = 16
"""Inputs that the int8 kernel takes at once; a row that is no multiple of it ends the process."""
INT4_BLOCK = 64
"""Outputs that the int4 kernel takes at once with AVX-512; with fewer it is right but slow."""
INT4_GROUPS = (128, 64, 32)
"""Inputs that share a scale and a zero, the best first: 4.25, 4.5 and 5 bits a weight. The kernels know these."""

INT8_KERNEL_ROWS = 8
INT4_KERNEL_ROWS = 64
"""Rows up to which the packed kernel is faster than dequantizing; docs/quantization.md has the times."""
PIECE_BYTES = 1 << 20
"""Of bf16 weights that are dequantized at a time: they and what they came from fit the 2 MiB of a core's L2 cache."""
PACK_BYTES = 4 << 20
"""Of fp32 copies of the weights that are quantized at a time: the few that are needed on the way stay in the caches."""


def int8_fits(outputs: int, inputs: int) -> bool:
    """Whether the int8 kernel takes a weight of this shape."""
    return outputs > 0 and inputs > 0 and inputs % INT8_VECTOR == 0


def int4_group(outputs: int, inputs: int) -> int:
    """Inputs per group for a weight of this shape, or 0 where the int4 kernel doesn't take it."""
    if outputs <= 0 or outputs % INT4_BLOCK:
        return 0
    return next((group for group in INT4_GROUPS if inputs % group == 0 and inputs > 0), 0)


def _row_slices(weight: torch.Tensor) -> Iterator[slice]:
    """Consecutive outputs of about `PACK_BYTES` in fp32, in whole blocks of `INT4_BLOCK`."""
    size = INT4_BLOCK * max(1, PACK_BYTES // (4 * INT4_BLOCK * weight.shape[1]))
    return (slice(start, start + size) for start in range(0, len(weight), size))


# ---- int8: w ≈ q · s, q in -127 … 127, one bf16 scale per output


def int8_pack(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize (outputs, inputs) of any float dtype. Returns int8 of the same shape and bf16 scales (outputs,)."""
    # made first and filled in place: memory that lives long and memory that doesn't do not mix in the allocator
    packed = torch.empty_like(weight, dtype=torch.int8)
    scales = torch.empty(len(weight), dtype=torch.bfloat16, device=weight.device)
    for rows in _row_slices(weight):
        packed[rows], scales[rows] = _int8_rows(weight[rows])
    return packed, scales


def _int8_rows(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    rows = rows.float()
    # rounded first, so that the rounding of the scale adds no error of its own; a row of zeros keeps any scale
    scales = (rows.abs().amax(1) / 127).bfloat16()
    scales = torch.where(scales > 0, scales, torch.ones_like(scales))
    return (rows / scales.float()[:, None]).round_().clamp_(-127, 127).to(torch.int8), scales


def int8_linear(inputs: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """(rows, inputs) bf16 times the packed weight: (rows, outputs) bf16."""
    if inputs.shape[0] <= INT8_KERNEL_ROWS:
        return torch._weight_int8pack_mm(inputs.contiguous(), packed, scales)
    pieces = torch.split(packed, max(1, PIECE_BYTES // (2 * packed.shape[1])))
    # an int8 is a bf16 without loss, so only the products are scaled
    return torch.cat([functional.linear(inputs, piece.bfloat16()) for piece in pieces], 1).mul_(scales)


def int8_dequantize(packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The weight that the packed one stands for, (outputs, inputs) bf16."""
    return packed.bfloat16().mul_(scales[:, None])


# ---- int4: w ≈ (q - 8) · s + z, q in 0 … 15, a bf16 scale and zero per output and group of inputs


def int4_pack(weight: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize (outputs, inputs) of any float dtype.

    Returns what the kernel of the weight's device takes: the nibbles in its own order, and scales and zeros
    (inputs / group, outputs, 2) bf16.
    """
    outputs, inputs = weight.shape
    packed = torch.empty(outputs, inputs // 2, dtype=torch.uint8, device=weight.device)
    scales = torch.empty(inputs // group, outputs, 2, dtype=torch.bfloat16, device=weight.device)
    for rows in _row_slices(weight):
        nibbles, scales[:, rows] = _int4_rows(weight[rows], group)
        if weight.device.type == "cpu":
            packed[rows] = torch._convert_weight_to_int4pack_for_cpu(nibbles.int(), 1)
        else:
            packed[rows] = nibbles[:, ::2] << 4 | nibbles[:, 1::2]
    if weight.device.type != "cpu":
        packed = torch._convert_weight_to_int4pack(packed, next(t for t in (8, 4, 2) if inputs % (16 * t) == 0))
    return packed, scales


def _int4_rows(rows: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The nibbles of some outputs (outputs, inputs) uint8, and their scales and zeros (groups, outputs, 2) bf16."""
    grouped = rows.float().reshape(rows.shape[0], -1, group)
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    scale = ((high - low) / 15).bfloat16().float()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero = (low + 8 * scale).bfloat16().float()
    nibbles = ((grouped - zero) / scale).round_().add_(8).clamp_(0, 15).to(torch.uint8).flatten(1)
    return nibbles, torch.cat((scale, zero), -1).transpose(0, 1).bfloat16().contiguous()


def int4_linear(inputs: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """(rows, inputs) bf16 times the packed weight: (rows, outputs) bf16."""
    if inputs.shape[0] <= INT4_KERNEL_ROWS:
        return _int4_kernel(inputs.contiguous(), packed, scales)
    if packed.device.type != "cpu":
        return inputs @ _int4_turned(packed, scales)
    outputs, width = scales.shape[1], inputs.shape[1]
    size = INT4_BLOCK * max(1, PIECE_BYTES // (2 * width * INT4_BLOCK))
    pieces = [
        torch.matmul(inputs, _int4_blocks(packed, scales, start, min(start + size, outputs)))
        for start in range(0, outputs, size)
    ]
    return torch.cat(pieces).transpose(0, 1).flatten(1)


def int4_dequantize(packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The weight that the packed one stands for, (outputs, inputs) bf16."""
    if packed.device.type != "cpu":
        return _int4_turned(packed, scales).T.contiguous()
    return _int4_blocks(packed, scales, 0, scales.shape[1]).transpose(1, 2).flatten(0, 1)


def _int4_kernel(inputs: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    group = inputs.shape[1] // scales.shape[0]
    if packed.device.type == "cpu":
        return torch._weight_int4pack_mm_for_cpu(inputs, packed, group, scales)
    return torch._weight_int4pack_mm(inputs, packed, group, scales)


def _int4_turned(packed: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """On a GPU the weight turned, (inputs, outputs) bf16: the product of the unit matrix, by the kernel itself."""
    _, tiles, _, words = packed.shape  # (outputs / 8, inputs / (16 · inner tiles), 32, inner tiles / 2)
    return _int4_kernel(torch.eye(tiles * words * 32, dtype=torch.bfloat16, device=packed.device), packed, scales)


def _int4_blocks(packed: torch.Tensor, scales: torch.Tensor, start: int, end: int) -> torch.Tensor:
    """On the CPU the weight of outputs `start … end-1`, whole blocks of 64, as (blocks, inputs, 64) bf16."""
    width, order = _cpu_layout()
    data = packed[start:end].reshape(-1, packed.shape[1] * 2, width // 2)
    nibbles = torch.cat((data & 15, data >> 4), -1)
    if order is not None:
        nibbles = nibbles[..., order]
    # the ±8 is taken from bytes, which is cheap; one operation rounds once, as the kernel does not round before its sum
    groups, inputs, blocks = scales.shape[0], packed.shape[1] * 2, (end - start) // width
    values = nibbles.view(torch.int8).sub_(8).bfloat16().view(blocks, groups, -1, width)
    factors = scales[:, start:end].reshape(groups, blocks, 1, width, 2).transpose(0, 1)
    weights = torch.addcmul(factors[..., 1].contiguous(), values, factors[..., 0].contiguous())
    return weights.view(-1, INT4_BLOCK // width, inputs, width).transpose(1, 2).reshape(-1, inputs, INT4_BLOCK)


@functools.cache
def _cpu_layout() -> tuple[int, torch.Tensor | None]:
    """How the CPU kernel's packed bytes lie, found out by packing numbers that tell where they went.

    It depends on the processor: blocks of 64 outputs with AVX-512, of 32 with AVX2. Within a block all outputs of one
    input lie together, two to a byte. Returns the outputs of a block, and the order that sorts a byte row's low
    nibbles followed by its high ones; None where they are in order already.
    """
    outputs = torch.arange(INT4_BLOCK).repeat(32, 1).T.contiguous()

    def nibbles(of: torch.Tensor) -> torch.Tensor:
        data = torch._convert_weight_to_int4pack_for_cpu(of.int(), 1).flatten()
        return torch.stack((data & 15, data >> 4)).long()

    places = nibbles(outputs % 16) + 16 * nibbles(outputs // 16)
    width = next(
        width for width in (INT4_BLOCK, 32, 16) if len(set(places[:, : width // 2].flatten().tolist())) == width
    )
    order = places[:, : width // 2].flatten().argsort()
    return width, None if bool((order == torch.arange(width)).all()) else order
