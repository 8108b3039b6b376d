import os
from pathlib import Path

import pytest

from p2pos.errors import PeerError
from p2pos.shard import manifest
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.manifest import Manifest
from tests import checkpoints


def test_the_id_does_not_depend_on_how_weights_are_sharded(tmp_path: Path, checkpoint_of) -> None:
    """One file or several, equal weights and config have one model id."""
    single = checkpoint_of("llama")
    checkpoints.whole(single).save_pretrained(tmp_path, max_shard_size="200KB")
    ids = {manifest.make(Checkpoint.open(directory)).model_id for directory in (single, tmp_path)}
    assert len(ids) == 1


def test_the_id_depends_on_every_weight(tmp_path: Path) -> None:
    """Two models that differ in their weights alone have two ids."""
    ids = [
        manifest.make(Checkpoint.open(checkpoints.save(tmp_path / str(seed), "llama", seed=seed))).model_id
        for seed in (0, 1)
    ]
    assert ids[0] != ids[1]


def test_a_manifest_survives_its_bytes(checkpoint_of) -> None:
    """What is read back from the canonical bytes is the same manifest."""
    made = manifest.make(Checkpoint.open(checkpoint_of("llama")))
    assert Manifest.from_bytes(made.to_bytes()) == made


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": "p2pos-model/2"}',
        b'{"format": "p2pos-model/1"}',
        b'{"format": "p2pos-model/1", "files": {}, "tensors": {"a": {"dtype": "", "shape": [Infinity], "digest": ""}}}',
        b"[" * 100_000,
    ],
    ids=range(7),
)
def test_a_peers_nonsense_is_the_peers_fault(data: bytes) -> None:
    """Bytes that are no manifest of ours are refused as the sender's fault."""
    with pytest.raises(PeerError):
        Manifest.from_bytes(data, peer="them")


def test_the_kept_manifest_is_found(tmp_path: Path, checkpoint_of) -> None:
    """A manifest that was kept is read back, and listed with its directory."""
    checkpoint = Checkpoint.open(checkpoint_of("llama"))
    assert manifest.cached(checkpoint, tmp_path) is None
    made = manifest.make(checkpoint)
    manifest.keep(checkpoint, made, tmp_path)
    assert manifest.cached(checkpoint, tmp_path) == made
    assert manifest.pinned(tmp_path) == [(made.model_id, str(checkpoint.directory.resolve()))]


def test_a_changed_file_makes_the_kept_manifest_void(tmp_path: Path) -> None:
    """When a file's time of change moves, its manifest is made again."""
    directory = checkpoints.save(tmp_path / "m", "llama")
    checkpoint = Checkpoint.open(directory)
    manifest.keep(checkpoint, manifest.make(checkpoint), tmp_path)
    os.utime(directory / "model.safetensors", ns=(1, 1))
    assert manifest.cached(checkpoint, tmp_path) is None


def test_a_damaged_cache_is_made_again(tmp_path: Path, checkpoint_of) -> None:
    """Half a cache file counts as none."""
    checkpoint = Checkpoint.open(checkpoint_of("llama"))
    path = manifest.keep(checkpoint, manifest.make(checkpoint), tmp_path)
    path.write_bytes(path.read_bytes()[:50])
    assert manifest.cached(checkpoint, tmp_path) is None
