"""A model's name is the CID of its manifest: canonical JSON that lists the digest of all that makes it what it is.

```json
{"format": "p2pos-model/2",
 "files": {"config.json": CID, "tokenizer.json": CID, …},
 "tensors": {"model.norm.weight": {"dtype": "BF16", "shape": [256], "digest": sha256 in hex}, …}}
```

How the tensors are spread over files doesn't matter, so the same weights sharded otherwise have the same name.
A tensor's digest fixes each of its chunks (`p2pos.content.chunks`), so that peers can hand them on one by one. Making
the manifest reads every byte once; the result is kept in the cache with each file's size and time of change, and made
again when one of them differs.

Of a checkpoint from a hub (`p2pos.shard.hub`) no node need have every byte. There a tensor's digest is
`lfs:SHA256:BEGIN-END`: the hub's digest of its whole file, and the offsets of its bytes. So all nodes that name the
same commit have the same name for it; a copy of it in a directory has another.
"""

import base64
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import rfc8785

from p2pos.content import chunks, cid, strict_json
from p2pos.content.chunks import CHUNK, Chunks, Leaves
from p2pos.errors import PeerError, UserError
from p2pos.shard import fetched
from p2pos.shard.checkpoint import ITEM_BYTES, Checkpoint, TensorInfo, read_at
from p2pos.types import Cid, ModelId

