"""The chunks of a model as they lie on this disk: to be read for others and, of a model from peers, to be filled in.

Never more than one chunk is in memory: they are read and written where they lie.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from p2pos import log
from p2pos.content import cid
from p2pos.content.chunks import Leaves, Place, everything, has
from p2pos.errors import InternalError, PeerError, UserError
from p2pos.shard import checkpoint as local
from p2pos.shard import fetched
from p2pos.shard.checkpoint import ITEM_BYTES, MAX_HEADER, SINGLE, Checkpoint, TensorInfo, read_at
from p2pos.shard.manifest import Manifest
from p2pos.types import Cid, ModelId

_log = log.get("weights")


class Shelf:
    """A checkpoint whose manifest names it by its content.

    Args:
        checkpoint: where the weights lie, or are to lie.
        manifest: of it, with its leaves.

    Raises:
        UserError: the manifest is another model's.

    """

    def __init__(self, checkpoint: Checkpoint, manifest: Manifest) -> None:
        self.checkpoint = checkpoint
        self.manifest = manifest
        self.model = manifest.model_id
        try:
            self.chunks = manifest.chunks()
            self.leaves: Leaves = manifest.check_leaves(manifest.leaves)
        except (PeerError, ValueError) as exc:
            raise UserError(f"the manifest of {checkpoint.name} has no digests of its chunks") from exc
        if {name: tensor.nbytes for name, tensor in checkpoint.tensors.items()} != {
            name: sum(self.chunks.size(chunk) for chunk in self.chunks.of(name)) for name in manifest.tensors
        }:
            raise UserError(f"{checkpoint.directory} holds other tensors than its manifest", hint="pin it again")

    @classmethod
    def of(cls, checkpoint: Checkpoint, manifest: Manifest) -> Self | None:
        """The shelf of a checkpoint; None for one that is named by a hub's digests: no chunk can be checked by them."""
        return cls(checkpoint, manifest) if manifest.by_content else None

    def have(self) -> bytes:
        """The bitmap of the chunks that are here."""
        if self.checkpoint.fetched is None:
            return everything(self.chunks.total)
        return self.checkpoint.fetched.have()

    def lacking(self, tensors: Iterable[TensorInfo]) -> list[int]:
        """The chunks of these tensors that aren't here."""
        return [] if self.checkpoint.fetched is None else self.checkpoint.fetched.lacking(each.name for each in tensors)

    def read(self, chunk: int) -> bytes | None:
        """A chunk's bytes; None where it isn't here, or is no longer what it was: whoever passes it on must not lie.

        What is damaged in a model from peers counts as not here from then on.
        """
        here = self.checkpoint.fetched
        if not 0 <= chunk < self.chunks.total or (here is not None and not has(here.have(), chunk)):
            return None
        place = self.chunks.place(chunk)
        try:
            data = read_at(self.checkpoint.tensors[place.tensor], place.offset, place.nbytes)
        except UserError as exc:
            _log.warning("a chunk can't be read", chunk=chunk, why=exc.message)
            return None
        if hashlib.sha256(data).digest() != self.leaves.of(chunk):
            _log.warning("a chunk is damaged on disk", chunk=chunk, directory=str(self.checkpoint.directory))
            if here is not None:
                here.forget([chunk])
            return None
        return data

    def write(self, chunk: int, data: bytes | memoryview) -> None:
        """Put a chunk, which was found to be the right one, in its place.

        Raises UserError where the disk won't have it, InternalError where it isn't one of a model from peers.
        """
        if self.checkpoint.fetched is None:
            raise InternalError(f"{self.checkpoint.directory} is not ours to write to")
        place: Place = self.chunks.place(chunk)
        tensor = self.checkpoint.tensors[place.tensor]
        try:
            handle = os.open(tensor.file, os.O_WRONLY)
            try:
                _write(handle, data, tensor.offset + place.offset)
            finally:
                os.close(handle)
            self.checkpoint.fetched.add(chunk)
        except OSError as exc:
            raise _disk(self.checkpoint.directory, exc) from exc

    def check_room(self, lacking: Iterable[int]) -> int:
        """Bytes of these chunks. Raises UserError where the disk has no room for them."""
        total = sum(self.chunks.size(chunk) for chunk in lacking)
        free = shutil.disk_usage(self.checkpoint.directory).free
        if total > free:
            raise UserError(
                f"{self.checkpoint.directory} has room for {free:,} bytes; this needs {total:,}",
                hint="free some, or set P2POS_CACHE",
            )
        return total


def home(cache: Path, model: ModelId) -> Path:
    """Where a model from peers lies."""
    return cache / "peers" / model


