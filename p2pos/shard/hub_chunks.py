"""Chunks of a model that no peer has, from the hub's repository that those who serve it call it by.

The name is what strangers say. It doesn't matter: each chunk is compared with the manifest before it is kept.
"""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from p2pos.errors import UnavailableError
from p2pos.shard import hub, hub_http
from p2pos.shard.checkpoint import Checkpoint, TensorInfo
from p2pos.shard.hub_http import HubFile
from p2pos.shard.partial import Origin
from p2pos.shard.shelf import Shelf


class _Piece(NamedTuple):
    """Where a chunk lies on the hub."""

    file: str
    begin: int
    end: int
    chunk: int


def fill(
    shelf: Shelf,
    lacking: Iterable[int],
    cache: Path,
    *,
    on_bytes: Callable[[int], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> int:
    """Fetch chunks from the repository on a hub that the model is called by.

    Args:
        shelf: of a model from peers, whose name is `ORG/NAME` or `ORG/NAME@REVISION`.
        lacking: the chunks.
        cache: where models are kept: the repository's headers go there.
        on_bytes: told of the bytes of each chunk that is in its place.
        stop: when set, by another thread, it ends early; what came is kept.

    Returns:
        Bytes that came.

    Raises:
        UserError: there is no such repository, it is gated, or there is no room.
        UnavailableError: the name is none of a repository, the hub can't be reached, or what it has is another model.

    """
    stop = stop or threading.Event()
    name = hub.HubId.parse(shelf.checkpoint.name)
    if name is None:
        raise UnavailableError(f"{shelf.checkpoint.name} is no name of a model on a hub")
    there = Checkpoint.open(hub.resolve(name, cache, offline=False))
    if there.partial is None:
        raise UnavailableError(f"{name} is here, but not from a hub")
    came = 0
    for run in _runs(sorted(_piece(shelf, there, chunk) for chunk in lacking)):
        for chunk, data in _chunks(there.partial.origin, run, stop):
            if hashlib.sha256(data).digest() != shelf.leaves.of(chunk):
                raise _another(shelf, name)
            shelf.write(chunk, data)
            came += len(data)
            on_bytes(len(data))
            if stop.is_set():
                return came
    return came


def _piece(shelf: Shelf, there: Checkpoint, chunk: int) -> _Piece:
    place = shelf.chunks.place(chunk)
    mine, tensor = shelf.checkpoint.tensors[place.tensor], there.tensors.get(place.tensor)
    if tensor is None or not _alike(mine, tensor):
        raise _another(shelf, there.name)
    begin = tensor.offset + place.offset
    return _Piece(tensor.file.name, begin, begin + place.nbytes, chunk)


def _alike(mine: TensorInfo, theirs: TensorInfo) -> bool:
    return (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)


def _runs(pieces: list[_Piece]) -> Iterator[list[_Piece]]:
    """Pieces, grouped so that those of a group follow one another without a gap: one request brings a group."""
    run: list[_Piece] = []
    for piece in pieces:
        if run and (piece.file, piece.begin) != (run[-1].file, run[-1].end):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _chunks(origin: Origin, run: list[_Piece], stop: threading.Event) -> Iterator[tuple[int, bytes]]:
    """The chunks of a run, as they come; no more than one is held."""
    file = HubFile(origin.repo, origin.commit, run[0].file, origin.files[run[0].file][0])
    left = iter(run)
    piece, data = next(left), bytearray()
    for part in hub_http.stream(file, run[0].begin, run[-1].end, stop):
        rest = memoryview(part)
        while rest:
            taken = rest[: piece.end - piece.begin - len(data)]
            data += taken
            rest = rest[len(taken) :]
            if len(data) == piece.end - piece.begin:
                yield piece.chunk, bytes(data)
                piece, data = next(left, piece), bytearray()


def _another(shelf: Shelf, name: object) -> UnavailableError:
    return UnavailableError(
        f"what the hub has as {name} is another model than {shelf.model}",
        hint="it may have changed since; wait for a peer that has its weights",
    )
