import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.node.openai.errors import ApiError
from p2pos.node.openai.requests import ChatRequest, CompletionRequest, read, seed_of
from p2pos.shard.generation import Defaults
from p2pos.wire import codec
from p2pos.wire.messages import MAX_INT, Open, StageRef

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
COMPLETION: dict[str, Any] = {"model": "m", "prompt": "Hello"}
TOOL = {"type": "function", "function": {"name": "walk"}}


def chat(**changes: Any) -> ChatRequest:
    return read(ChatRequest, json.dumps({**CHAT, **changes}).encode())


def completion(**changes: Any) -> CompletionRequest:
    return read(CompletionRequest, json.dumps({**COMPLETION, **changes}).encode())


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1 << 40}, "max_tokens"),
        ({"seed": 1 << 70}, "seed"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {str(token): 1 for token in range(2000)}}, "logit_bias"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
        ({"stop": ["a"] * 5}, "stop."),
        ({"stop": "x" * 4_000_000}, "stop."),
        ({"model": ""}, "model"),
        ({"top_k": -1}, "top_k"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_impossible_values_are_named(changes: dict[str, Any], param: str) -> None:
    """Both kinds of request refuse them with the field at fault, in a short message."""
    for ask in (chat, completion):
        with pytest.raises(ApiError) as caught:
            ask(**changes)
        assert caught.value.status == 400
        assert caught.value.param.startswith(param)
        assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": []},
        {"messages": [{"role": "robot", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"top_logprobs": 3},
        {"logprobs": True, "top_logprobs": 21},
        {"tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "fly"}}},
        {"tools": [TOOL, TOOL]},
        {"tools": [{"type": "function", "function": {"name": "no spaces allowed"}}]},
        {"tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(200)]},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "xml"}},
        {"functions": [{"name": "f"}]},
        {"audio": {}, "modalities": ["audio"]},
    ],
    ids=json.dumps,
)
def test_impossible_chats_are_refused(changes: dict[str, Any]) -> None:
    """What is not supported, or contradicts itself, is a 400."""
    with pytest.raises(ApiError) as caught:
        chat(**changes)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "changes",
    [
        {"suffix": "end"},
        {"best_of": 3},
        {"logprobs": 6},
        {"echo": True, "logprobs": 1},
        {"prompt": [["x"]]},
        {"prompt": [-1]},
        {"prompt": [1 << 31]},
        {"prompt": ["a"] * 17},
        {"prompt": ["a"] * 4, "n": 5},
    ],
    ids=json.dumps,
)
def test_impossible_completions_are_refused(changes: dict[str, Any]) -> None:
    """What is not supported, or too much at once, is a 400."""
    with pytest.raises(ApiError) as caught:
        completion(**changes)
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"model": "\\ud800"}'])
def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    """Whatever bytes come, the answer is a 400 and not a traceback."""
    with pytest.raises(ApiError):
        read(ChatRequest, body)


def test_fields_of_a_hosted_service_are_passed_over() -> None:
    """Who the end user is, or how it is billed, means nothing here and changes no text."""
    assert chat(user="me", store=True, metadata={"a": "b"}, service_tier="auto").model == "m"


def test_the_authors_defaults_count_where_the_request_says_nothing() -> None:
    """The request comes first, then the model's author; where the author doesn't sample, OpenAI's temperature of 1."""
    author = Defaults(temperature=0.6, top_p=0.9, top_k=20, repetition_penalty=1.1)
    made = chat(top_k=7).sampling(author, seed=1, logprobs=0, grammar=None)
    assert (made.temperature, made.top_p, made.top_k, made.repetition_penalty) == (0.6, 0.9, 7, 1.1)
    greedy = chat().sampling(Defaults(repetition_penalty=1.1), seed=1, logprobs=0, grammar=None)
    assert (greedy.temperature, greedy.top_p, greedy.top_k, greedy.repetition_penalty) == (1.0, 1.0, 0, 1.1)
    assert chat(temperature=0).sampling(author, seed=1, logprobs=0, grammar=None).temperature == 0.0


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "temperature": st.floats(0, 2),
            "top_p": st.floats(0, 1),
            "top_k": st.integers(0, 1 << 20),
            "min_p": st.floats(0, 1),
            "repetition_penalty": st.floats(0.001, 100),
            "presence_penalty": st.floats(-2, 2),
            "frequency_penalty": st.floats(-2, 2),
            "logit_bias": st.dictionaries(st.integers(0, (1 << 31) - 1).map(str), st.floats(-100, 100), max_size=5),
            "seed": st.integers(-MAX_INT - 1, MAX_INT),
        },
    )
)
def test_what_is_accepted_the_wire_accepts_too(changes: dict[str, Any]) -> None:
    """No request gets through here only to be refused by a stage as malformed."""
    request = chat(**changes)
    sampling = request.sampling(Defaults(), seed=seed_of(request.seed or 0, 3), logprobs=21, grammar=None)
    order = Open(bytes(16), "m", "owner-peer", [StageRef("stage-peer", [], 0, 1)], 0, 1, 1, [], sampling, [])
    assert codec.decode(codec.encode(order), peer="p") == order


def test_seeds_of_one_request_differ() -> None:
    """Each text of a request has its own, the first the request's."""
    assert seed_of(5, 0) == 5
    assert len({seed_of(5, index) for index in range(16)}) == 16
    assert seed_of(-1, 0) == MAX_INT


def test_prompts_are_told_apart() -> None:
    """Text, ids, several texts and several lists of ids."""
    assert completion(prompt="a").prompts == ["a"]
    assert completion(prompt=[1, 2]).prompts == [[1, 2]]
    assert completion(prompt=["a", "b"]).prompts == ["a", "b"]
    assert completion(prompt=[[1], [2, 3]]).prompts == [[1], [2, 3]]


def test_a_message_of_parts_is_their_text() -> None:
    """Content may be a list of text parts."""
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    assert chat(messages=[{"role": "user", "content": parts}]).messages[0].text == "Hello"
