import pytest

from p2pos.errors import PeerError, UnavailableError
from p2pos.shard.trouble import MAX_ATTEMPTS, MAX_BACKOFF, Trouble, error_of
from p2pos.types import PeerId
from p2pos.wire.messages import Fault

ERROR = UnavailableError("lost the node")


def test_a_trouble_lasts_from_its_first_failure_to_the_next_token() -> None:
    """Further failures don't begin it anew; a token ends it."""
    trouble = Trouble()
    assert not trouble.lasts(0.0, 100.0)
    trouble.more("lost", ERROR, 10.0, steady=False)
    trouble.more("hung", ERROR, 15.0, steady=False)
    assert trouble.lasts(6.0, 16.0)
    assert not trouble.lasts(7.0, 16.0)
    trouble.over()
    assert not trouble.lasts(0.0, 100.0)
    assert trouble.cause == "hung"  # whoever tells of its end wants to say what it was


def test_a_failure_after_a_steady_while_is_a_new_trouble() -> None:
    """A long prompt gives no token for minutes, and what failed before it counts no more."""
    trouble = Trouble()
    trouble.more("lost", ERROR, 10.0, steady=False)
    trouble.more("lost", ERROR, 100.0, steady=True)
    assert trouble.attempts == 1
    assert not trouble.lasts(1.0, 100.0)


def test_it_waits_twice_as_long_each_time_within_a_bound_and_gives_up() -> None:
    """Who answers late isn't gone; and at some time it's no use."""
    trouble, waits = Trouble(), []
    for _ in range(MAX_ATTEMPTS):
        trouble.more("hung", ERROR, 0.0, steady=False)
        waits.append(trouble.backoff)
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(waits) == MAX_BACKOFF
    assert not trouble.hopeless
    trouble.more("hung", ERROR, 0.0, steady=False)
    assert trouble.hopeless


@pytest.mark.parametrize(
    ("code", "kind"), [("busy", UnavailableError), ("deadline", UnavailableError), ("internal", PeerError)]
)
def test_who_is_at_fault(code: str, kind: type[Exception]) -> None:
    """A stage without room or time is unavailable; one that failed is at fault itself."""
    fault = Fault(bytes(16), code, "because")  # type: ignore[arg-type]  # one of the literals
    error = error_of(PeerId("stage-peer"), fault)
    assert isinstance(error, kind)
    assert "because" in error.message
