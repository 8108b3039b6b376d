from dataclasses import replace

import torch

from bench import checkpoints
from p2pos.shard import manifest
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.stage import Stage
from tests.checkpoints import whole

SMALL = replace(checkpoints.B, hidden=64, layers=2, mlp=96, heads=2, kv_heads=1, vocabulary=128, head_dim=32)


def test_transformers_and_a_stage_read_what_the_bench_writes(tmp_path):
    """A checkpoint written straight to disk is one that transformers and our stages load, with every number it says."""
    directory = checkpoints.write(tmp_path / "model", SMALL, cache=tmp_path / "cache")
    model = whole(directory)
    assert sum(each.numel() for each in model.parameters()) == SMALL.parameters
    assert all(torch.equal(each, torch.ones_like(each)) for each in model.parameters() if each.dim() == 1)
    assert all(0.01 < float(each.detach().std()) < 0.03 for each in model.parameters() if each.dim() == 2)
    stage = Stage.load(directory)
    assert stage.report.bytes_read == SMALL.parameters * checkpoints.BF16_BYTES


def test_a_node_need_not_read_it_to_name_it(tmp_path):
    """The manifest is in the cache, so that the first node does not start a process to make it."""
    directory = checkpoints.write(tmp_path / "model", SMALL, cache=tmp_path / "cache")
    assert manifest.cached(Checkpoint.open(directory), tmp_path / "cache") is not None


def test_a_billion_parameters():
    """Shape A is the billion that the bars speak of, and B the smaller one."""
    assert checkpoints.A.parameters == 1_038_682_112
    assert checkpoints.B.parameters == 134_515_008


def test_prompts_differ_by_seed():
    """No prompt begins as another does, else a prefix cache would answer for it."""
    prompts = [checkpoints.prompt(checkpoints.B, 64, seed) for seed in range(20)]
    assert len({prompt[:4] for prompt in prompts}) == 20
    assert prompts[3] == checkpoints.prompt(checkpoints.B, 64, 3)
