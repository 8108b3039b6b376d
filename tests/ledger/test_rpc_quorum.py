from hypothesis import given
from hypothesis import strategies as st

from p2pos.ledger.rpc_quorum import (
    DEPTHS,
    FIRST_ASIDE_S,
    MAX_AHEAD,
    MAX_ASIDE_S,
    State,
    Tip,
    agreed,
    height,
    heights,
)


def look(state: State, tips: dict[int, Tip], chains: dict[int, dict[int, str]], now_s: float) -> State | None:
    """What the pool does: the state after one look at the head, None where nobody agrees."""
    needed = state.votes_needed(len(tips))
    top = height([tip.number for tip in tips.values()], needed)
    for number in heights(top) if top is not None else []:
        at = {index: chains[index][number] for index, tip in tips.items() if number <= tip.number}
        if block := agreed(at, needed):
            return state.judged(tips, top, number, at, block, now_s)
    return None


def tips_of(chains: dict[int, dict[int, str]]) -> dict[int, Tip]:
    return {index: Tip(max(chain), chain[max(chain)]) for index, chain in chains.items()}


def chain(length: int, name: str = "true", fork: int = 0) -> dict[int, str]:
    """Blocks 0 … length, from `fork` on of another chain than the true one."""
    return {number: name if number >= fork else "true" for number in range(length + 1)}


@st.composite
def scenes(draw):
    """Three to seven end points: a majority honest and at most 64 blocks apart, the others say anything."""
    count = draw(st.integers(3, 7))
    liars = draw(st.integers(0, (count - 1) // 2))
    order = draw(st.permutations(range(count)))
    length = draw(st.integers(0, 150))
    chains: dict[int, dict[int, str]] = {}
    for place, index in enumerate(order):
        if place < liars:
            chains[index] = chain(draw(st.integers(0, 400)), "lie", draw(st.integers(0, 200)))
        else:
            chains[index] = chain(max(0, length - draw(st.integers(0, max(DEPTHS)))))
    return chains, set(order[:liars])


@given(scenes())
def test_a_minority_is_outvoted(scene):
    """Whatever a minority says, the head is a true block, no higher than an honest end point's, and is found."""
    chains, liars = scene
    state = look(State.fresh(len(chains)), tips_of(chains), chains, 0.0)
    assert state is not None
    honest = [max(chains[index]) for index in chains if index not in liars]
    assert state.head.block == "true"
    assert min(honest) - max(DEPTHS) <= state.head.number <= max(honest)


@given(scenes())
def test_reads_come_from_who_agrees(scene):
    """Only who has the agreed block serves reads, and somebody does."""
    chains, _ = scene
    state = look(State.fresh(len(chains)), tips_of(chains), chains, 0.0)
    readers = state.readers(0.0)
    assert readers
    assert state.in_use == readers[0]
    assert all(chains[index].get(state.head.number) == "true" for index in readers)


def test_too_high_is_put_aside():
    """One that says that the head is far ahead is outvoted, and not asked again at once."""
    chains = {0: chain(1000), 1: chain(20), 2: chain(20)}
    state = look(State.fresh(3), tips_of(chains), chains, 0.0)
    assert state.head.number == 20
    assert state.due(0.5) == [1, 2]
    assert "it says that block 1000 is the newest" in state.members[0].why
    assert state.due(FIRST_ASIDE_S) == [0, 1, 2]


def test_a_little_ahead_is_no_lie():
    """One that has seen a newer block than the others is believed as far as they agree."""
    chains = {0: chain(20 + MAX_AHEAD), 1: chain(20), 2: chain(20)}
    state = look(State.fresh(3), tips_of(chains), chains, 0.0)
    assert state.readers(0.0) == [0, 1, 2]


def test_other_blocks_are_put_aside():
    """One whose blocks are not the others' is outvoted, even where it was in use."""
    chains = {0: chain(20, "lie", 10), 1: chain(20), 2: chain(20)}
    state = look(State.fresh(3), tips_of(chains), chains, 0.0)
    assert state.in_use == 1
    assert state.due(0.0) == [1, 2]


def test_one_that_goes_back_serves_no_reads():
    """One that is behind again is not read from until it has the agreed block; the head stays."""
    state = State.fresh(3)
    for lengths in ((20, 20, 20), (5, 21, 21)):
        chains = {index: chain(length) for index, length in enumerate(lengths)}
        state = look(state, tips_of(chains), chains, 0.0)
    assert state.head.number == 21
    assert state.readers(0.0) == [1, 2]
    assert state.members[0].why == "it is 16 blocks behind"
    assert state.in_use == 1


def test_all_may_go_back():
    """A reorganisation to a lower height that a majority reports is followed."""
    state = State.fresh(3)
    for length in (20, 18):
        chains = {index: chain(length) for index in range(3)}
        state = look(state, tips_of(chains), chains, 0.0)
    assert state.head.number == 18


def test_of_two_the_lower_counts():
    """Of two end points the head is the newest block that both have; while one is away the other is believed."""
    chains = {0: chain(9), 1: chain(7)}
    assert look(State.fresh(2), tips_of(chains), chains, 0.0).head.number == 7
    assert look(State.fresh(2), {0: Tip(9, "true")}, chains, 0.0).head.number == 9


def test_two_that_disagree():
    """Of two end points without a common block neither is believed."""
    chains = {0: chain(9, "lie"), 1: chain(9)}
    assert look(State.fresh(2), tips_of(chains), chains, 0.0) is None


def test_one_of_three_is_no_majority():
    """While two of three are away, the third alone is not believed."""
    assert look(State.fresh(3), {1: Tip(9, "true")}, {1: chain(9)}, 0.0) is None


@given(strikes=st.integers(1, 40))
def test_back_off_doubles_up_to_a_minute(strikes):
    """At each fault in a row an end point is put aside for twice as long, up to the bound; a sound answer ends it."""
    state = State.fresh(3)
    for _ in range(strikes):
        state = state.struck(2, "it erred", 100.0)
    assert state.members[2].until_s == 100.0 + min(FIRST_ASIDE_S * 2 ** (strikes - 1), MAX_ASIDE_S)
    assert state.due(100.0) == [0, 1]
    assert state.readers(100.0) == [0, 1]
    chains = {index: chain(3) for index in range(3)}
    again = look(state, tips_of(chains), chains, 101.0)
    assert (again.members[2].strikes, again.members[2].why) == (0, "")


def test_when_all_are_aside_a_majority_is_tried():
    """Where faults have put everyone aside, those who were so for longest are asked about the head all the same."""
    state = State.fresh(3)
    for now_s, index in enumerate((1, 2, 0)):
        state = state.struck(index, "it erred", now_s / 10)
    assert state.due(0.3) == [1, 2]
    assert state.readers(0.3) == []
    assert state.writers(0.3)


@given(strikes=st.lists(st.integers(0, 2), max_size=8))
def test_the_one_in_use_is_kept(strikes):
    """The end point in use changes only when it is at fault itself."""
    chains = {index: chain(3) for index in range(3)}
    state = look(State.fresh(3), tips_of(chains), chains, 0.0)
    for index in strikes:
        before = state.in_use
        state = state.struck(index, "it erred", 0.0)
        if index != before and before in state.readers(0.0):
            assert state.in_use == before
