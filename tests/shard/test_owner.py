from collections import defaultdict, deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.errors import PeerError, UnavailableError, UserError
from p2pos.shard.owner import Emit, Fail, Finish, OwnerSession, Request
from p2pos.shard.session import CHUNK, Computed, Release, Run, Send, StageSession
from p2pos.types import PeerId
from p2pos.wire.messages import BLOCK_TOKENS, Ack, Close, Fault, Logprobs, Open, Sampling, Tokens
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
    *_, failed = mine.on_message(PeerId("stage-0"), Ack(SESSION, position), 1.0)
    assert isinstance(failed, Fail)
    assert isinstance(failed.error, PeerError)


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


def test_logprobs_reach_the_owner() -> None:
    """What the tail says of a token's likelihood is emitted with the token."""
    mine = owner()
    for index in range(3):
        mine.on_message(PeerId(f"stage-{index}"), Ack(SESSION, 0), 0.0)
    logprobs = Logprobs(-0.5, [(9, -0.5)])
    assert mine.on_message(PeerId("stage-2"), Tokens(SESSION, 4, [9], "", [logprobs]), 0.0) == [Emit((9,), logprobs)]
