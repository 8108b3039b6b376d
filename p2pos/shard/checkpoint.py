"""A checkpoint directory as people have it: config.json, safetensors in one file or sharded, a tokenizer.

Opening reads the headers alone. Weights are read tensor by tensor, by `pread`, so that a node touches its own
span's bytes and no others.
"""

import math
import os
import re
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tokenizers import Tokenizer

from p2pos.content import strict_json
from p2pos.errors import PeerError, UserError
from p2pos.shard import generation
from p2pos.shard.fetched import Fetched
from p2pos.shard.generation import Defaults
from p2pos.shard.partial import Partial
from p2pos.shard.text import guarded

SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""What of a directory, besides the weights and the templates below, makes the model what it is."""

TEMPLATES = "additional_chat_templates"
"""The folder of a model's named chat templates, `NAME.jinja`, each a side file too."""
MAX_TEMPLATES = 64
"""Of them; published models have one or two."""
_TEMPLATE = re.compile(rf"{TEMPLATES}/[\w-][\w.-]{{0,99}}\.jinja", re.ASCII)

ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""safetensors' names of dtypes, and bytes of one element."""

MAX_HEADER = 100_000_000
"""Bytes; the limit that the safetensors format sets for its header."""

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
"""The weights in one file; or which of several files has which tensor."""

_COMPUTED_IN = {"F64": "f32", "F32": "f32", "F16": "f16"}
"""What a stage computes in by itself, of what weights may be stored as; bf16 for the rest."""

_AGAIN = "copy or download it again"


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
    partial: Partial | None = None
    """Which of its bytes are here, of one that comes from a hub."""
    fetched: Fetched | None = None
    """Which of its chunks are here, of one that comes from peers."""

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Read the headers of a model directory.

        Raises UserError that says what is wrong: it is missing, has no config or no weights, or a file of it is
        damaged or shorter than its header says.
        """
        if not is_directory(directory):
            raise UserError(f"there is no model directory at {directory}", hint="give --model an existing directory")
        config = read_json(directory / "config.json")
        index = read_index(directory)
        headers = {name: read_header(directory / name) for name in weight_files(directory, index)}
        tensors = {tensor.name: tensor for header in headers.values() for tensor in header}
        for name, file in index.items():  # of a tensor that two files have, the index says which counts
            if name not in tensors or tensors[name].file.name != file:
                found = next((tensor for tensor in headers[file] if tensor.name == name), None)
                if found is None:
                    raise UserError(
                        f"{directory / INDEX} says that {name[:200]} is in {file}, which lacks it", hint=_AGAIN
                    )
                tensors[name] = found
        partial = Partial.open(directory)
        if partial is not None:
            partial.check_names(headers)
        fetched = Fetched.open(directory, {name: tensor.nbytes for name, tensor in tensors.items()})
        return cls(directory, tensors, config, partial, fetched)

    @property
    def name(self) -> str:
        """What people call it: the directory's name, the repository's on its hub, or what the peers called it."""
        if self.fetched is not None:
            return self.fetched.name
        return self.directory.resolve().name if self.partial is None else self.partial.origin.repo

    @property
    def total_bytes(self) -> int:
        """Bytes of all its weights."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def dtype(self) -> str:
        """What most of its weights are stored as, by the name that stages use: `f32`, `f16` or else `bf16`."""
        stored: Counter[str] = Counter()
        for tensor in self.tensors.values():
            stored[_COMPUTED_IN.get(tensor.dtype, "bf16")] += tensor.nbytes
        return max(stored, key=lambda dtype: stored[dtype], default="bf16")

    def side_files(self) -> dict[str, Path]:
        """Those of `SIDE_FILES` that are there, and the named chat templates.

        Raises UserError where there are more templates than `MAX_TEMPLATES`.
        """
        here = {name: self.directory / name for name in SIDE_FILES if (self.directory / name).is_file()}
        names = [f"{TEMPLATES}/{path.name}" for path in (self.directory / TEMPLATES).glob("*.jinja") if path.is_file()]
        templates = template_names(str(self.directory), names)
        return here | {name: self.directory / name for name in templates}

    def defaults(self, vocabulary: int) -> Defaults:
        """What ends a text, and how to sample where nobody says; `vocabulary` is how many token ids the model has.

        Raises UserError where generation_config.json or config.json says what makes no sense.
        """
        path = self.directory / "generation_config.json"
        try:
            return generation.read(read_json(path) if path.exists() else {}, self.config, vocabulary)
        except ValueError as exc:
            raise UserError(f"{path if path.exists() else path.parent}: {exc}", hint="mend the file") from exc

    def check_tokenizer(self, vocabulary: int) -> None:
        """Raise UserError where tokenizer.json can't be read, or is another model's: it has ids that this one lacks.

        A vocabulary larger than the tokenizer's is common (it is padded to a round number). So is an added token beyond
        the vocabulary, such as Gemma 3's for images; a prompt with one is refused when it comes.
        """
        path = self.directory / "tokenizer.json"
        if not path.is_file():
            return
        data = _read(path)

        def highest_id() -> int:
            tokenizer = Tokenizer.from_buffer(data)
            tokenizer.encode("a")  # some faults show only now
            return max(tokenizer.get_vocab(with_added_tokens=False).values(), default=0)

        try:
            highest = guarded(highest_id)
        except PeerError as exc:
            raise UserError(f"{path} can't be used: {exc.message}", hint=_AGAIN) from exc
        if highest >= vocabulary:
            raise UserError(
                f"{path} does not fit the model: it has the token id {highest}, the model {vocabulary} ids",
                hint="use the tokenizer that came with the model",
            )


