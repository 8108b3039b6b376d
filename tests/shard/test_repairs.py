"""Repairs that cross other things: each what once went wrong when failures were played against one another."""

from typing import Any

import pytest

from p2pos.errors import PeerError, UnavailableError
from p2pos.shard.effects import Blame, Computed, Emit, Reroute, Run, Send
from p2pos.shard.owner import Phase
from p2pos.shard.session import StageSession
from p2pos.types import PeerId
from p2pos.wire.messages import Ack, Fault, Open, Probe, Progress, Repair, Replay, StageRef, Step, Tokens
from tests.shard.sessions import OWNER, SESSION, header, order, owner, stage, stages
from tests.shard.test_owner import running, sent, spare

HEAD, MIDDLE, TAIL = (PeerId(f"stage-{index}") for index in range(3))


def computed(session: StageSession, run: Run) -> list[Any]:
    if run.sample:
        return list(session.on_computed(Computed(run.position, run.rows, token=1000 + run.position + run.rows), 0.0))
    return list(session.on_computed(Computed(run.position, run.rows, header(run.rows), bytes(16 * run.rows)), 0.0))


def play(session: StageSession, effects: list[Any]) -> list[Send]:
    """Compute what is to be computed, and give all that is sent."""
    found: list[Send] = []
    while effects:
        found += [each for each in effects if isinstance(each, Send)]
        effects = [more for run in effects if isinstance(run, Run) for more in computed(session, run)]
    return found


def test_a_late_answer_to_a_probe_is_none_to_a_repair() -> None:
    """It says how far the stage was before."""
    mine = running()
    asked = sent(mine.on_time(mine.deadline_s), Probe)
    mine.on_lost(MIDDLE, 2.0)
    mine.on_route([stages(3)[0], spare(1), stages(3)[2]], 2.0)
    for peer, probe in asked:
        mine.on_message(PeerId(peer), Progress(SESSION, probe.number, 4, 4), 2.1)
    assert mine.phase is Phase.ASKING


def test_a_new_tail_samples_after_each_row_that_the_owner_has_no_token_of() -> None:
    """Head and tail are lost at once, and the middle has rows of tokens that the owner never got."""
    middle = stage(1)
    play(middle, middle.on_message(HEAD, Step(SESSION, 0, header(4)), bytes(64), 0.0))
    for position in (4, 5, 6):  # the owner has the token of 4 alone
        play(middle, middle.on_message(HEAD, Step(SESSION, position, header(1)), bytes(16), 0.0))
    route = [StageRef("other-head", [], 0, 1), stages(3)[1], StageRef("other-tail", [], 2, 3)]
    middle.on_message(OWNER, Repair(SESSION, 1, route, 1, 5), b"", 0.0)
    steps = play(middle, middle.on_message(OWNER, Replay(SESSION, 1, 0), b"", 0.0))
    opened = order(2, stages=route, given=[1004], resume=5, epoch=1)
    tail = StageSession(opened, me=PeerId("other-tail"), sender=OWNER, now_s=0.0)
    tail.start(0)
    told = [more for each in steps for more in play(tail, tail.on_message(MIDDLE, each.message, each.payload, 0.0))]
    mine = [each.message for each in told if each.peer == OWNER]
    assert [each.position for each in mine if isinstance(each, Tokens)] == [5, 6, 7]


def test_a_token_that_overtakes_the_prompt_of_a_new_head_is_passed_over() -> None:
    """The owner is the tail as well, and what its stage samples comes before what it sends as the owner."""
    route = [StageRef("new-head", [], 0, 1), stages(3)[1], StageRef(OWNER, [], 2, 3)]
    opened = order(0, stages=route, epoch=1, resume=5)
    head = StageSession(opened, me=PeerId("new-head"), sender=OWNER, now_s=0.0)
    head.start(0)
    assert head.on_message(OWNER, Tokens(SESSION, 5, [9]), b"", 0.0) == []
    effects = head.on_message(OWNER, Tokens(SESSION, 0, [5, 6, 7, 8, 1, 9]), b"", 0.0)
    assert any(isinstance(each, Run) for each in effects)


def test_who_is_leaving_as_it_is_asked_is_passed_over_at_once() -> None:
    """It would serve, but not for long."""
    mine = owner()
    mine.start()
    effects = mine.on_message(MIDDLE, Fault(SESSION, "leaving", "it is going"), 2.0)
    assert any(isinstance(each, Reroute) for each in effects)


