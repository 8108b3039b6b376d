from collections import defaultdict, deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.errors import P2posError, PeerError, UnavailableError, UserError
from p2pos.shard.effects import Blame, Computed, Emit, Fail, Finish, Note, Release, Reroute, Run, Send
from p2pos.shard.owner import OwnerSession, Phase
from p2pos.shard.request import Request, next_life
from p2pos.shard.session import CHUNK, StageSession
from p2pos.shard.trouble import MAX_ATTEMPTS
from p2pos.types import PeerId
from p2pos.wire.messages import (
    BLOCK_TOKENS,
    Ack,
    Close,
    Fault,
    Logprobs,
    Open,
    Probe,
    Progress,
    Repair,
    Replay,
    Sampling,
    StageRef,
    Tokens,
)
from tests.shard.sessions import OWNER, SESSION, header, owner, stages


class Network:
    """All machines of one session, and between each two of them a queue that keeps its order."""

    def __init__(
        self,
        count: int,
        prompt: int,
        max_tokens: int,
        eos_after: int | None,
        caches: dict[str, int] | None = None,
        chunk: int = CHUNK,
    ) -> None:
        self.caches = caches or {}
        self.chunk = chunk
        self.computed = 0
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
            me, chunk = PeerId(receiver), lambda: self.chunk
            made = StageSession(message, me=me, sender=PeerId(sender), now_s=0.0, chunk=chunk)
            self.stages[receiver] = made
            self.perform(receiver, made.start(self.caches.get(receiver, 0)))
        else:
            effects = self.stages[receiver].on_message(PeerId(sender), message, payload, 0.0)
            self.perform(receiver, effects)

    def compute(self, who: str, run: Run) -> Computed:
        self.computed += run.rows
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