def is_here(cache: Path, model: ModelId) -> bool:
    """Whether a model's directory is laid out; of its weights there may be none."""
    return (home(cache, model) / fetched.PEERS).is_file()


def side_files(manifest: Manifest, *, peer: str = "") -> dict[str, Cid]:
    """The files of a manifest that are to be fetched and written.

    Raises PeerError, at `peer`'s fault, where one has a name that no such file has: it would be written where it says.
    """
    known = {*local.SIDE_FILES, *local.template_names("the model", manifest.files)}
    if unknown := sorted(manifest.files.keys() - known):
        raise PeerError(peer, f"sent a manifest with a file {unknown[0][:100]!r}")
    if "config.json" not in manifest.files:
        raise PeerError(peer, "sent a manifest without config.json")
    return dict(manifest.files)


def lay_out(
    cache: Path, manifest: Manifest, leaves: bytes, blocks: Mapping[Cid, bytes], name: str, *, peer: str
) -> Path:
    """Make the directory of a model from peers: all of it but the weights. Returns where it is.

    Args:
        cache: where models are kept.
        manifest: of the model.
        leaves: the digests of its chunks.
        blocks: its side files, checked against their CIDs.
        name: what those who serve it call it.
        peer: at whose fault something doesn't fit.

    Raises:
        PeerError: the manifest, or the leaves, can't be.
        UserError: the disk won't have it.

    """
    manifest.check_leaves(leaves, peer=peer)
    directory = home(cache, manifest.model_id)
    temporary = directory.with_name(f".{secrets.token_hex(8)}")
    header, size = _header(manifest, peer=peer)
    parts = {file: blocks[block] for file, block in side_files(manifest, peer=peer).items()}
    parts |= {
        fetched.MANIFEST: manifest.to_bytes(),
        fetched.LEAVES: leaves,
        fetched.PEERS: json.dumps({"format": fetched.FORMAT, "name": name}).encode(),
    }
    try:
        try:
            for file, data in parts.items():
                (temporary / file).parent.mkdir(parents=True, exist_ok=True)
                (temporary / file).write_bytes(data)
            with (temporary / SINGLE).open("xb") as stream:
                stream.write(header)
                stream.truncate(len(header) + size)
            if not is_here(cache, manifest.model_id):  # else another process was faster
                temporary.rename(directory)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as exc:
        if not is_here(cache, manifest.model_id):
            raise _disk(directory, exc) from exc
    return directory


def open_home(cache: Path, model: ModelId) -> Checkpoint:
    """A model from peers that is here. Raises UserError where it is damaged."""
    return Checkpoint.open(home(cache, model))


def kept(cache: Path) -> list[Checkpoint]:
    """The models from peers that are here, in whole or in part; one whose files are damaged is left out."""
    found = []
    for path in sorted((cache / "peers").glob(f"*/{fetched.PEERS}")):
        try:
            found.append(Checkpoint.open(path.parent))
        except UserError:
            continue  # whoever runs it is told what is wrong
    return found


def _header(manifest: Manifest, *, peer: str) -> tuple[bytes, int]:
    """The header of a safetensors file with all tensors of a model, and the bytes that follow it."""
    chunks = manifest.chunks(peer=peer)
    # the widest items first, so that every tensor lies at a multiple of its item's size
    names = sorted(manifest.tensors, key=lambda name: (-ITEM_BYTES[manifest.tensors[name]["dtype"]], name))
    entries, at = {}, 0
    for name in names:
        if not name.isprintable() or name == "__metadata__":
            raise PeerError(peer, "sent a manifest with a tensor of an impossible name")
        end = at + sum(chunks.size(chunk) for chunk in chunks.of(name))
        entry = manifest.tensors[name]
        entries[name] = {"dtype": entry["dtype"], "shape": entry["shape"], "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise PeerError(peer, f"sent a manifest whose tensors need a header of {len(text)} bytes")
    return len(text).to_bytes(8, "little") + text, at


def _write(handle: int, data: bytes | memoryview, offset: int) -> None:
    rest = memoryview(data)
    while rest:  # a signal may cut a write short
        written = os.pwrite(handle, rest, offset)
        offset, rest = offset + written, rest[written:]


def _disk(directory: Path, exc: OSError) -> UserError:
    return UserError(f"{directory} can't be used: {exc.strerror}", hint="see to it, or set P2POS_CACHE")


def is_model_id(text: str) -> bool:
    """Whether it has the form of a model's id."""
    try:
        cid.digest(text)
    except UserError:
        return False
    return True