@pytest.mark.parametrize("told", [True, False])
def test_who_is_lost_while_it_leaves_is_lost(told: bool) -> None:
    """Where nobody can take its place, the text waits; it doesn't go on as if nothing had been."""
    mine = running()
    mine.on_message(MIDDLE, Fault(SESSION, "leaving", "bye"), 2.0)
    if told:
        mine.on_message(HEAD, Fault(SESSION, "next_stage", "lost", MIDDLE), 2.1)
    else:
        mine.on_lost(MIDDLE, 2.1)
    mine.on_no_route(UnavailableError("nobody"), 2.2)
    assert mine.phase is Phase.ROUTING


def test_who_leaves_is_kept_where_nobody_can_take_its_place_as_well() -> None:
    """Another is lost meanwhile; one that works still is better than none."""
    mine = running()
    mine.on_message(MIDDLE, Fault(SESSION, "leaving", "bye"), 2.0)
    mine.on_lost(TAIL, 2.1)
    assert mine.on_no_route(UnavailableError("nobody"), 2.2) == [Reroute(frozenset({TAIL}))]


def beginning(cached: int) -> Any:
    """A session of 40 tokens of prompt of which every stage holds so many, that is only beginning; its tail is lost."""
    mine = owner(prompt=tuple(range(40)))
    mine.start()
    for peer in (HEAD, MIDDLE, TAIL):
        mine.on_message(peer, Ack(SESSION, cached, 0), 0.0)
    mine.on_lost(TAIL, 1.0)
    mine.on_route([*stages(2), spare(2)], 1.0)
    return mine


def test_a_replay_begins_where_the_stage_before_has_come_at_most() -> None:
    """A newcomer that holds more of the prompt than that has to wait for it."""
    mine = beginning(0)
    mine.on_message(HEAD, Progress(SESSION, 1, 40, 20), 1.0)
    mine.on_message(MIDDLE, Progress(SESSION, 1, 18, 18), 1.0)
    effects = mine.on_message(PeerId("spare-2"), Ack(SESSION, 32, 1), 1.0)
    assert [message.position for _, message in sent(effects, Replay)] == [16]


def test_nobody_replays_from_before_where_the_session_began() -> None:
    """A stage to which nothing has come yet will begin there, so a newcomer that holds less needs a new beginning."""
    mine = beginning(32)
    mine.on_message(HEAD, Progress(SESSION, 1, 40, 32, 32), 1.0)
    mine.on_message(MIDDLE, Progress(SESSION, 1, 0, 0), 1.0)
    effects = mine.on_message(PeerId("spare-2"), Ack(SESSION, 0, 1), 1.0)
    assert not sent(effects, Replay)
    assert len(sent(effects, Open)) == 3


def test_an_ack_that_crosses_anothers_failure_is_no_nonsense() -> None:
    """One stage is lost while the session opens, and the others' answers are under way."""
    mine = owner()
    mine.start()
    mine.on_lost(MIDDLE, 0.1)
    assert not any(isinstance(each, Blame) for each in mine.on_message(HEAD, Ack(SESSION, 0, 0), 0.2))


def test_the_same_peer_as_new_is_sent_nothing_before_the_replay() -> None:
    """It came back empty, and what it is sent before would be a gap."""
    first = stage(0)
    first.on_message(OWNER, Tokens(SESSION, 0, [5, 6, 7, 8]), b"", 0.0)
    mine = running()
    mine.on_lost(MIDDLE, 2.0)
    (peer, repair), *_ = sent(mine.on_route(stages(3), 2.0), Repair)
    assert peer == HEAD
    first.on_message(OWNER, repair, b"", 0.0)
    assert not [
        each for each in computed(first, Run(0, 4)) if isinstance(each, Send) and isinstance(each.message, Step)
    ]


def test_rows_that_are_known_in_part_are_taken_from_there_on() -> None:
    """What a newcomer sends may begin before what its neighbour has."""
    middle = stage(1)
    play(middle, middle.on_message(HEAD, Step(SESSION, 0, header(2)), bytes(32), 0.0))
    route = [StageRef("other-head", [], 0, 1), *stages(3)[1:]]
    middle.on_message(OWNER, Repair(SESSION, 1, route, 1, 4), b"", 0.0)
    effects = middle.on_message(PeerId("other-head"), Step(SESSION, 0, header(4)), bytes(64), 0.0)
    (run,) = (each for each in effects if isinstance(each, Run))
    assert (run.position, run.rows, len(run.payload)) == (2, 2, 32)


