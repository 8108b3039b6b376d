"""The HTTP interface as the official client meets it, over two real processes that hold half of a model each."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest
import torch
from tokenizers import Tokenizer

from tests import checkpoints
from tests.integration.api import HELLO, MODEL, client_of
from tests.swarms import Node

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "kind": {"enum": ["lamp", "coin"]},
    },
    "required": ["name", "count", "kind"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "light", "description": "Light a lamp", "parameters": SCHEMA}},
    {
        "type": "function",
        "function": {
            "name": "walk",
            "parameters": {
                "$defs": {"way": {"enum": ["north", "south"]}},
                "type": "object",
                "properties": {"way": {"$ref": "#/$defs/way"}},
                "required": ["way"],
                "additionalProperties": False,
            },
        },
    },
]


# what is served


def test_every_node_lists_the_models_of_the_swarm(nodes: list[Node]) -> None:
    """Head and tail know the same model, by name and by id."""
    for each in nodes:
        with client_of(each) as client:
            models = client.models.list().data
            assert [model.id for model in models] == [MODEL]
            assert client.models.retrieve(MODEL).id == MODEL
            assert client.models.retrieve(each.status()["model"]).id == MODEL


# text


@pytest.fixture(scope="module")
def reference(chat_checkpoint: Path) -> Any:
    return checkpoints.whole(chat_checkpoint)


def greedy(reference: Any, prompt: list[int], count: int) -> tuple[list[int], torch.Tensor]:
    """transformers' greedy tokens, and the log-probabilities of every token at each of them."""
    ids = torch.tensor([prompt])
    with torch.no_grad():
        out = reference.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    return out.sequences[0, len(prompt) :].tolist(), torch.cat(out.logits).log_softmax(-1)


def test_a_completion_is_transformers_text(nodes: list[Node], reference: Any, tokenizer: Tokenizer) -> None:
    """Greedy text through both nodes' interfaces is that of transformers' own generate, and so is its usage."""
    prompt = tokenizer.encode("The traveller lifted").ids
    tokens, _ = greedy(reference, prompt, 24)
    for each in nodes:
        with client_of(each) as client:
            answer = client.completions.create(model=MODEL, prompt="The traveller lifted", max_tokens=24, temperature=0)
        assert answer.choices[0].text.rstrip("�") == tokenizer.decode(tokens).rstrip("�")
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(prompt), 24)


def test_token_ids_are_a_prompt_too(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    """A prompt may be ids, and several prompts are one request, each answered as it would be alone."""
    texts = ["The traveller", "A bronze lantern"]
    ids = [tokenizer.encode(text).ids for text in texts]
    asked: list[Any] = [texts[0], ids[0], texts, ids]
    answers = [client.completions.create(model=MODEL, prompt=p, max_tokens=6, temperature=0).choices for p in asked]
    assert answers[0][0].text == answers[1][0].text == answers[2][0].text == answers[3][0].text
    assert answers[2][1].text == answers[3][1].text != answers[2][0].text
    assert [choice.index for choice in answers[2]] == [0, 1]


def test_an_echo_is_the_prompt(client: openai.OpenAI) -> None:
    """With echo the text begins with the prompt, whole and streamed."""
    how: Any = {"model": MODEL, "prompt": "The traveller", "max_tokens": 4, "temperature": 0}
    plain = client.completions.create(**how).choices[0].text
    assert client.completions.create(**how, echo=True).choices[0].text == "The traveller" + plain
    chunks = client.completions.create(**how, echo=True, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "The traveller" + plain


def test_a_chat_is_the_templates_prompt(client: openai.OpenAI) -> None:
    """What a chat answers is what a completion answers to the prompt that the template makes of it."""
    chat = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "developer", "content": "Be brief"}, *HELLO],
        max_completion_tokens=12,
        temperature=0,
    )
    # a completion's prompt gets a beginning-of-sequence token, a chat's is left to the template
    prompt = "system: Be brief\nuser: Hello, lantern\nassistant: "
    ids = Tokenizer.from_file("p2pos/models/lantern/tokenizer.json").encode(prompt, add_special_tokens=False).ids
    text = client.completions.create(model=MODEL, prompt=ids, max_tokens=12, temperature=0)
    assert chat.choices[0].message.content == text.choices[0].text
    assert chat.choices[0].message.role == "assistant"
    assert chat.usage is not None
    assert chat.usage.prompt_tokens == len(ids)


