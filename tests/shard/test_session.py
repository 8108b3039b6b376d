from typing import Any

import pytest

from p2pos.errors import InternalError, PeerError
from p2pos.shard import session as machine
from p2pos.shard.blocks import keys
from p2pos.shard.effects import Adopt, Computed, Release, Run, Send
from p2pos.shard.session import CHUNK, WINDOW, StageSession
from p2pos.types import PeerId
from p2pos.wire.messages import Ack, Close, Fault, Logprobs, Progress, Repair, Replay, StageRef, Step, Tokens
from tests.shard.sessions import HIDDEN, OWNER, SESSION, header, order, stage


def test_a_stage_answers_its_owner() -> None:
    """An opened session is acknowledged at the position to which its prefix is cached."""
    assert stage(1).start(16) == [Send(OWNER, (), Ack(SESSION, 16, 0))]


def test_only_the_owner_opens() -> None:
    """Nobody opens a session in another's name."""
    with pytest.raises(PeerError, match="opened a session for owner-peer"):
        StageSession(order(0), me=PeerId("stage-0"), sender=PeerId("mallory-x"), now_s=0.0)


def test_a_session_for_another_stage_is_refused() -> None:
    """A stage takes only an order that names it."""
    with pytest.raises(PeerError):
        StageSession(order(0), me=PeerId("stage-1"), sender=OWNER, now_s=0.0)


