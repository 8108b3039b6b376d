"""Faults are forgiven a few times, then banned for a growing while."""

from hypothesis import given
from hypothesis import strategies as st

from p2pos.node.conduct import FIRST_BAN_S, FORGET_S, FORGIVEN, LONGEST_BAN_S, MAX_PEERS, Conduct
from p2pos.types import PeerId

EVE = PeerId("eve")


def test_forgiven_then_banned_longer_and_longer() -> None:
    """The first faults cost nothing; one more bans, and after each ban a single fault bans for twice as long."""
    conduct = Conduct()
    assert [conduct.offended(EVE, 0.0) for _ in range(FORGIVEN)] == [0.0] * FORGIVEN
    now_s, bans = 1.0, []
    for _ in range(12):
        bans.append(conduct.offended(EVE, now_s))
        now_s += bans[-1]
        assert conduct.banned(EVE, now_s) == 0.0
    assert bans[:3] == [FIRST_BAN_S, 2 * FIRST_BAN_S, 4 * FIRST_BAN_S]
    assert bans[-1] == LONGEST_BAN_S


def test_forgotten() -> None:
    """Faults that lie a minute apart never ban."""
    conduct = Conduct()
    assert {conduct.offended(EVE, number * (FORGET_S + 1)) for number in range(50)} == {0.0}


def test_others_are_left_alone() -> None:
    """One peer's ban is nobody else's."""
    conduct = Conduct()
    for _ in range(FORGIVEN + 1):
        conduct.offended(EVE, 0.0)
    assert conduct.banned(EVE, 0.0) > 0.0
    assert conduct.banned(PeerId("alice"), 0.0) == 0.0


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0.0, 1e6)), max_size=40))
def test_no_ban_is_longer_than_the_longest(faults: list[tuple[int, float]]) -> None:
    """Whatever happens in whatever order, a ban is between nothing and the longest."""
    conduct = Conduct()
    for peer, now_s in faults:
        assert 0.0 <= conduct.offended(PeerId(str(peer)), now_s) <= LONGEST_BAN_S


def test_bounded() -> None:
    """A crowd of identities doesn't make it grow."""
    conduct = Conduct()
    for number in range(2 * MAX_PEERS):
        conduct.offended(PeerId(str(number)), 0.0)
    assert len(conduct) == MAX_PEERS
