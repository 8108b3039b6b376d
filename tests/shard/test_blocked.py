import psutil
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from p2pos.shard.blocked import BlockedLinear, arrange, supported
from p2pos.shard.stage import Stage
from tests import checkpoints

pytestmark = pytest.mark.skipif(not supported(), reason="this CPU has no bf16 products")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_a_blocked_layer_is_the_layer(rows: int, bias: bool) -> None:
    """Its results are those of the layer that it stands for, to bf16's rounding, and its weight is the same."""
    layer = nn.Linear(96, 80, bias=bias, dtype=torch.bfloat16)
    inputs = torch.randn(1, rows, 96, dtype=torch.bfloat16)
    blocked = BlockedLinear(layer)
    torch.testing.assert_close(blocked(inputs), layer(inputs), atol=1e-2, rtol=1e-2)
    assert torch.equal(blocked.weight, layer.weight)


def test_what_is_tied_or_small_or_in_fp32_is_left_alone() -> None:
    """A weight that an embedding shares can't be laid out for products alone."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain = nn.Linear(512, 512, dtype=torch.bfloat16)
            self.embedding = nn.Embedding(512, 512, dtype=torch.bfloat16)
            self.tied = nn.Linear(512, 512, bias=False, dtype=torch.bfloat16)
            self.tied.weight = self.embedding.weight
            self.small = nn.Linear(16, 16, dtype=torch.bfloat16)
            self.full = nn.Linear(512, 512)

    model = Model()
    assert arrange(model) == 1
    assert [name for name, child in model.named_children() if isinstance(child, BlockedLinear)] == ["plain"]


def test_a_stage_in_bf16_is_as_near_as_transformers(tmp_path) -> None:
    """The logits of a blocked stage are as far from those in fp32 as the model's own in bf16 are."""
    directory = checkpoints.save(tmp_path, "llama", dtype=torch.bfloat16, hidden_size=256, intermediate_size=512)
    text = torch.arange(10, 40)
    stage = Stage.load(directory, dtype="bf16")
    plain = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    with torch.inference_mode():
        wanted = checkpoints.whole(directory)(text[None]).logits[0, -1]
        near = (plain(text[None]).logits[0, -1].float() - wanted).norm()
    found = stage.run(text, stage.new_cache(), want_logits=True).float()
    assert float((found - wanted).norm()) < 1.5 * float(near)


def test_memory_holds_each_weight_once() -> None:
    """Laying a model out takes no more memory than it had, once it is done."""
    model = nn.Sequential(*(nn.Linear(2048, 2048, bias=False, dtype=torch.bfloat16) for _ in range(16)))
    for parameter in model.parameters():
        parameter.data.normal_()
    before = psutil.Process().memory_info().rss
    assert arrange(model) == 16
    assert psutil.Process().memory_info().rss < before + (24 << 20)  # 128 MiB of weights
