"""The benches themselves, as a person runs them."""

import json
import subprocess
import sys

import pytest
import torch

FIELDS = {
    "churn": ("requests", "lost", "wrong", "kills", "rss_growth_share"),
    "descriptor": ("per_s", "flips", "flips_accepted"),
    "failover": (
        "runs",
        "identical",
        "pause_ms_p50",
        "pause_ms_p95",
        "hang_pause_ms_p95",
        "cut_pause_ms_p95",
        "head_pause_ms_p95",
        "tail_pause_ms_p95",
    ),
    "join": ("serving_s_disk", "serving_s_peers", "span_mb"),
    "placement": ("plan_ms_10000", "worst_share_of_optimum", "moves_per_departure_share"),
    "relay": (
        "batch_per_s",
        "single_per_s",
        "raw_send_per_s",
        "accepted",
        "on_chain",
        "doubled",
        "gas_batch100",
        "gas_single_warm",
        "gas_lock",
        "gas_unlock",
        "gas_oz_direct",
    ),
    "route": ("route_ms_2000", "worst_share_of_shortest"),
    "interference": ("max_gap_ms", "chunk_plus_step_ms"),
    "peers": ("A", "B"),
    "pipeline": (
        "single_tok_s",
        "two_stage_ratio",
        "four_stage_ratio",
        "hop_ms_p50",
        "vs_transformers_batch1",
        "vs_transformers_8_streams",
    ),
    "prefix": ("ttft_ratio", "tokens"),
    "streams": ("aggregate_ratio", "sessions"),
}


def bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments], capture_output=True, text=True, timeout=900, check=False
    )


@pytest.mark.soak
@pytest.mark.parametrize("name", FIELDS)
def test_a_bench_prints_its_figures(name):
    """One JSON object with every figure, or the reason why one is missing; nothing else on standard output."""
    done = bench(name, "--json", "--quick")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["name"] == name
    for field in FIELDS[name]:
        assert field in answer
        assert answer[field] is not None or answer[f"why_{field}"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused():
    """A bench for a GPU says at once, in one line, that there is none."""
    done = bench("streams", "--device", "cuda")
    assert done.returncode == 2
    assert done.stderr.strip() == "bench streams: there is no device cuda here: use --device cpu"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_bench_runs_on_a_gpu():
    """The nodes of a bench take the device that it was given."""
    done = bench("streams", "--json", "--quick", "--device", "cuda")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["aggregate_ratio"] > 0