def is_directory(path: Path) -> bool:
    """Whether it is there and a directory. Raises UserError where that can't be found out."""
    try:
        return path.is_dir()
    except OSError as exc:  # a name that is too long, or a directory above it that may not be searched
        raise UserError(
            f"{str(path)[:200]} can't be looked at: {exc.strerror}", hint="give the path of a model directory"
        ) from exc


def template_names(model: str, files: Iterable[str]) -> list[str]:
    """Of a model's files, those that are named chat templates. Raises UserError where there are too many."""
    found = sorted(name for name in files if _TEMPLATE.fullmatch(name))
    if len(found) > MAX_TEMPLATES:
        raise UserError(
            f"{model} has {len(found)} named chat templates, more than {MAX_TEMPLATES}", hint="remove some of them"
        )
    return found


def read_at(tensor: TensorInfo, offset: int, nbytes: int) -> bytes:
    """Some bytes of one tensor, `offset` from its start. Raises UserError where the file isn't what it was."""
    try:
        with tensor.file.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), nbytes, tensor.offset + offset)
    except OSError as exc:
        raise UserError(f"{tensor.file} can't be read: {exc.strerror}", hint=_AGAIN) from exc
    if len(data) != nbytes:
        raise UserError(f"{tensor.file} is truncated at {tensor.name}", hint=_AGAIN)
    return data


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file. Raises UserError where it's missing, can't be read, or holds something else."""
    try:
        value = strict_json.loads(_read(path))
    except ValueError as exc:
        raise UserError(f"{path} is not valid JSON", hint=_AGAIN) from exc
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object", hint=_AGAIN)
    return value


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as exc:
        raise UserError(
            f"{path.parent} has no {path.name}", hint="a model directory in Hugging Face format is needed"
        ) from exc
    except OSError as exc:
        raise UserError(f"{path} can't be read: {exc.strerror}", hint="see to its permissions") from exc


def read_index(directory: Path) -> dict[str, str]:
    """Tensor → file name, of a sharded checkpoint; empty where it isn't. Raises UserError where it can't be used."""
    path = directory / INDEX
    if not path.exists():
        return {}
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(_is_weight_file(name) for name in weight_map.values()):
        raise UserError(f"{path} has no weight_map of safetensors file names", hint=_AGAIN)
    if not weight_map:
        raise UserError(f"{path} names no weights", hint=_AGAIN)
    return weight_map


def _is_weight_file(name: Any) -> bool:
    """Whether it is a name of a file here, and no path: what it names is opened, and stands in a line of a ledger."""
    if not isinstance(name, str) or not name.isprintable() or len(name.encode()) > 255:  # bytes; what Linux allows
        return False
    return Path(name).name == name and name.endswith(".safetensors")


def weight_files(directory: Path, index: dict[str, str]) -> list[str]:
    """Names of the files that hold the weights. Raises UserError where one isn't there."""
    files = sorted(set(index.values())) or [SINGLE]
    if not index and not (directory / SINGLE).is_file():
        raise UserError(f"{directory} holds no safetensors weights", hint="convert the checkpoint to safetensors first")
    for name in files:
        if not (directory / name).is_file():
            raise UserError(f"{directory} lacks {name}, which its index names", hint=_AGAIN)
    return files


def read_header(file: Path) -> list[TensorInfo]:
    """The tensors of one file: 8 bytes little-endian length, a JSON header of that length, then the data.

    Raises UserError where it can't be read, or as `parse_header` does.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = header_length(file, stream.read(8), size)
            return parse_header(file, stream.read(length), size)
    except OSError as exc:
        raise UserError(f"{file} can't be read: {exc.strerror}", hint="see to its permissions") from exc


def header_length(file: Path, start: bytes, size: int) -> int:
    """Bytes of the header, from a file's first 8 bytes and its size. Raises UserError where they can't be."""
    length: int = struct.unpack("<Q", start)[0] if len(start) == 8 else MAX_HEADER + 1
    if length > MAX_HEADER or 8 + length > size:
        raise _damaged(file)
    return length


def parse_header(file: Path, header: bytes, size: int) -> list[TensorInfo]:
    """The tensors that a header names.

    Raises UserError where it's damaged, or its tensors don't fill the file's `size` bytes, each byte once.
    """
    base = 8 + len(header)
    tensors = []
    try:
        entries = strict_json.loads(header)
        for name, entry in entries.items():
            if name == "__metadata__":
                if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
                    raise _damaged(file)
                continue
            begin, end = entry["data_offsets"]
            shape = tuple(entry["shape"])
            item = ITEM_BYTES.get(entry["dtype"])
            if item is None:
                raise UserError(
                    f"{file}: {name[:200]} is stored as {str(entry['dtype'])[:40]}",
                    hint="use a bf16, fp16 or fp32 checkpoint",
                )
            if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
                raise _damaged(file)
            if end - begin != math.prod(shape) * item:
                raise _damaged(file)
            tensors.append(TensorInfo(name, file, entry["dtype"], shape, base + begin, end - begin))
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise _damaged(file) from exc
    for tensor in sorted(tensors, key=lambda each: (each.offset, each.nbytes)):
        if tensor.offset != base:  # bytes of two tensors, or of none
            raise _damaged(file)
        base += tensor.nbytes
    if base != size:
        raise _damaged(file)
    return tensors


def _damaged(file: Path) -> UserError:
    return UserError(f"{file} is truncated or not a safetensors file", hint=_AGAIN)
