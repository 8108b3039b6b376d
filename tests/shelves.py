"""Checkpoints with a few tensors of random bytes, and the empty directories that are filled from them."""

import json
import random
from dataclasses import replace
from pathlib import Path

from p2pos.content.chunks import CHUNK
from p2pos.shard import manifest, shelf
from p2pos.shard.checkpoint import Checkpoint
from p2pos.shard.manifest import Manifest
from p2pos.shard.shelf import Shelf

SIZES = {"a": 3 * CHUNK + 5, "b": 7, "c": 0, "d": CHUNK, "e": 2 * CHUNK}
"""Bytes: several chunks with an odd rest, one small one, none, one whole one, two."""


def write(directory: Path, sizes: dict[str, int] | None = None, *, seed: int = 0) -> Path:
    """A checkpoint with tensors of bytes. Returns its directory."""
    sizes = SIZES if sizes is None else sizes
    directory.mkdir(parents=True)
    (directory / "config.json").write_text('{"model_type": "llama"}')
    entries, at = {}, 0
    for name, size in sizes.items():
        entries[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(entries).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        draw = random.Random(seed)
        for _ in range(0, at, 1 << 20):
            file.write(draw.randbytes(1 << 20))
        file.truncate(8 + len(header) + at)
    return directory


def full(directory: Path) -> Shelf:
    """The shelf of a checkpoint, all of which is there."""
    checkpoint = Checkpoint.open(directory)
    return Shelf(checkpoint, manifest.make(checkpoint))


def empty(cache: Path, source: Shelf) -> Shelf:
    """The shelf of the same model as it is laid out from peers: nothing of its weights is there."""
    blocks = {source.manifest.files["config.json"]: (source.checkpoint.directory / "config.json").read_bytes()}
    told = Manifest.from_bytes(source.manifest.to_bytes(), peer="them")
    directory = shelf.lay_out(cache, told, source.leaves.blob, blocks, "lantern", peer="them")
    return Shelf(Checkpoint.open(directory), replace(told, leaves=source.leaves.blob))


def contents(held: Shelf) -> dict[str, bytes]:
    """The bytes of each tensor as they lie on the disk."""
    found = {}
    for name, tensor in held.checkpoint.tensors.items():
        with tensor.file.open("rb") as file:
            file.seek(tensor.offset)
            found[name] = file.read(tensor.nbytes)
    return found
