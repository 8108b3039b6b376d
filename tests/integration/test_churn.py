"""Nodes that are killed and come back at random, for minutes, under texts that never stop."""

import json
import subprocess
import sys
from typing import Any

import pytest

TEST_S, SOAK_S = 180, 1800
MARGIN_S = 300
"""To start, to write the texts that the others are compared with, and to end, on a busy machine."""
FLAT = 0.1
"""The share that a process's memory may grow by from its first half minute to its end: an allocator's unrest."""


def churn(seconds: int) -> dict[str, Any]:
    """What the bench says after so long."""
    # other tests run beside it, and some of those wait for a clock
    command = ["nice", "-n", "5", sys.executable, "-m", "bench", "churn", "--json", "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + MARGIN_S, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    "seconds", [pytest.param(TEST_S, id="3 min"), pytest.param(SOAK_S, id="30 min", marks=pytest.mark.soak)]
)
def test_no_text_is_lost_or_wrong(seconds: int) -> None:
    """Every text is whole and as if nothing had happened, some were hit, and nobody's memory grows."""
    found = churn(seconds)
    assert (found["lost"], found["wrong"]) == (0, 0), found["why_lost"]
    assert found["kills"] >= seconds / 40
    assert found["hit"] > 0
    assert found["requests"] > found["kills"]
    assert found["rss_growth_share"] < FLAT
