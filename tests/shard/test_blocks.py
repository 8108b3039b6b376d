import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from p2pos.errors import InternalError
from p2pos.shard.blocks import Blocks, Lease, keys, scope, scoped
from p2pos.wire.messages import BLOCK_TOKENS, StageRef

COUNT = 12


def text(blocks: int, seed: int = 0) -> list[bytes]:
    return keys("model", [seed] * BLOCK_TOKENS * blocks)


def filled(blocks: Blocks, names: list[bytes]) -> Lease:
    lease = blocks.admit(len(names) * BLOCK_TOKENS, names)
    assert lease is not None
    held = len(lease.blocks)
    blocks.settle(lease, held)
    blocks.grow(lease, len(names) * BLOCK_TOKENS)
    for index in range(held, len(names)):
        blocks.name(lease, index, names[index])
    return lease


@given(st.lists(st.integers(0, 3), max_size=70), st.lists(st.integers(0, 3), max_size=70))
def test_texts_share_keys_as_far_as_they_agree(one: list[int], other: list[int]) -> None:
    """Two texts have equal keys for the whole blocks before their first difference, and for no others."""
    agree = 0
    while agree < min(len(one), len(other)) and one[agree] == other[agree]:
        agree += 1
    pairs = list(zip(keys("m", one), keys("m", other), strict=False))
    assert [a == b for a, b in pairs] == [index < agree // BLOCK_TOKENS for index in range(len(pairs))]


def test_models_share_no_keys() -> None:
    """The same text has other keys under another model."""
    assert keys("one", [1] * 16) != keys("two", [1] * 16)


def test_sessions_of_one_owner_over_one_way_share() -> None:
    """A key is filed under the session's owner, and the peers before the stage and their layers."""
    route = [StageRef("stage-one", ["/ip4/1.2.3.4/tcp/1"], 0, 2), StageRef("stage-two", [], 2, 4)]
    elsewhere = [StageRef("stage-one", [], 0, 2), StageRef("stage-two", [], 2, 4)]
    mallory = [StageRef("stage-one", [], 0, 2), StageRef("mallory-x", [], 2, 4)]
    assert scope("me", route) == scope("me", elsewhere)
    assert scope("me", route) != scope("me", mallory)
    assert scope("me", route) != scope("you", route)
    assert scoped(scope("me", route), b"k" * 16) != scoped(scope("you", route), b"k" * 16)


def test_a_text_that_begins_alike_holds_the_same_blocks() -> None:
    """The second session gets the first one's blocks, as far as the texts agree, while both live."""
    blocks = Blocks(COUNT)
    first = filled(blocks, text(3))
    lease = blocks.admit(4 * BLOCK_TOKENS, [*text(2), b"x" * 16])
    assert lease is not None
    assert lease.blocks == first.blocks[:2]
    assert blocks.held == 3


def test_what_nobody_holds_is_found_again() -> None:
    """Blocks outlive their session until the room is needed."""
    blocks = Blocks(COUNT)
    first = filled(blocks, text(3))
    held = list(first.blocks)
    blocks.release(first)
    assert (blocks.held, blocks.idle) == (0, 3)
    lease = blocks.admit(3 * BLOCK_TOKENS, text(3))
    assert lease is not None
    assert lease.blocks == held


def test_the_longest_unused_goes_first_and_its_end_before_its_beginning() -> None:
    """Room is made from the text that was used least lately, its last block first."""
    blocks = Blocks(4)
    for seed in (1, 2):
        blocks.release(filled(blocks, text(2, seed)))
    blocks.release(filled(blocks, text(2, 1)))  # used again
    lease = blocks.admit(BLOCK_TOKENS)
    assert lease is not None
    blocks.grow(lease, BLOCK_TOKENS)
    assert found(blocks, text(2, 1)) == 2
    assert found(blocks, text(2, 2)) == 1


def found(blocks: Blocks, names: list[bytes]) -> int:
    lease = blocks.admit(len(names) * BLOCK_TOKENS, names)
    assert lease is not None
    held = len(lease.blocks)
    blocks.release(lease)
    return held


def test_what_is_held_is_never_taken() -> None:
    """A full cache admits nobody, however much of it is named."""
    blocks = Blocks(3)
    filled(blocks, text(3))
    assert blocks.admit(1) is None


def test_what_others_hold_is_promised_until_it_is_kept() -> None:
    """A session that shares another's blocks may have to give them up, and finds room of its own then."""
    blocks = Blocks(5)
    filled(blocks, text(3))
    assert blocks.admit(3 * BLOCK_TOKENS, text(3)) is None  # where it could not keep them there would be two
    lease = blocks.admit(2 * BLOCK_TOKENS, text(2))
    assert lease is not None
    assert blocks.available == 0
    blocks.settle(lease, 1)
    assert blocks.available == 1
    blocks.grow(lease, 2 * BLOCK_TOKENS)
    with pytest.raises(InternalError, match="begins twice"):
        blocks.settle(lease, 0)


def test_what_nobody_holds_is_promised_once() -> None:
    """A text that fills the cache alone is found again by a session that fills it."""
    blocks = Blocks(3)
    blocks.release(filled(blocks, text(3)))
    lease = blocks.admit(3 * BLOCK_TOKENS, text(3))
    assert lease is not None
    blocks.settle(lease, 0)
    blocks.grow(lease, 3 * BLOCK_TOKENS)


def test_a_promise_counts_before_it_is_taken() -> None:
    """Two sessions can't be promised the same room."""
    blocks = Blocks(3)
    assert blocks.admit(2 * BLOCK_TOKENS) is not None
    assert blocks.admit(2 * BLOCK_TOKENS) is None
    assert blocks.admit(BLOCK_TOKENS) is not None


def test_no_more_than_was_promised() -> None:
    """A session that outgrows its promise is a fault of this code."""
    blocks = Blocks(3)
    lease = blocks.admit(BLOCK_TOKENS)
    assert lease is not None
    with pytest.raises(InternalError):
        blocks.grow(lease, BLOCK_TOKENS + 1)


def test_sessions_that_grow_in_turn_each_lie_in_a_row() -> None:
    """Where there is room, the blocks of a session are neighbours, however others grow between."""
    blocks = Blocks(COUNT)
    leases = [blocks.admit(4 * BLOCK_TOKENS) for _ in range(3)]
    for tokens in range(1, 4 * BLOCK_TOKENS + 1):
        for lease in leases:
            assert lease is not None
            blocks.grow(lease, tokens)
    assert [lease.blocks for lease in leases if lease] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_a_plan_keeps_nobody_out() -> None:
    """Where free blocks are short, a session takes those that another only planned to take."""
    blocks = Blocks(4)
    planned = blocks.admit(2 * BLOCK_TOKENS)
    other = blocks.admit(2 * BLOCK_TOKENS)
    assert planned is not None
    assert other is not None
    blocks.release(planned)
    third = blocks.admit(BLOCK_TOKENS)
    assert third is not None
    for lease, tokens in ((other, 2), (third, 1)):
        blocks.grow(lease, tokens * BLOCK_TOKENS)
    assert len({*other.blocks, *third.blocks}) == 3


class Sessions(RuleBasedStateMachine):
    """Sessions of a few texts that come, grow and go in any order."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Blocks(COUNT)
        self.live: list[tuple[Lease, list[bytes], int]] = []

    @rule(target=leases, seed=st.integers(0, 3), length=st.integers(1, 5 * BLOCK_TOKENS))
    def admit(self, seed: int, length: int) -> int:
        names = text(5, seed)
        lease = self.blocks.admit(length, names[: length // BLOCK_TOKENS])
        if lease is None:
            return -1
        self.live.append((lease, names, length))
        return len(self.live) - 1

    @rule(number=leases, share=st.floats(0, 1))
    def grow(self, number: int, share: float) -> None:
        if number >= 0:
            lease, names, length = self.live[number]
            if lease.blocks or lease.reserved:  # not over
                before = len(lease.blocks)
                if not lease.settled:
                    self.blocks.settle(lease, before)
                self.blocks.grow(lease, int(length * share))
                for index in range(before, len(lease.blocks)):
                    if (index + 1) * BLOCK_TOKENS <= length:
                        self.blocks.name(lease, index, names[index])

    @rule(number=leases, share=st.floats(0, 1))
    def settle(self, number: int, share: float) -> None:
        if number >= 0 and not (lease := self.live[number][0]).settled:
            self.blocks.settle(lease, int(len(lease.blocks) * share))

    @rule(number=consumes(leases))
    def release(self, number: int) -> None:
        if number >= 0:
            self.blocks.release(self.live[number][0])

    @invariant()
    def nothing_is_lost(self) -> None:
        held = {block for lease, _, _ in self.live for block in lease.blocks}
        assert self.blocks.held == len(held)
        assert len(self.blocks._free) + self.blocks.idle + len(held) == COUNT
        assert self.blocks.available >= 0
        free = {block for block in range(COUNT) if not self.blocks._spoken_for[block]}
        assert free <= self.blocks._free
        promised = sum(lease.reserved for lease, _, _ in self.live)
        for block in held:
            maybe = sum(block in lease.blocks and not lease.settled for lease, _, _ in self.live)
            surely = sum(block in lease.blocks and lease.settled for lease, _, _ in self.live)
            promised += maybe if surely else max(0, maybe - 1)
        assert self.blocks._reserved == promised

    @invariant()
    def a_key_names_one_text(self) -> None:
        for lease, names, _ in self.live:
            for index, block in enumerate(lease.blocks):
                assert self.blocks._key.get(block, names[min(index, 4)]) == names[min(index, 4)]


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
