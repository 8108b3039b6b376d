"""A model hub on the loopback: the routes that huggingface_hub calls, over files that a test made.

Weights are redirected to a second server on another port, as the real hub redirects to its CDN. Both count what they
send.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

CHUNK = 4096


@dataclass
class Hub:
    """What it has, what it does wrong, and what it was asked."""

    repos: dict[str, Path]
    gated: set[str] = field(default_factory=set)
    token: str = ""
    """What a request to the hub must bear, where it isn't ""."""
    hold_after: int | None = None
    """Bytes of weights after which every answer waits for `let_go`."""
    break_after: int | None = None
    """Bytes of weights after which one answer's connection is closed."""
    busy: int = 0
    """Requests for weights that are still to be answered 503."""
    flip: int | None = None
    """An offset in a weight file whose byte comes flipped."""
    let_go: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    weight_bytes: int = 0
    """Sent, in answer to requests that came since `forget`."""
    age: int = 0
    """How often `forget` was called."""
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    """Of weights: file, first byte, one after the last."""
    requests: list[str] = field(default_factory=list)
    cdn_saw_token: bool = False
    url: str = ""
    cdn_url: str = ""

    def commit(self, repo: str) -> str:
        """What all of a repository's revisions are."""
        paths = _files(self.repos[repo])
        names, digests = [str(path.relative_to(self.repos[repo])) for path in paths], [_sha256(path) for path in paths]
        return hashlib.sha1(json.dumps([names, digests]).encode()).hexdigest()

    def environment(self) -> dict[str, str]:
        """For a process that is to use it."""
        return {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": self.token or "hf_none"}

    def forget(self) -> None:
        """Count anew. What an answer that is under way still sends, to a client that may be dead, isn't counted."""
        self.age += 1
        self.weight_bytes = 0
        self.ranges.clear()
        self.requests.clear()


@contextmanager
def serve(**repos: Path) -> Iterator[Hub]:
    """A hub with these repositories of the organization `org`."""
    hub = Hub({f"org/{name}": path for name, path in repos.items()})
    servers = []
    try:
        for name in ("url", "cdn_url"):
            server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            servers.append(server)
            setattr(hub, name, f"http://127.0.0.1:{server.server_address[1]}")
        yield hub
    finally:
        hub.let_go.set()
        for server in servers:
            server.shutdown()
            server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(path)
            if path.startswith("/cdn/"):
                hub.cdn_saw_token |= "Authorization" in self.headers
                _, _, org, name, file = path.split("/")
                if hub.busy:
                    hub.busy -= 1
                    self._refuse(503, "Busy")
                    return
                self._file(hub.repos[f"{org}/{name}"] / file, weights=True)
                return
            parts = path.removeprefix("/api/models").split("/")
            repo = "/".join(parts[1:3])
            if repo not in hub.repos:
                self._refuse(404, "RepoNotFound")
            elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._refuse(401, "RepoNotFound")
            elif path.startswith("/api/models/"):
                if parts[4] not in {"main", "v1", hub.commit(repo)}:
                    self._refuse(404, "RevisionNotFound")
                else:
                    self._json(_info(hub, repo))
            elif repo in hub.gated:
                self._refuse(403, "GatedRepo")
            else:
                self._resolve(repo, "/".join(parts[5:]))

        def _resolve(self, repo: str, name: str) -> None:
            path = hub.repos[repo] / name
            if not path.is_file():
                self._refuse(404, "EntryNotFound")
                return
            headers = {"X-Repo-Commit": hub.commit(repo), "Accept-Ranges": "bytes"}
            if path.suffix != ".safetensors":
                self._file(path, weights=False, **headers)
                return
            self.send_response(302)
            linked = {"X-Linked-Size": str(path.stat().st_size), "X-Linked-ETag": f'"{_sha256(path)}"'}
            location = {"Location": f"{hub.cdn_url}/cdn/{repo}/{name}?signature=secret", "Content-Length": "0"}
            for header, value in {**headers, **linked, **location}.items():
                self.send_header(header, value)
            self.end_headers()

        def _file(self, path: Path, *, weights: bool, **headers: str) -> None:
            data = bytearray(path.read_bytes())
            if weights and hub.flip is not None:
                data[hub.flip] ^= 1
            asked = self.headers.get("Range")
            begin, end = 0, len(data)
            if asked:
                first, last = asked.removeprefix("bytes=").split("-")
                begin, end = int(first), int(last) + 1
                headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
            self.send_response(206 if asked else 200)
            etag = _sha256(path) if weights else git_sha1(path)
            for header, value in {**headers, "ETag": f'"{etag}"', "Content-Length": str(end - begin)}.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if weights:
                hub.ranges.append((path.name, begin, end))
            age = hub.age
            for at in range(begin, end, CHUNK):
                if weights and hub.hold_after is not None and hub.weight_bytes >= hub.hold_after:
                    self.wfile.flush()
                    hub.held.set()
                    hub.let_go.wait()
                if weights and hub.break_after is not None and hub.weight_bytes >= hub.break_after:
                    hub.break_after = None
                    self.close_connection = True
                    return
                piece = bytes(data[at : min(at + CHUNK, end)])
                try:
                    self.wfile.write(piece)
                except OSError:  # the client was killed
                    self.close_connection = True
                    return
                hub.weight_bytes += len(piece) if weights and hub.age == age else 0

        def _json(self, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", "no")
            self.send_header("Content-Length", "0")
            self.end_headers()

    return Handler


def _files(directory: Path) -> list[Path]:
    """All of a repository, with what is in its folders."""
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _info(hub: Hub, repo: str) -> dict[str, object]:
    siblings = []
    for path in _files(hub.repos[repo]):
        size = path.stat().st_size
        name = path.relative_to(hub.repos[repo]).as_posix()
        entry: dict[str, object] = {"rfilename": name, "size": size, "blobId": git_sha1(path)}
        if path.suffix == ".safetensors":
            entry["lfs"] = {"sha256": _sha256(path), "size": size, "pointerSize": 134}
        siblings.append(entry)
    return {"id": repo, "modelId": repo, "sha": hub.commit(repo), "siblings": siblings, "tags": [], "private": False}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def git_sha1(path: Path) -> str:
    """The name that git gives a file."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
