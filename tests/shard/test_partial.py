import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import UserError
from p2pos.shard import partial
from p2pos.shard.partial import LEDGER, ORIGIN, Origin, Partial, pieces

NAME = "model.safetensors"
DATA = bytes(range(200))
OTHER = Origin("org/m", "0" * 40, {NAME: (len(DATA), "lfs:" + "1" * 64)})


@pytest.fixture
def empty(tmp_path: Path) -> Partial:
    """A directory in which nothing came yet."""
    return Partial(tmp_path, OTHER)


def add(to: Partial, begin: int, end: int) -> None:
    to.add((NAME, begin, end), hashlib.sha256(DATA[begin:end]).hexdigest())


def test_what_came_is_no_longer_lacking(empty: Partial) -> None:
    """Of the ranges that are wanted, those that came are left out, for every process that looks."""
    wanted = [(empty.directory / NAME, 10, 20), (empty.directory / NAME, 50, 5), (empty.directory / NAME, 70, 0)]
    assert empty.lacking(wanted) == [(NAME, 10, 30), (NAME, 50, 55)]
    add(empty, 10, 30)
    assert empty.lacking(wanted) == [(NAME, 50, 55)]
    assert Partial(empty.directory, OTHER).lacking(wanted) == [(NAME, 50, 55)]
    empty.forget([(NAME, 10, 30)])
    assert empty.lacking(wanted) == [(NAME, 10, 30), (NAME, 50, 55)]


def test_bytes_are_checked_as_they_are_read(empty: Partial) -> None:
    """Bytes that came pass; others in their place don't, and count as not there from then on."""
    file = empty.directory / NAME
    add(empty, 10, 30)
    empty.check(file, 10, memoryview(DATA)[10:30])
    with pytest.raises(UserError, match="have not been fetched"):
        empty.check(file, 40, memoryview(DATA)[40:50])
    with pytest.raises(UserError, match="damaged on disk between the bytes 10 and 30"):
        empty.check(file, 10, memoryview(DATA)[11:31])
    assert empty.lacking([(file, 10, 20)]) == [(NAME, 10, 30)]


def test_a_checked_file_is_not_checked_again_until_it_breaks(empty: Partial) -> None:
    """That a whole file is the hub's is remembered, until a piece of it turns out damaged."""
    assert not empty.is_checked(NAME)
    empty.set_checked(NAME)
    assert Partial(empty.directory, OTHER).is_checked(NAME)
    empty.forget([(NAME, 10, 30)])
    assert not empty.is_checked(NAME)


@given(st.integers(0, 1000), st.integers(0, 300), st.integers(1, 50))
def test_pieces_cover_a_tensor(offset: int, size: int, length: int) -> None:
    """They follow one another without gap or overlap, none larger than it may be."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(partial, "PIECE", length)
        cut = list(pieces(Path(NAME), offset, size))
    covered = [byte for _, begin, end in cut for byte in range(begin, end)]
    assert covered == list(range(offset, offset + size))
    assert all(0 < end - begin <= length for _, begin, end in cut)


@given(st.binary(max_size=100), st.integers(0, 80))
def test_a_damaged_ledger_claims_nothing_that_is_not_so(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, keep: int
) -> None:
    """Whatever a power cut left of the ledger, what was written after it counts, and the rest is fetched again."""
    found = Partial(tmp_path_factory.mktemp("m"), OTHER)
    add(found, 10, 30)
    path = found.directory / LEDGER
    path.write_bytes(path.read_bytes()[:keep] + junk + b"\n")
    again = Partial(found.directory, OTHER)
    wanted = [(found.directory / NAME, 10, 20), (found.directory / NAME, 50, 5)]
    again.lacking(wanted)
    add(again, 50, 55)
    assert (NAME, 50, 55) not in again.lacking(wanted)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format": "p2pos-hub/2"}', b'{"format": "p2pos-hub/1"}'])
def test_a_directory_whose_origin_is_damaged_is_refused(tmp_path: Path, data: bytes) -> None:
    """What says where a model came from is ours; where it can't be read the directory is not used."""
    (tmp_path / ORIGIN).write_bytes(data)
    with pytest.raises(UserError, match="fetch the model again"):
        Partial.open(tmp_path)


def test_an_origin_survives_its_file() -> None:
    """What is written of an origin is read back."""
    assert Origin.from_json(OTHER.to_json()) == OTHER


def test_a_ledger_line_may_name_a_file_with_spaces(tmp_path: Path) -> None:
    """A file's name may have spaces; what came of it counts, until all of it is forgotten."""
    name = "a b  c.safetensors"
    found = Partial(tmp_path, Origin("org/m", "0" * 40, {name: OTHER.files[NAME]}))
    found.add((name, 10, 30), hashlib.sha256(DATA[10:30]).hexdigest())
    assert found.lacking([(tmp_path / name, 10, 20)]) == []
    found.forget_files([name])
    assert found.lacking([(tmp_path / name, 10, 20)]) == [(name, 10, 30)]


def test_an_origin_that_names_no_files_is_refused(tmp_path: Path) -> None:
    """A weight file that the hub did not name is not taken for the hub's."""
    with pytest.raises(UserError, match=r"p2pos-hub.json does not name model.safetensors: remove"):
        Partial(tmp_path, Origin("org/m", "0" * 40, {})).check_names([NAME])
