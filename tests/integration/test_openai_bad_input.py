"""The HTTP interface against clients that ask for what can't be, read nothing, or leave; others never notice."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from tests.integration.api import HELLO, MODEL, client_of, free
from tests.swarms import Node, node

TOKEN = "0123456789abcdef0123"
TOOL: Any = {"type": "function", "function": {"name": "walk"}}
UNMET = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 3}}, "required": ["a"]}


@pytest.fixture(autouse=True)
def others(nodes: list[Node], client: openai.OpenAI) -> Iterator[None]:
    """Another client's text is under way all the time, and comes to its end as if nothing were."""
    how: Any = {"model": MODEL, "prompt": "The traveller", "max_tokens": 60, "temperature": 0}
    before = client.completions.create(**how).choices[0].text
    stream = client.completions.create(**how, stream=True)
    begun = next(stream).choices[0].text
    yield
    assert begun + "".join(chunk.choices[0].text for chunk in stream) == before
    assert free(nodes)


def refused(client: openai.OpenAI, kind: type[openai.APIStatusError], **request: Any) -> dict[str, Any]:
    """The error that a chat is answered with, in OpenAI's shape."""
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**{"model": MODEL, "messages": HELLO, **request})
    error = caught.value.body
    assert isinstance(error, dict)
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return error


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": float("nan")}, ""),
        ({"top_p": -1}, "top_p"),
        ({"n": 99}, "n"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"logit_bias": {"lamp": 1}}, "logit_bias"),
        ({"stop": ["x" * 1_000_000] * 4}, "stop"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
        ({"tool_choice": "required"}, ""),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": UNMET}}}, "response"),
        ({"response_format": {"type": "json_object"}, "tools": [TOOL]}, "response_format"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": UNMET}}],
                "tool_choice": "required",
            },
            "tools",
        ),
    ],
    ids=range(14),
)
def test_what_cannot_be_is_refused_by_name(client: openai.OpenAI, request_: Any, param: str) -> None:
    """Impossible values, megabytes of stop strings and schemas that nothing meets are a 400 that says which."""
    body = json.dumps({"model": MODEL, "messages": HELLO, **request_})
    status, answer, _ = post(str(client.base_url), "chat/completions", body.encode())
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert (answer["error"]["param"] or "").startswith(param)
    assert len(answer["error"]["message"]) < 1000


def test_a_schema_whose_fault_lies_deep_is_told(client: openai.OpenAI) -> None:
    """The reason is the schema's own, not that something failed."""
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    error = refused(client, openai.BadRequestError, response_format=wanted)
    assert error["code"] == "invalid_schema"
    assert "look-around" in error["message"]


