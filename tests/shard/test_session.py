from collections import defaultdict, deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.errors import InternalError, PeerError, UnavailableError, UserError
from p2pos.shard import session as machine
from p2pos.shard.session import (
    CHUNK,
    WINDOW,
    Computed,
    Emit,
    Fail,
    Finish,
    OwnerSession,
    Release,
    Request,
    Run,
    Send,
    StageSession,
)
from p2pos.types import PeerId, SessionId
from p2pos.wire.messages import Ack, Close, Fault, Open, Sampling, StageRef, Step, TensorHeader, Tokens

SESSION = SessionId(bytes(16))
OWNER = PeerId("owner-peer")
HIDDEN = TensorHeader("f32", [1, 4])


def stages(count: int) -> list[StageRef]:
    return [StageRef(f"stage-{index}", [], index, index + 1) for index in range(count)]


def order(index: int, count: int = 3, **changes: Any) -> Open:
    values: dict[str, Any] = {
        "session": SESSION,
        "model": "model",
        "owner": OWNER,
        "stages": stages(count),
        "index": index,
        "prompt_length": 4,
        "max_tokens": 8,
        "eos": [2],
        "sampling": Sampling(),
        "history": [],
    }
    return Open(**{**values, **changes})


def stage(index: int, count: int = 3, **changes: Any) -> StageSession:
    return StageSession(order(index, count, **changes), me=PeerId(f"stage-{index}"), sender=OWNER, now_s=0.0)


def owner(count: int = 3, **changes: Any) -> OwnerSession:
    values: dict[str, Any] = {"prompt": (5, 6, 7, 8), "max_tokens": 8, "eos": (2,)}
    request = Request(**{**values, **changes})
    return OwnerSession(SESSION, me=OWNER, model="model", stages=stages(count), request=request, now_s=0.0)


def header(rows: int) -> TensorHeader:
    return TensorHeader("f32", [rows, 4])


class Network:
    """All machines of one session, and between each two of them a queue that keeps its order."""

    def __init__(self, count: int, prompt: int, max_tokens: int, eos_after: int | None) -> None:
        self.eos_after = eos_after
        self.prompt = prompt
        self.owner = OwnerSession(
            SESSION,
            me=OWNER,
            model="model",
            stages=stages(count),
            request=Request(tuple(range(10, 10 + prompt)), max_tokens, (2,)),
            now_s=0.0,
        )
        self.stages: dict[str, StageSession] = {}
        self.queues: dict[tuple[str, str], deque[Any]] = defaultdict(deque)
        self.runs: list[tuple[str, Run]] = []
        self.tokens: list[int] = []
        self.finish = ""
        self.released: list[str] = []
        self.perform(OWNER, self.owner.start())

    def perform(self, who: str, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case Send(peer, _, message, payload):
                    self.queues[who, peer].append((message, payload))
                case Run():
                    self.runs.append((who, effect))
                case Release():
                    self.released.append(who)
                case Emit(tokens):
                    self.tokens += tokens
                case Finish(reason):
                    self.finish = reason
                case Fail(error):
                    raise error

    def choices(self) -> list[tuple[str, Any]]:
        return [("deliver", key) for key, queue in self.queues.items() if queue] + [("run", run) for run in self.runs]

    def step(self, choice: tuple[str, Any]) -> None:
        kind, what = choice
        if kind == "run":
            self.runs.remove(what)
            who, run = what
            self.perform(who, self.stages[who].on_computed(self.compute(who, run), 0.0))
            return
        sender, receiver = what
        message, payload = self.queues[what].popleft()
        if receiver == OWNER:
            self.perform(OWNER, self.owner.on_message(PeerId(sender), message, 0.0))
        elif isinstance(message, Open):
            made = StageSession(message, me=PeerId(receiver), sender=PeerId(sender), now_s=0.0)
            self.stages[receiver] = made
            self.perform(receiver, made.start())
        else:
            effects = self.stages[receiver].on_message(PeerId(sender), message, payload, 0.0)
            self.perform(receiver, effects)

    def compute(self, who: str, run: Run) -> Computed:
        if not run.sample:
            return Computed(run.position, run.rows, header(run.rows), b"\0" * 16 * run.rows)
        end = run.position + run.rows
        done = self.eos_after is not None and end - self.prompt >= self.eos_after
        return Computed(run.position, run.rows, token=2 if done else 1000 + end)


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(1, 5),
    prompt=st.integers(1, 3 * CHUNK),
    max_tokens=st.integers(1, 12),
    eos_after=st.none() | st.integers(0, 12),
    data=st.data(),
)
def test_any_order_of_arrival_gives_the_same_text(
    count: int, prompt: int, max_tokens: int, eos_after: int | None, data: st.DataObject
) -> None:
    """However messages and runs interleave, the owner gets each token once, in order, and all is freed."""
    network = Network(count, prompt, max_tokens, eos_after)
    for _ in range(20_000):
        choices = network.choices()
        if not choices:
            break
        network.step(data.draw(st.sampled_from(choices)))
    assert network.choices() == []
    end = max_tokens if eos_after is None else min(max_tokens, eos_after + 1)
    stopped = eos_after is not None and eos_after < max_tokens
    text = [1000 + prompt + index for index in range(end)]
    assert network.tokens == ([*text[:-1], 2] if stopped else text)
    assert network.finish == ("stop" if stopped else "length")
    assert sorted(network.released) == sorted(each.peer for each in stages(count))


