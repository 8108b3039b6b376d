"""A stage that holds its weights in fewer bits: what is packed, what it saves, how far its numbers are off."""

from pathlib import Path

import pytest
import torch
from torch import nn

from p2pos.errors import UserError
from p2pos.models import DEFAULT
from p2pos.shard import quantize
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan
from p2pos.wire.messages import Quantization
from tests import checkpoints

IDS = torch.randint(3, 250, (40,), generator=torch.Generator().manual_seed(1))
WIDE = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
"""Wide enough for int4 everywhere."""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory):
    """A function from an architecture's name to a checkpoint of it that the int4 kernel takes."""

    def make(kind: str, **changes: object) -> Path:
        return checkpoints.save(tmp_path_factory.mktemp(kind), kind, **WIDE, **changes)

    return make


def logits(stage: Stage) -> torch.Tensor:
    return stage.run(IDS, stage.new_cache(), want_logits=True).float()


def held(stage: Stage) -> int:
    """Bytes of all tensors of a stage, each counted once, RoPE's few aside."""
    tensors = [*stage._model.parameters(), *stage._model.buffers()]
    named = {tensor.data_ptr(): tensor.nbytes for tensor in tensors if tensor.dim() > 1 or tensor.numel() > 64}
    return sum(named.values())


@pytest.mark.parametrize(("mode", "bound"), [("int8", 0.02), ("int4", 0.12)])
def test_the_default_models_logits_are_near(mode: Quantization, bound: float) -> None:
    """The root mean square error of the shipped model's logits is a small part of their standard deviation."""
    plain = logits(Stage.load(DEFAULT, dtype="f32"))
    off = (logits(Stage.load(DEFAULT, dtype="f32", quantize=mode)) - plain).pow(2).mean().sqrt() / plain.std()
    assert 0 < off < bound


@pytest.mark.parametrize("kind", checkpoints.CONFIGS)
def test_packed_layers_compute_what_they_stand_for(wide, kind: str) -> None:
    """A quantized stage gives the logits of the same model with each packed weight written out, to bf16's rounding."""
    packed, plain = (Stage.load(wide(kind), quantize="int4") for _ in range(2))
    for name, module in list(plain._model.named_modules()):
        if isinstance(module, quantize.PackedLinear):
            linear = nn.Linear(module.in_features, module.out_features, bias=False, dtype=torch.bfloat16)
            linear.weight.data = module.weight
            plain._model.set_submodule(name, linear)
    expected = logits(plain)
    # these random models blow rounding up, Mixtral most, whose router may choose another expert; unrelated logits: 1.4
    assert (logits(packed) - expected).pow(2).mean().sqrt() < 0.3 * expected.std()


@pytest.mark.parametrize(("mode", "share"), [("int8", 0.52), ("int4", 0.36)])
def test_memory_is_saved(wide, mode: Quantization, share: float) -> None:
    """The tensors in memory are as many bytes fewer as the report says, embedding and head counted once."""
    directory = wide("llama")
    plain, packed = Stage.load(directory), Stage.load(directory, quantize=mode)
    assert packed.report.span_bytes == plain.report.span_bytes - packed.report.quantized.saved_bytes
    assert packed.report.bytes_read == plain.report.bytes_read
    assert packed.report.span_bytes < share * plain.report.span_bytes
    assert abs(held(packed) - packed.report.span_bytes) < 0.01 * packed.report.span_bytes


