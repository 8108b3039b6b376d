import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from p2pos.shard import sampling
from p2pos.shard.sampling import uniform
from p2pos.wire.messages import Sampling

LOGITS = torch.tensor([0.1, 2.0, 1.9, -3.0, 0.0])


def choose(
    logits: torch.Tensor, how: Sampling, generated: list[int], position: int, prompt: tuple[int, ...] = ()
) -> int:
    return sampling.choose(logits, how, prompt=prompt, generated=generated, position=position).token


def test_temperature_zero_is_greedy() -> None:
    """The likeliest token is chosen, whatever the seed."""
    assert {choose(LOGITS, Sampling(seed=seed), [], 7) for seed in range(20)} == {1}


@pytest.mark.parametrize("temperature", [5e-324, 1e-30, 1e-5])
def test_the_least_temperatures_are_greedy(temperature: float) -> None:
    """A temperature that the logits can't be divided by is as good as none."""
    assert choose(LOGITS, Sampling(temperature=temperature, seed=3), [], 0) == 1


def test_no_peers_values_leave_the_vocabulary() -> None:
    """Extreme values that the wire admits, and logits that are no numbers, still give a token that there is."""
    wild = Sampling(temperature=100.0, top_p=1e-300, repetition_penalty=1e-300, presence_penalty=2.0, min_p=1.0)
    for logits in (LOGITS, LOGITS * float("inf"), LOGITS * float("nan"), torch.full((5,), float("-inf"))):
        assert 0 <= choose(logits, wild, [1, 1, 4], 0, prompt=(0, 2)) < 5


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


def test_the_repetition_penalty_counts_the_prompt() -> None:
    """A token of the prompt gives way as one of the text does."""
    assert choose(LOGITS, Sampling(repetition_penalty=1.5), [], 0, prompt=(1,)) == 2


def test_presence_is_taken_once_and_frequency_each_time() -> None:
    """As OpenAI has it: three times the same token cost presence once and frequency thrice; the prompt is free."""
    logits = torch.tensor([0.0, 1.0])
    assert choose(logits, Sampling(presence_penalty=0.9), [1, 1, 1], 0) == 1
    assert choose(logits, Sampling(presence_penalty=1.1), [1], 0) == 0
    assert choose(logits, Sampling(frequency_penalty=0.3), [1, 1, 1], 0) == 1
    assert choose(logits, Sampling(frequency_penalty=0.4), [1, 1, 1], 0) == 0
    assert choose(logits, Sampling(frequency_penalty=2.0), [], 0, prompt=(1, 1, 1)) == 1


def test_a_bias_is_added() -> None:
    """A bias lifts an unlikely token and bans a likely one; one for a token that isn't there is passed over."""
    assert choose(LOGITS, Sampling(logit_bias=[(3, 100.0), (99, 5.0)]), [], 0) == 3
    assert choose(LOGITS, Sampling(logit_bias=[(1, -100.0)]), [], 0) == 2


def test_min_p_drops_what_is_much_less_likely() -> None:
    """With half of the likeliest one's probability as the least, only the two near-equal tokens can come."""
    chosen = {choose(LOGITS, Sampling(temperature=1.0, min_p=0.5, seed=seed), [], 0) for seed in range(60)}
    assert chosen == {1, 2}


def test_logprobs_are_the_models_own() -> None:
    """They are those of log_softmax before temperature, penalties and filters, the likeliest first."""
    how = Sampling(temperature=5.0, top_k=1, repetition_penalty=3.0, logprobs=3)
    found = sampling.choose(LOGITS, how, prompt=(1,), generated=[], position=0).logprobs
    expected = LOGITS.log_softmax(-1)
    assert found is not None
    assert found.chosen == pytest.approx(float(expected[2]), abs=1e-6)
    assert [token for token, _ in found.top] == [1, 2]
    assert [value for _, value in found.top] == pytest.approx([float(expected[1]), float(expected[2])], abs=1e-6)


def test_no_logprobs_unless_asked() -> None:
    """They cost a pass over the vocabulary, so they are made only on request; one asks for the chosen token's alone."""
    assert sampling.choose(LOGITS, Sampling(), prompt=(), generated=[], position=0).logprobs is None
    alone = sampling.choose(LOGITS, Sampling(logprobs=1), prompt=(), generated=[], position=0).logprobs
    assert alone is not None
    assert alone.top == []


def test_the_logits_are_left_alone() -> None:
    """The model's logits are the same afterwards, whatever is done with them."""
    before = LOGITS.clone()
    choose(
        LOGITS, Sampling(temperature=1.0, repetition_penalty=2.0, logit_bias=[(0, 1.0)], frequency_penalty=1.0), [1], 0
    )
    assert torch.equal(before, LOGITS)


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
