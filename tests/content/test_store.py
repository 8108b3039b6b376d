import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.content import cid, store
from p2pos.content.store import Store
from p2pos.errors import UnavailableError, UserError


@settings(deadline=None)
@given(blocks=st.lists(st.binary(max_size=50), max_size=5))
def test_what_is_put_comes_back(tmp_path_factory, blocks):
    """Every block comes back by its CID, as often as one likes, and nothing else is there."""
    kept = Store(tmp_path_factory.mktemp("store"))
    names = [kept.put(data) for data in blocks]
    assert names == [cid.of(data) for data in blocks]
    assert [kept.get(name) for name in names] == blocks
    assert set(kept) == set(names)
    assert all(name in kept for name in names)


def test_what_is_not_there(tmp_path):
    """A block that isn't here is None, a name that is no CID an error."""
    kept = Store(tmp_path)
    assert kept.get(cid.of(b"x")) is None
    assert cid.of(b"x") not in kept
    with pytest.raises(UserError, match="is not a CID"):
        kept.get("../../etc/passwd")


def test_a_damaged_block_is_not_believed(tmp_path):
    """A file that no longer hashes to its name is refused, and mended by putting the block again."""
    kept = Store(tmp_path)
    name = kept.put(b"abc")
    (path,) = [one for one in tmp_path.rglob("*") if one.is_file()]
    path.write_bytes(b"abd")
    with pytest.raises(UnavailableError, match="is damaged on disk"):
        kept.get(name)
    assert kept.put(b"abc") == name
    assert kept.get(name) == b"abc"


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    """Where the disk fails in mid-write, neither the block nor its draft remains."""
    kept = Store(tmp_path)

    def fail(handle):
        raise OSError("disk full")

    monkeypatch.setattr(store.os, "fsync", fail)
    with pytest.raises(UserError, match="can't hold a block: disk full"):
        kept.put(b"abc")
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == []


def test_nodes_are_kept_under_their_own_name(tmp_path):
    """A node's name has another codec, and comes back by it."""
    kept = Store(tmp_path)
    name = kept.put(b"abc", "dag-pb")
    assert cid.codec(name) == "dag-pb"
    assert kept.get(name) == b"abc"
    assert kept.get(cid.of(b"abc")) is None


@pytest.mark.parametrize("name", ["", "x", "../../etc/passwd", "b" * 59, "\0", cid.of(b"x")[:-1] + "/"])
def test_a_name_that_is_no_cid_leads_nowhere(tmp_path, name):
    """What a stranger asks for is never a path."""
    (tmp_path / "secret").write_bytes(b"x")
    kept = Store(tmp_path / "store")
    assert name not in kept
    with pytest.raises(UserError, match="CID"):
        kept.get(name)


def test_a_file_that_grew_is_not_read_whole(tmp_path):
    """A block's file that was replaced by a large one is damaged, and found so by its first bytes."""
    kept = Store(tmp_path)
    name = kept.put(b"abc")
    (path,) = [one for one in tmp_path.rglob("*") if one.is_file()]
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # takes no room on disk, and would take all of the memory
    with pytest.raises(UnavailableError, match="is damaged on disk"):
        kept.get(name)
    assert kept.sound(name) is None


def test_a_block_has_a_limit(tmp_path, monkeypatch):
    """A block that no frame could carry is refused."""
    monkeypatch.setattr(store, "MAX_BLOCK", 2)
    with pytest.raises(UserError, match="over the limit"):
        Store(tmp_path).put(b"abc")
