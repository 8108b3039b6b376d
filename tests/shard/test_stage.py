import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DynamicCache

from p2pos.errors import InternalError, UserError
from p2pos.shard import manifest
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan
from tests import checkpoints

CUTS = (LayerSpan(0, 1), LayerSpan(1, 4), LayerSpan(4, 6))
PROMPT, STEPS = 36, 4


@pytest.mark.parametrize("kind", checkpoints.CONFIGS)
@pytest.mark.parametrize("chunk", [PROMPT, 7], ids=["whole prompt", "chunks of 7"])
def test_three_way_split_equals_the_whole_model(checkpoint_of, kind: str, chunk: int) -> None:
    """Logits through three stages, prefill in chunks and cached decode, are the whole model's to 1e-5 in fp32."""
    directory = checkpoint_of(kind)
    ids = torch.randint(3, 250, (PROMPT + STEPS,), generator=torch.Generator().manual_seed(1))
    whole = checkpoints.whole(directory)
    whole_cache = DynamicCache(config=whole.config)
    stages = [Stage.load(directory, span, dtype="f32") for span in CUTS]
    caches = [stage.new_cache() for stage in stages]
    bounds = [*range(0, PROMPT, chunk), *range(PROMPT, PROMPT + STEPS + 1)]
    for start, end in itertools.pairwise(bounds):
        with torch.no_grad():
            expected = whole(ids[None, start:end], past_key_values=whole_cache).logits[0, -1]
        flow = ids[start:end]
        for stage, cache in zip(stages, caches, strict=True):
            flow = stage.run(flow, cache, want_logits=stage.is_tail)
        torch.testing.assert_close(flow, expected, atol=1e-5, rtol=1e-5)


def test_a_third_of_the_layers_reads_a_third_of_the_bytes(tmp_path: Path) -> None:
    """A process that loads a span reads its span's bytes and at most 5 % more, as the kernel counts them."""
    directory = checkpoints.save(tmp_path / "m", "llama", num_hidden_layers=6, hidden_size=256, intermediate_size=1024)
    script = f"""
from pathlib import Path
import transformers.models.llama.modeling_llama, torch
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan
def read():
    return int(next(l for l in open("/proc/self/io") if l.startswith("rchar")).split()[1])
Stage.load(Path({str(directory)!r}), LayerSpan(0, 1), dtype="f32")  # imports are read as well: not what is measured
before = read()
report = Stage.load(Path({str(directory)!r}), LayerSpan(2, 4), dtype="f32").report
print(read() - before, report.span_bytes, report.bytes_read, report.total_bytes)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    kernel, span, counted, total = map(int, done.stdout.split())
    assert counted == span
    assert span <= kernel <= 1.05 * span
    assert total > 2.9 * span


def test_weights_are_converted_to_the_dtype_asked_for(tmp_path: Path) -> None:
    """A bf16 checkpoint loads as fp32 and the other way round."""
    directory = checkpoints.save(tmp_path / "m", "llama", dtype=torch.bfloat16)
    assert (
        Stage.load(directory, LayerSpan(0, 2), dtype="f32").report.span_bytes
        == 2 * Stage.load(directory, LayerSpan(0, 2), dtype="bf16").report.span_bytes
    )


def test_a_span_outside_the_model_is_refused(checkpoint_of) -> None:
    """Layers that the model hasn't got are named in the refusal."""
    with pytest.raises(UserError, match="layers 4:7 are outside the model, which has layers 0:6"):
        Stage.load(checkpoint_of("llama"), LayerSpan(4, 7))


def test_only_the_tail_gives_logits(checkpoint_of) -> None:
    """Asking a stage without a head for logits is our own fault."""
    stage = Stage.load(checkpoint_of("llama"), LayerSpan(0, 2), dtype="f32")
    with pytest.raises(InternalError):
        stage.run(torch.tensor([3]), stage.new_cache(), want_logits=True)


