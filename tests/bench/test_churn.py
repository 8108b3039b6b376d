"""What the churn bench counts, and how."""

from bench.churn import SAMPLES, SETTLE_S, Memory, Tally, _count
from bench.failover import share
from bench.trial import Trial
from p2pos.errors import UnavailableError

MIB = 1 << 20


def trial(*tokens, error=None):
    return Trial(tokens, "length", 0.0, tuple(map(float, range(1, len(tokens) + 1))), None, 0, error)


def looked_at(memory, name, pid, *sizes):
    """One look as it starts, then one a second after it has settled."""
    memory.add(name, pid, 0.0, 1)
    for number, size in enumerate(sizes):
        memory.add(name, pid, SETTLE_S + number, size)


def test_growth_is_from_after_the_first_seconds_to_the_end():
    """The size at the very start doesn't count, and a single look that is off doesn't either."""
    memory = Memory()
    looked_at(memory, "n0", 1, 100, 100, 900, 120, 120, 1)
    assert round(memory.growth(), 6) == 0.2


def test_each_life_is_looked_at_for_itself():
    """A node that comes back begins anew, and the one that grew most is the figure."""
    memory = Memory()
    looked_at(memory, "n0", 1, *[100 * MIB] * 2 * SAMPLES)
    looked_at(memory, "n0", 2, *[300 * MIB] * SAMPLES, *[330 * MIB] * SAMPLES)
    looked_at(memory, "client", 3, *[50 * MIB] * 2 * SAMPLES)
    assert round(memory.growth(), 6) == 0.1
    assert memory.growth("client") == 0


def test_a_life_that_was_too_short_says_nothing():
    """Without looks enough there is no figure, rather than a good one."""
    memory = Memory()
    looked_at(memory, "n0", 1, *[100] * (2 * SAMPLES - 1))
    assert memory.growth() is None


def test_a_text_is_right_wrong_or_lost():
    """Lost is what ended in an error, wrong what is another text; both count as asked for."""
    tally = Tally()
    for each in (trial(1, 2, 3), trial(1, 2, 4), trial(1, 2), trial(1, error=UnavailableError("gone"))):
        _count(tally, each, (1, 2, 3))
    assert (tally.requests, len(tally.lost), tally.wrong) == (4, 1, 2)


def test_a_share_is_a_sample():
    """The 95th of a hundred, the greatest of a few, the middle of three."""
    assert share(list(range(1, 101)), 0.95) == 95
    assert share([3.0, 1.0, 2.0], 0.95) == 3.0
    assert share([3.0, 1.0, 2.0], 0.5) == 2.0
