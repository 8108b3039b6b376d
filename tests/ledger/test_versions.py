import pytest

from p2pos.errors import ChainError
from p2pos.ledger.events import ClassCreated, ClassUpdated, Place
from p2pos.ledger.terms import Terms
from p2pos.ledger.versions import Version, versions
from tests.ledger.chains import ALICE


def place(block):
    return Place(block, f"0x{block:064x}", f"0x{block:064x}", 0)


def digest(number):
    return bytes([number]) * 32


MADE = ClassCreated(place(1), 7, ALICE.address, digest(1), Terms(0))
SECOND = ClassUpdated(place(4), 7, 2, digest(2), digest(1))
THIRD = ClassUpdated(place(9), 7, 3, digest(3), digest(2))
OTHER = ClassUpdated(place(5), 8, 2, digest(9), digest(8))


def test_versions_follow_one_another():
    """Each has its number, its digest and the block from which it is; other classes don't matter."""
    assert versions(7, [MADE, SECOND, OTHER, THIRD]) == [
        Version(number, digest(number), block, place(block).transaction) for number, block in ((1, 1), (2, 4), (3, 9))
    ]
    assert versions(9, [MADE]) == []


@pytest.mark.parametrize(
    "happened", [[MADE, MADE], [SECOND], [MADE, THIRD], [MADE, SECOND._replace(previous=digest(5))]]
)
def test_events_that_do_not_follow_are_refused(happened):
    """Where an end point leaves one out, or makes one up, it is found out."""
    with pytest.raises(ChainError, match="made twice|don't follow"):
        versions(7, happened)
