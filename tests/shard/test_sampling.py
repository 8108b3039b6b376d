import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from p2pos.shard.sampling import choose, uniform
from p2pos.wire.messages import Sampling

LOGITS = torch.tensor([0.1, 2.0, 1.9, -3.0, 0.0])


def test_temperature_zero_is_greedy() -> None:
    """The likeliest token is chosen, whatever the seed."""
    assert {choose(LOGITS, Sampling(seed=seed), [], 7) for seed in range(20)} == {1}


def test_the_draw_depends_on_seed_and_position_alone() -> None:
    """The same seed and position give the same token; others give others."""
    drawn = [choose(torch.zeros(1000), Sampling(temperature=1.0, seed=5), [], position) for position in range(50)]
    again = [choose(torch.zeros(1000), Sampling(temperature=1.0, seed=5), [], position) for position in range(50)]
    assert drawn == again
    assert len(set(drawn)) > 40


def test_top_k_of_one_is_greedy() -> None:
    """With one candidate there is nothing to draw."""
    assert {choose(LOGITS, Sampling(temperature=2.0, top_k=1, seed=seed), [], 0) for seed in range(20)} == {1}


def test_top_p_keeps_the_smallest_set() -> None:
    """With half of the probability, only the two near-equal tokens can come."""
    chosen = {choose(LOGITS, Sampling(temperature=1.0, top_p=0.5, seed=seed), [], 0) for seed in range(60)}
    assert chosen == {1, 2}


def test_the_repetition_penalty_changes_a_greedy_choice() -> None:
    """A token that was seen gives way to one nearly as likely."""
    assert choose(LOGITS, Sampling(repetition_penalty=1.5), [1], 0) == 2


def test_draws_follow_the_distribution() -> None:
    """Over many positions, frequencies are within five standard deviations of the probabilities."""
    count = 4000
    drawn = [choose(LOGITS, Sampling(temperature=1.0, seed=1), [], position) for position in range(count)]
    for token, probability in enumerate(LOGITS.softmax(0).tolist()):
        deviation = (count * probability * (1 - probability)) ** 0.5
        assert abs(drawn.count(token) - count * probability) < 5 * deviation + 1


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**20))
def test_uniform_is_in_the_unit_interval(seed: int, position: int) -> None:
    """A draw is at least 0 and less than 1."""
    assert 0.0 <= uniform(seed, position) < 1.0


@pytest.mark.parametrize(("seed", "position", "value"), [(0, 0, 0.321543039748194), (1, 2, 0.8514926221361374)])
def test_uniform_vectors(seed: int, position: int, value: float) -> None:
    """The draw is the same on every machine and in every version."""
    assert uniform(seed, position) == pytest.approx(value, abs=1e-12)
