"""What a relayer has accepted is carried out once or fails with a reason, whatever goes wrong meanwhile."""

import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.ledger.trials import CHAIN, KILL, LIE, NET, Scene, Trial, running_scene

POINTS = 500
"""Faults at random moments in `make test`."""
SOAK_POINTS = 5_000
SEED = "P2POS_TRIAL_SEED"
"""Names one seed to be tried again by itself."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Iterator[Scene]:
    with running_scene(tmp_path_factory.mktemp("trials")) as made:
        yield made


def try_until(scene: Scene, points: int, seeds: Iterator[int]) -> Counter[str]:
    hits: Counter[str] = Counter()
    while hits.total() < points:
        scene.host.save_sometimes()
        hits.update(Trial(scene, next(seeds)).run())
    return hits


def test_faults_at_five_hundred_points(scene):
    """Through 500 faults of the network, the chain and the process nothing is lost and nothing happens twice."""
    only = os.environ.get(SEED)
    seeds = iter([int(only)]) if only else iter(range(1, 10_000))
    hits = try_until(scene, 1 if only else POINTS, seeds)
    assert only or set(hits) == {*NET, *CHAIN, *KILL, *LIE}


@pytest.mark.soak
def test_faults_at_many_points(scene):
    """Likewise through ten times as many, at other moments each time."""
    first = random.SystemRandom().randrange(1 << 32)
    try_until(scene, SOAK_POINTS, iter(range(first, first + 100_000)))
