"""Packed weights and their kernels, against the plain product with what the packed weight stands for."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.shard import packing

ROWS = (1, 8, 9, 64, 65, 130)
"""On both sides of each bound from which weights are dequantized."""
SHAPES = [(64, 32), (192, 576), (128, 320), (2112, 512)]
"""Groups of 32, 64, 64 and 128 inputs; the last is quantized in two parts and dequantized in three."""


def random(outputs: int, inputs: int) -> torch.Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(outputs + inputs)) * 0.05


def off_by(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, in standard deviations of what was expected."""
    return float((found.float() - expected).abs().max() / expected.std())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("bits", [8, 4])
def test_products_are_those_of_the_dequantized_weight(bits: int, rows: int, shape: tuple[int, int]) -> None:
    """Few rows by the kernel and many by pieces: the plain fp32 product, to bf16's rounding."""
    weight = random(*shape)
    inputs = torch.randn(rows, shape[1], generator=torch.Generator().manual_seed(rows)).bfloat16()
    if bits == 8:
        packed = packing.int8_pack(weight)
        found, meant = packing.int8_linear(inputs, *packed), packing.int8_dequantize(*packed)
    else:
        packed = packing.int4_pack(weight, packing.int4_group(*shape))
        found, meant = packing.int4_linear(inputs, *packed), packing.int4_dequantize(*packed)
    assert found.dtype == torch.bfloat16
    assert off_by(found, inputs.float() @ meant.float().T) < 0.05


def test_an_int8_weight_is_off_by_half_a_step() -> None:
    """No weight moves by more than half its row's step, and bf16's rounding of the result."""
    weight = random(256, 512)
    packed, scales = packing.int8_pack(weight)
    bound = scales.float()[:, None] / 2 + weight.abs().amax(1, keepdim=True) / 2**8
    assert bool(((packing.int8_dequantize(packed, scales).float() - weight).abs() <= bound).all())


@pytest.mark.parametrize("group", packing.INT4_GROUPS)
def test_an_int4_weight_is_off_by_half_a_step(group: int) -> None:
    """No weight moves by more than half the fifteenth of its group's range, and bf16's rounding of scale and zero."""
    weight = random(128, 512)
    grouped = weight.view(128, -1, group)
    step = (grouped.amax(-1) - grouped.amin(-1)) / 15
    meant = packing.int4_dequantize(*packing.int4_pack(weight, group)).float().view_as(grouped)
    bound = step / 2 + grouped.abs().amax(-1) / 2**5
    assert bool(((meant - grouped).abs() <= bound[..., None]).all())


@pytest.mark.parametrize("weight", [torch.zeros(64, 128), torch.full((64, 128), 0.25), -torch.ones(64, 128)], ids=str)
def test_flat_weights_stay_what_they_are(weight: torch.Tensor) -> None:
    """Rows without a range, zeros among them, make no division by zero."""
    torch.testing.assert_close(packing.int8_dequantize(*packing.int8_pack(weight)).float(), weight, atol=0, rtol=0.01)
    torch.testing.assert_close(
        packing.int4_dequantize(*packing.int4_pack(weight, 128)).float(), weight, atol=0, rtol=0.01
    )


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 300), st.integers(0, 600))
def test_shapes_that_fit_do_not_crash(outputs: int, inputs: int) -> None:
    """Whatever shape is said to fit goes through its kernel; the kernel itself would end the process for others."""
    if packing.int8_fits(outputs, inputs):
        found = packing.int8_linear(torch.ones(3, inputs).bfloat16(), *packing.int8_pack(torch.ones(outputs, inputs)))
        torch.testing.assert_close(found, torch.full_like(found, inputs), atol=0, rtol=0.01)
    group = packing.int4_group(outputs, inputs)
    if group:
        packed = packing.int4_pack(torch.ones(outputs, inputs), group)
        found = packing.int4_linear(torch.ones(3, inputs).bfloat16(), *packed)
        torch.testing.assert_close(found, torch.full_like(found, inputs), atol=0, rtol=0.01)


def test_shapes_that_do_not_fit() -> None:
    """A row that is no whole vectors, outputs that are no whole blocks, inputs without a group."""
    assert not packing.int8_fits(64, 40)
    assert packing.int4_group(80, 128) == 0
    assert packing.int4_group(64, 48) == 0


@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_other_processors_lay_nibbles_otherwise(capability: str) -> None:
    """Where torch packs for a processor without AVX-512, the nibbles are found all the same."""
    script = """
import torch
from p2pos.shard import packing
weight = torch.randn(192, 128, generator=torch.Generator().manual_seed(0))
packed = packing.int4_pack(weight, 128)
assert (packing.int4_dequantize(*packed).float() - weight).abs().max() < 0.3
unit = torch.eye(128).bfloat16()
few = torch.cat([packing.int4_linear(rows, *packed) for rows in unit.split(16)])
torch.testing.assert_close(packing.int4_linear(unit, *packed), few, atol=0.01, rtol=0.01)
"""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rows", ROWS)
def test_cuda_kernels_equal_the_cpus(bits: int, rows: int) -> None:
    """The same weight packed on a GPU gives the same products."""
    weight, inputs = random(256, 512), torch.randn(rows, 512).bfloat16()
    found = []
    for device in ("cpu", "cuda"):
        on, row = weight.to(device), inputs.to(device)
        if bits == 8:
            found.append(packing.int8_linear(row, *packing.int8_pack(on)).cpu())
        else:
            found.append(packing.int4_linear(row, *packing.int4_pack(on, 128)).cpu())
    assert off_by(found[1], found[0].float()) < 0.05
