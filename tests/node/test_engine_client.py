"""What the client of an engine makes of servers that misbehave: real ones, over real sockets."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from p2pos.errors import P2posError, UnavailableError, UserError
from p2pos.node import engine_client
from p2pos.node.engine_api import Abilities, Make, Piece, Wish
from p2pos.node.engine_client import EngineClient, base_of
from p2pos.wire.messages import Sampling
from tests.engines import STREAM, Behave, answer, event, free_port, misbehaving

CAN = Abilities(Make.VLLM, "m", tokens=True, context=100, places=4)
WISH = Wish((5, 6, 7), 9, (2,), Sampling())
TOKEN = event(choices=[{"text": "a", "token_ids": [4]}])


def with_engine(behave: Behave, act: Callable[[EngineClient], Awaitable[Any]], *, key: str = "") -> Any:
    """Serve as `behave` does, and give what `act` makes of it."""

    async def main() -> Any:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(misbehaving, behave)
            async with EngineClient(url, key=key) as client:
                result = await act(client)
            nursery.cancel_scope.cancel()
        return result

    return trio.run(main)


def sends(*pieces: bytes) -> Behave:
    async def behave(stream: trio.SocketStream, _line: str, _body: bytes) -> None:
        for piece in pieces:
            await stream.send_all(piece)

    return behave


async def read_all(client: EngineClient) -> list[Piece]:
    pieces = []
    async with client.stream(CAN, WISH) as stream:
        while (piece := await stream.next()) is not None:
            pieces.append(piece)
    return pieces


def failure(*pieces: bytes) -> str:
    """The message that reading such a stream ends with."""

    async def act(client: EngineClient) -> P2posError:
        with pytest.raises(UnavailableError) as caught:
            await read_all(client)
        return caught.value

    error = with_engine(sends(*pieces), act)
    assert error.message.startswith("the engine at http://127.0.0.1:")
    assert "\n" not in str(error)
    return error.message.split(" ", 4)[4]


def test_a_stream_is_read_as_it_comes() -> None:
    """Events cut anywhere, between comments, are the pieces that the engine sent."""
    data = b": ping\n\n" + TOKEN + TOKEN.replace(b"\n\n", b"\r\n\r\n") + b"data: [DONE]\n\n"
    cut = [data[at : at + 7] for at in range(0, len(data), 7)]
    assert with_engine(sends(STREAM, *cut), read_all) == [Piece("a", (4,))] * 2


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ((answer({"choices": []}),), "answered with application/json where a stream was due"),
        ((answer(b"<html>", kind="text/html"),), "answered with text/html where a stream was due"),
        ((answer({"error": {"message": "too\nlong"}}, status="400 Bad Request"),), "refused a text (400): too long"),
        ((answer(b"x" * 100_000, status="503 Busy"),), "refused a text (503): xxx"),
        ((answer(b"", status="302 Found", more="Location: http://127.0.0.1:9/\r\n"),), "refused a text (302)"),
        ((STREAM, b"data: <html>\n\n"), "sent what is no event of vLLM"),
        ((STREAM, b"data: \xff\xfe\n\n"), "sent what is no event of vLLM"),
        ((STREAM, b'data: {"error": "CUDA error"}\n\n'), "reports: CUDA error"),
        ((STREAM, *[b"data: " + b"x" * 65536] * 5), "sent an event of more than"),
        ((STREAM, *[b"data: x\n" * 8192] * 20), "sent an event of more than"),
        (
            (STREAM.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), b"\x1f\x8b"),
            "compresses its answers",
        ),
        ((STREAM.replace(b"Connection: close", b"Content-Length: 999"), TOKEN), "broke off, or speaks no proper HTTP"),
        ((b"SSH-2.0-OpenSSH_9.6\r\n",), "broke off, or speaks no proper HTTP"),
        ((b"",), "broke off, or speaks no proper HTTP"),
        ((b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000,), "broke off, or speaks no proper HTTP"),
        ((b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",), "HTTP"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_nonsense_is_one_line_that_says_what_came(pieces: tuple[bytes, ...], why: str) -> None:
    """A wrong type, a refusal, an endless event, compression or no HTTP at all is one UnavailableError."""
    assert why in failure(*pieces)


def test_a_stream_that_ends_early_is_seen_to_end() -> None:
    """A connection that closes after a token gives that token, and then the end."""
    assert with_engine(sends(STREAM, TOKEN), read_all) == [Piece("a", (4,))]


def test_an_engine_that_is_not_there_is_told_apart() -> None:
    """Where nothing listens, the line says to start it, and that it is gone."""

    async def main() -> None:
        async with EngineClient(f"http://127.0.0.1:{free_port()}") as client:
            with pytest.raises(UnavailableError, match="no engine answers at http") as caught:
                await client.ask("/v1/models")
            assert caught.value.fields["gone"]

    trio.run(main)


def test_a_question_that_is_not_answered_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that accepts and says nothing is left when its time is up."""
    monkeypatch.setattr(engine_client, "ANSWER_S", 0.05)

    async def silent(stream: trio.SocketStream, _line: str, _body: bytes) -> None:
        await trio.sleep_forever()

    async def act(client: EngineClient) -> None:
        with pytest.raises(UnavailableError, match="does not answer in time"):
            await client.ask("/v1/models")

    with_engine(silent, act)


