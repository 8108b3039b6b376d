import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import UnavailableError
from p2pos.node.engine_api import Abilities, Make, Piece, Wish, complaint, read, refusal, request, seed_of
from p2pos.wire.messages import Grammar, Logprobs, Sampling

SCHEMA = Grammar("json_schema", '{"type": "integer"}')
DRAWN = Sampling(temperature=0.7, top_p=0.9, top_k=40, min_p=0.05, repetition_penalty=1.1, seed=7)
PROMPT = (5, 6, 7)


def engine(make: Make, **changes: Any) -> Abilities:
    tokens = make in {Make.VLLM, Make.SGLANG, Make.LLAMA}
    values: dict[str, Any] = {"make": make, "model": "m", "tokens": tokens, "context": 100, "places": 4}
    if make is Make.VLLM:
        values |= {"logprobs": True, "grammars": frozenset(["json_schema", "regex"])}
    return Abilities(**{**values, **changes})


def body(make: Make, sampling: Sampling, *, eos: tuple[int, ...] = (2,), given: int = 0) -> dict[str, Any]:
    can = engine(make)
    prompt = PROMPT if can.tokens else "text"
    return request(can, Wish(prompt, 9, eos, sampling, given))[1]


# what is asked for


def test_vllm_is_asked_in_tokens_with_every_field() -> None:
    """Prompt and text pass as ids, and nothing about the choice of tokens is left to vLLM's own defaults."""
    assert body(Make.VLLM, DRAWN) == {
        "model": "m",
        "prompt": PROMPT,
        "max_tokens": 9,
        "stream": True,
        "seed": 7,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop_token_ids": [2],
        "ignore_eos": True,
        "return_token_ids": True,
    }


def test_what_few_ask_for_is_sent_where_it_is_asked_for() -> None:
    """Bias, log-probabilities and grammars have the fields that each engine knows."""
    wanted = Sampling(logit_bias=[(5, -1.5)], logprobs=3, grammar=SCHEMA)
    vllm = body(Make.VLLM, wanted)
    assert (vllm["logit_bias"], vllm["logprobs"], vllm["return_tokens_as_token_ids"]) == ({"5": -1.5}, 2, True)
    assert vllm["structured_outputs"] == {"json": SCHEMA.text}
    assert body(Make.SGLANG, Sampling(grammar=SCHEMA))["json_schema"] == SCHEMA.text
    assert body(Make.SGLANG, Sampling(grammar=Grammar("regex", "a+")))["regex"] == "a+"
    llama = body(Make.LLAMA, Sampling(logit_bias=[(5, -1.5)], grammar=SCHEMA))
    assert (llama["logit_bias"], llama["json_schema"]) == ([[5, -1.5]], {"type": "integer"})


@pytest.mark.parametrize("make", list(Make))
def test_greedy_is_greedy_whatever_else_is_asked(make: Make) -> None:
    """With temperature 0 no filter that would make an engine draw is sent to any."""
    sent = body(make, Sampling(top_p=0.5, top_k=3, min_p=0.2))
    config = json.loads(sent.get("generation_config", "{}"))
    if make is Make.TRANSFORMERS:
        assert config["do_sample"] is False
        assert {"top_k", "top_p", "min_p"}.isdisjoint(config)
    else:
        assert (sent["temperature"], sent["top_p"]) == (0.0, 1.0)
        assert sent.get("top_k", -1) < 1
        assert not sent.get("min_p", 0.0)


def test_transformers_is_told_all_in_its_generation_config() -> None:
    """Its OpenAI fields mean other things to it, so none of them is used; where nothing ends a text, no id that is."""
    sent = body(Make.TRANSFORMERS, DRAWN)
    assert set(sent) == {"model", "prompt", "stream", "seed", "generation_config"}
    assert json.loads(sent["generation_config"]) == {
        "max_new_tokens": 9,
        "eos_token_id": [2],
        "repetition_penalty": 1.1,
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
    }
    endless = json.loads(body(Make.TRANSFORMERS, DRAWN, eos=())["generation_config"])
    assert min(endless["eos_token_id"]) > 1 << 30


def test_a_text_that_goes_on_is_not_drawn_as_its_beginning_was() -> None:
    """The seed of the rest depends on how much is given, and always fits 31 bits."""
    seeds = [seed_of(Sampling(seed=(1 << 63) - 1), count) for count in range(50)]
    assert len(set(seeds)) == 50
    assert all(0 <= seed < 1 << 31 for seed in seeds)
    assert seed_of(Sampling(seed=42), 0) == 42


# what is refused