def test_full_weights_go_as_they_are_packed(wide, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a weight is packed, no other linear layer that will be is in memory in full."""
    directory, waiting = wide("llama"), []
    pack = quantize.LoadQuantizer.pack

    def look(self: quantize.LoadQuantizer, model: nn.Module, name: str, weight: torch.Tensor) -> None:
        full = [each for key, each in model.named_parameters() if key in self._kinds and key != name]
        waiting.append(all(each.is_meta for each in full))
        pack(self, model, name, weight)

    monkeypatch.setattr(quantize.LoadQuantizer, "pack", look)
    Stage.load(directory, quantize="int8")
    assert waiting == [True] * 42


def test_a_tied_embedding_shares_the_heads_bytes(wide) -> None:
    """The stage that looks tokens up and gives logits has one int8 matrix for both; the tail alone has no embedding."""
    directory = wide("llama", dtype=torch.bfloat16)
    model = Stage.load(directory, quantize="int4")._model
    assert model.get_input_embeddings().packed.data_ptr() == model.lm_head.packed.data_ptr()
    assert model.lm_head.kind == "int8"
    rows = model.get_input_embeddings()(torch.tensor([[5, 7]]))
    torch.testing.assert_close(rows[0], model.lm_head.weight[[5, 7]])
    tail = Stage.load(directory, LayerSpan(5, 6), quantize="int4")
    assert not list(tail._model.get_input_embeddings().parameters())


def test_an_untied_embedding_is_left(wide) -> None:
    """An embedding of its own is no linear layer; the head is int8."""
    model = Stage.load(wide("qwen3"), quantize="int4")._model
    assert type(model.get_input_embeddings()) is nn.Embedding
    assert model.lm_head.kind == "int8"


def test_the_head_stays_in_fp32(wide) -> None:
    """A stage that computes in fp32 gives fp32 logits: its head is left alone, and it says so."""
    stage = Stage.load(wide("llama"), dtype="f32", quantize="int8")
    assert type(stage._model.lm_head) is nn.Linear
    assert stage.report.quantized.left == {"lm_head.weight": "the head's logits would be bf16"}
    assert logits(stage).dtype == torch.float32


def test_experts_and_routers_are_left(wide) -> None:
    """Experts fused into one parameter are named among what was left alone."""
    left = Stage.load(wide("mixtral"), quantize="int8").report.quantized.left
    assert "model.layers.0.mlp.experts.gate_up_proj" in left


@pytest.mark.parametrize(
    ("name", "linear", "mode", "dtype", "chosen"),
    [
        ("mlp.up_proj", (128, 256), "int8", torch.bfloat16, "int8"),
        ("mlp.up_proj", (128, 256), "int4", torch.bfloat16, "int4"),
        ("mlp.up_proj", (128, 80), "int4", torch.bfloat16, "int8"),
        ("mlp.up_proj", (40, 256), "int8", torch.bfloat16, "no kernel takes its shape 256 × 40"),
        ("mlp.gate", (128, 256), "int8", torch.bfloat16, "it chooses experts"),
        ("mlp.shared_expert_gate", (128, 1), "int8", torch.bfloat16, "it has 1 outputs, fewer than 64"),
        ("mlp.up_proj", (128, 256), "int8", torch.float32, "the model keeps it in a dtype of its own"),
    ],
)
def test_what_is_packed_and_how(name: str, linear: tuple[int, int], mode: str, dtype: torch.dtype, chosen: str) -> None:
    """int4 where groups fit, int8 where they don't, and a reason where neither will do."""
    layer = nn.Linear(*linear, dtype=torch.bfloat16)
    assert quantize.choose(name, layer, mode, dtype, is_head=False) == chosen


def test_a_bias_is_added() -> None:
    """A packed layer with a bias adds it, in the dtype of its inputs."""
    linear = nn.Linear(64, 64)
    packed = quantize.PackedLinear(linear, torch.zeros(64, 64), "int8")
    torch.testing.assert_close(packed(torch.ones(2, 3, 64)), linear.bias.expand(2, 3, 64))


def test_nothing_to_pack_is_refused(tmp_path: Path) -> None:
    """A model whose every shape is beyond the kernels is refused, and not announced as quantized."""
    directory = checkpoints.save(tmp_path / "m", "llama", hidden_size=40, intermediate_size=40, head_dim=10)
    with pytest.raises(UserError, match="no layer of this span can be held in int8"):
        Stage.load(directory, quantize="int8")


def test_a_weight_of_another_shape_is_refused(wide) -> None:
    """A mis-shaped tensor that would have been packed is found as it is elsewhere."""
    from safetensors.torch import load_file, save_file

    directory = wide("llama")
    tensors = load_file(directory / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(UserError, match=f"has {name} in a shape"):
        Stage.load(directory, quantize="int8")


def test_a_torch_without_the_kernel_is_refused(checkpoint_of, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch has no such kernel for the device, one line says so before anything is read."""

    def absent(*_: object) -> torch.Tensor:
        raise NotImplementedError("Could not run 'aten::_weight_int8pack_mm'")

    monkeypatch.setattr(torch, "_weight_int8pack_mm", absent)
    with pytest.raises(UserError, match="has no int8 kernel for this cpu") as caught:
        Stage.load(checkpoint_of("llama"), quantize="int8")
    assert "--quantize" in caught.value.hint


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_quantized_stage_on_cuda_equals_the_cpu(wide, mode: Quantization) -> None:
    """The same span, quantized on a GPU, gives the CPU's logits to bf16's rounding."""
    directory = wide("qwen3")
    cpu, cuda = (logits(Stage.load(directory, quantize=mode, device=device)).cpu() for device in ("cpu", "cuda"))
    assert (cuda - cpu).pow(2).mean().sqrt() < 0.1 * cpu.std()
