"""What is asked of a model hub: a commit and its files, and bytes of one file. Failures in our own words.

The requests go through `huggingface_hub`'s own session, so that HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and proxies mean
what they mean to everyone. The token goes to the hub alone: a redirect to another host drops it.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi, constants, get_session, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]  # documented so

from p2pos.errors import P2posError, UnavailableError, UserError
from p2pos.shard.partial import Origin

TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
"""Seconds without a byte; what the hub's own client waits for metadata is 10."""

RETRIES = 5
"""Failures one after the other, without a byte between them, that end a download."""
BACKOFF_S = (0.0, 1.0, 2.0, 4.0)
"""After each failure but the last. The first is nothing: in a long download a proxy may well close a connection."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_AGAIN = "try again (what came is kept), or use what is here with --offline"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a commit."""

    repo: str
    commit: str
    name: str
    size: int
    """Bytes."""


def list_files(repo: str, revision: str) -> Origin:
    """Which commit a revision is now, and its files.

    Raises UserError where there's no such repository or revision, or it is gated; UnavailableError where the hub can't
    be reached or answers nonsense.
    """
    with _failures(repo, revision):
        try:
            info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT.read)
            files = {}
            for each in info.siblings or []:
                digest = f"lfs:{each.lfs.sha256}" if each.lfs is not None else f"git:{each.blob_id}"
                if each.size is None or not re.fullmatch(r"lfs:[0-9a-f]{64}|git:[0-9a-f]{40}", digest):
                    continue  # an empty file, or one that the hub knows no digest of
                files[each.rfilename] = (int(each.size), digest)
            commit = str(info.sha)
        except (KeyError, TypeError, AttributeError, ValueError) as exc:
            raise _nonsense() from exc
    if not _COMMIT.fullmatch(commit):
        raise _nonsense()
    return Origin(repo, commit, files)


def is_commit(revision: str) -> bool:
    """Whether a revision names a commit in full."""
    return _COMMIT.fullmatch(revision) is not None


def read(file: HubFile, begin: int, end: int, stop: threading.Event | None = None) -> bytes:
    """Some bytes of a file. Raises as `stream` does."""
    return b"".join(stream(file, begin, end, stop))


def stream(file: HubFile, begin: int, end: int, stop: threading.Event | None = None) -> Iterator[bytes]:
    """Bytes `begin … end-1` of a file, as they come; a connection that breaks is taken up where it broke.

    Once `stop` is set, by another thread, the next failure is the last.

    Raises UserError where the file is gone or gated; UnavailableError where the hub can't be reached, or answers
    something else than was asked for.
    """
    stop = stop or threading.Event()
    at, failed = begin, 0
    while at < end:
        try:
            with _failures(file.repo, file.commit):
                for chunk in _request(file, at, end):
                    if len(chunk) > end - at:
                        raise _nonsense()
                    at, failed = at + len(chunk), 0
                    yield chunk
        except UnavailableError:
            failed += 1
            if failed >= RETRIES or stop.wait(BACKOFF_S[failed - 1]):
                raise


def _request(file: HubFile, begin: int, end: int) -> Iterator[bytes]:
    url = hf_hub_url(file.repo, file.name, revision=file.commit)
    headers = {**build_hf_headers(), "Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
    with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
        hf_raise_for_status(response)
        whole = response.status_code == 200 and begin == 0 and end == file.size
        asked = f"bytes {begin}-{end - 1}/{file.size}"
        if not whole and (response.status_code != 206 or response.headers.get("Content-Range") != asked):
            raise _nonsense()
        for chunk in response.iter_bytes():
            yield bytes(chunk)


@contextmanager
def _failures(repo: str, revision: str) -> Iterator[None]:
    """Turn what the hub's client raises into ours. Addresses with signatures, and tokens, stay out of the text."""
    try:
        yield
    except OfflineModeIsEnabled as exc:
        raise UnavailableError("HF_HUB_OFFLINE is set", hint="unset it to fetch") from exc
    except GatedRepoError as exc:
        raise UserError(
            f"the model {repo} is gated, and you have not been let in",
            hint="accept its terms on the hub and set HF_TOKEN",
        ) from exc
    except RepositoryNotFoundError as exc:
        raise UserError(
            f"there is no model {repo} on {_host()}, or it is private",
            hint="check the name; private ones need HF_TOKEN",
        ) from exc
    except RevisionNotFoundError as exc:
        raise UserError(f"the model {repo} has no revision {revision}", hint="check what follows the @") from exc
    except EntryNotFoundError as exc:
        raise UserError(f"the model {repo} lacks a file that it lists", hint="tell its author") from exc
    except HfHubHTTPError as exc:
        raise _refused(repo, exc.response.status_code) from exc
    except httpx2.InvalidURL as exc:  # its text may quote a password
        raise UnavailableError(f"the hub at {_host()} can't be reached (no valid address)", hint=_AGAIN) from exc
    except httpx2.HTTPError as exc:
        why = str(exc).splitlines()[0][:200] if str(exc) else type(exc).__name__
        raise UnavailableError(f"the hub at {_host()} can't be reached ({why})", hint=_AGAIN) from exc


def _refused(repo: str, status: int) -> P2posError:
    if status in {401, 403}:
        return UserError(f"{_host()} refuses {repo} to you ({status})", hint="check HF_TOKEN and its permissions")
    if status == 404:
        return UserError(f"there is no model {repo} on {_host()}", hint="check the name")
    return UnavailableError(f"the hub at {_host()} answered {status}", hint=_AGAIN)


def _nonsense() -> UnavailableError:
    return UnavailableError(f"the hub at {_host()} answered something else than was asked for", hint=_AGAIN)


def _host() -> str:
    """The hub's host and port, without the name and password that HF_ENDPOINT may have before them."""
    try:
        address = urlsplit(constants.ENDPOINT)
        host, port = address.hostname, address.port
    except ValueError:
        return "HF_ENDPOINT"
    return (host or "HF_ENDPOINT") if port is None else f"{host}:{port}"
