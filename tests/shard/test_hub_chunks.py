import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from p2pos.errors import UnavailableError, UserError
from p2pos.shard import hub, hub_chunks, manifest, shelf
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.manifest import Manifest
from p2pos.shard.shelf import Shelf
from tests import hubs, shelves
from tests.shard import test_hub


@pytest.fixture
def source(tmp_path: Path) -> Shelf:
    """A checkpoint with all its weights."""
    return shelves.full(shelves.write(tmp_path / "source"))


@pytest.fixture
def served(source: Shelf, monkeypatch: pytest.MonkeyPatch) -> Iterator[hubs.Hub]:
    """A hub that has it as `org/lantern`."""
    with hubs.serve(lantern=source.checkpoint.directory) as running:
        test_hub.point_at(running.url, monkeypatch)
        yield running


def laid_out(cache: Path, source: Shelf, name: str = "org/lantern") -> Shelf:
    """The same model as it is laid out from peers who call it so."""
    blocks = {source.manifest.files["config.json"]: (source.checkpoint.directory / "config.json").read_bytes()}
    directory = shelf.lay_out(cache, source.manifest, source.leaves.blob, blocks, name, peer="them")
    return Shelf(Checkpoint.open(directory), source.manifest)


def test_what_no_peer_has_comes_from_the_hub(served: hubs.Hub, source: Shelf, tmp_path: Path) -> None:
    """Only the chunks that lack are asked for, and the weights are right."""
    target = laid_out(tmp_path / "cache", source)
    target.write(0, source.read(0) or b"")
    lacking = target.lacking(target.checkpoint.tensors.values())
    seen: list[int] = []
    came = hub_chunks.fill(target, lacking, tmp_path / "cache", on_bytes=seen.append)
    assert came == sum(seen) == source.checkpoint.total_bytes - source.chunks.size(0)
    assert shelves.contents(target) == shelves.contents(source)
    header = served.weight_bytes - came
    assert 0 < header < 4096


def test_what_the_hub_has_is_not_believed(served: hubs.Hub, source: Shelf, tmp_path: Path) -> None:
    """A byte that comes otherwise than the manifest says ends it, and the chunk counts as not there."""
    target = laid_out(tmp_path / "cache", source)
    served.flip = source.checkpoint.tensors["d"].offset + 5
    with pytest.raises(UnavailableError, match="another model"):
        hub_chunks.fill(target, target.chunks.of("d"), tmp_path / "cache")
    assert not any(target.have())


def test_another_model_of_that_name_is_found_out(served: hubs.Hub, source: Shelf, tmp_path: Path) -> None:
    """A repository with other tensors, before any of its weights is asked for."""
    other = shelves.full(shelves.write(tmp_path / "other", {"a": 5, "z": 7}))
    target = laid_out(tmp_path / "cache", other)
    with pytest.raises(UnavailableError, match="another model"):
        hub_chunks.fill(target, range(target.chunks.total), tmp_path / "cache")


def test_a_name_that_is_none_of_a_repository(source: Shelf, tmp_path: Path) -> None:
    """Nobody is asked then."""
    target = laid_out(tmp_path / "cache", source, name="lantern")
    with pytest.raises(UnavailableError, match="no name of a model on a hub"):
        hub_chunks.fill(target, [0], tmp_path / "cache")


def test_it_can_be_stopped(served: hubs.Hub, source: Shelf, tmp_path: Path) -> None:
    """What came until then is kept."""
    target, stop = laid_out(tmp_path / "cache", source), threading.Event()
    hub_chunks.fill(target, range(target.chunks.total), tmp_path / "cache", on_bytes=lambda _: stop.set(), stop=stop)
    assert 0 < len(target.lacking(target.checkpoint.tensors.values())) < target.chunks.total


def test_a_model_from_a_hub_can_be_pinned_by_its_content(served: hubs.Hub, source: Shelf, tmp_path: Path) -> None:
    """Whole, it gets the name that a copy in a directory has, and its chunks can be passed on; in part it can't."""
    checkpoint = Checkpoint.open(hub.resolve(hub.HubId("org/lantern"), tmp_path, offline=False))
    assert not manifest.make(checkpoint).by_content
    assert Shelf.of(checkpoint, manifest.make(checkpoint)) is None
    with pytest.raises(UserError, match="not all weights of org/lantern are here"):
        manifest.make_by_content(checkpoint)
    hub.fetch(checkpoint, list(checkpoint.tensors.values()), offline=False, progress=lambda *_: lambda _: None)
    made = manifest.make_by_content(checkpoint)
    assert made.model_id == source.model
    manifest.keep(checkpoint, made, tmp_path / "cache")
    found = Shelf.of(checkpoint, manifest.cached(checkpoint, tmp_path / "cache") or Manifest({}, {}))
    assert found is not None
    assert found.read(0) == source.read(0)


def test_leaves_are_no_part_of_the_name(source: Shelf) -> None:
    """They follow from the weights."""
    assert replace(source.manifest, leaves=b"") == source.manifest
    assert replace(source.manifest, leaves=b"").model_id == source.model
