from typing import Any

import pytest
import torch
import trio

from p2pos.errors import PeerError
from p2pos.shard import activations
from p2pos.shard.engine import Engine, Failed
from p2pos.shard.session import MAX_SESSIONS, Computed, Run, StageSession
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan, PeerId
from p2pos.wire.messages import Open, Sampling, StageRef, TensorHeader

ME = PeerId("this-stage")


@pytest.fixture(scope="module")
def middle(checkpoint_of) -> Stage:
    return Stage.load(checkpoint_of("llama"), LayerSpan(2, 4), dtype="f32")


@pytest.fixture(scope="module")
def tail(checkpoint_of) -> Stage:
    return Stage.load(checkpoint_of("llama"), LayerSpan(4, 6), dtype="f32")


def session(number: int = 0, *, last: bool = False, prompt_length: int = 4, max_tokens: int = 4) -> StageSession:
    stages = [StageRef("other-stage", [], 0, 2), StageRef(ME, [], 2, 4)]
    stages += [] if last else [StageRef("third-stage", [], 4, 6)]
    order = Open(
        number.to_bytes(16, "big"), "m", "owner-peer", stages, 1, prompt_length, max_tokens, [], Sampling(), []
    )
    return StageSession(order, me=ME, sender=PeerId("owner-peer"), now_s=0.0)


def step(rows: int, position: int = 0, **changes: Any) -> Run:
    header, payload = activations.to_wire(torch.ones(rows, 64))
    return Run(
        position, rows, header=changes.get("header", header), payload=payload, sample=changes.get("sample", False)
    )


def outcomes(stage: Stage, work: list[tuple[StageSession, Run]], **changes: Any) -> tuple[list[Any], Engine]:
    """What an engine says of these runs, in order."""
    told: list[Any] = []

    async def main() -> Engine:
        async def on_done(_session: StageSession, result: Computed | Failed) -> None:
            told.append(result)
            if len(told) == len(work):
                nursery.cancel_scope.cancel()

        engine = Engine(stage, dtype="f32", max_tokens=changes.get("max_tokens", 1000), on_done=on_done)
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            for each, run in work:
                if each.session not in engine._caches:
                    assert engine.admit(each) == ""
                engine.schedule(each, run)
        return engine

    return told, trio.run(main)


def test_hidden_states_pass_through(middle: Stage) -> None:
    """A middle stage gives as many rows as it got, and its cache has grown by them."""
    (result,), engine = outcomes(middle, [(session(), step(4))])
    assert (result.position, result.rows, result.header) == (0, 4, TensorHeader("f32", [4, 64]))
    assert len(result.payload) == 4 * 64 * 4
    assert engine.cached_tokens == 4
    assert engine.cached_bytes == 2 * 2 * (2 * 4 * 16) * 4  # layers × (k, v) × (heads × rows × width) × fp32


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
    """Whatever an architecture's forward raises fails that run, and the engine goes on."""
    real, calls = middle.run, []

    def failing(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(args)
        if len(calls) == 1:
            raise KeyError("full_attention")
        return real(*args, **kwargs)

    monkeypatch.setattr(middle, "run", failing)
    told, _ = outcomes(middle, [(session(1), step(4)), (session(2), step(4))])
    assert isinstance(told[0], Failed)
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
        async def on_done(done: StageSession, _result: Computed | Failed) -> None:
            told.append(PeerId(done.session.hex()))
            nursery.cancel_scope.cancel()

        engine = Engine(middle, dtype="f32", max_tokens=1000, on_done=on_done)
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


def admitting(stage: Stage, sessions: list[StageSession], max_tokens: int) -> list[str]:
    async def main() -> list[str]:
        async def on_done(_session: StageSession, _result: Computed | Failed) -> None: ...

        engine = Engine(stage, dtype="f32", max_tokens=max_tokens, on_done=on_done)
        return [engine.admit(each) for each in sessions]

    return trio.run(main)


def test_a_session_beyond_the_cache_is_not_admitted(middle: Stage) -> None:
    """Prompt and text of all sessions together never pass the budget."""
    refusals = admitting(middle, [session(1), session(2), session(3)], 20)
    assert refusals == ["", "", "its cache has no room for 8 tokens"]


def test_a_session_beyond_the_context_is_not_admitted(middle: Stage) -> None:
    """A text longer than the model's context is refused by its length."""
    (refusal,) = admitting(middle, [session(prompt_length=500, max_tokens=13)], 10_000)
    assert refusal == "513 tokens are more than the model's context of 512"


def test_a_stage_holds_so_many_sessions(middle: Stage) -> None:
    """The one after the last place is refused."""
    refusals = admitting(middle, [session(number) for number in range(MAX_SESSIONS + 1)], 10_000)
    assert refusals[:-1] == [""] * MAX_SESSIONS
    assert refusals[-1] == f"it holds {MAX_SESSIONS} sessions already"


def test_a_released_session_frees_its_place(middle: Stage) -> None:
    """What a session held can be had by the next."""

    async def main() -> None:
        async def on_done(_session: StageSession, _result: Computed | Failed) -> None: ...

        engine = Engine(middle, dtype="f32", max_tokens=8, on_done=on_done)
        first, second = session(1), session(2)
        assert engine.admit(first) == ""
        assert engine.admit(second) != ""
        engine.release(first)
        assert engine.admit(second) == ""
        assert engine.sessions == 1

    trio.run(main)
