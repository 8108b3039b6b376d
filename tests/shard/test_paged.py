from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.masking_utils import causal_mask_function, sliding_window_causal_mask_function

from p2pos.shard.paged import PagedKv, Rows, Step, register
from p2pos.shard.runners import Paged, Serial, Work, choose
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan
from p2pos.wire.messages import BLOCK_TOKENS
from tests import checkpoints

KINDS = sorted(checkpoints.CONFIGS)
CPU = torch.device("cpu")


class Swarm:
    """All stages of a model in one process, and texts that pass through them side by side."""

    def __init__(self, stages: Sequence[Stage], texts: Sequence[torch.Tensor]) -> None:
        self.texts = texts
        self.positions = [0] * len(texts)
        self.runners = [choose(stage, max_tokens=2048, max_bytes=1 << 30) for stage in stages]
        for runner in self.runners:
            for number, text in enumerate(texts):
                assert runner.admit(bytes([number]), len(text), []) == 0

    def step(self, counts: dict[int, int]) -> dict[int, torch.Tensor]:
        """Pass the next so many tokens of these texts, together; the logits of each one's last."""
        rows = {n: self.texts[n][self.positions[n] : self.positions[n] + count] for n, count in counts.items()}
        for runner in self.runners:
            last = runner is self.runners[-1]
            works = [Work(bytes([n]), self.positions[n], each, want_logits=last) for n, each in rows.items()]
            ready = [runner.prepare(work.session, work.position, work.rows) for work in works]
            found = runner.run(works, ready)
            for work in works:
                runner.done(work.session, work.position, work.rows, [])
            rows = dict(zip(rows, found, strict=True))
        for number, count in counts.items():
            self.positions[number] += count
        return rows


@pytest.fixture(scope="module", params=KINDS)
def model(request, checkpoint_of):
    directory = checkpoint_of(request.param)
    stages = [Stage.load(directory, LayerSpan(start, start + 2), dtype="f32") for start in (0, 2, 4)]
    return checkpoints.whole(directory), stages


@settings(max_examples=8, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    data=st.data(),
)
def test_texts_side_by_side_are_as_each_alone(model, lengths: list[int], data: st.DataObject) -> None:
    """However chunks and single tokens of several texts are mixed, each text's logits are the whole model's for it."""
    whole, stages = model
    generator = torch.Generator().manual_seed(sum(lengths))
    texts = [torch.randint(3, 250, (length,), generator=generator) for length in lengths]
    with torch.inference_mode():
        expected = [whole(text[None]).logits[0] for text in texts]
        swarm = Swarm(stages, texts)
        while left := [n for n, text in enumerate(texts) if swarm.positions[n] < len(text)]:
            chosen = data.draw(st.lists(st.sampled_from(left), min_size=1, unique=True))
            counts = {n: data.draw(st.integers(1, min(20, lengths[n] - swarm.positions[n]))) for n in chosen}
            for number, logits in swarm.step(counts).items():
                wanted = expected[number][swarm.positions[number] - 1]
                torch.testing.assert_close(logits, wanted, atol=2e-5, rtol=1e-4)


def test_every_plain_architecture_is_paged(model) -> None:
    """The architectures of these tests run side by side, not one at a time."""
    _, stages = model
    assert all(isinstance(choose(stage, max_tokens=64, max_bytes=1 << 30), Paged) for stage in stages)


def test_positions_that_depend_on_the_length_run_alone(tmp_path) -> None:
    """Rotary positions that are scaled by the longest text of a batch would be wrong for the others."""
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    directory = checkpoints.save(tmp_path, "llama", rope_parameters=rope)
    stage = Stage.load(directory, LayerSpan(0, 2), dtype="f32")
    assert isinstance(choose(stage, max_tokens=64, max_bytes=1 << 30), Serial)


def test_the_budget_of_bytes_bounds_one_at_a_time_as_well(checkpoint_of) -> None:
    """Sessions that each have a cache of the model's own are let in as long as their bytes fit."""
    stage = Stage.load(checkpoint_of("llama"), LayerSpan(0, 2), dtype="f32")
    token = 2 * 2 * 2 * 16 * 4  # layers × (k, v) × heads × width × fp32
    runner = Serial(stage, 1 << 20, 10 * token)
    assert runner.room == 10
    assert runner.admit(b"one", 6, []) == 0
    assert runner.admit(b"two", 5, []) is None
    assert runner.admit(b"two", 4, []) == 0


