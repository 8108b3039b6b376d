"""A checkpoint directory as people have it: config.json, safetensors in one file or sharded, a tokenizer.

Opening reads the headers alone. Weights are read tensor by tensor, by `pread`, so that a node touches its own
span's bytes and no others.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from p2pos.errors import UserError

SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""What of a directory, besides the weights, makes the model what it is."""

ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""safetensors' names of dtypes, and bytes of one element."""

MAX_HEADER = 100_000_000
"""Bytes; the limit that the safetensors format sets for its header."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """Of its first byte, from the start of the file."""
    nbytes: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model directory whose headers were read and found whole."""

    directory: Path
    tensors: dict[str, TensorInfo]
    config: dict[str, Any]
    """config.json as it stands."""

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Read the headers of a model directory.

        Raises UserError that says what is wrong: it is missing, has no config or no weights, or a file of it is
        damaged or shorter than its header says.
        """
        if not directory.is_dir():
            raise UserError(f"there is no model directory at {directory}", hint="give --model an existing directory")
        config = _read_json(directory / "config.json")
        tensors: dict[str, TensorInfo] = {}
        for file in _weight_files(directory):
            tensors.update({tensor.name: tensor for tensor in _read_header(file)})
        return cls(directory, tensors, config)

    @property
    def name(self) -> str:
        """What people call it: the directory's name."""
        return self.directory.resolve().name

    @property
    def total_bytes(self) -> int:
        """Bytes of all its weights."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def dtype(self) -> str:
        """What most of its weights are stored as, by the name that stages use: `f32`, else `bf16`."""
        full = sum(tensor.nbytes for tensor in self.tensors.values() if tensor.dtype in {"F32", "F64"})
        return "f32" if 2 * full > self.total_bytes else "bf16"

    def side_files(self) -> dict[str, Path]:
        """Those of `SIDE_FILES` that are there."""
        return {name: self.directory / name for name in SIDE_FILES if (self.directory / name).is_file()}

    def eos_tokens(self) -> list[int]:
        """The ids that end a text: generation_config.json's word, else config.json's."""
        path = self.directory / "generation_config.json"
        generation = _read_json(path) if path.exists() else {}
        value = generation.get("eos_token_id", self.config.get("eos_token_id"))
        ids = value if isinstance(value, list) else [value]
        return [token for token in ids if isinstance(token, int)]


def read_bytes(tensor: TensorInfo) -> bytes:
    """The raw bytes of one tensor. Raises UserError where the file has shrunk since its header was read."""
    with tensor.file.open("rb") as file:
        file.seek(tensor.offset)
        data = file.read(tensor.nbytes)  # not pread: one such call gives at most 2 GiB
    if len(data) != tensor.nbytes:
        raise UserError(f"{tensor.file} is truncated at {tensor.name}", hint="copy or download it again")
    return data


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise UserError(
            f"{path.parent} has no {path.name}", hint="a model directory in Hugging Face format is needed"
        ) from exc
    except (json.JSONDecodeError, UnicodeDecodeError) as exc:
        raise UserError(f"{path} is not valid JSON", hint="copy or download it again") from exc
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object", hint="copy or download it again")
    return value


def _weight_files(directory: Path) -> list[Path]:
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if index.is_file():
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(
            isinstance(name, str) and Path(name).name == name for name in weight_map.values()
        ):
            raise UserError(f"{index} has no weight_map of file names", hint="copy or download it again")
        files = [directory / name for name in sorted(set(weight_map.values()))]
    elif single.is_file():
        files = [single]
    else:
        raise UserError(f"{directory} holds no safetensors weights", hint="convert the checkpoint to safetensors first")
    for file in files:
        if not file.is_file():
            raise UserError(f"{directory} lacks {file.name}", hint="copy or download it again")
    return files


def _read_header(file: Path) -> list[TensorInfo]:
    """The tensors of one file: 8 bytes little-endian length, a JSON header of that length, then the data."""
    damaged = UserError(f"{file} is truncated or not a safetensors file", hint="copy or download it again")
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER + 1
        if length > MAX_HEADER or 8 + length > size:
            raise damaged
        try:
            header = json.loads(stream.read(length))
        except (json.JSONDecodeError, UnicodeDecodeError) as exc:
            raise damaged from exc
    base = 8 + length
    tensors = []
    try:
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            shape = tuple(int(extent) for extent in entry["shape"])
            item = ITEM_BYTES.get(entry["dtype"])
            if item is None:
                raise UserError(
                    f"{file}: {name} is stored as {entry['dtype']}", hint="use a bf16, fp16 or fp32 checkpoint"
                )
            if end - begin != math.prod(shape) * item:
                raise damaged
            tensors.append(TensorInfo(name, file, entry["dtype"], shape, base + begin, end - begin))
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise damaged from exc
    if tensors and max(tensor.offset + tensor.nbytes for tensor in tensors) != size:
        raise damaged
    return tensors
