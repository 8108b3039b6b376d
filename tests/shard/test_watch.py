import pytest

from p2pos.shard.watch import (
    ANSWER_S,
    ASLEEP_S,
    FIRST_S,
    IDLE_S,
    LATEST_S,
    SOONEST_S,
    STUCK_S,
    Ask,
    Silent,
    Stuck,
    Watch,
)
from p2pos.types import PeerId
from p2pos.wire.messages import Progress

PEERS = [PeerId("head-peer"), PeerId("middle-peer"), PeerId("tail-peer")]


def progress(number: int, received: int, computed: int) -> Progress:
    return Progress(bytes(16), number, received, computed)


def test_nobody_is_asked_before_a_token_is_late() -> None:
    """While tokens come as they use to, no question is sent."""
    watch = Watch(PEERS, 0.0)
    for step in range(100):
        now_s = 0.1 * step
        watch.token(now_s)
        assert watch.due(now_s + 0.15) is None
    assert watch.due(now_s + 0.1 * 4) == Ask(1)


@pytest.mark.parametrize(("gap_s", "late_s"), [(0.001, SOONEST_S), (0.2, 0.8), (30.0, LATEST_S)])
def test_when_a_token_is_late(gap_s: float, late_s: float) -> None:
    """After some times the usual gap, but neither at once nor after minutes."""
    watch = Watch(PEERS, 0.0)
    watch.token(0.0)
    watch.token(gap_s)
    assert watch.deadline_s == pytest.approx(gap_s + late_s)


def test_who_does_not_answer_is_silent() -> None:
    """Those that were asked and said nothing in time are named, and no other."""
    watch = Watch(PEERS, 0.0)
    assert watch.due(FIRST_S) == Ask(1)
    watch.answer(PEERS[0], progress(1, 5, 5), FIRST_S + 0.1)
    watch.answer(PEERS[2], progress(1, 5, 5), FIRST_S + 0.1)
    assert watch.due(FIRST_S + ANSWER_S - 0.1) is None
    assert watch.due(FIRST_S + ANSWER_S) == Silent(frozenset({PEERS[1]}))


def test_an_answer_to_another_question_does_not_count() -> None:
    """What a stage said before it hung says nothing of now."""
    watch = Watch(PEERS[:1], 0.0)
    watch.due(FIRST_S)
    watch.answer(PEERS[0], progress(0, 5, 5), FIRST_S)
    assert watch.due(FIRST_S + ANSWER_S) == Silent(frozenset(PEERS[:1]))


def test_a_token_answers_for_everyone() -> None:
    """It came through all of them."""
    watch = Watch(PEERS, 0.0)
    watch.due(FIRST_S)
    watch.token(FIRST_S + 0.5)
    assert not watch.asking


def test_one_that_slept_itself_accuses_nobody() -> None:
    """After its own pause the answers may be there unread, so it asks again."""
    watch = Watch(PEERS, 0.0)
    watch.due(FIRST_S)
    assert watch.due(FIRST_S + ANSWER_S + ASLEEP_S) == Ask(2)


def answer_all(watch: Watch, states: list[tuple[int, int]], until_s: float) -> Stuck | None:
    """All answer the same again and again; where it is found to be stuck."""
    number, now_s = 0, 0.0
    while now_s < until_s:
        now_s = watch.deadline_s
        found = watch.due(now_s)
        if isinstance(found, Stuck):
            return found
        number += 1
        assert found == Ask(number)
        for peer, (received, computed) in zip(PEERS, states, strict=True):
            watch.answer(peer, progress(number, received, computed), now_s)
    return None


@pytest.mark.parametrize(
    ("states", "culprit"),
    [
        ([(8, 8), (8, 4), (4, 4)], 1),  # has rows and computes none
        ([(8, 8), (4, 4), (4, 4)], 1),  # lacks what the one before it has computed
        ([(8, 8), (8, 8), (8, 8)], 2),  # all is computed, and no token comes
    ],
)
def test_where_it_is_stuck(states: list[tuple[int, int]], culprit: int) -> None:
    """Where all answer and nothing moves for long, the first stage that has work and does none is meant."""
    assert answer_all(Watch(PEERS, 0.0), states, 2 * STUCK_S) == Stuck(PEERS[culprit])


def test_a_long_prompt_is_not_stuck() -> None:
    """As long as one position more is computed now and then."""
    watch, number = Watch(PEERS, 0.0), 0
    while watch.deadline_s < 10 * STUCK_S:
        now_s = watch.deadline_s
        number += 1
        assert watch.due(now_s) == Ask(number)
        for peer in PEERS:
            watch.answer(peer, progress(number, 1000, int(now_s) // 30), now_s)


def test_one_that_did_not_look_for_long_finds_nobody_stuck() -> None:
    """Nobody was asked meanwhile."""
    assert Watch(PEERS, 0.0).due(2 * STUCK_S) == Ask(1)


def test_where_nobody_computes_it_is_found_sooner() -> None:
    """What was computed and doesn't arrive isn't waited for as long as a chunk that is being computed."""
    watch = Watch(PEERS, 0.0)
    assert answer_all(watch, [(8, 8), (4, 4), (4, 4)], IDLE_S + 5.0) == Stuck(PEERS[1])
    assert answer_all(Watch(PEERS, 0.0), [(8, 8), (8, 4), (4, 4)], IDLE_S + 5.0) is None