FORMAT = "p2pos-model/2"
MAX_BYTES = 32 << 20
"""Bytes. A million tensors at 32 bytes of digest each would still fit; published models have under 100,000."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model consists of."""

    files: dict[str, Cid]
    tensors: dict[str, dict[str, Any]]
    """Name → `dtype`, `shape`, `digest` (sha256 in hex)."""
    leaves: bytes = field(default=b"", compare=False, repr=False)
    """The digests of the chunks of tensors that have several (see `Leaves`); b"" where they are not known. They follow
    from the weights, so they are no part of the name."""

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785)."""
        return rfc8785.dumps({"format": FORMAT, "files": dict(self.files), "tensors": self.tensors})

    @property
    def model_id(self) -> ModelId:
        """The CID of the canonical bytes."""
        return ModelId(cid.of(self.to_bytes()))

    @property
    def by_content(self) -> bool:
        """Whether the tensors' digests are of their own bytes, so that these can be checked; not so of a hub's."""
        return all(_SHA256.fullmatch(entry["digest"]) for entry in self.tensors.values())

    def chunks(self, *, peer: str = "") -> Chunks:
        """The chunks of the tensors. Raises PeerError, at `peer`'s fault, where a tensor can't be."""
        sizes = {}
        for name, entry in self.tensors.items():
            item = ITEM_BYTES.get(entry["dtype"])
            if item is None or any(extent < 0 for extent in entry["shape"]):
                raise PeerError(peer, f"sent a manifest in which {name[:200]} can't be")
            sizes[name] = item * math.prod(entry["shape"])
        return Chunks(sizes, peer=peer)

    def check_leaves(self, blob: bytes, *, peer: str = "") -> Leaves:
        """The digests of all chunks, of a model that is named `by_content`.

        Raises PeerError, at `peer`'s fault, where `blob` isn't what belongs to this manifest.
        """
        digests = {name: bytes.fromhex(entry["digest"]) for name, entry in self.tensors.items()}
        return Leaves(self.chunks(peer=peer), digests, blob, peer=peer)

    @classmethod
    def from_bytes(cls, data: bytes, *, peer: str = "") -> Self:
        """Read a manifest. Raises PeerError, at `peer`'s fault, where it isn't one."""
        try:
            value = strict_json.loads(data)
            if value["format"] != FORMAT:
                raise PeerError(peer, f"sent a manifest of format {str(value['format'])[:100]!r}")
            files = {str(name): Cid(str(file)) for name, file in value["files"].items()}
            tensors = {
                str(name): {
                    "dtype": str(entry["dtype"]),
                    "shape": [int(extent) for extent in entry["shape"]],
                    "digest": str(entry["digest"]),
                }
                for name, entry in value["tensors"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
            raise PeerError(peer, "sent a manifest that can't be read") from exc
        return cls(files, tensors)


def make(checkpoint: Checkpoint, *, on_bytes: Callable[[int], None] = lambda _: None) -> Manifest:
    """Read every byte of a checkpoint and list the digests. `on_bytes` is told of each piece read, for progress.

    Of one that comes from a hub, or from peers, no weight is read: the hub's digests, or the manifest that the peers
    had, are its name.
    """
    if checkpoint.fetched is not None:
        return _of_peers(checkpoint.directory)
    if checkpoint.partial is None:
        return make_by_content(checkpoint, on_bytes=on_bytes)
    tensors = {}
    for name, tensor in sorted(checkpoint.tensors.items()):
        _, whole = checkpoint.partial.origin.files[tensor.file.name]
        digest = f"{whole}:{tensor.offset}-{tensor.offset + tensor.nbytes}"
        tensors[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "digest": digest}
        on_bytes(tensor.nbytes)
    return Manifest(_files(checkpoint), tensors)


def make_by_content(checkpoint: Checkpoint, *, on_bytes: Callable[[int], None] = lambda _: None) -> Manifest:
    """Read every byte of a checkpoint, also of one from a hub, and list the digests of what was read.

    Raises UserError where not all of it is here.
    """
    if checkpoint.fetched is not None:
        return _of_peers(checkpoint.directory)
    whole = [(each.file, each.offset, each.nbytes) for each in checkpoint.tensors.values()]
    if checkpoint.partial is not None and checkpoint.partial.lacking(whole):
        name = checkpoint.name
        raise UserError(f"not all weights of {name} are here", hint=f"p2pos model fetch {name}")
    tensors, blob = {}, bytearray()
    for name, tensor in sorted(checkpoint.tensors.items()):
        leaves = _leaves(tensor, on_bytes)
        if len(leaves) > 1:
            blob += b"".join(leaves)
        digest = chunks.digest_of(leaves).hex()
        tensors[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "digest": digest}
    return Manifest(_files(checkpoint), tensors, bytes(blob))


def _leaves(tensor: TensorInfo, on_bytes: Callable[[int], None]) -> list[bytes]:
    leaves = []
    for offset in range(0, tensor.nbytes, CHUNK):
        data = read_at(tensor, offset, min(CHUNK, tensor.nbytes - offset))
        leaves.append(hashlib.sha256(data).digest())
        on_bytes(len(data))
    return leaves


def _files(checkpoint: Checkpoint) -> dict[str, Cid]:
    return {name: cid.of(path.read_bytes()) for name, path in checkpoint.side_files().items()}


def _of_peers(directory: Path) -> Manifest:
    """The manifest that a directory from peers has. Raises UserError where it is damaged."""
    try:
        made = Manifest.from_bytes((directory / fetched.MANIFEST).read_bytes())
        made = replace(made, leaves=made.check_leaves((directory / fetched.LEAVES).read_bytes()).blob)
    except (OSError, PeerError) as exc:
        raise UserError(
            f"{directory / fetched.MANIFEST} is damaged", hint=f"remove {directory} and fetch the model again"
        ) from exc
    return made


def cached(checkpoint: Checkpoint, cache: Path) -> Manifest | None:
    """The manifest made earlier of this directory, or None where there is none or a file has changed since."""
    path = _cache_path(checkpoint, cache)
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        if entry["stamp"] != _stamp(checkpoint):
            return None
        made = Manifest.from_bytes(entry["manifest"].encode())
        return replace(made, leaves=made.check_leaves(base64.b64decode(entry["leaves"])).blob)
    except (OSError, ValueError, KeyError, TypeError, PeerError):
        return None  # a cache that can't be read is made again


def keep(checkpoint: Checkpoint, manifest: Manifest, cache: Path) -> Path:
    """Keep a manifest for `cached`. Several processes may do so at once; the file is replaced whole."""
    path = _cache_path(checkpoint, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        entry = {
            "model": manifest.model_id,
            "directory": str(checkpoint.directory.resolve()),
            "stamp": _stamp(checkpoint),
            "manifest": manifest.to_bytes().decode(),
            "leaves": base64.b64encode(manifest.leaves).decode(),
        }
        json.dump(entry, file)
    Path(file.name).replace(path)
    return path


def pinned(cache: Path) -> list[tuple[ModelId, str]]:
    """Id and directory of each model whose manifest was kept."""
    found = []
    for path in sorted((cache / "manifests").glob("*.json")):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            found.append((ModelId(entry["model"]), str(entry["directory"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # half a file of a crashed machine; `keep` makes it again
    return found


def _cache_path(checkpoint: Checkpoint, cache: Path) -> Path:
    name = hashlib.sha256(os.fsencode(checkpoint.directory.resolve())).hexdigest()[:32]
    return cache / "manifests" / f"{name}.json"


def _stamp(checkpoint: Checkpoint) -> list[list[Any]]:
    paths = {tensor.file for tensor in checkpoint.tensors.values()} | set(checkpoint.side_files().values())
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in sorted(paths)]