def test_layers_must_join() -> None:
    """A route with a gap is refused when it opens."""
    gap = [StageRef("stage-0", [], 0, 1), StageRef("stage-1", [], 2, 3)]
    with pytest.raises(PeerError, match="do not join"):
        StageSession(order(0, stages=gap), me=PeerId("stage-0"), sender=OWNER, now_s=0.0)


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize(
    "message",
    [
        Step(SESSION, 0, HIDDEN),
        Tokens(SESSION, 0, [1, 2, 3, 4]),
        Tokens(SESSION, 4, [1]),
        Ack(SESSION, 1),
        Close(SESSION),
        Fault(SESSION, "internal", ""),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_stranger_may_say_nothing(index: int, message: Any) -> None:
    """No message of a peer that has no part in the session is taken."""
    with pytest.raises(PeerError):
        stage(index).on_message(PeerId("mallory-x"), message, b"", 0.0)


def test_the_head_wants_the_whole_prompt() -> None:
    """A prompt of another length than announced is refused."""
    with pytest.raises(PeerError, match="sent 3 tokens where 4 are left"):
        stage(0).on_message(OWNER, Tokens(SESSION, 0, [1, 2, 3]), b"", 0.0)


def test_a_second_prompt_is_refused() -> None:
    """The prompt comes once."""
    head = stage(0)
    head.on_message(OWNER, Tokens(SESSION, 0, [1, 2, 3, 4]), b"", 0.0)
    with pytest.raises(PeerError, match="not its to send"):
        head.on_message(OWNER, Tokens(SESSION, 0, [1, 2, 3, 4]), b"", 0.0)


def test_positions_come_in_order() -> None:
    """Hidden states for another position than the next are refused."""
    middle = stage(1)
    middle.on_message(PeerId("stage-0"), Step(SESSION, 0, HIDDEN), b"", 0.0)
    with pytest.raises(PeerError, match="sent position 3 where 1 is next"):
        middle.on_message(PeerId("stage-0"), Step(SESSION, 3, HIDDEN), b"", 0.0)


def test_a_long_prompt_passes_in_chunks_within_the_window() -> None:
    """The head sends no more than the window of chunks before the next stage acknowledges one."""
    head = stage(0, prompt_length=10 * CHUNK)
    effects = head.on_message(OWNER, Tokens(SESSION, 0, [1] * 10 * CHUNK), b"", 0.0)
    sent = 0
    while runs := [effect for effect in effects if isinstance(effect, Run)]:
        (run,) = runs
        assert run.rows == CHUNK
        effects = head.on_computed(Computed(run.position, run.rows, header(run.rows)), 0.0)
        sent += 1
    assert sent == WINDOW
    (resumed,) = head.on_message(PeerId("stage-1"), Ack(SESSION, CHUNK), b"", 0.0)
    assert isinstance(resumed, Run)
    assert resumed.position == WINDOW * CHUNK


def test_a_decode_step_is_not_acknowledged() -> None:
    """A chunk is acknowledged after it was sent on; a step of one token isn't, and nobody waits for it."""
    middle, upstream, downstream = stage(1, prompt_length=40), PeerId("stage-0"), PeerId("stage-2")
    middle.on_message(upstream, Step(SESSION, 0, header(40)), b"", 0.0)
    effects = middle.on_computed(Computed(0, 40, header(40)), 0.0)
    assert [effect.peer for effect in effects if isinstance(effect, Send)] == [downstream, upstream]
    for position in range(40, 40 + WINDOW + 2):
        (run,) = middle.on_message(upstream, Step(SESSION, position, HIDDEN), b"", 0.0)
        assert isinstance(run, Run)
        effects = middle.on_computed(Computed(position, 1, HIDDEN), 0.0)
        assert [effect.peer for effect in effects if isinstance(effect, Send)] == [downstream]


def test_an_ack_of_what_was_not_sent_is_refused() -> None:
    """The next stage can't acknowledge ahead."""
    with pytest.raises(PeerError, match="acknowledged position 9"):
        stage(0).on_message(PeerId("stage-1"), Ack(SESSION, 9), b"", 0.0)


def test_a_neighbour_that_ignores_the_window_is_refused() -> None:
    """More chunks than may wait are the sender's fault."""
    middle = stage(1, prompt_length=1000)
    for number in range(machine.MAX_QUEUED + 1):  # one runs, the others wait
        middle.on_message(PeerId("stage-0"), Step(SESSION, 64 * number, header(64)), b"", 0.0)
    with pytest.raises(PeerError, match="unacknowledged"):
        middle.on_message(PeerId("stage-0"), Step(SESSION, 64 * (machine.MAX_QUEUED + 1), HIDDEN), b"", 0.0)


@pytest.mark.parametrize(
    "route",
    [
        [StageRef("stage-0", [], 0, 3), StageRef("stage-1", [], 3, 3)],
        [StageRef("stage-0", [], 0, 3), StageRef("stage-1", [], 3, 1), StageRef("stage-2", [], 1, 3)],
    ],
)
def test_every_stage_has_layers(route: list[StageRef]) -> None:
    """With an empty span behind it, the model's last stage would not be the session's tail."""
    with pytest.raises(PeerError, match="has no layers"):
        stage(0, stages=route)


def test_history_is_no_longer_than_the_prompt() -> None:
    """A session takes no memory beyond what it asked room for."""
    with pytest.raises(PeerError, match="a history of 5 tokens"):
        stage(2, history=[1] * 5)


def test_no_more_positions_than_asked_for() -> None:
    """A neighbour that never stops is stopped where the session's room in the cache ends."""
    middle, upstream = stage(1, prompt_length=4, max_tokens=2), PeerId("stage-0")
    middle.on_message(upstream, Step(SESSION, 0, header(6)), b"", 0.0)
    with pytest.raises(PeerError, match="more than the session's 6 positions"):
        middle.on_message(upstream, Step(SESSION, 6, HIDDEN), b"", 0.0)
    head, tail = stage(0, prompt_length=4, max_tokens=1), PeerId("stage-2")
    head.on_message(OWNER, Tokens(SESSION, 0, [1, 2, 3, 4]), b"", 0.0)
    head.on_message(tail, Tokens(SESSION, 4, [1]), b"", 0.0)
    with pytest.raises(PeerError, match="more than the session's 5 positions"):
        head.on_message(tail, Tokens(SESSION, 5, [1]), b"", 0.0)


def test_a_step_is_no_longer_than_a_chunk() -> None:
    """Attention over many rows at once takes memory by their square."""
    middle = stage(1, prompt_length=10 * CHUNK)
    with pytest.raises(PeerError, match="positions at once"):
        middle.on_message(PeerId("stage-0"), Step(SESSION, 0, header(CHUNK + 1)), b"", 0.0)


def test_after_the_end_everything_is_passed_over() -> None:
    """A message that crossed the end of its session does nothing."""
    head = stage(0)
    assert head.on_message(OWNER, Close(SESSION), b"", 0.0) == [Release()]
    assert head.on_message(OWNER, Tokens(SESSION, 0, [1, 2, 3, 4]), b"", 0.0) == []
    assert head.fail("internal", "late") == []


def test_a_result_nobody_asked_for_is_our_fault() -> None:
    """A run's result for another position is a fault of this code."""
    with pytest.raises(InternalError):
        stage(0).on_computed(Computed(3, 1, HIDDEN), 0.0)


def test_a_failing_stage_tells_the_owner_and_frees() -> None:
    """A fault goes to the owner, and the cache is released."""
    assert stage(1).fail("internal", "out of memory") == [
        Send(OWNER, (), Fault(SESSION, "internal", "out of memory")),
        Release(),
    ]


def test_a_session_nobody_speaks_of_expires() -> None:
    """After the idle time without a message, a session is expired; a message starts it anew."""
    middle = stage(1)
    assert not middle.expired(machine.IDLE_S - 1)
    middle.on_message(PeerId("stage-0"), Step(SESSION, 0, HIDDEN), b"", 100.0)
    assert not middle.expired(machine.IDLE_S + 99)
    assert middle.expired(machine.IDLE_S + 100)


def test_the_tail_remembers_what_it_sampled() -> None:
    """The penalties and the grammar need every token of the text, at the tail alone."""
    tail = stage(2)
    tail.on_message(PeerId("stage-1"), Step(SESSION, 0, header(4)), b"", 0.0)
    tail.on_computed(Computed(0, 4, token=1004), 0.0)
    assert tail.generated == [1004]


def test_logprobs_go_to_the_owner_alone() -> None:
    """The head needs the token, and not how likely it was."""
    tail = stage(2)
    tail.on_message(PeerId("stage-1"), Step(SESSION, 0, header(4)), b"", 0.0)
    logprobs = Logprobs(-0.5, [(1004, -0.5)])
    effects = tail.on_computed(Computed(0, 4, token=1004, logprobs=logprobs), 0.0)
    sent = {effect.peer: effect.message for effect in effects if isinstance(effect, Send)}
    assert sent[OWNER] == Tokens(SESSION, 4, [1004], "", [logprobs])
    assert sent[PeerId("stage-0")] == Tokens(SESSION, 4, [1004])


def test_an_owner_that_is_the_head_is_told_once() -> None:
    """Where both are one peer, a sampled token is one message, and that peer hands it to both."""
    tail = stage(2, owner="stage-0")
    tail.on_message(PeerId("stage-1"), Step(SESSION, 0, header(4)), b"", 0.0)
    effects = tail.on_computed(Computed(0, 4, token=1004), 0.0)
    assert [effect for effect in effects if isinstance(effect, Send) and isinstance(effect.message, Tokens)] == [
        Send(PeerId("stage-0"), (), Tokens(SESSION, 4, [1004]))
    ]


PROMPT = tuple(range(100, 140))
PREFIX = keys("model", PROMPT)


def long(index: int, cached: int, **changes: Any) -> StageSession:
    return stage(index, cached=cached, prompt_length=40, prefix=PREFIX, **changes)


def test_a_prompt_may_begin_where_the_cache_ends() -> None:
    """The head takes the prompt from a position that it holds, and says at which its cache is wanted."""
    adopt, run = long(0, 32).on_message(OWNER, Tokens(SESSION, 16, list(PROMPT[16:])), b"", 0.0)
    assert adopt == Adopt(16)
    assert isinstance(run, Run)
    assert (run.position, run.rows) == (16, 24)


@pytest.mark.parametrize(("position", "cached"), [(32, 16), (8, 16), (16, 0)])
def test_a_prompt_beyond_the_cache_is_refused(position: int, cached: int) -> None:
    """A session can't begin where nothing is cached, nor in the middle of a block."""
    with pytest.raises(PeerError, match=f"began at position {position} where {cached} are cached"):
        long(0, cached).on_message(OWNER, Tokens(SESSION, position, list(PROMPT[position:])), b"", 0.0)
    with pytest.raises(PeerError, match="began at position"):
        long(1, cached).on_message(PeerId("stage-0"), Step(SESSION, position, HIDDEN), b"", 0.0)


def test_the_head_names_the_blocks_that_it_fills() -> None:
    """Keys follow from the tokens that the head sees: those of the prompt, and those that the tail sends."""
    head, tail = long(0, 0, chunk=24, max_tokens=30), PeerId("stage-2")
    *_, first = head.on_message(OWNER, Tokens(SESSION, 0, list(PROMPT)), b"", 0.0)
    assert first.keys == (PREFIX[0],)
    sent, second = head.on_computed(Computed(0, 24, header(24)), 0.0)
    assert sent.message == Step(SESSION, 0, header(24), [PREFIX[0]])
    assert second.keys == (PREFIX[1],)
    head.on_computed(Computed(24, 16, header(16)), 0.0)
    for position in range(40, 47):
        (run,) = head.on_message(tail, Tokens(SESSION, position, [7]), b"", 0.0)
        assert run.keys == ()
        head.on_computed(Computed(position, 1, header(1)), 0.0)
    (run,) = head.on_message(tail, Tokens(SESSION, 47, [7]), b"", 0.0)
    assert run.keys == (keys("model", (*PROMPT, *[7] * 8))[2],)


def test_an_owner_that_sends_no_keys_shares_nothing() -> None:
    """Without a prefix in its order, a session's blocks get no keys."""
    head = stage(0, prompt_length=40)
    *_, run = head.on_message(OWNER, Tokens(SESSION, 0, list(PROMPT)), b"", 0.0)
    assert run.keys == ()


def test_keys_for_other_blocks_than_the_rows_fill_are_refused() -> None:
    """A neighbour names exactly the blocks that end in what it sends, or none."""
    with pytest.raises(PeerError, match="sent 2 keys for 1 blocks"):
        long(1, 0).on_message(PeerId("stage-0"), Step(SESSION, 0, header(20), PREFIX[:2]), b"", 0.0)


def test_more_keys_than_blocks_are_refused() -> None:
    """An order names no more blocks than its prompt has."""
    with pytest.raises(PeerError, match="3 keys for a prompt of 40 tokens"):
        stage(0, prompt_length=40, prefix=[*PREFIX, PREFIX[0]])


def test_nothing_is_taken_before_there_is_room() -> None:
    """Rows for a session that waits for its place are refused."""
    waiting = StageSession(order(1), me=PeerId("stage-1"), sender=OWNER, now_s=0.0)
    with pytest.raises(PeerError, match="no room yet"):
        waiting.on_message(PeerId("stage-0"), Step(SESSION, 0, HIDDEN), b"", 0.0)


def test_what_was_sent_is_not_sent_again_and_again() -> None:
    """A few words of an owner make a stage send megabytes: once for each repair, and not for any number of them."""
    head = stage(0)
    head.on_message(OWNER, Tokens(SESSION, 0, [1, 2, 3, 4]), b"", 0.0)
    head.on_computed(Computed(0, 4, header(4), bytes(64)), 0.0)
    for epoch in range(1, machine.FREE_REPLAYS + 1):
        route = [head.order.stages[0], StageRef(f"spare-{epoch}", [], 1, 2), head.order.stages[2]]
        head.on_message(OWNER, Repair(SESSION, epoch, route, 0, 4), b"", 0.0)
        (sent,) = head.on_message(OWNER, Replay(SESSION, epoch, 0), b"", 0.0)
        assert isinstance(sent, Send)
        assert head.on_message(OWNER, Replay(SESSION, epoch, 0), b"", 0.0) == []
    epoch += 1
    head.on_message(OWNER, Repair(SESSION, epoch, route, 0, 4), b"", 0.0)
    fault, released = head.on_message(OWNER, Replay(SESSION, epoch, 0), b"", 0.0)
    assert isinstance(fault, Send)
    assert released == Release()


def test_a_repair_that_moves_a_session_to_other_layers_is_refused() -> None:
    """The cache here is of these layers."""
    with pytest.raises(PeerError, match="other layers"):
        stage(1).on_message(
            OWNER, Repair(SESSION, 1, [StageRef("stage-0", [], 0, 2), StageRef("stage-1", [], 2, 3)], 1, 4), b"", 0.0
        )


def test_an_earlier_repair_does_nothing() -> None:
    """Of two that cross, the later one counts."""
    middle = stage(1)
    route = middle.order.stages
    assert len(middle.on_message(OWNER, Repair(SESSION, 2, route, 1, 4), b"", 0.0)) == 1
    assert middle.on_message(OWNER, Repair(SESSION, 1, route, 1, 4), b"", 0.0) == []


def test_nothing_more_of_a_peer_that_is_not_believed() -> None:
    """What it had sent and is not computed yet is dropped, and what it sends is passed over until the repair."""
    middle, upstream = stage(1), PeerId("stage-0")
    middle.on_message(upstream, Step(SESSION, 0, header(4)), b"", 0.0)
    middle.on_message(upstream, Step(SESSION, 4, HIDDEN), b"", 0.0)
    (fault,) = middle.disbelieve(upstream, "nonsense")
    assert isinstance(fault, Send)
    assert fault.message == Fault(SESSION, "bad_peer", "nonsense", "stage-0")
    assert middle.on_message(upstream, Step(SESSION, 5, HIDDEN), b"", 0.0) == []
    middle.on_computed(Computed(0, 4, header(4), bytes(64)), 0.0)
    route = [StageRef("spare-0", [], 0, 1), *middle.order.stages[1:]]
    (told,) = middle.on_message(OWNER, Repair(SESSION, 1, route, 1, 5), b"", 0.0)
    assert isinstance(told, Send)
    assert told.message == Progress(SESSION, 1, 4, 4)
    (run,) = middle.on_message(PeerId("spare-0"), Step(SESSION, 4, HIDDEN), b"", 0.0)
    assert isinstance(run, Run)