def test_a_stage_answers_its_owner() -> None:
    """An opened session is acknowledged at position 0."""
    assert stage(1).start() == [Send(OWNER, (), Ack(SESSION, 0))]


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
    with pytest.raises(PeerError, match="3 tokens of a prompt of 4"):
        stage(0).on_message(OWNER, Tokens(SESSION, 0, [1, 2, 3]), b"", 0.0)


def test_a_second_prompt_is_refused() -> None:
    """The prompt comes once."""
    head = stage(0)
    head.on_message(OWNER, Tokens(SESSION, 0, [1, 2, 3, 4]), b"", 0.0)
    with pytest.raises(PeerError, match="not due"):
        head.on_message(OWNER, Tokens(SESSION, 0, [1, 2, 3, 4]), b"", 0.0)


def test_positions_come_in_order() -> None:
    """Hidden states for another position than the next are refused."""
    with pytest.raises(PeerError, match="sent position 3 where 0 is next"):
        stage(1).on_message(PeerId("stage-0"), Step(SESSION, 3, HIDDEN), b"", 0.0)


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


def test_an_ack_of_what_was_not_sent_is_refused() -> None:
    """The next stage can't acknowledge ahead."""
    with pytest.raises(PeerError, match="acknowledged position 9"):
        stage(0).on_message(PeerId("stage-1"), Ack(SESSION, 9), b"", 0.0)


def test_a_neighbour_that_ignores_the_window_is_refused() -> None:
    """More chunks than may wait are the sender's fault."""
    middle = stage(1, prompt_length=1000)
    for position in range(machine.MAX_QUEUED + 1):  # one runs, the others wait
        middle.on_message(PeerId("stage-0"), Step(SESSION, position, HIDDEN), b"", 0.0)
    with pytest.raises(PeerError, match="unacknowledged"):
        middle.on_message(PeerId("stage-0"), Step(SESSION, machine.MAX_QUEUED + 1, HIDDEN), b"", 0.0)


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


def test_the_tail_keeps_history_only_for_the_penalty() -> None:
    """Tokens are remembered at the tail where the repetition penalty needs them, and nowhere else."""
    for history, seen in (([], []), ([5, 6, 7, 8], [5, 6, 7, 8, 1004])):
        tail = stage(2, history=history)
        tail.on_message(PeerId("stage-1"), Step(SESSION, 0, header(4)), b"", 0.0)
        tail.on_computed(Computed(0, 4, token=1004), 0.0)
        assert tail.seen == seen