@pytest.mark.parametrize("extra", [{}, {"stop": ["a", "st"]}, {"logprobs": True, "top_logprobs": 2, "n": 2}])
def test_a_stream_put_together_is_the_whole_answer(client: openai.OpenAI, extra: Any) -> None:
    """Chunks joined give the same text, log-probabilities, reason and usage as the answer in one piece."""
    how = {"model": MODEL, "messages": HELLO, "max_tokens": 24, "temperature": 0.8, "seed": 7, **extra}
    whole = client.chat.completions.create(**how)
    chunks = list(client.chat.completions.create(**how, stream=True, stream_options={"include_usage": True}))
    for choice in whole.choices:
        mine = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
        assert mine[0].delta.role == "assistant"
        assert "".join(c.delta.content or "" for c in mine) == choice.message.content
        assert [c.finish_reason for c in mine if c.finish_reason] == [choice.finish_reason]
        streamed = [entry for c in mine if c.logprobs for entry in c.logprobs.content or ()]
        entries = (choice.logprobs and choice.logprobs.content) or []
        assert [entry.token for entry in streamed] == [entry.token for entry in entries]
        # in fp32 a product's last bits depend on what else it was computed with
        assert [entry.logprob for entry in streamed] == pytest.approx([entry.logprob for entry in entries], abs=1e-4)
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_a_stop_string_ends_the_text(client: openai.OpenAI) -> None:
    """Nothing of it is shown, in one piece or streamed, and its sessions end."""
    how: Any = {"model": MODEL, "prompt": "The traveller", "max_tokens": 24, "temperature": 0}
    full = client.completions.create(**how).choices[0].text
    stop = full[8:11]
    answer = client.completions.create(**how, stop=stop).choices[0]
    assert answer.text == full[: full.index(stop)]
    assert answer.finish_reason == "stop"
    streamed = client.completions.create(**how, stop=[stop, "never there"], stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == answer.text


def test_logprobs_are_transformers_own(client: openai.OpenAI, reference: Any, tokenizer: Tokenizer) -> None:
    """Of the chosen token and the likeliest ones, equal to log_softmax over transformers' logits."""
    prompt = tokenizer.encode("The traveller lifted").ids
    tokens, expected = greedy(reference, prompt, 6)
    answer = client.completions.create(model=MODEL, prompt=prompt, max_tokens=6, temperature=0, logprobs=3)
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.token_logprobs is not None
    for index, token in enumerate(tokens):
        assert found.token_logprobs[index] == pytest.approx(float(expected[index, token]), abs=1e-4)
        best = expected[index].topk(3).values.tolist()
        assert sorted(found.top_logprobs[index].values(), reverse=True) == pytest.approx(best, abs=1e-4)


def test_the_bytes_of_logprobs_are_the_text(client: openai.OpenAI) -> None:
    """Tokens may be parts of characters; their bytes, joined, are the text."""
    answer = client.chat.completions.create(
        model=MODEL,
        messages=HELLO,
        max_tokens=40,
        temperature=2.0,
        seed=1,
        logprobs=True,
        logit_bias={"0": -100, "2": -100},  # special tokens have a name, and no text
    ).choices[0]
    assert answer.logprobs is not None
    data = b"".join(bytes(entry.bytes or ()) for entry in answer.logprobs.content or ())
    assert data.decode("utf-8", "replace").rstrip("�") == (answer.message.content or "").rstrip("�")


def test_a_seed_fixes_the_text(client: openai.OpenAI) -> None:
    """The same seed gives the same texts, another gives others, and the texts of one request differ."""

    def texts(seed: int) -> list[str]:
        made = client.completions.create(model=MODEL, prompt="The", max_tokens=12, seed=seed, n=3, temperature=1.5)
        assert made.usage is not None
        assert made.usage.completion_tokens == 36
        return [choice.text for choice in made.choices]

    first = texts(11)
    assert first == texts(11) != texts(12)
    assert len(set(first)) == 3


def test_penalties_and_bias_change_the_text(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    """A token that is biased up is all that comes; a frequency penalty then makes room for others."""
    token = tokenizer.encode(" lantern", add_special_tokens=False).ids[0]
    word = tokenizer.decode([token])
    how: Any = {"model": MODEL, "prompt": "The", "max_tokens": 4, "temperature": 0}
    assert client.completions.create(**how, logit_bias={str(token): 100}).choices[0].text == word * 4
    weak = client.completions.create(**how, logit_bias={str(token): 20}, frequency_penalty=2.0).choices[0].text
    assert weak.count(word) <= 4
    assert client.completions.create(**how, logit_bias={str(token): -100}).choices[0].text.count(word) == 0


# grammars and tools


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_meets_its_schema(client: openai.OpenAI, seed: int) -> None:
    """Even a model of random weights writes JSON that the schema's own validator accepts."""
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}}
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, response_format=wanted, max_tokens=120, seed=seed
    ).choices[0]
    assert answer.finish_reason == "stop"
    jsonschema.validate(json.loads(answer.message.content or ""), SCHEMA)


def test_json_mode_writes_an_object(client: openai.OpenAI, tokenizer: Tokenizer) -> None:
    """With json_object the text begins an object; a bias to its end makes even a random model close it."""
    closing = {str(token): 100 for token in tokenizer.encode("}", add_special_tokens=False).ids}
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, response_format={"type": "json_object"}, logit_bias=closing, max_tokens=20
    )
    assert json.loads(answer.choices[0].message.content or "") == {}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "walk"}}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_required_tool_is_called_with_valid_arguments(client: openai.OpenAI, choice: Any, stream: bool) -> None:
    """Whatever the model's weights, the call names a tool and its arguments meet that tool's schema."""
    how: Any = {"model": MODEL, "messages": HELLO, "tools": TOOLS, "tool_choice": choice, "max_tokens": 150, "seed": 5}
    if stream:
        chunks = list(client.chat.completions.create(**how, stream=True))
        calls = [call.function for c in chunks for call in c.choices[0].delta.tool_calls or ()]
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason]
        content = "".join(c.choices[0].delta.content or "" for c in chunks)
    else:
        made = client.chat.completions.create(**how).choices[0]
        calls = [call.function for call in made.message.tool_calls or ()]
        reasons, content = [made.finish_reason], made.message.content or ""
    assert reasons == ["tool_calls"]
    assert content == ""
    assert len(calls) == 1
    parameters = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    name = calls[0].name
    assert name == "walk" if choice != "required" else name in parameters
    jsonschema.validate(json.loads(calls[0].arguments), parameters[name])


def test_a_call_and_its_result_go_back_into_the_chat(client: openai.OpenAI) -> None:
    """A chat that holds an earlier call and the tool's answer is one that the template can write out."""
    call = {"id": "call_1", "type": "function", "function": {"name": "walk", "arguments": '{"way": "north"}'}}
    messages: Any = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "You see a lamp"},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=TOOLS, max_tokens=4)
    assert answer.choices[0].finish_reason == "length"
