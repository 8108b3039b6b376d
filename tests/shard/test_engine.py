from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import trio

from p2pos.errors import PeerError
from p2pos.shard import activations, runners
from p2pos.shard.admission import MAX_WAITING_PER_OWNER
from p2pos.shard.blocks import keys
from p2pos.shard.effects import Computed, Run
from p2pos.shard.engine import CPU_CHUNK, Engine, Failed, Outcome
from p2pos.shard.session import MAX_SESSIONS, StageSession
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan, PeerId
from p2pos.wire.messages import BLOCK_TOKENS, Open, Sampling, StageRef, Step, TensorHeader

ME = PeerId("this-stage")


@pytest.fixture(scope="module")
def middle(checkpoint_of) -> Stage:
    return Stage.load(checkpoint_of("llama"), LayerSpan(2, 4), dtype="f32")


@pytest.fixture(scope="module")
def tail(checkpoint_of) -> Stage:
    return Stage.load(checkpoint_of("llama"), LayerSpan(4, 6), dtype="f32")


def session(
    number: int = 0,
    *,
    last: bool = False,
    prompt_length: int = 4,
    max_tokens: int = 4,
    prefix: Sequence[bytes] = (),
    upstream: str = "other-stage",
) -> StageSession:
    stages = [StageRef(upstream, [], 0, 2), StageRef(ME, [], 2, 4)]
    stages += [] if last else [StageRef("third-stage", [], 4, 6)]
    order = Open(
        number.to_bytes(16, "big"),
        "m",
        "owner-peer",
        stages,
        1,
        prompt_length,
        max_tokens,
        [],
        Sampling(),
        [],
        list(prefix),
    )
    return StageSession(order, me=ME, sender=PeerId("owner-peer"), now_s=0.0)


def step(rows: int, position: int = 0, **changes: Any) -> Run:
    header, payload = activations.to_wire(torch.full((rows, 64), float(changes.get("fill", 1))))
    return Run(
        position, rows, header=changes.get("header", header), payload=payload, sample=changes.get("sample", False)
    )


def make(stage: Stage, on_done: Any, *, max_tokens: int = 1024, admitted: list[Any] | None = None) -> Engine:
    runner = runners.choose(stage, max_tokens=max_tokens, max_bytes=1 << 30)

    def on_admitted(session: StageSession, cached: int) -> None:
        if admitted is not None:
            admitted.append((session.session, cached))

    return Engine(stage, runner, dtype="f32", on_admitted=on_admitted, on_done=on_done)


def outcomes(stage: Stage, work: list[tuple[StageSession, Run]], **changes: Any) -> tuple[list[Any], Engine]:
    """What an engine says of these runs, in order."""
    told: list[Any] = []

    async def main() -> Engine:
        waiting = {each.session: [run for other, run in work if other is each] for each, _ in work}

        async def on_done(session: StageSession, result: Outcome) -> None:
            told.append(result)
            if len(told) == len(work):
                nursery.cancel_scope.cancel()
            if waiting[session.session]:
                engine.schedule(session, waiting[session.session].pop(0))

        engine = make(stage, on_done, **changes)
        async with trio.open_nursery() as nursery:
            for each in {id(each): each for each, _ in work}.values():
                assert engine.admit(each) == ""
                engine.schedule(each, waiting[each.session].pop(0))
            await nursery.start(engine.run)
        return engine

    return told, trio.run(main)


def test_hidden_states_pass_through(middle: Stage) -> None:
    """A middle stage gives as many rows as it got, and its cache has grown by them."""
    (result,), engine = outcomes(middle, [(session(), step(4))])
    assert (result.position, result.rows, result.header) == (0, 4, TensorHeader("f32", [4, 64]))
    assert len(result.payload) == 4 * 64 * 4
    assert engine.cached_tokens == 4
    assert engine.cached_bytes == 2 * 2 * (2 * BLOCK_TOKENS * 16) * 4  # layers × (k, v) × (heads × rows × width) × fp32


def test_sessions_do_not_see_one_another(middle: Stage) -> None:
    """Two sessions that are sent the same, interleaved, get the same back as one alone."""
    one, two = session(1), session(2)
    work = [(one, step(4)), (two, step(4)), (one, step(1, 4)), (two, step(1, 4))]
    told, _ = outcomes(middle, work)
    alone, _ = outcomes(middle, [(session(3), step(4)), (session(3), step(1, 4))][:1])
    assert bytes(told[0].payload) == bytes(told[1].payload) == bytes(alone[0].payload)
    assert bytes(told[2].payload) == bytes(told[3].payload)


