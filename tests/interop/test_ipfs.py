"""IPFS's own tools, which share no line with ours, read our CARs and files, and we theirs."""

import json
import random
import subprocess
from pathlib import Path

import pytest

from p2pos.assets import library
from p2pos.assets.descriptor import Descriptor
from p2pos.content import cid, unixfs
from p2pos.content.car import Car
from p2pos.content.store import Store
from tests.assets.items import lantern
from tests.interop.test_js_libp2p import HERE, client, node_binary

__all__ = ["client"]

SIZES = (0, 1, unixfs.CHUNK - 1, unixfs.CHUNK, unixfs.CHUNK + 1, 3 * unixfs.CHUNK + 17)
"""Bytes: about where a file becomes more than one block."""


def ipfs(*arguments: object) -> dict[str, object]:
    """What the tool says."""
    command = [node_binary(), str(HERE / "ipfs.mjs"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.usefixtures("client")
def test_ipfs_tools_read_our_car(tmp_path: Path) -> None:
    """They find the roots, every block hashes for them, and each file comes out of it byte for byte."""
    store = Store(tmp_path / "content")
    descriptor = lantern(store, tmp_path)
    library.write_car(tmp_path / "lantern.car", descriptor, store.get)
    out = tmp_path / "out"
    out.mkdir()
    seen = ipfs("read", tmp_path / "lantern.car", out)
    assert seen["version"] == 1
    assert seen["roots"] == [descriptor.cid(), *(file.cid for file in descriptor.files)]
    assert seen["blocks"] == len(list(store))
    assert (out / descriptor.cid()).read_bytes() == descriptor.canonical()
    for file in descriptor.files:
        assert (out / file.cid).read_bytes() == b"".join(unixfs.read(file.cid, file.size, store.get))


@pytest.mark.usefixtures("client")
def test_we_read_the_car_of_ipfs_tools(tmp_path: Path) -> None:
    """Their CID of a file is ours, at every size; an item of theirs is taken in whole."""
    draw = random.Random(1)
    paths = []
    for size in SIZES:
        paths.append(tmp_path / f"{size}.bin")
        paths[-1].write_bytes(draw.randbytes(size))
    store = Store(tmp_path / "ours")
    ours = [library.add_file(store, path, "lod-1") for path in paths]
    item = tmp_path / "descriptor.json"
    item.write_bytes(Descriptor.make(name="x", files=ours).canonical())
    said = ipfs("write", tmp_path / "theirs.car", item, *paths)
    assert said["roots"] == [cid.of(item.read_bytes()), *(file.cid for file in ours)]
    with (tmp_path / "theirs.car").open("rb") as file:
        (taken,) = library.take_in(Car(file), Store(tmp_path / "theirs"))
    assert taken.missing == ()
    assert set(Store(tmp_path / "theirs")) == set(store) | {taken.cid}


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(("chunks", "width"), [(4, 4), (5, 4), (16, 4), (17, 4), (21, 4), (9, 3)])
def test_levels_of_nodes_are_those_of_ipfs_tools(tmp_path: Path, chunks: int, width: int) -> None:
    """A file of more chunks than a node has links, or than two levels have: its CID is what they say."""
    small = 1 << 10
    data = random.Random(chunks).randbytes(chunks * small - 5)
    (tmp_path / "large").write_bytes(data)
    said = ipfs("cut", tmp_path / "large.car", tmp_path / "large", small, width)
    root, size = unixfs.add([data], cid.of, chunk=small, width=width)
    assert said["roots"] == [root]
    assert size == len(data)
