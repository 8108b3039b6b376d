from hypothesis import given
from hypothesis import strategies as st

from p2pos.shard.outgoing import SMALL_ROWS, WINDOW, Outgoing, Rows
from p2pos.wire.messages import BLOCK_TOKENS, TensorHeader


def piece(position: int, rows: int) -> Rows:
    """Each row's bytes say its position; each block that ends in it has a key."""
    data = b"".join((position + row).to_bytes(4, "big") for row in range(rows))
    ends = range(position // BLOCK_TOKENS + 1, (position + rows) // BLOCK_TOKENS + 1)
    return Rows(position, TensorHeader("f32", [rows, 1]), data, tuple(end.to_bytes(16, "big") for end in ends))


def shown(pieces: list[Rows]) -> list[int]:
    """The positions in the bytes that leave, in order."""
    data = b"".join(bytes(each.payload) for each in pieces)
    assert all(each.rows * 4 == len(each.payload) for each in pieces)
    return [int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data), 4)]


def filled(sizes: list[int], **changes: int) -> Outgoing:
    """One that was given pieces of these sizes, all before its window ends."""
    out = Outgoing(windowed=changes.pop("windowed", 10_000), **changes)
    position = 0
    for size in sizes:
        out.add(piece(position, size))
        position += size
    return out


def drained(out: Outgoing) -> list[Rows]:
    """All that leaves where the next stage acknowledges each piece."""
    left: list[Rows] = []
    while taken := out.take():
        left += taken
        assert out.acknowledge(taken[-1].end)
    return left


def test_no_more_than_the_window_is_under_way() -> None:
    """Chunks wait for an acknowledgement, and what is computed meanwhile waits with them."""
    out = filled([100] * (WINDOW + 2))
    assert len(out.take()) == WINDOW
    assert out.full
    assert out.acknowledge(100)
    assert [rows.position for rows in out.take()] == [100 * WINDOW]


def test_many_small_pieces_may_be_under_way() -> None:
    """A text that is sent again a step at a time isn't held up by each round trip."""
    assert len(filled([1] * 100).take()) == SMALL_ROWS


def test_steps_beyond_the_window_wait_for_nobody() -> None:
    """They aren't acknowledged."""
    assert len(filled([1] * 100, windowed=0).take()) == 100


def test_what_was_not_sent_cannot_be_acknowledged() -> None:
    """Nor can less than was acknowledged already."""
    out = filled([100] * (WINDOW + 1))
    out.take()
    assert not out.acknowledge(100 * WINDOW + 1)
    assert out.acknowledge(200)
    assert not out.acknowledge(100)


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30), data=st.data())
def test_another_is_sent_exactly_what_it_lacks(sizes: list[int], data: st.DataObject) -> None:
    """Each position once, in order, with its own bytes and the right keys, joined or not, from wherever it begins."""
    out = filled(sizes)
    drained(out)
    end = sum(sizes)
    begin = data.draw(st.integers(0, end))
    assert out.replay(begin, windowed=end, join_rows=data.draw(st.sampled_from([1, 16, 128])))
    sent = drained(out)
    assert shown(sent) == list(range(begin, end))
    keys = [key for rows in sent for key in rows.keys]
    assert keys == list(piece(begin, end - begin).keys if end > begin else ())


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30), begin=st.integers(0, 1200))
def test_what_the_next_stage_has_is_computed_and_not_sent(sizes: list[int], begin: int) -> None:
    """A new stage before one that stayed sends on from where that one's cache ends."""
    end = sum(sizes)
    assert shown(drained(filled(sizes, forward_from=begin))) == list(range(min(begin, end), end))


def test_nothing_leaves_while_it_is_paused() -> None:
    """Who takes the lost stage's place isn't known yet."""
    out = filled([4, 4])
    out.pause()
    assert out.take() == []
    assert out.replay(0, windowed=8, join_rows=1)
    assert len(out.take()) == 2


def test_joined_pieces_are_no_larger_than_they_may_be() -> None:
    """A reader refuses pieces that are larger."""
    out = filled([100, 1, 1, 1, 50, 60])
    assert out.replay(0, windowed=10_000, join_rows=128)
    assert [rows.rows for rows in drained(out)] == [103, 110]


def test_what_is_forgotten_cannot_be_sent_again() -> None:
    """It says from where on it could be, and takes no memory."""
    out = filled([16, 16])
    assert out.nbytes == 32 * 4
    out.forget()
    assert (out.nbytes, out.kept_from) == (0, 32)
    out.add(piece(32, 1))
    assert out.kept_from == 33
    assert not out.replay(0, windowed=40, join_rows=1)
    assert shown(drained(out)) == list(range(33))
