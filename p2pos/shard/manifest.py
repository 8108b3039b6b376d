"""A model's name is the CID of its manifest: canonical JSON that lists the digest of all that makes it what it is.

```json
{"format": "p2pos-model/1",
 "files": {"config.json": CID, "tokenizer.json": CID, …},
 "tensors": {"model.norm.weight": {"dtype": "BF16", "shape": [256], "digest": sha256 in hex}, …}}
```

How the tensors are spread over files doesn't matter, so the same weights sharded otherwise have the same name.
Making the manifest reads every byte once; the result is kept in the cache with each file's size and time of change, and
made again when one of them differs.

Of a checkpoint from a hub (`p2pos.shard.hub`) no node need have every byte. There a tensor's digest is
`lfs:SHA256:BEGIN-END`: the hub's digest of its whole file, and the offsets of its bytes. So all nodes that name the
same commit have the same name for it; a copy of it in a directory has another.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import rfc8785

from p2pos.content import cid, strict_json
from p2pos.errors import PeerError
from p2pos.shard.checkpoint import Checkpoint, read_bytes
from p2pos.types import Cid, ModelId

FORMAT = "p2pos-model/1"
MAX_BYTES = 32 << 20
"""Bytes. A million tensors at 32 bytes of digest each would still fit; published models have under 100,000."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model consists of."""

    files: dict[str, Cid]
    tensors: dict[str, dict[str, Any]]
    """Name → `dtype`, `shape`, `digest` (sha256 in hex)."""

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785)."""
        return rfc8785.dumps({"format": FORMAT, "files": dict(self.files), "tensors": self.tensors})

    @property
    def model_id(self) -> ModelId:
        """The CID of the canonical bytes."""
        return ModelId(cid.of(self.to_bytes()))

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

    Of one that comes from a hub, no weight is read.
    """
    tensors = {}
    for name, tensor in sorted(checkpoint.tensors.items()):
        if checkpoint.partial is None:
            digest = hashlib.sha256(read_bytes(tensor)).hexdigest()
        else:
            _, whole = checkpoint.partial.origin.files[tensor.file.name]
            digest = f"{whole}:{tensor.offset}-{tensor.offset + tensor.nbytes}"
        tensors[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "digest": digest}
        on_bytes(tensor.nbytes)
    return Manifest({name: cid.of(path.read_bytes()) for name, path in checkpoint.side_files().items()}, tensors)


def cached(checkpoint: Checkpoint, cache: Path) -> Manifest | None:
    """The manifest made earlier of this directory, or None where there is none or a file has changed since."""
    path = _cache_path(checkpoint, cache)
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        if entry["stamp"] != _stamp(checkpoint):
            return None
        return Manifest.from_bytes(entry["manifest"].encode())
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
