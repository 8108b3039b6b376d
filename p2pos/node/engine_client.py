"""HTTP with an engine that others run: questions with a short answer, and streams of a text.

The engine is the operator's own, and no more trusted for it than a peer: all that it sends is bounded, and whatever it
does wrong is an UnavailableError that says so in one line.
"""

import ssl
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import trio

from p2pos.content import strict_json
from p2pos.errors import UnavailableError, UserError
from p2pos.node import engine_api
from p2pos.node.engine_api import Abilities, Piece, Wish
from p2pos.shard.events import EventReader

CONNECT_S = 5.0
"""To connect, and to send a request. An engine is near its node."""
ANSWER_S = 10.0
"""For the answer to a question."""
FIRST_S = 240.0
"""For a text's first token, while the prompt is read: less than its owner waits (`owner.FIRST_DEADLINE_S`)."""
NEXT_S = 25.0
"""For each that follows: less than its owner waits (`owner.NEXT_DEADLINE_S`)."""
MAX_ANSWER = 4 << 20
"""Bytes of an answer that is no stream; vLLM's /metrics have some hundred KiB."""
MAX_COMPLAINT = 4096
"""Bytes that are read of an error's text."""
EVENT_BYTES = 1 << 18
"""Of one event of a stream, and `BYTES_A_TOKEN` more for each token of the prompt, which some engines repeat."""
BYTES_A_TOKEN = 12
"""A token's id has seven digits at most, and JSON's comma and space."""
MAX_CONNECTIONS = 80
"""`session.MAX_SESSIONS` streams, and questions beside them."""


def base_of(url: str) -> str:
    """An engine's address without the `/v1` that many write. Raises UserError where it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise UserError(f"“{url}” is no engine's address", hint="for example http://127.0.0.1:8000")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


class EngineClient:
    """Speaks with one engine. An async context manager.

    Args:
        url: where it is, as `base_of` gives it.
        key: what `Authorization: Bearer` says; "" for none.

    """

    def __init__(self, url: str, *, key: str = "") -> None:
        self.url = url
        headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            # reading has deadlines of its own, around what is awaited
            timeout=httpx.Timeout(None, connect=CONNECT_S, write=CONNECT_S, pool=CONNECT_S),
            # each request has a connection of its own: one that is kept may be closed just as it is used again
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0),
            trust_env=False,  # a proxy for the web is none for an engine, and .netrc no place for its key
        )

    async def __aenter__(self) -> Self:
        """Open it."""
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all its connections."""
        with trio.CancelScope(shield=True):
            await self._http.aclose()

    async def ask(self, path: str, *, within_s: float | None = None) -> tuple[int, bytes]:
        """GET a path: the status and the body. Raises UnavailableError where no answer comes in time."""
        with self._failures(), trio.fail_after(ANSWER_S if within_s is None else within_s):
            async with self._http.stream("GET", path) as response:
                return response.status_code, await self._body(response, MAX_ANSWER)

    async def ask_json(self, path: str) -> Any:
        """GET a path: what its JSON says, or None where it has no such path or it's no JSON."""
        status, body = await self.ask(path)
        if status != httpx.codes.OK:
            return None
        try:
            return strict_json.loads(body)
        except (ValueError, RecursionError):
            return None

    @asynccontextmanager
    async def stream(self, can: Abilities, wish: Wish) -> AsyncIterator["Stream"]:
        """A stream of a text; leaving it ends the request. Raises UnavailableError where the engine refuses."""
        path, body = engine_api.request(can, wish)
        request = self._http.build_request("POST", path, json=body)
        with self._failures():
            with trio.fail_after(FIRST_S):  # some answer nothing before the first token
                response = await self._http.send(request, stream=True)
            async with aclosing(response):
                if response.status_code != httpx.codes.OK:
                    raise await self._refused(response)
                kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind != "text/event-stream":
                    raise self.fault(f"answered with {kind[:40] or 'nothing that is named'} where a stream was due")
                size = EVENT_BYTES + BYTES_A_TOKEN * len(wish.prompt)
                yield Stream(self, can, response, EventReader(size))

    def fault(self, what: str, **fields: Any) -> UnavailableError:
        """The error that says what the engine did."""
        return UnavailableError(f"the engine at {self.url} {what}", hint="see its log", engine=self.url, **fields)

    async def _refused(self, response: httpx.Response) -> UnavailableError:
        with trio.fail_after(ANSWER_S):
            text = await self._body(response, MAX_COMPLAINT)
        try:
            line = engine_api.complaint(strict_json.loads(text))
        except (ValueError, RecursionError):
            line = " ".join(text[:200].decode("utf-8", "replace").split())
        status = response.status_code
        return self.fault(f"refused a text ({status}): {line}", status=status)

    async def _body(self, response: httpx.Response, most: int) -> bytes:
        """The body, of which no more than `most` bytes are held."""
        body = bytearray()
        self.check_plain(response)
        async for piece in response.aiter_raw():
            body += piece
            if len(body) > most:
                if response.status_code == httpx.codes.OK:
                    raise self.fault(f"answered with more than {most} bytes")
                break
        return bytes(body[:most])

    def check_plain(self, response: httpx.Response) -> None:
        """Raise UnavailableError where it compresses, though it was asked not to: a few bytes could become many."""
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise self.fault("compresses its answers, though it was asked not to")

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as exc:
            raise UnavailableError(
                f"no engine answers at {self.url}",
                hint="start it, or give another --engine-url",
                engine=self.url,
                gone=True,
            ) from exc
        except trio.TooSlowError as exc:
            raise self.fault("does not answer in time") from exc
        except (httpx.TimeoutException, httpx.NetworkError) as exc:
            raise self.fault(f"is gone ({type(exc).__name__})") from exc
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ssl.SSLError) as exc:
            raise self.fault(f"broke off, or speaks no proper HTTP: {str(exc)[:200]}") from exc


class Stream:
    """A text's events as they come."""

    def __init__(self, client: EngineClient, can: Abilities, response: httpx.Response, reader: EventReader) -> None:
        client.check_plain(response)
        self._client = client
        self._can = can
        self._bytes = response.aiter_raw()
        self._reader = reader
        self._events: deque[bytes] = deque()

    async def next(self) -> Piece | None:
        """The next piece, or None at the end. Raises UnavailableError where what came is none."""
        try:
            while not self._events:
                came = await anext(self._bytes, None)
                if came is None:
                    return None
                self._events.extend(self._reader.feed(came))
            return engine_api.read(self._can.make, self._events.popleft())
        except UnavailableError as exc:
            raise exc if exc.fields else self._client.fault(exc.message) from exc