def test_a_schema_that_the_tail_gives_up_on_is_told(client: openai.OpenAI) -> None:
    """Too many ways to go on at one step shows only where tokens are chosen; it's the request's fault all the same."""
    schema = {"type": "object", "properties": {f"key {index}": {"type": "null"} for index in range(1200)}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    error = refused(client, openai.BadRequestError, response_format=wanted)
    assert (error["code"], error["param"]) == ("invalid_schema", "response_format")


def test_a_text_over_the_context_is_refused(client: openai.OpenAI) -> None:
    """A prompt that fills the context, and one that leaves less room than was asked for."""
    long: Any = [{"role": "user", "content": "lantern " * 2000}]
    error = refused(client, openai.BadRequestError, messages=long)
    assert error["code"] == "context_length_exceeded"
    assert "holds 1024 tokens" in error["message"]
    assert refused(client, openai.BadRequestError, max_tokens=1020)["code"] == "context_length_exceeded"


def test_ids_outside_the_vocabulary_are_refused(client: openai.OpenAI) -> None:
    """A token that there isn't, and no token at all."""
    for prompt, reason in (([5, 3540], "token 3540 is not in the vocabulary"), ([[]], "the prompt is empty")):
        with pytest.raises(openai.BadRequestError, match=reason):
            client.completions.create(model=MODEL, prompt=prompt)


def test_a_model_that_is_not_there_is_a_404(client: openai.OpenAI) -> None:
    """It says what there is."""
    error = refused(client, openai.NotFoundError, model="gpt-5")
    assert (error["code"], error["param"]) == ("model_not_found", "model")
    assert MODEL in error["message"]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")


def post(url: str, path: str, body: bytes, **headers: str) -> tuple[int, Any, Any]:
    """What the server answers to these bytes: status, JSON, headers."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    sent = {"Content-Type": "application/json", **headers}
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
            connection.request("POST", f"/v1/{path}", body, sent)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"\xff\xfe", {}, 400),
        (b"[" * 1_000_000, {}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"x", {"Content-Length": str(1 << 40)}, 413),
        (b" " * ((8 << 20) + 1), {}, 413),
    ],
    ids=["half", "no text", "deep", "no json", "claims a terabyte", "too large"],
)
def test_a_body_that_is_none_is_refused(nodes: list[Node], body: bytes, headers: dict[str, str], status: int) -> None:
    """Each with its own status, in OpenAI's shape."""
    found, answer, _ = post(nodes[0].ready["api"], "chat/completions", body, **headers)
    assert found == status
    assert answer["error"]["message"]


def test_paths_and_methods_that_are_not_there(nodes: list[Node]) -> None:
    """A 404 or 405 in OpenAI's shape."""
    assert post(nodes[0].ready["api"], "embeddings", b"{}")[0] == 404
    parts = urlsplit(nodes[0].ready["api"])
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request("GET", "/v1/chat/completions")
    answer = connection.getresponse()
    assert answer.status == 405
    assert "takes POST" in json.loads(answer.read())["error"]["message"]


@contextmanager
def raw(node: Node, request: dict[str, Any], *, buffer: int = 0) -> Iterator[socket.socket]:
    """A connection on which a completion has been asked for, and no more."""
    parts = urlsplit(node.ready["api"])
    body = json.dumps({"model": MODEL, "prompt": "The", **request}).encode()
    length = f"Content-Length: {len(body)}"
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    with socket.socket() as connection:
        if buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.settimeout(60)
        connection.connect((parts.hostname, parts.port))
        connection.sendall(head.encode() + body)
        yield connection


@pytest.mark.parametrize("which", [0, 1], ids=["head", "tail"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_every_stage(nodes: list[Node], which: int, stream: bool) -> None:
    """Whichever node it asked, in the middle of a stream or before any answer; the texts are far from their end."""
    with raw(nodes[which], {"max_tokens": 1000, "n": 3, "stream": stream}) as connection:
        if stream:
            assert connection.recv(100)
        assert any(node_.status()["owned_sessions"] >= 3 for node_ in [nodes[which]] for _ in range(500))
    assert any(nodes[which].status()["owned_sessions"] <= 1 for _ in range(200))
    assert any(max(each.status()["sessions"] for each in nodes) <= 1 for _ in range(200))


def test_a_client_that_reads_nothing_holds_nobody_up(nodes: list[Node], client: openai.OpenAI) -> None:
    """The stages are done with its text although it reads nothing: the tokens wait with their owner, who is bounded."""
    with raw(nodes[0], {"max_tokens": 300, "stream": True, "logprobs": 5}, buffer=4096):
        client.completions.create(model=MODEL, prompt="The", max_tokens=4)
        assert any(max(each.status()["sessions"] for each in nodes) == 0 for _ in range(5000))
        assert nodes[0].status()["owned_sessions"] == 1


@pytest.fixture(scope="module")
def lantern(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The model that ships, in one node that others could reach, with a token and hardly any room."""
    directory = tmp_path_factory.mktemp("lantern")
    token = directory / "token"
    token.touch(0o600)
    token.write_text(f"{TOKEN}\n")
    arguments = ("--layers", "0:6", "--api", "0.0.0.0:0", "--api-token-file", str(token), "--cache-tokens", "64")
    with node(directory / "n", None, *arguments) as running:
        running.ready["api"] = running.ready["api"].replace("0.0.0.0", "127.0.0.1")
        yield running


def test_a_node_that_is_full_says_so(lantern: Node) -> None:
    """With no room in a stage's cache the answer is 429, with when to try again."""
    body = json.dumps({"model": "lantern", "prompt": "The", "max_tokens": 100}).encode()
    status, answer, headers = post(lantern.ready["api"], "completions", body, Authorization=f"Bearer {TOKEN}")
    assert status == 429
    assert answer["error"]["code"] == "rate_limit_exceeded"
    assert int(headers["Retry-After"]) > 0


def test_a_token_keeps_others_out(lantern: Node) -> None:
    """With a token file the interface may listen anywhere, and answers those alone who bear it."""
    with client_of(lantern, api_key=TOKEN) as mine, client_of(lantern, api_key="wrong") as other:
        assert mine.completions.create(model="lantern", prompt="The", max_tokens=4).choices[0].text
        with pytest.raises(openai.AuthenticationError):
            other.models.list()


def test_a_model_without_a_template_says_so(lantern: Node) -> None:
    """The model that ships continues text, and can't chat."""
    with client_of(lantern, api_key=TOKEN) as client:
        assert "no chat template" in refused(client, openai.BadRequestError, model="lantern")["message"]
