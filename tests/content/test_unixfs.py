from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.content import cid, unixfs
from p2pos.errors import UnavailableError, UserError

SMALL = unixfs.MIN_PIECE


class Blocks(dict):
    """Blocks in memory."""

    def put(self, data, codec="raw"):
        name = cid.of(data, codec)
        self[name] = data
        return name


def cut(data, *, width=3):
    blocks = Blocks()
    root, size = unixfs.add(
        [data[at : at + 700] for at in range(0, len(data), 700)], blocks.put, chunk=SMALL, width=width
    )
    return root, size, blocks


@given(st.integers(0, 30 * SMALL), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_a_file_comes_back(length, width):
    """A file of any length, cut into blocks under nodes as deep as it takes, reads as it was."""
    data = (b"%07d" % length * (length // 7 + 1))[:length]
    root, size, blocks = cut(data, width=max(width, 4))
    assert size == length
    assert b"".join(unixfs.read(root, size, blocks.get)) == data


def test_a_small_file_is_one_raw_block():
    """Up to a chunk there is no node, so the CID is that of the bytes."""
    root, size, blocks = cut(b"x" * SMALL)
    assert (root, size, len(blocks)) == (cid.of(b"x" * SMALL), SMALL, 1)


def test_what_lacks_is_found_level_by_level():
    """Fetching what is lacking until nothing is brings all of a file, each block once."""
    data = bytes(range(256)) * 100
    root, size, there = cut(data)
    here = Blocks()
    asked = []
    while answer := unixfs.lacking(root, size, here.__contains__, here.get):
        for link in answer:
            asked.append(link.cid)
            here[link.cid] = there[link.cid]
    assert sorted(asked) == sorted(there)
    assert b"".join(unixfs.read(root, size, here.get)) == data


def test_a_file_that_repeats_itself_is_little_work():
    """A few blocks that name one another thousands of times are each taken once; the size is still what it says."""
    blocks = Blocks()
    below = link(b"x" * SMALL)
    blocks.put(b"x" * SMALL)
    for _ in range(2):
        block = unixfs.node([below] * 1000)
        below = unixfs.Link(blocks.put(block, "dag-pb"), 1000 * below.size, len(block) + 1000 * below.stored)
    assert [each.cid for each, _ in unixfs.blocks(below.cid, 10**6 * SMALL, blocks.get)] == [*reversed(blocks)]
    assert unixfs.lacking(below.cid, 10**6 * SMALL, blocks.__contains__, blocks.get) == []


def test_a_block_that_is_not_here_is_named():
    """Who reads a file whose block isn't here is told which."""
    root, size, blocks = cut(bytes(5 * SMALL))
    node = next(name for name in blocks if cid.codec(name) == "dag-pb" and name != root)
    del blocks[node]
    with pytest.raises(UnavailableError, match=node):
        list(unixfs.read(root, size, blocks.get))


def test_another_size_is_refused_before_the_file_is_read():
    """A file that is larger or smaller than it is said to be is refused at its first node."""
    root, size, blocks = cut(bytes(5 * SMALL))
    for said in (size - 1, size + 1):
        reads = []
        with pytest.raises(UserError, match=f"lists {size} bytes where the file is said to have {said}"):
            list(unixfs.read(root, said, lambda name: reads.append(name) or blocks[name]))  # noqa: B023
        assert reads == [root]


def link(data, size=None):
    return unixfs.Link(cid.of(data), len(data) if size is None else size, len(data))


@pytest.mark.parametrize(
    ("links", "fault"),
    [
        ([link(b"x" * SMALL, size=2 * SMALL)], "where the file is said to have"),
        ([link(b"x"), link(b"y" * SMALL)], "pieces of less than"),
        ([link(b"x" * SMALL), link(b"")], "pieces of less than"),
    ],
)
def test_nodes_that_lie_are_refused(links, fault):
    """A node whose links lead to other sizes, or that makes endless work of few bytes, is refused."""
    blocks = Blocks()
    for data in (b"x" * SMALL, b"x", b"y" * SMALL, b""):
        blocks.put(data)
    root = blocks.put(unixfs.node(links), "dag-pb")
    with pytest.raises(UserError, match=fault):
        list(unixfs.read(root, sum(each.size for each in links), blocks.get))


def test_too_many_levels_are_refused():
    """Nodes can't nest beyond what the largest file needs."""
    blocks = Blocks()
    data = b"x" * SMALL
    blocks.put(data)
    below = link(data)
    for _ in range(unixfs.MAX_DEPTH + 1):
        block = unixfs.node([below])
        below = unixfs.Link(blocks.put(block, "dag-pb"), SMALL, len(block) + below.stored)
    with pytest.raises(UserError, match="nests more than"):
        list(unixfs.read(below.cid, SMALL, blocks.get))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_node_or_a_value_error(data):
    """A stranger's block is read or refused, and what is read is written back alike."""
    try:
        links = unixfs.links_of(data)
    except ValueError:
        return
    assert unixfs.node(links) == data


@settings(deadline=None)
@given(st.data())
def test_a_flipped_bit_of_a_node_is_another_node_or_none(data):
    """Read with one bit changed, a node never gives the same links."""
    links = [link(b"x" * SMALL), link(b"y" * SMALL)]
    block = bytearray(unixfs.node(links))
    bit = data.draw(st.integers(0, 8 * len(block) - 1))
    block[bit // 8] ^= 1 << bit % 8
    with suppress(ValueError):
        assert unixfs.links_of(bytes(block)) != links
