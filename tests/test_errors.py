import pytest

from p2pos import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UserError("a"), 2),
        (errors.PeerError("p", "a"), 1),
        (errors.ChainError("a"), 1),
        (errors.UnavailableError("a"), 3),
        (errors.InternalError("a"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_fault_has_its_exit_code(error: errors.P2posError, code: int) -> None:
    """0 done, 1 failed, 2 the user's mistake, 3 not reachable."""
    assert error.exit_code == code
    assert error.as_dict()["fault"] == error.fault


def test_a_hint_follows_the_message() -> None:
    """What a person reads is what was wrong, then what to do."""
    assert str(errors.UserError("no such file", hint="give another")) == "no such file: give another"


def test_facts_are_fields() -> None:
    """What an error knows is there for --json, not only in its text."""
    assert errors.PeerError("peer-1", "lied", position=3).as_dict() == {
        "fault": "peer",
        "message": "lied",
        "hint": "",
        "peer": "peer-1",
        "position": 3,
    }
