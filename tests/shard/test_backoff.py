from hypothesis import given
from hypothesis import strategies as st

from p2pos.shard.backoff import FIRST_S, FORGET_S, MAX_PEERS, MOST_S, Backoff


def pause_s(backoff: Backoff, now_s: float) -> float:
    """For how long a peer that fails now is left alone."""
    backoff.failed("peer", now_s)
    low, high = 0.0, 10 * MOST_S
    while high - low > 1e-6:
        middle = (low + high) / 2
        if "peer" in backoff.avoided(now_s + middle):
            low = middle
        else:
            high = middle
    return low


def test_each_failure_doubles_the_pause_up_to_a_bound() -> None:
    """2, 4, 8 … seconds, and never more than five minutes."""
    backoff, now_s, pauses = Backoff(), 0.0, []
    for _ in range(12):
        pauses.append(round(pause_s(backoff, now_s), 3))
        now_s += pauses[-1] + 0.001
    assert pauses[:4] == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 8 * FIRST_S]
    assert pauses[-1] == MOST_S


def test_a_success_forgets_the_failures() -> None:
    """A peer that works again is used at once, and its next failure counts as the first."""
    backoff = Backoff()
    backoff.failed("peer", 0.0)
    backoff.failed("peer", 100.0)
    backoff.worked("peer")
    assert backoff.avoided(100.0) == frozenset()
    assert round(pause_s(backoff, 100.0), 3) == FIRST_S


def test_failures_of_one_moment_count_once() -> None:
    """Ten sessions that lose a peer together don't keep it away for hours."""
    backoff = Backoff()
    for number in range(10):
        backoff.failed("peer", number / 100)
    assert backoff.failures("peer") == 1
    assert backoff.avoided(FIRST_S + 0.1) == frozenset()


def test_old_failures_are_forgotten() -> None:
    """A peer that failed long ago starts from the shortest pause."""
    backoff = Backoff()
    for number in range(5):
        backoff.failed("peer", number * 100.0)
    assert round(pause_s(backoff, 400.0 + FORGET_S + 1), 3) == FIRST_S


@given(st.lists(st.tuples(st.integers(0, 9000), st.floats(0, 1000)), max_size=60))
def test_no_crowd_of_failures_makes_it_grow(failures: list[tuple[int, float]]) -> None:
    """It remembers so many peers and no more, and only those that failed are avoided."""
    backoff = Backoff()
    for number in range(MAX_PEERS):
        backoff.failed(f"other-{number}", 0.0)
    for peer, now_s in failures:
        backoff.failed(f"peer-{peer}", now_s)
    assert len(backoff._records) == MAX_PEERS
    named = {f"peer-{peer}" for peer, _ in failures} | {f"other-{number}" for number in range(MAX_PEERS)}
    assert backoff.avoided(0.5) <= named
