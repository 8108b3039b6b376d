from hypothesis import given
from hypothesis import strategies as st

from p2pos.content.bucket import Bucket

STEPS = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 5000)), min_size=1, max_size=40)


@given(steps=STEPS, rate=st.integers(1, 10_000))
def test_the_cap_holds(steps: list[tuple[float, int]], rate: int) -> None:
    """Over any time no more passes than the rate allows, the burst and one piece beside."""
    bucket, now, passed = Bucket(rate), 100.0, list[tuple[float, int]]()
    for rest, nbytes in steps:
        now = max(now + rest, bucket.free_s(now + rest))
        bucket.take(nbytes, now)
        passed.append((now, nbytes))
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            nbytes = sum(each for _, each in passed[first : last + 1])
            allowed = rate * (passed[last][0] - passed[first][0]) + rate / 4 + max(each for _, each in passed)
            assert nbytes <= allowed * 1.001


@given(steps=STEPS, rate=st.integers(1, 10_000))
def test_the_rate_is_used(steps: list[tuple[float, int]], rate: int) -> None:
    """Who always waits to the moment that is named gets the whole rate."""
    bucket, now, total = Bucket(rate), 0.0, 0
    for _, nbytes in steps:
        now = bucket.free_s(now)
        bucket.take(nbytes, now)
        total += nbytes
    assert total >= rate * bucket.free_s(now) * 0.99


def test_no_cap_never_waits() -> None:
    """A rate of 0 is no cap."""
    bucket = Bucket(0)
    bucket.take(1 << 40, 0.0)
    assert bucket.free_s(0.0) == 0.0