def test_an_answer_is_bounded() -> None:
    """No more of an answer is held than the largest that an engine has reason to send."""

    async def endless(stream: trio.SocketStream, _line: str, _body: bytes) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
        while True:
            await stream.send_all(b" " * 65536)

    async def act(client: EngineClient) -> None:
        with pytest.raises(UnavailableError, match="more than"):
            await client.ask("/v1/models")

    with_engine(endless, act)


def test_leaving_a_stream_ends_the_request() -> None:
    """An engine sees its connection closed when nobody wants the text any more."""

    async def main() -> None:
        closed = trio.Event()

        async def behave(stream: trio.SocketStream, _line: str, _body: bytes) -> None:
            await stream.send_all(STREAM + TOKEN)
            assert await stream.receive_some(1) == b""
            closed.set()

        async with trio.open_nursery() as nursery:
            url = await nursery.start(misbehaving, behave)
            async with EngineClient(url) as client:
                async with client.stream(CAN, WISH) as stream:
                    assert await stream.next() == Piece("a", (4,))
                with trio.fail_after(5):
                    await closed.wait()
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_the_key_goes_along() -> None:
    """A key is sent as a bearer token, and nothing is asked to be compressed."""
    heads: list[bytes] = []

    async def main() -> None:
        async def behave(stream: trio.SocketStream, line: str, _body: bytes) -> None:
            heads.append(line.encode())
            await stream.send_all(answer({"data": []}))

        async with trio.open_nursery() as nursery:
            url = await nursery.start(misbehaving, behave)
            async with EngineClient(url, key="a-secret-of-mine") as client:
                assert client._http.headers["authorization"] == "Bearer a-secret-of-mine"
                assert client._http.headers["accept-encoding"] == "identity"
                assert await client.ask("/v1/models") == (200, b'{"data": []}')
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert heads == [b"GET /v1/models HTTP/1.1"]


@pytest.mark.parametrize("url", ["http://h:8000", "http://h:8000/", "http://h:8000/v1", "http://h:8000/v1/"])
def test_an_address_is_taken_with_or_without_v1(url: str) -> None:
    """OpenAI's clients want `/v1` in it, people leave it out: both are the same engine."""
    assert base_of(url) == "http://h:8000"


@pytest.mark.parametrize("url", ["h:8000", "ftp://h", "http://", "http://h:x", "http://u:p@h", "http://h/?a=1", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    """A key in the address, a query, or no address at all is the person's mistake."""
    with pytest.raises(UserError, match="no engine's address"):
        base_of(url)
