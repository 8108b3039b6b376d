import pytest
import trio

from bench import checkpoints
from bench.interference import longest_gap_s
from bench.swarm import Text, aggregate_tok_s, in_turn, swarm
from p2pos.errors import InternalError
from tests.bench.test_checkpoints import SMALL


def text(*arrivals_s):
    return Text(tuple(range(len(arrivals_s))), 0.0, tuple(map(float, arrivals_s)))


def test_a_rate_is_of_the_time_when_all_were_writing():
    """What came before the last text began, or after the first one ended, does not count."""
    assert aggregate_tok_s([text(1, 2, 3, 4, 5), text(3, 4, 5, 6, 7)]) == (2 + 2) / 2


def test_texts_that_never_met_have_no_common_rate():
    """A rate of sessions together needs a time when they were."""
    with pytest.raises(InternalError):
        aggregate_tok_s([text(1, 2), text(2, 3)])


def test_the_longest_gap_reaches_into_the_time_asked_for():
    """A gap that began before it or ended after it counts whole; one outside does not."""
    times_s = [0.0, 9.0, 10.0, 12.0, 13.0, 16.0, 30.0]
    assert longest_gap_s(times_s, 11.0, 12.5) == 2.0
    assert longest_gap_s(times_s, 11.0, 14.0) == 3.0


def test_a_session_that_was_not_decoding_tells_nothing():
    """A session that begins too late or ends too soon is refused, not taken for one without gaps."""
    for begin_s, end_s in ((0.5, 2.0), (1.5, 4.0)):
        with pytest.raises(InternalError):
            longest_gap_s([1.0, 2.0, 3.0], begin_s, end_s)


def test_who_goes_first_alternates():
    """Each pair is left and right, whichever was measured first."""
    order = []

    async def measure(name):
        order.append(name)
        return name

    pairs = trio.run(in_turn, lambda: measure("left"), lambda: measure("right"), 3)
    assert pairs == [("left", "right")] * 3
    assert order == ["left", "right", "right", "left", "left", "right"]


def test_a_text_through_two_real_nodes(tmp_path):
    """Nodes start, are found, write as many tokens as were asked for, and leave."""
    cache = tmp_path / "cache"
    model = checkpoints.write(tmp_path / "model", SMALL, cache=cache)

    async def main():
        async with swarm(tmp_path, model, 2, cache=cache, device="cpu") as nodes:
            return await nodes.texts([checkpoints.prompt(SMALL, 8, seed) for seed in range(2)], 5)

    texts = trio.run(main)
    assert [len(each.tokens) for each in texts] == [5, 5]
    assert all(each.first_s > 0 and min(each.gaps_s) > 0 for each in texts)