def test_bytes_that_are_not_the_manifests_are_refused(tmp_path: Path) -> None:
    """One flipped bit in a span's weights is found while they load."""
    directory = checkpoints.save(tmp_path / "m", "llama")
    checkpoint = Checkpoint.open(directory)
    known = manifest.make(checkpoint)
    tensor = checkpoint.tensors["model.layers.1.mlp.up_proj.weight"]
    data = bytearray(tensor.file.read_bytes())
    data[tensor.offset] ^= 1
    tensor.file.write_bytes(data)
    with pytest.raises(UserError, match="model.layers.1.mlp.up_proj.weight are not those of the manifest"):
        Stage.load(directory, LayerSpan(0, 2), manifest=known)
    Stage.load(directory, LayerSpan(2, 6), manifest=known)  # another's damage is not ours


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    """A checkpoint that lacks a tensor of the span is refused by that tensor's name."""
    directory = checkpoints.save(tmp_path / "m", "qwen3")
    file = directory / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.5.mlp.down_proj.weight"]
    save_file(tensors, file)
    with pytest.raises(UserError, match="lacks model.layers.5.mlp.down_proj.weight"):
        Stage.load(directory, LayerSpan(4, 6))


def test_what_safetensors_refuses_is_one_line(tmp_path: Path) -> None:
    """A header that we take and the library does not ends in one line: here half of a surrogate pair."""
    file = checkpoints.save(tmp_path, "llama", num_hidden_layers=1) / "model.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.dumps({**json.loads(data[8 : 8 + length]), "__metadata__": {"a": "\ud800"}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    with pytest.raises(UserError, match=r"model.safetensors can't be read: .*: copy or download it again") as refusal:
        Stage.load(tmp_path, dtype="f32")
    assert "\n" not in str(refusal.value)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    """A checkpoint whose tensor has a shape that its config denies is refused by that tensor's name."""
    directory = checkpoints.save(tmp_path / "m", "qwen3")
    file = directory / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.down_proj.weight"] = torch.zeros(64, 90)
    save_file(tensors, file)
    with pytest.raises(UserError, match="has model.layers.1.mlp.down_proj.weight in a shape that its config denies"):
        Stage.load(directory, LayerSpan(0, 2), dtype="f32")


def test_tensors_that_no_layer_has_are_passed_over(tmp_path: Path, checkpoint_of) -> None:
    """Older checkpoints carry the rotary frequencies, which are computed: the model is the same without them."""
    directory = checkpoints.save(tmp_path / "m", "llama")
    tensors = load_file(directory / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.full((8,), 7.0)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(_logits(directory, "f32"), _logits(checkpoint_of("llama"), "f32"))


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("shards", ["60KB", "1GB"], ids=["sharded", "single"])
def test_a_checkpoint_is_what_transformers_loads(tmp_path: Path, stored: str, tied: bool, shards: str) -> None:
    """However it is stored, a model in two stages gives the logits that transformers gives in the same dtype."""
    dtype = getattr(torch, stored)
    directory = checkpoints.save(tmp_path / "a", "llama", dtype=dtype, tie_word_embeddings=tied, num_hidden_layers=2)
    AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).save_pretrained(tmp_path / "b", max_shard_size=shards)
    assert (tmp_path / "b" / "model.safetensors").exists() == (shards == "1GB")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "b", dtype="auto").eval()
    assert whole.dtype == dtype
    with torch.no_grad():
        expected = whole(torch.arange(3, 40)[None]).logits[0, -1]
    ours = _logits(tmp_path / "b", Checkpoint.open(tmp_path / "b").dtype)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def _logits(directory: Path, dtype: str) -> torch.Tensor:
    """Of the last of some tokens, through two stages."""
    flow = torch.arange(3, 40)
    layers = Stage.load(directory, dtype=dtype).layers
    for span in (LayerSpan(0, layers // 2), LayerSpan(layers // 2, layers)):
        stage = Stage.load(directory, span, dtype=dtype)
        flow = stage.run(flow, stage.new_cache(), want_logits=stage.is_tail)
    return flow


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_stage_on_cuda_equals_the_cpu(checkpoint_of) -> None:
    """The same span gives the same hidden states on a GPU as on the CPU."""
    ids = torch.arange(3, 40)
    outputs = []
    for device in ("cpu", "cuda"):
        stage = Stage.load(checkpoint_of("llama"), LayerSpan(0, 6), dtype="f32", device=device)
        outputs.append(stage.run(ids, stage.new_cache(), want_logits=True).cpu())
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-4, rtol=1e-4)


def test_a_cuda_device_that_is_not_there_is_refused(checkpoint_of, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for a GPU on a machine without one says so."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no device cuda"):
        Stage.load(checkpoint_of("llama"), LayerSpan(0, 1), device="cuda")