def test_the_budget_of_bytes_bounds_the_blocks(checkpoint_of) -> None:
    """A node takes no more blocks than fit its memory."""
    stage = Stage.load(checkpoint_of("llama"), LayerSpan(0, 2), dtype="f32")
    block = 2 * 2 * 2 * 16 * 4 * BLOCK_TOKENS  # layers × (k, v) × heads × width × fp32 × tokens
    assert choose(stage, max_tokens=1 << 20, max_bytes=5 * block + 1).room == 5 * BLOCK_TOKENS


def test_a_shared_beginning_is_computed_once(checkpoint_of) -> None:
    """A session that adopts another's blocks gives the same as one that computes them, and shares their memory."""
    directory = checkpoint_of("llama")
    stage = Stage.load(directory, dtype="f32")
    runner = choose(stage, max_tokens=1024, max_bytes=1 << 30)
    assert isinstance(runner, Paged)
    text = torch.arange(10, 60)
    names = [bytes([n]) * 16 for n in range(3)]
    with torch.inference_mode():
        wanted = checkpoints.whole(directory)(text[None]).logits[0, -1]
    assert runner.admit(b"first", 50, names) == 0
    runner.run([Work(b"first", 0, text)], [runner.prepare(b"first", 0, 50)])
    runner.done(b"first", 0, 50, names)
    held = runner.blocks.held
    assert runner.admit(b"second", 50, names) == 48
    runner.adopt(b"second", 32)
    (found,) = runner.run([Work(b"second", 32, text[32:], want_logits=True)], [runner.prepare(b"second", 32, 18)])
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-4)
    assert runner.blocks.held == held + 2


@given(
    sessions=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5)), min_size=1, max_size=5),
    window=st.none() | st.integers(1, 20),
)
def test_each_row_sees_what_its_rule_says(sessions: list[tuple[int, int]], window: int | None) -> None:
    """A group's mask is the rule at each row's own position, and never a key beyond its session's end."""
    rule = causal_mask_function if window is None else sliding_window_causal_mask_function(window)
    everything = [Rows(position, count, list(range(3))) for position, count in sessions]
    rows = sorted(everything, key=lambda each: not each.together(CPU))
    step = Step(rows, CPU)
    place = iter(rows)
    for number, group in enumerate(step.groups):
        mask = step.mask(number, rule, torch.float32)
        for index in range(group.size):
            each = next(place)
            for row in range(each.count):
                for key in range(each.position + each.count):
                    query = each.position + row
                    seen = key <= query and (window is None or key > query - window)
                    assert mask is None or (mask[index, 0, row, key] == 0) == seen
                if mask is not None:
                    assert bool((mask[index, 0, row, each.position + each.count :] < 0).all())


def test_a_slot_that_nobody_wrote_is_not_read() -> None:
    """Memory that was never written may hold NaN, which no mask removes: shorter sessions read their own end again."""
    kv = PagedKv({0: (1, 4, 4)}, blocks=4, dtype=torch.float32, device=CPU)
    kv.values[0].fill_(torch.nan)
    kv.values[0][:, :20] = 1.0
    step = Step([Rows(19, 1, [0, 1]), Rows(2, 1, [0])], CPU)
    assert bool(torch.isfinite(step.groups[0].gather(kv.values[0])).all())


def test_outside_of_a_step_the_model_attends_as_before(checkpoint_of) -> None:
    """The registered function is the one it stands for where no paged step is under way."""
    stage = Stage.load(checkpoint_of("llama"), dtype="f32")
    text = torch.arange(10, 40)
    before = stage.run(text, stage.new_cache(), want_logits=True)
    stage.page()
    torch.testing.assert_close(stage.run(text, stage.new_cache(), want_logits=True), before, atol=0, rtol=0)


def test_a_name_is_registered_once() -> None:
    """Registering what is registered gives its name again."""
    assert register(register("sdpa")) == "p2pos_sdpa"
