from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from p2pos.errors import UserError
from p2pos.node.guard import Guard, is_loopback, read_token

TOKEN = "0123456789abcdef"


async def ok(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


APP = Starlette(routes=[Route("/healthz", ok), Route("/status", ok), Route("/v1/models", ok)])


def status_of(path: str, *, token: str = TOKEN, local: bool = False, **headers: str) -> int:
    client = TestClient(Guard(APP, token=token, local=local), base_url="http://node.example")
    return client.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()}).status_code


@pytest.mark.parametrize("path", ["/status", "/v1/models", "/nowhere"])
def test_the_token_opens_every_path(path: str) -> None:
    """Without it, with a wrong one or another scheme it's 401; with it the path's own answer."""
    assert status_of(path) == 401
    assert status_of(path, authorization="Bearer wrong") == 401
    assert status_of(path, authorization=f"Basic {TOKEN}") == 401
    assert status_of(path, authorization=f"Bearer {TOKEN}x") == 401
    assert status_of(path, authorization=f"Bearer {TOKEN}") == (404 if path == "/nowhere" else 200)
    assert status_of(path, authorization=f"bearer  {TOKEN}") == (404 if path == "/nowhere" else 200)


def test_the_refusal_is_openais() -> None:
    """Clients of OpenAI's read the code."""
    answer = TestClient(Guard(APP, token=TOKEN, local=False)).get("/v1/models")
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_health_needs_no_token() -> None:
    """A load balancer's probe has none."""
    assert status_of("/healthz") == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8080", 200), ("127.0.0.1", 200), ("[::1]:99", 200), ("evil.example", 403), ("127.0.0.1.nip.io", 403)],
)
def test_a_web_page_cannot_reach_loopback_by_a_name_of_its_own(host: str, status: int) -> None:
    """A name that an attacker points at 127.0.0.1 is refused."""
    assert status_of("/status", token="", local=True, host=host) == status


def test_only_loopback_does_without_a_token() -> None:
    """Anything that others can reach, or might, is refused without one."""
    assert all(is_loopback(host, token="") for host in ("127.0.0.1", "localhost", "::1"))
    assert not is_loopback("0.0.0.0", token=TOKEN)
    for host in ("0.0.0.0", "::", "192.168.1.5", "node.example"):
        with pytest.raises(UserError, match="there is no token"):
            is_loopback(host, token="")


def test_a_token_is_its_files_first_line(tmp_path: Path) -> None:
    """White space around it doesn't count."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN} \nanother\n")
    path.chmod(0o600)
    assert read_token(path) == TOKEN


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (TOKEN, 0o644, "can be read by others"),
        ("short", 0o600, "holds no token"),
        ("", 0o600, "holds no token"),
        ("two words of some length", 0o600, "holds no token"),
        ("ä" * 20, 0o600, "holds no token"),
        ("x" * 5000, 0o600, "holds no token"),
        (None, 0o600, "can't be read"),
    ],
)
def test_a_token_file_that_is_none_is_named(tmp_path: Path, content: Any, mode: int, reason: str) -> None:
    """Loose permissions, no token, one too short, no file."""
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content, encoding="utf-8")
        path.chmod(mode)
    with pytest.raises(UserError, match=reason):
        read_token(path)
