import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.content import chunks
from p2pos.content.chunks import CHUNK, LEAF, MAX_CHUNKS, Chunks, Leaves
from p2pos.errors import PeerError

SIZES = st.dictionaries(
    st.text(max_size=5), st.sampled_from([0, 1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 5 * CHUNK + 3]), max_size=6
)


@given(sizes=SIZES)
def test_every_byte_is_in_one_chunk(sizes: dict[str, int]) -> None:
    """The chunks, in their order, are the tensors' bytes by name, each byte once, and none is empty or too large."""
    found = Chunks(sizes)
    at = dict.fromkeys(sizes, 0)
    for chunk in range(found.total):
        place = found.place(chunk)
        assert chunk in found.of(place.tensor)
        assert place.offset == at[place.tensor]
        assert 0 < place.nbytes <= CHUNK
        at[place.tensor] += place.nbytes
    assert at == sizes
    assert [name for name, _ in found.long()] == sorted(name for name, size in sizes.items() if size > CHUNK)


def test_a_tensors_digest_is_that_of_its_leaves() -> None:
    """One chunk: the sha256 of its bytes; more: of the sha256s of its chunks; none: of nothing."""
    data = bytes(CHUNK) + b"end"
    leaves = [hashlib.sha256(part).digest() for part in (data[:CHUNK], data[CHUNK:])]
    assert chunks.digest(memoryview(b"x")) == hashlib.sha256(b"x").digest()
    assert chunks.digest(memoryview(data)) == hashlib.sha256(b"".join(leaves)).digest()
    assert chunks.digest(memoryview(b"")) == hashlib.sha256().digest()


def leaves_of(count: int) -> tuple[Chunks, dict[str, bytes], list[bytes]]:
    """A model of one tensor of so many chunks and a short one, its digests, and the long one's leaves."""
    each = [hashlib.sha256(bytes([number])).digest() for number in range(count)]
    digests = {"long": chunks.digest_of(each), "short": hashlib.sha256(b"s").digest()}
    return Chunks({"long": count * CHUNK, "short": 5}), digests, each


def test_leaves_say_what_each_chunk_is() -> None:
    """The leaves of a long tensor are in the blob; the only chunk of a short one has its digest."""
    found, digests, each = leaves_of(3)
    leaves = Leaves(found, digests, b"".join(each))
    assert [leaves.of(chunk) for chunk in range(found.total)] == [*each, digests["short"]]


@pytest.mark.parametrize("spoil", [lambda blob: blob[:-LEAF], lambda blob: blob + b"x", lambda blob: b"x" + blob[1:]])
def test_other_leaves_are_the_peers_fault(spoil) -> None:
    """Leaves that are too few, too many or others don't fit the manifest."""
    found, digests, each = leaves_of(3)
    with pytest.raises(PeerError, match="digests of chunks"):
        Leaves(found, digests, spoil(b"".join(each)), peer="them")


def test_a_model_beyond_measure_is_the_peers_fault() -> None:
    """A manifest can claim tensors of any size; one with too many chunks is refused before anything is made for it."""
    with pytest.raises(PeerError, match="chunks"):
        Chunks({"a": MAX_CHUNKS * CHUNK + 1}, peer="them")


@given(total=st.integers(0, 70), data=st.data())
def test_a_bitmap_has_what_was_packed(total: int, data: st.DataObject) -> None:
    """What goes into a bitmap is in it, and nothing else; the full one has everything."""
    members = data.draw(st.sets(st.integers(0, max(total - 1, 0)), max_size=total))
    bits = chunks.pack(members, total)
    assert {chunk for chunk in range(total) if chunks.has(bits, chunk)} == members
    assert chunks.everything(total) == chunks.pack(range(total), total)