@pytest.mark.parametrize(
    ("make", "sampling", "given_", "why"),
    [
        (Make.VLLM, Sampling(grammar=Grammar("lark", "start: 'a'")), False, "grammar (lark)"),
        (Make.VLLM, Sampling(grammar=SCHEMA), True, "go on with a text"),
        (Make.VLLM, Sampling(presence_penalty=1.0), True, "text so far"),
        (Make.SGLANG, Sampling(logprobs=1), False, "log-probabilities"),
        (Make.LLAMA, Sampling(frequency_penalty=1.0), False, "penalty over the text alone"),
        (Make.TRANSFORMERS, Sampling(presence_penalty=1.0), False, "penalty over the text alone"),
        (Make.TRANSFORMERS, Sampling(grammar=SCHEMA), False, "grammar (json_schema)"),
        (Make.OTHER, Sampling(repetition_penalty=1.1), False, "repetition penalty"),
        (Make.OTHER, Sampling(logit_bias=[(1, 1.0)]), False, "logit_bias"),
        (Make.OTHER, Sampling(temperature=1.0, top_k=5), False, "top_k"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(make: Make, sampling: Sampling, given_: bool, why: str) -> None:
    """Nothing that a session asks for is left out: the node says what its engine can't do."""
    assert why in refusal(engine(make), sampling, [2], given=given_)


def test_what_an_engine_can_do_is_not_refused() -> None:
    """Plain requests go everywhere, and filters that greedy choice makes idle are no hindrance."""
    for make in Make:
        assert refusal(engine(make), Sampling(), [2], given=True) == ""
        assert refusal(engine(make), Sampling(top_k=5, min_p=0.1), [2], given=False) == ""
    for make in (Make.VLLM, Make.SGLANG, Make.LLAMA, Make.TRANSFORMERS):
        assert refusal(engine(make), DRAWN, [2], given=False) == ""


def test_an_engine_that_ends_texts_by_itself_is_not_asked_for_endless_ones() -> None:
    """Where nothing is to end a text, only engines that can be told so are asked."""
    assert [bool(refusal(engine(make), Sampling(), [], given=False)) for make in Make] == [
        make in {Make.LLAMA, Make.OTHER} for make in Make
    ]


# what comes back


def event(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_events_of_each_make_are_read() -> None:
    """Tokens, text, the end, and what was made of the prompt stand where each engine puts them."""
    first = event(id="x", choices=[{"index": 0, "text": "a", "token_ids": [4], "prompt_token_ids": [5, 6, 7]}])
    assert read(Make.VLLM, first) == Piece("a", (4,), prompt=PROMPT)
    last = event(choices=[{"text": "", "finish_reason": "length", "token_ids": []}], usage={"prompt_tokens": 3})
    assert read(Make.SGLANG, last) == Piece(finish="length", prompt_count=3)
    assert read(Make.LLAMA, event(content="a", tokens=[4], stop=False)) == Piece("a", (4,))
    ended = event(content="", tokens=[], stop=True, stop_type="eos", tokens_evaluated=3)
    assert read(Make.LLAMA, ended) == Piece(finish="stop", prompt_count=3)
    assert read(Make.OTHER, event(choices=[], usage={"prompt_tokens": 3})) == Piece(prompt_count=3)
    assert read(Make.VLLM, b"[DONE]") is None


def test_log_probabilities_come_likeliest_first() -> None:
    """vLLM's are read by token id, and only where they are of the tokens that came."""
    scores = {
        "tokens": ["token_id:4"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"token_id:9": -0.7, "token_id:4": -0.5}],
    }
    piece = read(Make.VLLM, event(choices=[{"text": "a", "token_ids": [4], "logprobs": scores}]))
    assert piece is not None
    assert piece.logprobs == (Logprobs(-0.5, [(4, -0.5), (9, -0.7)]),)
    for wrong in ({"tokens": ["token_id:5"]}, {"tokens": ["a"]}, {"token_logprobs": [None]}, {"tokens": []}):
        with pytest.raises(UnavailableError):
            read(Make.VLLM, event(choices=[{"token_ids": [4], "logprobs": scores | wrong}]))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"error": {"message": "out of\\nmemory", "code": 500}}', "reports: out of memory"),
        (b'{"error": "CUDA error"}', "reports: CUDA error"),
        (b'{"object": "error", "message": "gone"}', "reports: gone"),
        (event(choices=[{"text": "", "finish_reason": "abort"}]), "reason of its own: 'abort'"),
        (event(choices=[{}, {}]), "no event of vLLM"),
        (event(choices="x"), "no event of vLLM"),
        (b"<html>", "no event of vLLM: '<html>'"),
        (b'{"choices": [{"text": 1e999}]}', "no event of vLLM"),
        (b"[" * 10_000, "no event of vLLM"),
        (b"\xff\xfe", "no event of vLLM"),
    ],
)
def test_what_is_no_event_is_told_in_a_line(data: bytes, why: str) -> None:
    """An error, or nonsense, is an UnavailableError of one line that shows what came."""
    with pytest.raises(UnavailableError) as caught:
        read(Make.VLLM, data)
    assert why in caught.value.message
    assert "\n" not in caught.value.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "text", "token_ids", "error", "usage", "content", "tokens", "stop", "logprobs"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON | st.binary(max_size=50), st.sampled_from(list(Make)))
def test_no_event_does_harm(value: Any, make: Make) -> None:
    """Whatever an engine sends is read, or refused with an UnavailableError."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with suppress(UnavailableError):
        read(make, data)


@given(JSON)
def test_a_complaint_is_one_short_line(value: Any) -> None:
    """However an engine words its errors, what is shown is a line."""
    line = complaint(value)
    assert len(line) <= 300
    assert "\n" not in line
