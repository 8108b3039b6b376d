import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import UnavailableError
from p2pos.ledger import limits as module
from p2pos.ledger.limits import LimitedError, Limiter, Limits
from tests.ledger.chains import ALICE, BOB

ONE, TWO = ALICE.address, BOB.address


def takes(limiter: Limiter, now_s: float, signer: str = ONE) -> bool:
    """Hand one in, if it may."""
    try:
        limiter.require([signer], {}, now_s)
    except LimitedError:
        return False
    limiter.charge([signer], now_s)
    return True


def test_without_limits_all_is_taken():
    """By default nobody is limited, and nobody is remembered."""
    limiter = Limiter(Limits())
    assert all(takes(limiter, 0.0) for _ in range(1000))
    assert not limiter._buckets


@given(
    per_minute=st.floats(0.5, 600),
    burst=st.integers(1, 50),
    gaps=st.lists(st.floats(0, 20), min_size=1, max_size=200),
)
def test_no_more_than_burst_and_rate(per_minute, burst, gaps):
    """However intents arrive, over any time no more are taken than the burst and the rate's share of that time."""
    limiter = Limiter(Limits(per_minute=per_minute, burst=burst))
    now_s, taken = 0.0, 0
    for gap in gaps:
        now_s += gap
        taken += takes(limiter, now_s)
        assert taken <= burst + now_s * per_minute / 60 + 1e-6


@given(per_minute=st.floats(0.5, 600), burst=st.integers(1, 5))
def test_who_waits_as_told_is_taken(per_minute, burst):
    """Whoever comes back when the refusal said is taken."""
    limiter = Limiter(Limits(per_minute=per_minute, burst=burst))
    now_s = 0.0
    while takes(limiter, now_s):
        pass
    with pytest.raises(LimitedError) as caught:
        limiter.require([ONE], {}, now_s)
    assert takes(limiter, now_s + caught.value.retry_after_s)


def test_one_does_not_use_up_anothers():
    """Each signer has a rate of their own; a swap counts for both."""
    limiter = Limiter(Limits(per_minute=1, burst=1))
    assert takes(limiter, 0.0, ONE)
    assert not takes(limiter, 0.0, ONE)
    with pytest.raises(LimitedError) as caught:
        limiter.require([TWO, ONE], {}, 0.0)
    assert caught.value.fields["signer"] == ONE
    assert takes(limiter, 0.0, TWO)


def test_what_is_refused_elsewhere_costs_nothing():
    """Only what was taken in is counted."""
    limiter = Limiter(Limits(per_minute=1, burst=1))
    for _ in range(5):
        limiter.require([ONE], {}, 0.0)
    assert takes(limiter, 0.0)


def test_too_many_waiting():
    """Who has as much waiting as is allowed is told to come back; the error is one line and says how much it is."""
    waiting = {ONE: 3, TWO: 2}
    limiter = Limiter(Limits(waiting=3))
    assert limiter.asks_who_waits(3)
    assert not limiter.asks_who_waits(2)
    limiter.require([TWO], waiting, 0.0)
    with pytest.raises(UnavailableError, match=f"3 intents of {ONE} are waiting already, and 3 may") as caught:
        limiter.require([ONE], waiting, 0.0)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_memory_is_bounded(monkeypatch):
    """Of too many signers, the one heard of longest ago is forgotten."""
    monkeypatch.setattr(module, "MAX_REMEMBERED", 2)
    limiter = Limiter(Limits(per_minute=1, burst=1))
    for signer in ("a", "b", "c"):
        assert takes(limiter, 0.0, signer)
    assert set(limiter._buckets) == {"b", "c"}