def test_the_tail_samples_where_it_is_asked_to(tail: Stage) -> None:
    """A run with `sample` gives a token, one without gives nothing to pass on."""
    told, _ = outcomes(tail, [(session(1, last=True), step(4)), (session(2, last=True), step(4, sample=True))])
    assert (told[0].token, told[0].header) == (None, None)
    assert 0 <= told[1].token < 256


@pytest.mark.parametrize(
    "header",
    [
        TensorHeader("bf16", [4, 64]),
        TensorHeader("f32", [4, 63]),
        TensorHeader("f32", [3, 64]),
        TensorHeader("f32", [256]),
    ],
)
def test_a_tensor_that_lies_is_the_senders_fault(middle: Stage, header: TensorHeader) -> None:
    """A header of another dtype, width or size than the bytes fails the run with the upstream peer's name."""
    (result,), _ = outcomes(middle, [(session(), step(4, header=header))])
    assert isinstance(result.error, PeerError)
    assert result.error.peer == "other-stage"


def test_what_the_models_code_raises_ends_its_session_alone(middle: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a step fails, each of its runs is tried alone, and only the one that fails again ends."""
    real = middle.run_rows

    def failing(inputs: torch.Tensor, *args: Any) -> Any:
        if bool((inputs == 7).any()):
            raise KeyError("full_attention")
        return real(inputs, *args)

    monkeypatch.setattr(middle, "run_rows", failing)
    told, _ = outcomes(middle, [(session(1), step(4, fill=7)), (session(2), step(4))])
    assert isinstance(told[0].error, KeyError)
    assert isinstance(told[1], Computed)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_the_senders_fault(middle: Stage, value: float) -> None:
    """NaN and infinity from a peer fail its run with its name, and another session in the same step goes on."""
    told, _ = outcomes(middle, [(session(1), step(4, fill=value)), (session(2), step(4))])
    assert isinstance(told[0].error, PeerError)
    assert told[0].error.peer == "other-stage"
    assert isinstance(told[1], Computed)


def test_after_a_failed_run_others_go_on(middle: Stage) -> None:
    """One session's bad tensor is no concern of the next."""
    bad = step(4, header=TensorHeader("f32", [4, 63]))
    told, _ = outcomes(middle, [(session(1), bad), (session(2), step(4))])
    assert isinstance(told[0], Failed)
    assert isinstance(told[1], Computed)


def test_runs_of_released_sessions_take_no_place(middle: Stage) -> None:
    """However many sessions come and go while one run is under way, those that stay are run."""
    told: list[PeerId] = []

    async def main() -> None:
        async def on_done(done: StageSession, _result: Outcome) -> None:
            told.append(PeerId(done.session.hex()))
            nursery.cancel_scope.cancel()

        engine = make(middle, on_done)
        for number in range(2 * MAX_SESSIONS):
            passing = session(number)
            assert engine.admit(passing) == ""
            engine.schedule(passing, step(4))
            engine.release(passing)
            engine.schedule(passing, step(4))
        staying = session(2 * MAX_SESSIONS)
        assert engine.admit(staying) == ""
        engine.schedule(staying, step(4))
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
        assert told == [staying.session.hex()]

    trio.run(main)


def test_a_token_outside_the_vocabulary_is_the_senders_fault(checkpoint_of) -> None:
    """It never reaches the embedding."""
    head = Stage.load(checkpoint_of("llama"), LayerSpan(0, 2), dtype="f32")
    (result,), _ = outcomes(head, [(session(), Run(0, 2, tokens=(1, 256)))])
    assert isinstance(result.error, PeerError)
    assert result.error.peer == "owner-peer"


async def nothing(_session: StageSession, _result: Outcome) -> None: ...


def in_trio(act: Callable[[], None]) -> None:
    async def main() -> None:
        act()

    trio.run(main)


def test_a_session_for_which_there_is_no_room_waits(middle: Stage) -> None:
    """Prompt and text of all sessions together never pass the budget; who is over it enters when another leaves."""

    def act() -> None:
        entered: list[Any] = []
        engine = make(middle, nothing, max_tokens=2 * BLOCK_TOKENS, admitted=entered)
        first, second, third = session(1), session(2), session(3)
        for each in (first, second, third):
            assert engine.admit(each) == ""
        assert [name for name, _ in entered] == [first.session, second.session]
        assert (engine.sessions, engine.waiting) == (2, 1)
        engine.release(first)
        assert [name for name, _ in entered] == [first.session, second.session, third.session]
        assert (engine.sessions, engine.waiting) == (2, 0)

    in_trio(act)


def test_a_session_beyond_the_whole_cache_is_refused(middle: Stage) -> None:
    """What no leaving session could make room for isn't left to wait."""

    def act() -> None:
        engine = make(middle, nothing, max_tokens=2 * BLOCK_TOKENS)
        assert engine.admit(session(prompt_length=32, max_tokens=1)) == "its cache has no room for 33 tokens"

    in_trio(act)


def test_a_session_beyond_the_context_is_not_admitted(middle: Stage) -> None:
    """A text longer than the model's context is refused by its length."""

    def act() -> None:
        refusal = make(middle, nothing).admit(session(prompt_length=500, max_tokens=13))
        assert refusal == "513 tokens are more than the model's context of 512"

    in_trio(act)


def test_a_stage_runs_so_many_sessions(middle: Stage) -> None:
    """The one after the last place waits, and when too many wait the next is refused."""

    def act() -> None:
        engine = make(middle, nothing, max_tokens=100_000)
        for number in range(MAX_SESSIONS + MAX_WAITING_PER_OWNER):
            assert engine.admit(session(number)) == ""
        assert (engine.sessions, engine.waiting) == (MAX_SESSIONS, MAX_WAITING_PER_OWNER)
        assert engine.admit(session(999)) == f"{MAX_WAITING_PER_OWNER} sessions wait for room already"

    in_trio(act)


def test_steps_of_many_sessions_are_one_forward(middle: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits together is passed through the span together."""
    real, calls = middle.run_rows, []

    def counting(inputs: torch.Tensor, *args: Any) -> Any:
        calls.append(inputs.shape[0])
        return real(inputs, *args)

    monkeypatch.setattr(middle, "run_rows", counting)
    told, _ = outcomes(middle, [(session(number), step(3)) for number in range(5)])
    assert all(isinstance(each, Computed) for each in told)
    assert calls[1:] == [15]  # after the one that looks what a token takes


def test_a_released_text_is_there_for_the_next(middle: Stage) -> None:
    """A session whose blocks are named leaves them; one with the same keys begins after them, another doesn't."""
    entered: list[Any] = []

    async def main() -> None:
        names = keys("m", range(40))

        async def on_done(done: StageSession, result: Outcome) -> None:
            assert isinstance(result, Computed)
            engine.release(done)
            nursery.cancel_scope.cancel()

        engine = make(middle, on_done, admitted=entered)
        first = session(1, prompt_length=40, prefix=names)
        assert engine.admit(first) == ""
        engine.schedule(first, replace(step(40), keys=tuple(names)))
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
        assert engine.cached_tokens == 0
        engine.admit(session(2, prompt_length=41, prefix=names))
        engine.admit(session(3, prompt_length=41, prefix=keys("m", range(1, 41))))
        engine.admit(session(4, prompt_length=41, prefix=names, upstream="mallory-x"))

    trio.run(main)
    assert [cached for _, cached in entered] == [0, 32, 0, 0]


def test_chunks_are_halved_while_others_decode(middle: Stage) -> None:
    """A prompt goes through in smaller pieces where someone waits for it."""

    def act() -> None:
        engine = make(middle, nothing)
        decoding = session(1)
        assert engine.admit(decoding) == ""
        assert engine.chunk() == CPU_CHUNK
        decoding.start()
        decoding.on_message(PeerId("other-stage"), Step(decoding.session, 0, step(4).header), b"", 0.0)
        decoding.on_computed(Computed(0, 4, TensorHeader("f32", [4, 64])), 0.0)
        assert engine.chunk() == CPU_CHUNK // 2
        engine.release(decoding)
        assert engine.chunk() == CPU_CHUNK

    in_trio(act)


def test_one_at_a_time_a_failed_run_leaves_the_others_as_they_were(
    middle: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that has grown is not asked again because another session's run failed in the same step."""
    real = middle.run

    def failing(inputs: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if bool((inputs == 7).any()):
            raise KeyError("full_attention")
        return real(inputs, *args, **kwargs)

    monkeypatch.setattr(middle, "run", failing)
    monkeypatch.setattr(
        runners, "choose", lambda stage, *, max_tokens, max_bytes: runners.Serial(stage, max_tokens, max_bytes)
    )
    innocent = session(2)
    told, engine = outcomes(middle, [(innocent, step(4)), (session(1), step(4, fill=7)), (innocent, step(1, 4))])
    assert [type(each) for each in told] == [Computed, Failed, Computed]
    assert engine.cached_tokens == 5


def test_a_fault_of_ours_ends_one_session(middle: Stage) -> None:
    """A run that comes out of turn fails, and the engine goes on with the next."""
    told, _ = outcomes(middle, [(session(1), step(4, position=9)), (session(2), step(4))])
    assert [type(each) for each in told] == [Failed, Computed]