@settings(max_examples=100, deadline=None)
@given(
    prompt=st.integers(1, 200),
    held=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    chunk=st.integers(1, 64),
    data=st.data(),
)
def test_only_what_some_stage_lacks_is_computed(prompt: int, held: list[int], chunk: int, data: st.DataObject) -> None:
    """The prompt begins where the stage that holds the least of it ends, and the text is the same."""
    whole = prompt // BLOCK_TOKENS
    caches = {f"stage-{index}": min(blocks, whole) * BLOCK_TOKENS for index, blocks in enumerate(held)}
    network = Network(len(held), prompt, 3, None, caches, chunk)
    while choices := network.choices():
        network.step(data.draw(st.sampled_from(choices)))
    assert network.tokens == [1000 + prompt + index for index in range(3)]
    start = min(*caches.values(), (prompt - 1) // BLOCK_TOKENS * BLOCK_TOKENS)
    assert network.computed == len(held) * (prompt - start + 2)


@pytest.mark.parametrize("position", [8, 48])
def test_a_stage_that_holds_what_nobody_asked_for_is_not_believed(position: int) -> None:
    """More positions than the prompt's whole blocks, or half a block, are a lie."""
    mine = owner(prompt=tuple(range(40)))
    mine.start()
    assert isinstance(failure(mine, mine.on_message(PeerId("stage-0"), Ack(SESSION, position, 0), 1.0)), PeerError)


def test_the_prompt_leaves_when_all_stages_are_open() -> None:
    """The head gets the prompt only when every stage has acknowledged."""
    mine = owner()
    mine.start()
    assert mine.on_message(PeerId("stage-0"), Ack(SESSION, 0, 0), 1.0) == []
    assert mine.on_message(PeerId("stage-2"), Ack(SESSION, 0, 0), 1.0) == []
    (sent,) = mine.on_message(PeerId("stage-1"), Ack(SESSION, 0, 0), 1.0)
    assert sent == Send(PeerId("stage-0"), (), Tokens(SESSION, 0, [5, 6, 7, 8]))


def test_the_penalty_sends_the_prompt_to_the_tail_alone() -> None:
    """Only the tail's order carries the prompt, and only with a penalty."""
    plain = [send.message.history for send in owner().start()]
    assert plain == [[], [], []]
    penal = [send.message.history for send in owner(sampling=Sampling(repetition_penalty=1.2)).start()]
    assert penal == [[], [], [5, 6, 7, 8]]


def failure(mine: OwnerSession, effects: Any) -> P2posError:
    """What a session that has found someone at fault ends with, where nobody can take its place."""
    (wanted,) = (effect for effect in effects if isinstance(effect, Reroute))
    assert wanted.lost == mine.lost
    *closed, failed = mine.on_no_route(UnavailableError("nobody serves it"), 1.0)
    assert [type(effect.message) for effect in closed if isinstance(effect, Send)] == [Close] * len(mine.stages)
    assert isinstance(failed, Fail)
    assert mine.over
    return failed.error


@pytest.mark.parametrize(
    ("code", "kind"),
    [("busy", UnavailableError), ("next_stage", UnavailableError), ("internal", PeerError), ("wrong_model", PeerError)],
)
def test_a_fault_at_the_beginning_fails_the_session(code: Any, kind: type[Exception]) -> None:
    """Where no other can take its place, a stage's fault ends the session with the right blame."""
    mine = owner()
    mine.start()
    error = failure(mine, mine.on_message(PeerId("stage-1"), Fault(SESSION, code, "because"), 1.0))
    assert isinstance(error, kind)
    assert "because" in error.message


def test_a_busy_stage_is_not_to_blame() -> None:
    """Whoever is busy is passed over once, and not avoided for long."""
    mine = owner()
    mine.start()
    effects = mine.on_message(PeerId("stage-1"), Fault(SESSION, "busy", "full"), 1.0)
    assert not any(isinstance(effect, Blame) for effect in effects)
    effects = mine.on_message(PeerId("stage-0"), Fault(SESSION, "internal", "out of memory"), 1.0)
    assert Blame(PeerId("stage-0")) in effects


def test_a_stage_that_is_busy_again_is_asked_later() -> None:
    """Where nobody else is left, one that has no room is asked anew after a while, not over and over at once."""
    mine = owner()
    mine.start()
    busy = Fault(SESSION, "busy", "full")
    assert Reroute(frozenset({PeerId("stage-1")})) in mine.on_message(PeerId("stage-1"), busy, 1.0)
    mine.on_route(stages(3), 1.0)
    again = mine.on_message(PeerId("stage-1"), Fault(mine.session, "busy", "full"), 1.0)
    assert not any(isinstance(effect, Reroute | Fail) for effect in again)
    assert mine.on_time(1.0) == []
    assert mine.on_time(mine.deadline_s) == [Reroute(frozenset({PeerId("stage-1")}))]


def test_what_two_stages_refuse_is_the_requests_fault() -> None:
    """One stage that calls a request bad may be wrong, or lie; two of them end it."""
    mine = owner()
    mine.start()
    effects = mine.on_message(PeerId("stage-2"), Fault(SESSION, "bad_request", "no such grammar"), 1.0)
    assert Reroute(frozenset({PeerId("stage-2")})) in effects
    mine.on_route([*stages(2), StageRef("another-2", [], 2, 3)], 1.0)
    *_, failed = mine.on_message(PeerId("another-2"), Fault(SESSION, "bad_request", "no such grammar"), 1.0)
    assert isinstance(failed, Fail)
    assert "no such grammar" in failed.error.message


def test_a_token_out_of_order_is_not_believed() -> None:
    """A tail that skips a position is to blame."""
    mine = owner(1)
    mine.start()
    mine.on_message(PeerId("stage-0"), Ack(SESSION, 0, 0), 1.0)
    assert Blame(PeerId("stage-0")) in mine.on_message(PeerId("stage-0"), Tokens(SESSION, 5, [1]), 1.0)


def test_a_token_beyond_the_vocabulary_is_not_believed() -> None:
    """It is never shown."""
    mine = owner(1, vocabulary=100)
    mine.on_message(PeerId("stage-0"), Ack(SESSION, 0, 0), 1.0)
    effects = mine.on_message(PeerId("stage-0"), Tokens(SESSION, 4, [100]), 1.0)
    assert Blame(PeerId("stage-0")) in effects
    assert not any(isinstance(effect, Emit) for effect in effects)


def test_no_more_tokens_than_asked_for_are_shown() -> None:
    """A tail that forgets to stop is stopped."""
    session = owner(1, max_tokens=2)
    tail = PeerId("stage-0")
    session.on_message(tail, Ack(SESSION, 0, 0), 0.0)
    assert session.on_message(tail, Tokens(SESSION, 4, [9]), 0.0) == [Emit((9,))]
    *_, finish = session.on_message(tail, Tokens(SESSION, 5, [9]), 0.0)
    assert finish == Finish("length")
    assert session.on_message(tail, Tokens(SESSION, 6, [9]), 0.0) == []


def test_a_lost_stage_is_named() -> None:
    """Losing a node of the route says which layers it held; losing another does nothing."""
    mine = owner()
    mine.start()
    assert mine.on_lost(PeerId("someone-else"), 1.0) == []
    assert "layers 1:2" in failure(mine, mine.on_lost(PeerId("stage-1"), 1.0)).message


def test_silence_at_the_beginning_is_noticed_at_the_deadline() -> None:
    """Stages that do not answer are named once the deadline has passed, not before."""
    mine = owner()
    mine.start()
    mine.on_message(PeerId("stage-0"), Ack(SESSION, 0, 0), 1.0)
    assert mine.on_time(mine.deadline_s - 1) == []
    assert failure(mine, mine.on_time(mine.deadline_s)).fields["peers"] == ["stage-1", "stage-2"]


def running(count: int = 3, **changes: Any) -> OwnerSession:
    """A session that has had its first token, at second 1."""
    mine = owner(count, **changes)
    mine.start()
    for index in range(count):
        mine.on_message(PeerId(f"stage-{index}"), Ack(SESSION, 0, 0), 0.0)
    mine.on_message(PeerId(f"stage-{count - 1}"), Tokens(SESSION, 4, [9]), 1.0)
    return mine


def sent(effects: Any, kind: type) -> list[tuple[str, Any]]:
    """Who is sent what of this kind."""
    return [(each.peer, each.message) for each in effects if isinstance(each, Send) and isinstance(each.message, kind)]


def spare(index: int) -> StageRef:
    return StageRef(f"spare-{index}", [], index, index + 1)


def test_a_lost_stage_is_replaced_and_the_others_stay() -> None:
    """Those that stay are asked how far they are, the new one is opened, and the one before it sends all again."""
    mine = running()
    mine.on_lost(PeerId("stage-1"), 2.0)
    route = [stages(3)[0], spare(1), stages(3)[2]]
    asked = sent(mine.on_route(route, 2.0), Repair)
    assert [peer for peer, _ in asked] == ["stage-0", "stage-2"]
    assert asked[0][1] == Repair(SESSION, 1, route, 0, 5, hold=True)
    assert mine.on_message(PeerId("stage-0"), Progress(SESSION, 1, 5, 5), 2.1) == []
    ((peer, order),) = sent(mine.on_message(PeerId("stage-2"), Progress(SESSION, 1, 4, 4), 2.1), Open)
    assert (peer, order.index, order.resume, order.forward_from, order.epoch) == ("spare-1", 1, 5, 4, 1)
    effects = mine.on_message(PeerId("spare-1"), Ack(SESSION, 0, 1), 2.2)
    assert sent(effects, Replay) == [("stage-0", Replay(SESSION, 1, 0))]
    assert mine.phase is Phase.RUNNING
    note, _, emitted = mine.on_message(PeerId("stage-2"), Tokens(SESSION, 5, [8]), 2.5)
    assert isinstance(note, Note)
    assert (note.event, note.fields["pause_ms"]) == ("resumed", 1500)
    assert emitted == Emit((8,))


def test_a_new_tail_is_told_the_text() -> None:
    """It samples after the last token that the owner has, and counts those before."""
    mine = running()
    mine.on_lost(PeerId("stage-2"), 2.0)
    mine.on_route([*stages(2), spare(2)], 2.0)
    mine.on_message(PeerId("stage-0"), Progress(SESSION, 1, 5, 5), 2.0)
    ((_, order),) = sent(mine.on_message(PeerId("stage-1"), Progress(SESSION, 1, 5, 5), 2.0), Open)
    assert (order.given, order.resume) == ([9], 5)


def test_what_the_lost_tail_told_the_head_alone_is_the_text() -> None:
    """The head computed on with it, so it is taken over, and shown."""
    mine = running()
    mine.on_lost(PeerId("stage-2"), 2.0)
    mine.on_route([*stages(2), spare(2)], 2.0)
    mine.on_message(PeerId("stage-1"), Progress(SESSION, 1, 6, 6), 2.0)
    effects = mine.on_message(PeerId("stage-0"), Progress(SESSION, 1, 6, 6, 0, [7]), 2.0)
    assert Emit((7,)) in effects
    ((_, order),) = sent(effects, Open)
    assert (order.given, order.resume) == ([9, 7], 6)


def test_a_new_head_is_given_all_tokens_by_the_owner() -> None:
    """Nobody else has them; the next stage has what it had."""
    mine = running()
    mine.on_lost(PeerId("stage-0"), 2.0)
    mine.on_route([spare(0), *stages(3)[1:]], 2.0)
    mine.on_message(PeerId("stage-1"), Progress(SESSION, 1, 4, 4), 2.0)
    ((_, order),) = sent(mine.on_message(PeerId("stage-2"), Progress(SESSION, 1, 4, 4), 2.0), Open)
    assert order.forward_from == 4
    effects = mine.on_message(PeerId("spare-0"), Ack(SESSION, 0, 1), 2.0)
    assert sent(effects, Tokens) == [("spare-0", Tokens(SESSION, 0, [5, 6, 7, 8, 9]))]


def test_where_nothing_was_kept_all_begin_anew_from_the_tokens() -> None:
    """Under a new name, so that nothing which is under way can be taken for the new beginning's."""
    mine = running()
    mine.on_lost(PeerId("stage-1"), 2.0)
    mine.on_route([stages(3)[0], spare(1), stages(3)[2]], 2.0)
    mine.on_message(PeerId("stage-0"), Progress(SESSION, 1, 5, 5, 5), 2.0)
    mine.on_message(PeerId("stage-2"), Progress(SESSION, 1, 4, 4), 2.0)
    effects = mine.on_message(PeerId("spare-1"), Ack(SESSION, 0, 1), 2.0)
    opened = sent(effects, Open)
    assert [peer for peer, _ in opened] == ["stage-0", "spare-1", "stage-2"]
    assert {order.session for _, order in opened} == {next_life(SESSION)} == {mine.session}
    assert [order.given for _, order in opened] == [[], [], [9]]
    assert mine.on_message(PeerId("stage-2"), Tokens(SESSION, 5, [1]), 2.0) == []


def test_a_stage_that_is_silent_is_asked_and_then_replaced() -> None:
    """When the next token is late all stages are asked how far they are; who doesn't answer is gone."""
    mine = running()
    late_s = mine.deadline_s
    asked = sent(mine.on_time(late_s), Probe)
    number = asked[0][1].number
    assert [peer for peer, _ in asked] == ["stage-0", "stage-1", "stage-2"]
    for peer in ("stage-0", "stage-2"):
        assert mine.on_message(PeerId(peer), Progress(SESSION, number, 5, 5), late_s + 0.1) == []
    effects = mine.on_time(mine.deadline_s)
    assert Reroute(frozenset({PeerId("stage-1")})) in effects
    assert Blame(PeerId("stage-1")) in effects


def test_stages_that_work_for_long_are_left_alone() -> None:
    """As long as all answer, and something moves, a token may take its time."""
    mine = running()
    for computed in range(1, 200):
        late_s = mine.deadline_s
        asked = sent(mine.on_time(late_s), Probe)
        assert len(asked) == 3
        for peer, probe in asked:
            mine.on_message(PeerId(peer), Progress(SESSION, probe.number, 5, computed), late_s + 0.1)
    assert mine.phase is Phase.RUNNING
    assert mine.deadline_s > 150


def test_without_anyone_to_take_its_place_a_text_waits_and_then_fails() -> None:
    """For as long as its patience, looking again and again; the error says whom it lost and how long it waited."""
    mine = running(patience_s=5.0)
    mine.on_lost(PeerId("stage-1"), 2.0)
    now_s, looks = 2.0, 0
    while not (effects := mine.on_no_route(UnavailableError("nobody serves layer 1"), now_s)):
        now_s = mine.deadline_s
        looks += 1
        assert mine.on_time(now_s) == [Reroute(frozenset({PeerId("stage-1")}))]
    assert looks == 10
    failed = effects[-1]
    assert isinstance(failed, Fail)
    assert "layers 1:2, and in 5 s nobody took its place" in failed.error.message


def test_a_node_that_leaves_is_replaced_while_it_works() -> None:
    """Nothing waits for the new route, and where there is none it serves on."""
    mine = running()
    effects = mine.on_message(PeerId("stage-1"), Fault(SESSION, "leaving", "bye"), 2.0)
    assert Reroute(frozenset({PeerId("stage-1")})) in effects
    assert mine.on_message(PeerId("stage-2"), Tokens(SESSION, 5, [8]), 2.1) == [Emit((8,))]
    assert mine.on_no_route(UnavailableError("nobody"), 2.2) == []
    assert mine.on_message(PeerId("stage-2"), Tokens(SESSION, 6, [8]), 2.3) == [Emit((8,))]


def test_a_neighbours_word_names_who_is_replaced() -> None:
    """A stage that lost the next one, or was sent nonsense, stays; the one that it names goes."""
    for code in ("next_stage", "bad_peer"):
        mine = running()
        effects = mine.on_message(PeerId("stage-2"), Fault(SESSION, code, "because", "stage-1"), 2.0)  # type: ignore[arg-type]  # one of the literals
        assert Reroute(frozenset({PeerId("stage-1")})) in effects
        late = Fault(SESSION, "next_stage", "because", "stage-1")
        assert mine.on_message(PeerId("stage-0"), late, 2.0) == []


def test_repairs_without_a_token_end() -> None:
    """A swarm in which everyone fails is given up."""
    mine = running(patience_s=1e9)
    for number in range(100):
        effects = mine.on_lost(PeerId(mine.stages[1].peer), 2.0)
        if any(isinstance(effect, Fail) for effect in effects):
            break
        mine.on_route([stages(3)[0], StageRef(f"another-{number}", [], 1, 2), stages(3)[2]], 2.0)
    assert number == MAX_ATTEMPTS


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


def test_logprobs_reach_the_owner() -> None:
    """What the tail says of a token's likelihood is emitted with the token."""
    mine = owner()
    for index in range(3):
        mine.on_message(PeerId(f"stage-{index}"), Ack(SESSION, 0, 0), 0.0)
    logprobs = Logprobs(-0.5, [(9, -0.5)])
    assert mine.on_message(PeerId("stage-2"), Tokens(SESSION, 4, [9], "", [logprobs]), 0.0) == [Emit((9,), logprobs)]
