from hypothesis import given
from hypothesis import strategies as st

from p2pos.ledger.fees import MAX_FEE, MIN_PRIORITY, Fees

prices = st.integers(0, MAX_FEE)


@given(prices, prices)
def test_an_offer_covers_a_doubled_base_fee_within_the_cap(base, tip):
    """What is offered covers twice the base fee and the tip, never passes the cap, and tips something."""
    fees = Fees.suggest(base, tip)
    assert fees.max_fee == min(2 * base + max(tip, MIN_PRIORITY), MAX_FEE)
    assert MIN_PRIORITY <= fees.priority <= fees.max_fee <= MAX_FEE


@given(st.builds(Fees.suggest, prices, prices), st.builds(Fees.suggest, prices, prices))
def test_a_higher_bid_is_one_that_pools_take(old, now):
    """A replacement raises both figures by an eighth at least, or is not offered at all."""
    higher = old.outbid(now)
    if higher is None:
        assert max(old.max_fee * 9 / 8, now.max_fee) > MAX_FEE
    else:
        assert higher.max_fee >= max(old.max_fee * 9 // 8, now.max_fee)
        assert higher.priority >= min(old.priority * 9 // 8, higher.max_fee)
        assert higher.priority <= higher.max_fee <= MAX_FEE