def test_the_prompt_leaves_when_all_stages_are_open() -> None:
    """The head gets the prompt only when every stage has acknowledged."""
    mine = owner()
    mine.start()
    assert mine.on_message(PeerId("stage-0"), Ack(SESSION, 0), 1.0) == []
    assert mine.on_message(PeerId("stage-2"), Ack(SESSION, 0), 1.0) == []
    (sent,) = mine.on_message(PeerId("stage-1"), Ack(SESSION, 0), 1.0)
    assert sent == Send(PeerId("stage-0"), (), Tokens(SESSION, 0, [5, 6, 7, 8]))


def test_the_penalty_sends_the_prompt_to_the_tail_alone() -> None:
    """Only the tail's order carries the prompt, and only with a penalty."""
    plain = [send.message.history for send in owner().start()]
    assert plain == [[], [], []]
    penal = [send.message.history for send in owner(sampling=Sampling(repetition_penalty=1.2)).start()]
    assert penal == [[], [], [5, 6, 7, 8]]


@pytest.mark.parametrize(
    ("code", "kind"),
    [("busy", UnavailableError), ("next_stage", UnavailableError), ("internal", PeerError), ("wrong_model", PeerError)],
)
def test_a_fault_fails_the_session(code: Any, kind: type[Exception]) -> None:
    """A stage's fault ends the session with the right blame, and the other stages are told."""
    mine = owner()
    mine.start()
    effects = mine.on_message(PeerId("stage-1"), Fault(SESSION, code, "because"), 1.0)
    assert [type(effect.message) for effect in effects if isinstance(effect, Send)] == [Close] * 3
    (failed,) = (effect for effect in effects if isinstance(effect, Fail))
    assert isinstance(failed.error, kind)
    assert "because" in failed.error.message


def test_a_token_out_of_order_fails_the_session() -> None:
    """A tail that skips a position is not believed."""
    mine = owner(1)
    mine.start()
    mine.on_message(PeerId("stage-0"), Ack(SESSION, 0), 1.0)
    effects = mine.on_message(PeerId("stage-0"), Tokens(SESSION, 5, [1]), 1.0)
    assert isinstance(effects[-1], Fail)


def test_a_tail_that_does_not_stop_fails_the_session() -> None:
    """More tokens than were asked for are not shown."""
    session = owner(1, max_tokens=2)
    tail = PeerId("stage-0")
    session.on_message(tail, Ack(SESSION, 0), 0.0)
    for position in (4, 5):
        assert session.on_message(tail, Tokens(SESSION, position, [9]), 0.0) == [Emit((9,))]
    *_, failure = session.on_message(tail, Tokens(SESSION, 6, [9]), 0.0)
    assert isinstance(failure, Fail)
    assert isinstance(failure.error, PeerError)


def test_a_lost_stage_fails_the_session() -> None:
    """Losing a node of the route says which layers it held; losing another does nothing."""
    mine = owner()
    mine.start()
    assert mine.on_lost(PeerId("someone-else")) == []
    effects = mine.on_lost(PeerId("stage-1"))
    assert isinstance(effects[-1], Fail)
    assert "layers 1:2" in effects[-1].error.message


def test_silence_fails_the_session_at_its_deadline() -> None:
    """Stages that do not answer are named once the deadline has passed, not before."""
    mine = owner()
    mine.start()
    mine.on_message(PeerId("stage-0"), Ack(SESSION, 0), 1.0)
    assert mine.on_time(mine.deadline_s - 1) == []
    effects = mine.on_time(mine.deadline_s)
    assert isinstance(effects[-1], Fail)
    assert effects[-1].error.fields["peers"] == ["stage-1", "stage-2"]


def test_stopping_closes_every_stage_once() -> None:
    """A session stopped by its owner tells each stage, and a second stop says nothing."""
    mine = owner()
    mine.start()
    effects = mine.stop()
    assert [type(effect.message) for effect in effects if isinstance(effect, Send)] == [Close] * 3
    assert mine.stop() == []


def test_an_empty_prompt_is_the_users_mistake() -> None:
    """There is nothing to continue without a token."""
    with pytest.raises(UserError, match="prompt is empty"):
        owner(prompt=())
