"""Items' descriptors and files in a store: put there by their author, looked at, and carried in CARs.

Start reading at `add_file`, `look`, `write_car` and `take_in`.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from p2pos.assets import files
from p2pos.assets.descriptor import MAX_BYTES, MAX_FILE, Descriptor, FileRef
from p2pos.assets.files import Look
from p2pos.assets.formats.reader import FormatError
from p2pos.content import car, cid, unixfs
from p2pos.content.car import Car
from p2pos.content.store import Store
from p2pos.content.unixfs import Get
from p2pos.errors import UnavailableError, UserError
from p2pos.types import Cid

READ = 1 << 20
"""Bytes read of a file at once."""


class Taken(NamedTuple):
    """A descriptor that came in a CAR."""

    cid: Cid
    descriptor: Descriptor
    missing: tuple[FileRef, ...]
    """Files that were neither in the CAR nor in the store, or not whole."""


def add_file(store: Store, path: Path, role: str, media_type: str = "", licence: str = "") -> FileRef:
    """Put a file of an item into a store.

    Args:
        store: where its blocks go.
        path: the file.
        role: what it is for.
        media_type: what it is; "" goes by its name.
        licence: SPDX identifier or URL.

    Raises:
        UserError: it can't be read, is not of its media type, or changed while it was read.

    """
    kind = media_type or files.media_type(path.name)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise UserError(f"{path} is not a file")
        if size > MAX_FILE:
            raise UserError(f"{path} is larger than {MAX_FILE} bytes")
        files.check(_pieces(path), size, kind)
        root, added = unixfs.add(_pieces(path), store.put)
    except FormatError as exc:
        raise UserError(f"{path} {exc.message}", hint="is it damaged, or of another type than its name says?") from exc
    except OSError as exc:
        raise UserError(f"{path}: {exc.strerror}") from exc
    if added != size:
        raise UserError(f"{path} changed while it was read", hint="try again")
    return FileRef(cid=root, size=size, media_type=kind, role=role, licence=licence)


def look(file: FileRef, get: Get) -> Look:
    """Read a file of a descriptor from its first byte to its last and say what it is.

    Raises UnavailableError where a block isn't here (it carries its `cid`), UserError where the file has another size,
    is of another type, or its blocks are none of a file.
    """
    next(unixfs.leaves(Cid(file.cid), file.size, get), None)  # another size is told before what it does to the format
    return files.check(unixfs.read(Cid(file.cid), file.size, get), file.size, file.media_type)


def blocks(name: Cid, descriptor: Descriptor, get: Get) -> Iterator[tuple[Cid, bytes]]:
    """The descriptor's block, then those of each file, nodes before what is below them.

    Raises UnavailableError, with its `cid`, for a block that isn't here.
    """
    yield name, descriptor.canonical()
    for file in descriptor.files:
        for link, data in unixfs.blocks(Cid(file.cid), file.size, get):
            if data is None:
                raise UnavailableError(f"block {link.cid} of {file.role} is not here", cid=link.cid)
            yield link.cid, data


def write_car(path: Path, descriptor: Descriptor, get: Get) -> int:
    """Write an item's descriptor and files into a CAR, whole or not at all. Returns its bytes.

    Its roots are the descriptor and each file, so that whoever pins the roots of a CAR pins all of it.

    Raises UserError where the file is there already or can't be written; as `blocks`.
    """
    if path.exists():
        raise UserError(f"{path} is already there", hint="choose a new file")
    name = descriptor.cid()
    roots = list(dict.fromkeys([name, *(Cid(file.cid) for file in descriptor.files)]))
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with draft.open("xb") as file:
            written = car.write(file, roots, blocks(name, descriptor, get))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as exc:
        raise UserError(f"{path}: {exc.strerror}") from exc
    finally:
        draft.unlink(missing_ok=True)
    return written


def take_in(found: Car, store: Store, on_block: Callable[[int], None] = lambda _: None) -> list[Taken]:
    """Put what belongs to the descriptors among a CAR's roots into a store. All of the CAR was verified before.

    Blocks that belong to none of them are left out.

    Raises UserError where no root is a descriptor.
    """
    taken = []
    whole: dict[tuple[str, int], bool] = {}
    for root in dict.fromkeys(found.roots):
        descriptor = _descriptor(found, root)
        if descriptor is None:
            continue
        store.put(descriptor.canonical())
        for file in descriptor.files:  # several may be the same bytes, which are taken once
            if (file.cid, file.size) not in whole:
                whole[file.cid, file.size] = _take_file(found, store, file, on_block)
        missing = [file for file in descriptor.files if not whole[file.cid, file.size]]
        taken.append(Taken(root, descriptor, tuple(missing)))
    if not taken:
        raise UserError("no root of this CAR is an item's descriptor", hint="p2pos asset export makes such CARs")
    return taken


def _descriptor(found: Car, root: Cid) -> Descriptor | None:
    if cid.codec(root) != "raw":
        return None
    data = found.get(root)
    if data is None or len(data) > MAX_BYTES:
        return None
    with suppress(UserError):
        return Descriptor.parse(data, cid.digest(root))
    return None


def _take_file(found: Car, store: Store, file: FileRef, on_block: Callable[[int], None]) -> bool:
    """Whether all of a file is in the store now."""

    def get(name: Cid) -> bytes | None:
        data = found.get(name)
        return store.sound(name) if data is None else data

    whole = True
    try:
        for link, data in unixfs.blocks(Cid(file.cid), file.size, get):
            if data is None:
                whole = False
                continue
            store.put(data, cid.codec(link.cid))
            on_block(len(data))
    except unixfs.NoFileError:
        return False
    return whole


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(READ):
            yield piece