def test_what_a_head_has_heard_is_told_where_its_session_began_behind_the_prompt() -> None:
    """All began anew with 16 positions cached, one more than the prompt has."""
    opened = order(0, prompt_length=15, resume=17, epoch=1, prefix=[bytes(16)])
    head = StageSession(opened, me=HEAD, sender=OWNER, now_s=0.0)
    head.start(16)
    head.on_message(OWNER, Tokens(SESSION, 16, [101]), b"", 0.0)
    for position in (17, 18):
        head.on_message(TAIL, Tokens(SESSION, position, [85 + position]), b"", 0.0)
    (answer,) = head.on_message(OWNER, Repair(SESSION, 2, stages(3), 0, 17), b"", 0.0)
    assert isinstance(answer, Send)
    assert isinstance(answer.message, Progress)
    assert answer.message.tokens == [102, 103]


def test_blocks_of_rows_that_a_lost_stage_sent_are_not_filed_in_anothers_name() -> None:
    """What it sent may have been spoilt, and would spoil later texts over the route without it."""
    middle = stage(1, prompt_length=40)
    middle.on_message(HEAD, Step(SESSION, 0, header(12)), bytes(192), 0.0)
    computed(middle, Run(0, 12))
    route = [StageRef("other-head", [], 0, 1), *stages(3)[1:]]
    middle.on_message(OWNER, Repair(SESSION, 1, route, 1, 40), b"", 0.0)
    effects = middle.on_message(PeerId("other-head"), Step(SESSION, 12, header(4), [bytes(16)]), bytes(64), 0.0)
    (run,) = (each for each in effects if isinstance(each, Run))
    assert run.keys == ()


def test_a_stage_does_not_accuse_others_for_ever() -> None:
    """Whoever finds fault with each new neighbour is the one that goes."""
    mine = running(max_tokens=100)
    blamed: set[str] = set()
    for number in range(10):
        victim = mine.stages[1].peer
        effects = mine.on_message(HEAD, Fault(mine.session, "next_stage", "lost", victim), 2.0 + number)
        blamed |= {each.peer for each in effects if isinstance(each, Blame)}
        if HEAD in mine.lost:
            break
        mine.on_route([stages(3)[0], StageRef(f"another-{number}", [], 1, 2), stages(3)[2]], 2.0)
        for peer in (HEAD, TAIL):
            mine.on_message(peer, Progress(mine.session, number + 1, mine.known, mine.known), 2.0)
        mine.on_message(PeerId(f"another-{number}"), Ack(mine.session, 0, number + 1), 2.0)
        mine.on_message(TAIL, Tokens(mine.session, mine.known, [9]), 2.0)  # so that nothing is over
    assert HEAD in blamed
    assert len(blamed) <= 3


def test_a_stage_accuses_its_neighbours_alone() -> None:
    """Of others it can know nothing."""
    mine = running(4)
    effects = mine.on_message(MIDDLE, Fault(SESSION, "next_stage", "lost", "stage-3"), 2.0)
    assert [each.peer for each in effects if isinstance(each, Blame)] == [MIDDLE]


def test_a_replay_needs_a_repair() -> None:
    """Without one there is nobody who lacks anything."""
    middle = stage(1)
    play(middle, middle.on_message(HEAD, Step(SESSION, 0, header(4)), bytes(64), 0.0))
    assert middle.on_message(OWNER, Replay(SESSION, 0, 0), b"", 0.0) == []


def test_only_the_tail_is_given_a_text() -> None:
    """The others have no use for it, and a million numbers take memory."""
    with pytest.raises(PeerError, match="gave 1000000 tokens"):
        stage(0, given=[7] * 1_000_000)


def test_a_head_does_not_write_the_text() -> None:
    """It may have had a few tokens of a lost tail that the owner hasn't; not hundreds."""
    mine = running(max_tokens=1000)
    mine.on_message(MIDDLE, Fault(SESSION, "next_stage", "lost", TAIL), 2.0)
    mine.on_route([*stages(2), spare(2)], 2.0)
    mine.on_message(MIDDLE, Progress(SESSION, 1, 5, 5), 2.0)
    effects = mine.on_message(HEAD, Progress(SESSION, 1, 905, 905, 0, [66] * 900), 2.0)
    assert not any(isinstance(each, Emit) for each in effects)


def test_patience_is_for_the_whole_of_it_whoever_hangs() -> None:
    """Newcomers that hang one after another don't keep a text waiting for minutes."""
    mine = running(patience_s=30.0)
    mine.on_lost(MIDDLE, 2.0)
    number, now_s = 0, 2.0
    while not mine.over:
        number += 1
        mine.on_route([stages(3)[0], StageRef(f"another-{number}", [], 1, 2), stages(3)[2]], now_s)
        for peer in (HEAD, TAIL):
            mine.on_message(peer, Progress(mine.session, number, 5, 5), now_s)
        now_s = mine.deadline_s
        mine.on_time(now_s)
    assert now_s < 50
