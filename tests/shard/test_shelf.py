from dataclasses import replace
from pathlib import Path

import pytest

from p2pos.content.chunks import CHUNK, everything, has
from p2pos.errors import InternalError, PeerError, UserError
from p2pos.shard import fetched, manifest, shelf
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.shelf import Shelf
from tests import shelves


@pytest.fixture
def source(tmp_path: Path) -> Shelf:
    """A checkpoint with all its weights."""
    return shelves.full(shelves.write(tmp_path / "source"))


def fill(target: Shelf, source: Shelf, chunks: range | list[int]) -> None:
    for chunk in chunks:
        data = source.read(chunk)
        assert data is not None
        target.write(chunk, data)


def test_chunks_make_the_model_again(tmp_path: Path, source: Shelf) -> None:
    """A directory laid out by the manifest alone, filled chunk by chunk, has the same tensors and the same name."""
    target = shelves.empty(tmp_path / "cache", source)
    assert len(target.lacking(target.checkpoint.tensors.values())) == source.chunks.total
    fill(target, source, range(source.chunks.total))
    assert target.lacking(target.checkpoint.tensors.values()) == []
    assert target.have() == source.have() == everything(source.chunks.total)
    assert shelves.contents(target) == shelves.contents(source)
    again = Checkpoint.open(target.checkpoint.directory)
    assert (again.name, manifest.make(again).model_id) == ("lantern", source.model)


def test_what_came_is_known_to_another_process(tmp_path: Path, source: Shelf) -> None:
    """Opened anew, the directory knows which chunks it has; what others lack is not read for them."""
    fill(shelves.empty(tmp_path / "cache", source), source, [0, 4])
    again = Checkpoint.open(shelf.home(tmp_path / "cache", source.model))
    held = Shelf(again, manifest.make(again))
    assert [chunk for chunk in range(held.chunks.total) if has(held.have(), chunk)] == [0, 4]
    assert held.read(4) == source.read(4)
    assert held.read(1) is None
    assert held.read(-1) is None
    assert held.read(held.chunks.total) is None


def test_the_weights_take_no_more_room_than_they_have(tmp_path: Path, source: Shelf) -> None:
    """Of a model of which one chunk came, the disk holds that one: the rest is a hole."""
    target = shelves.empty(tmp_path / "cache", source)
    fill(target, source, [0])
    stat = (target.checkpoint.directory / "model.safetensors").stat()
    assert stat.st_size > 6 * CHUNK
    assert stat.st_blocks * 512 < 2 * CHUNK


def test_half_a_line_of_the_ledger_counts_for_nothing(tmp_path: Path, source: Shelf) -> None:
    """After a power cut a line may be cut off or run into the next; chunks that aren't certain count as not there."""
    target = shelves.empty(tmp_path / "cache", source)
    (target.checkpoint.directory / fetched.LEDGER).write_bytes(b"0\n1-2\n99999\n\xff\n-0\n3\n4")
    assert [chunk for chunk in range(target.chunks.total) if has(target.have(), chunk)] == [3]


def test_what_is_damaged_is_not_passed_on(tmp_path: Path, source: Shelf) -> None:
    """A bit that turned on the disk, or a file that was cut off: the chunk isn't there, and is fetched again."""
    target = shelves.empty(tmp_path / "cache", source)
    fill(target, source, range(source.chunks.total))
    for held, chunk in ((target, 0), (source, 0)):
        place = held.checkpoint.tensors["a"]
        with place.file.open("r+b") as file:
            file.seek(place.offset)
            (byte,) = file.read(1)
            file.seek(place.offset)
            file.write(bytes([byte ^ 1]))
        assert held.read(chunk) is None
        assert held.read(chunk + 1) is not None
    assert target.lacking(target.checkpoint.tensors.values()) == [0]
    file = source.checkpoint.tensors["e"].file
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - 1)
    assert source.read(source.chunks.total - 1) is None


@pytest.mark.parametrize("name", ["../evil", "model.safetensors", "p2pos-chunks", "additional_chat_templates/../x"])
def test_a_file_of_another_name_is_the_peers_fault(tmp_path: Path, source: Shelf, name: str) -> None:
    """A manifest can't have files written where it likes."""
    files = dict(source.manifest.files)
    files[name] = files["config.json"]
    blocks = {files["config.json"]: b"{}"}
    with pytest.raises(PeerError, match="manifest with a file"):
        shelf.lay_out(
            tmp_path / "cache", replace(source.manifest, files=files), source.leaves.blob, blocks, "x", peer="them"
        )
    assert list(tmp_path.rglob("*evil*")) == []


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F128", "shape": [1]},
        {"dtype": "U8", "shape": [-1]},
        {"dtype": "U8", "shape": [1 << 50]},
        {"dtype": "U8", "shape": [1 << 200, 1 << 200]},
    ],
    ids=range(4),
)
def test_a_tensor_that_cannot_be_is_the_peers_fault(tmp_path: Path, source: Shelf, entry: dict) -> None:
    """A dtype that isn't one, a negative extent, more than any model has."""
    tensors = {**source.manifest.tensors, "b": {**entry, "digest": "0" * 64}}
    spoilt = replace(source.manifest, tensors=tensors)
    with pytest.raises(PeerError) as caught:
        shelf.lay_out(tmp_path / "cache", spoilt, source.leaves.blob, {}, "x", peer="them")
    assert caught.value.peer == "them"


def test_leaves_of_another_model_are_the_peers_fault(tmp_path: Path, source: Shelf) -> None:
    """Nothing is laid out then."""
    with pytest.raises(PeerError, match="digests of chunks"):
        shelf.lay_out(tmp_path / "cache", source.manifest, bytes(len(source.leaves.blob)), {}, "x", peer="them")
    assert not shelf.is_here(tmp_path / "cache", source.model)


def test_a_directory_of_ones_own_is_not_written_to(source: Shelf) -> None:
    """Only a directory that came from peers is filled."""
    with pytest.raises(InternalError):
        source.write(0, b"")


def test_no_room_is_said_before_anything_comes(tmp_path: Path, source: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """With how much there is and how much it takes."""
    monkeypatch.setattr(shelf.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5}))
    with pytest.raises(UserError, match="has room for 5 bytes; this needs 7"):
        shelves.empty(tmp_path / "cache", source).check_room(source.chunks.of("b"))


def test_models_from_peers_are_listed(tmp_path: Path, source: Shelf) -> None:
    """Those that are here, if only in part; a damaged one is passed over."""
    target = shelves.empty(tmp_path / "cache", source)
    assert [each.directory for each in shelf.kept(tmp_path / "cache")] == [target.checkpoint.directory]
    (target.checkpoint.directory / fetched.PEERS).write_text("{")
    assert shelf.kept(tmp_path / "cache") == []
    with pytest.raises(UserError, match="remove .* and fetch the model again"):
        shelf.open_home(tmp_path / "cache", source.model)
