from hypothesis import given
from hypothesis import strategies as st

from p2pos.shard.scheduler import LIGHT_ROWS, Scheduler


def made(rows: int = 160, **waiting: int) -> Scheduler[str]:
    scheduler: Scheduler[str] = Scheduler(rows)
    for job, count in waiting.items():
        scheduler.add(job, count)
    return scheduler


def test_decode_steps_and_a_chunk_go_together() -> None:
    """Steps of many sessions and a chunk of another are one forward, the steps first."""
    assert made(chunk=128, a=1, b=1).next() == ["a", "b", "chunk"]


def test_short_prompts_share_a_step() -> None:
    """Chunks of several sessions go together as far as there is room."""
    assert made(100, a=40, b=40, c=40).next() == ["a", "b"]


def test_a_chunk_larger_than_a_step_goes_all_the_same() -> None:
    """It would wait for ever beside decode steps that come again and again."""
    assert made(100, a=300, b=1, c=50).next() == ["b", "a"]


def test_who_finds_no_place_beside_a_chunk_goes_without_the_next() -> None:
    """A decode step beyond the share waits for the chunk that goes before it, and for no other."""
    scheduler = made(a=1, b=1, one=128, two=128)
    assert scheduler.next(light=1) == ["a", "one"]
    scheduler.done()
    assert scheduler.next(light=1) == ["b"]


def test_what_waited_for_a_chunk_goes_without_another() -> None:
    """A decode step that came while a chunk was computed is in a step of decode steps next."""
    scheduler = made(one=128, two=128)
    assert scheduler.next() == ["one"]
    scheduler.add("a", 1)
    scheduler.done()
    scheduler.add("b", 1)
    assert scheduler.next() == ["a", "b"]
    assert scheduler.next() == ["two"]


def test_what_comes_between_steps_goes_with_a_chunk() -> None:
    """A decode step that has waited for nothing yet doesn't keep prompts from going on."""
    scheduler = made(one=128, two=128)
    scheduler.next()
    scheduler.done()
    scheduler.add("a", 1)
    assert scheduler.next() == ["a", "two"]


def test_prompts_take_turns() -> None:
    """Each chunk of a prompt goes to the end of the line."""
    scheduler = made(a=128, b=128)
    order = []
    for _ in range(4):
        (job,) = scheduler.next()
        scheduler.done()
        order.append(job)
        scheduler.add(job, 128)
    assert order == ["a", "b", "a", "b"]


def test_no_more_decode_steps_than_its_share() -> None:
    """The head leaves decode steps for the next forward, so that every stage has some."""
    scheduler = made(a=1, b=1, c=1)
    assert scheduler.next(light=2) == ["a", "b"]
    assert scheduler.next(light=2) == ["c"]


def test_what_has_waited_goes_beyond_the_share() -> None:
    """A decode step that a chunk has delayed is not put off once more."""
    scheduler = made(one=128)
    scheduler.next()
    for job in ("a", "b", "c"):
        scheduler.add(job, 1)
    scheduler.done()
    assert scheduler.next(light=1) == ["a", "b", "c"]


def test_a_removed_run_is_not_started() -> None:
    """A run that is not wanted any more takes no place."""
    scheduler = made(a=1, b=128, c=1)
    scheduler.remove("a")
    scheduler.remove("b")
    scheduler.remove("nobody")
    assert (len(scheduler), scheduler.next()) == (1, ["c"])


@given(st.lists(st.tuples(st.sampled_from(["step", "chunk", "next"]), st.integers(1, 8)), max_size=60))
def test_nothing_waits_for_more_than_one_chunk(events: list[tuple[str, int]]) -> None:
    """However runs arrive, a decode step sees at most one chunk go before it, and no step holds more than its rows."""
    scheduler: Scheduler[int] = Scheduler(160)
    rows: dict[int, int] = {}
    chunks_seen: dict[int, int] = {}
    for number, (kind, count) in enumerate(events):
        if kind == "next":
            step = scheduler.next()
            heavy_rows = [rows[job] for job in step if rows[job] > LIGHT_ROWS]
            assert len(heavy_rows) == 1 or sum(rows[job] for job in step) <= 160
            heavy = any(rows[job] > LIGHT_ROWS for job in step)
            for job in step:
                if rows.pop(job) <= LIGHT_ROWS:
                    assert chunks_seen.pop(job) + heavy <= 1
            for job in chunks_seen:
                chunks_seen[job] += heavy
            for extra in range(count - 1):  # these come while the step is computed
                rows[1000 * number + extra + 1] = 1
                scheduler.add(1000 * number + extra + 1, 1)
                chunks_seen[1000 * number + extra + 1] = int(heavy)
            scheduler.done()
        else:
            rows[-number - 1] = 1 if kind == "step" else 16 * count + 1
            if kind == "step":
                chunks_seen[-number - 1] = 0
            scheduler.add(-number - 1, rows[-number - 1])
