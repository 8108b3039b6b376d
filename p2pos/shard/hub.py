"""Models by their name on a hub, such as `Qwen/Qwen3-0.6B`: of the weights, only what a span needs is fetched.

`resolve` makes the directory of one commit: config, tokenizer, and each weight file with its header and a hole for the
rest (see `p2pos.shard.partial`). `fetch` fills the holes of the tensors that are wanted. What has come is kept, and not
fetched again.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

from huggingface_hub import is_offline_mode
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, by its documentation

from p2pos.errors import UnavailableError, UserError
from p2pos.shard import checkpoint as local
from p2pos.shard import hub_http
from p2pos.shard.checkpoint import Checkpoint, TensorInfo
from p2pos.shard.hub_http import HubFile
from p2pos.shard.partial import ORIGIN, Origin, Partial, Piece, pieces

MAX_SIDE_FILE = 64 << 20
"""Bytes of a config or tokenizer: as much as a node can hand on in one block."""

HEADERS_AT_ONCE = 8
"""Requests for headers under way at a time; the largest models have some hundred files."""

MAX_NAME = 255
"""Bytes that a file's name may have on Linux; a revision is one, percent-encoded."""

_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@(.+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubId:
    """A model's name on a hub."""

    repo: str
    """`ORG/NAME`."""
    revision: str = "main"
    """A branch, a tag or a commit."""

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read `ORG/NAME` or `ORG/NAME@REVISION`; None where it looks like something else, such as a path."""
        match = _NAME.fullmatch(text)
        if match is None or text.startswith((".", "/")):
            return None
        revision = match[2] or "main"
        try:
            validate_repo_id(match[1])
            if len(quote(revision, safe="")) > MAX_NAME:
                return None
        except (HFValidationError, UnicodeEncodeError):
            return None
        return cls(match[1], revision)

    def __str__(self) -> str:
        return self.repo if self.revision == "main" else f"{self.repo}@{self.revision}"


def locate(text: str, cache: Path, *, offline: bool) -> Path:
    """The directory that `--model` means: the one of that name, or that of a model on a hub, made where it isn't here.

    Raises as `resolve` does.
    """
    model = HubId.parse(text)
    if local.is_directory(Path(text)) or model is None:
        return Path(text)
    return resolve(model, cache, offline=offline)


def resolve(model: HubId, cache: Path, *, offline: bool) -> Path:
    """The directory of the commit that a model's revision is now, with all of it but the weights.

    Args:
        model: its name.
        cache: where models are kept.
        offline: take the commit that the revision was when it was last asked for, and ask nobody.

    Raises:
        UserError: there is no such model or revision, it is gated, or it isn't one that can be served; or it isn't here
            and `offline` says not to ask.
        UnavailableError: the hub can't be reached, or what it sends is not what it says it is.

    """
    home = cache / "hub" / model.repo.replace("/", "--")
    ref = home / "refs" / quote(model.revision, safe="")
    with _disk(home):
        if hub_http.is_commit(model.revision) and _is_laid_out(home / model.revision):
            return home / model.revision
        if offline or is_offline_mode():
            commit = ref.read_text(errors="replace").strip() if ref.is_file() else ""
            if not hub_http.is_commit(commit) or not _is_laid_out(home / commit):
                raise UserError(f"{model} is not here", hint=f"p2pos model fetch {model}, while online")
            return home / commit
    listed = hub_http.list_files(model.repo, model.revision)
    directory = home / listed.commit
    with _disk(directory), _alone(home):
        if not _is_laid_out(directory):
            _lay_out(directory, listed)
        _replace(ref, listed.commit.encode())
    return directory


def _is_laid_out(directory: Path) -> bool:
    """Whether a commit's directory has each file that belongs to it, in its length; of weights maybe only headers."""
    try:
        found = Partial.open(directory)
    except UserError:
        return False
    if found is None or "config.json" not in found.origin.files:
        return False
    return all(_has_size(directory / name, size) for name, (size, _) in found.origin.files.items())


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def kept(cache: Path) -> Iterator[Checkpoint]:
    """The models from hubs that are here, in whole or in part; one whose files are damaged is left out."""
    for path in sorted((cache / "hub").glob(f"*/*/{ORIGIN}")):
        try:
            yield Checkpoint.open(path.parent)
        except UserError:
            continue  # whoever runs it is told what is wrong


def fetch(
    checkpoint: Checkpoint,
    tensors: Sequence[TensorInfo],
    *,
    offline: bool,
    progress: Callable[[str, int], Callable[[int], None]],
    stop: threading.Event | None = None,
) -> int:
    """Fetch what isn't here of some tensors of a checkpoint that `resolve` made.

    Args:
        checkpoint: opened from such a directory.
        tensors: of it, those that are wanted.
        offline: only see whether all is here.
        progress: given a title and the bytes that are to come, what to call with each piece's bytes.
        stop: when set, by another thread, it ends early; what came is kept.

    Returns:
        Bytes that were fetched.

    Raises:
        UserError: `offline` and not all of it is here; or there is no room.
        UnavailableError: the hub can't be reached, or sent what it says is something else.

    """
    partial = checkpoint.partial
    if partial is None:
        return 0
    lacking = partial.lacking((each.file, each.offset, each.nbytes) for each in tensors)
    total = sum(end - begin for _, begin, end in lacking)
    origin = partial.origin
    if total and (offline or is_offline_mode()):
        raise UserError(
            f"{total:,} bytes of {origin.repo} that this needs are not here",
            hint=f"p2pos model fetch {origin.repo}@{origin.commit}, while online",
        )
    with _disk(checkpoint.directory):
        free = shutil.disk_usage(checkpoint.directory).free
        if total > free:
            raise UserError(
                f"{checkpoint.directory} has room for {free:,} bytes; this needs {total:,}",
                hint="free some, or set P2POS_CACHE",
            )
        on_bytes = progress(f"fetching {origin.repo}", total) if total else lambda _: None
        for run in _runs(lacking):
            _fetch_run(partial, run, on_bytes, stop or threading.Event())
        broken = [
            name for name in sorted({each.file.name for each in tensors}) if not _check_whole(checkpoint, partial, name)
        ]
    if broken:
        raise _not_the_hubs(origin, broken[0])
    return total


def _lay_out(directory: Path, listed: Origin) -> None:
    """Make a commit's directory: its side files, and its weight files with nothing but their headers.

    Of a directory that lost some of its files, the weights that are there stay.
    """
    names = {name for name in local.SIDE_FILES if name in listed.files}
    if "config.json" not in names:
        raise UserError(f"{listed.repo} has no config.json", hint="it is not a model in Hugging Face format")
    names |= set(local.template_names(listed.repo, listed.files))
    names |= {local.INDEX} & set(listed.files)
    for name in sorted(names):
        size, _ = listed.files[name]
        if size > MAX_SIDE_FILE:
            raise UserError(f"{listed.repo}: {name} has {size:,} bytes, more than {MAX_SIDE_FILE:,}")
        data = hub_http.read(HubFile(listed.repo, listed.commit, name, size), 0, size)
        if not _is_the_hubs(listed, name, [data]):
            raise _not_the_hubs(listed, name)
        _replace(directory / name, data)
    weights = sorted(set(local.read_index(directory).values())) or [local.SINGLE]
    for name in weights:
        if name not in listed.files:
            fault = f"lacks {name}" if local.INDEX in names else "has no safetensors weights"
            raise UserError(f"{listed.repo} {fault}", hint="choose another model, or a revision that has them")
    kept = {name: listed.files[name] for name in sorted(names | set(weights))}
    origin = Origin(listed.repo, listed.commit, kept)
    lost = [name for name in weights if not _has_size(directory / name, listed.files[name][0])]
    Partial(directory, origin).forget_files(lost)  # before there are holes in the place of what came
    _at_once(lambda name, stop: _lay_out_weights(directory / name, listed, stop), lost)
    _replace(directory / ORIGIN, json.dumps(origin.to_json(), indent=1).encode())


def _at_once(work: Callable[[str, threading.Event], None], names: Sequence[str]) -> None:
    """Do some work for each name, for `HEADERS_AT_ONCE` of them at a time; raise the first fault of it.

    Ctrl-C ends the wait at once. An executor's threads would be waited for when the process ends, whatever a silent
    hub lets them wait for; so these are not an executor's.
    """
    stop, left, faults = threading.Event(), list(reversed(names)), list[BaseException]()

    def run() -> None:
        while not stop.is_set():
            try:
                name = left.pop()
            except IndexError:
                return
            try:
                work(name, stop)
            except BaseException as exc:  # noqa: BLE001 - raised again below, in the thread that waits
                faults.append(exc)
                stop.set()

    threads = [threading.Thread(target=run, daemon=True) for _ in names[:HEADERS_AT_ONCE]]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stop.set()
    if faults:
        raise faults[0]


def _lay_out_weights(path: Path, listed: Origin, stop: threading.Event) -> None:
    size, _ = listed.files[path.name]
    file = HubFile(listed.repo, listed.commit, path.name, size)
    start = hub_http.read(file, 0, min(8, size), stop)
    length = local.header_length(path, start, size)
    header = hub_http.read(file, 8, 8 + length, stop)
    local.parse_header(path, header, size)
    if not stop.is_set():  # nobody waits any more, and another process may have put weights there
        _replace(path, start + header, size)


def _runs(lacking: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Pieces, grouped so that those of a group follow one another without a gap: one request brings a group."""
    run: list[Piece] = []
    for piece in lacking:
        if run and (piece[0], piece[1]) != (run[-1][0], run[-1][2]):
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def _fetch_run(partial: Partial, run: list[Piece], on_bytes: Callable[[int], None], stop: threading.Event) -> None:
    origin = partial.origin
    name, begin, end = run[0][0], run[0][1], run[-1][2]
    file = HubFile(origin.repo, origin.commit, name, origin.files[name][0])
    left = iter(run)
    piece, digest, at = next(left), hashlib.sha256(), begin
    handle = os.open(partial.directory / name, os.O_WRONLY)
    try:
        for chunk in hub_http.stream(file, begin, end, stop):
            if stop.is_set():
                return
            _write(handle, chunk, at)
            rest = memoryview(chunk)
            while rest:
                part = rest[: piece[2] - at]
                digest.update(part)
                at, rest = at + len(part), rest[len(part) :]
                if at == piece[2]:
                    partial.add(piece, digest.hexdigest())
                    piece, digest = next(left, piece), hashlib.sha256()
            on_bytes(len(chunk))
    finally:
        os.close(handle)


def _write(handle: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):  # a signal may cut a write short
        written += os.pwrite(handle, memoryview(data)[written:], offset + written)


def _check_whole(checkpoint: Checkpoint, partial: Partial, name: str) -> bool:
    """Where all of a weight file is here for the first time, whether it is the file that the hub says it is.

    Where it isn't, all of it is forgotten.
    """
    path, (size, _) = checkpoint.directory / name, partial.origin.files[name]
    mine = [(each.file, each.offset, each.nbytes) for each in checkpoint.tensors.values() if each.file.name == name]
    with path.open("rb") as file:
        data = size - 8 - local.header_length(path, file.read(8), size)
        if sum(nbytes for _, _, nbytes in mine) != data or partial.lacking(mine) or partial.is_checked(name):
            return True
        file.seek(0)
        whole = _is_the_hubs(partial.origin, name, iter(lambda: file.read(1 << 20), b""))
    if whole:
        partial.set_checked(name)
    else:
        partial.forget(piece for each in mine for piece in pieces(*each))
    return whole


def _is_the_hubs(origin: Origin, name: str, chunks: Iterable[bytes]) -> bool:
    """Whether a file's bytes have the digest that the hub gives of it."""
    size, known = origin.files[name]
    kind, _, expected = known.partition(":")
    # git's own digest is all there is of a small file
    digest = hashlib.sha256() if kind == "lfs" else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest() == expected


def _not_the_hubs(origin: Origin, name: str) -> UnavailableError:
    return UnavailableError(
        f"what came as {name} of {origin.repo} is not what the hub says it is", hint="try again: it is fetched anew"
    )


def _replace(path: Path, data: bytes, size: int = 0) -> None:
    """Write a file whole or not at all; where it is to be longer than its data, with a hole for the rest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.truncate(max(size, len(data)))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Wait until no other process lays out this model: it would put files without weights over those with some."""
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _disk(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise UserError(f"{directory} can't be used: {exc.strerror}", hint="see to it, or set P2POS_CACHE") from exc
