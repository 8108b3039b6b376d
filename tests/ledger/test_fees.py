from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.ledger.fees import MAX_FEE, MIN_PRIORITY, Fees, from_gwei, in_gwei

prices = st.integers(0, MAX_FEE)


caps = st.integers(MIN_PRIORITY, MAX_FEE)


@given(prices, prices, caps)
def test_an_offer_covers_a_doubled_base_fee_within_the_cap(base, tip, cap):
    """What is offered covers twice the base fee and the tip, never passes the cap, and tips something."""
    fees = Fees.suggest(base, tip, cap)
    assert fees.max_fee == min(2 * base + max(tip, MIN_PRIORITY), cap)
    assert MIN_PRIORITY <= fees.priority <= fees.max_fee <= cap


@given(st.builds(Fees.suggest, prices, prices), st.builds(Fees.suggest, prices, prices), caps)
def test_a_higher_bid_is_one_that_pools_take(old, now, cap):
    """A replacement raises both figures by an eighth at least, or is not offered at all."""
    higher = old.outbid(now, cap)
    if higher is None:
        assert max(old.max_fee * 9 / 8, now.max_fee) > cap
    else:
        assert higher.max_fee >= max(old.max_fee * 9 // 8, now.max_fee)
        assert higher.priority >= min(old.priority * 9 // 8, higher.max_fee)
        assert higher.priority <= higher.max_fee <= cap


@pytest.mark.parametrize(("gwei", "wei"), [("2000", 2 * 10**12), ("0.01", 10**7), ("1.5", 15 * 10**8), ("0", 0)])
def test_gwei_are_read_and_written_exactly(gwei, wei):
    """A fee in gwei is the same number of wei there and back."""
    assert from_gwei(Decimal(gwei)) == wei
    assert in_gwei(wei) == gwei
