"""An item with small files of real encoders and one of several blocks."""

import json
import random
from pathlib import Path

from p2pos.assets import library
from p2pos.assets.descriptor import Descriptor
from p2pos.content.store import Store

SAMPLES = Path(__file__).parent / "samples"
LARGE = 3_300_000
"""Bytes of the model's geometry: four blocks under a node."""


def glb(scene: object, binary: bytes = b"") -> bytes:
    """A GLB of these chunks."""
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    chunks = len(text).to_bytes(4, "little") + b"JSON" + text
    if binary:
        chunks += len(binary).to_bytes(4, "little") + b"BIN\0" + binary
    return b"glTF" + (2).to_bytes(4, "little") + (12 + len(chunks)).to_bytes(4, "little") + chunks


def large_glb(seed: int = 0) -> bytes:
    """A GLB whose geometry is noise."""
    scene = {"asset": {"version": "2.0"}, "meshes": [{}], "buffers": [{"byteLength": LARGE}]}
    return glb(scene, random.Random(seed).randbytes(LARGE))


def lantern(store: Store, directory: Path, *, seed: int = 0) -> Descriptor:
    """A lantern, in a store."""
    model = directory / "lantern.glb"
    model.write_bytes(large_glb(seed))
    files = [
        library.add_file(store, model, "model", licence="CC0-1.0"),
        library.add_file(store, SAMPLES / "lantern.png", "image"),
        library.add_file(store, SAMPLES / "bell.ogg", "audio"),
    ]
    made = Descriptor.make(
        name="Bronze Lantern", attributes={"light": 3, "mass": 1200}, units={"mass": "g"}, files=files
    )
    store.put(made.canonical())
    return made
