"""What is said to an engine that others run, and what it says back, by the make of the engine. Pure.

All of them speak OpenAI's `/v1/completions`, and beyond it each has fields of its own. What is used of them:

| | vLLM | SGLang | llama-server | transformers serve | another |
|---|---|---|---|---|---|
| prompt and text pass as | tokens | tokens | tokens | text | text |
| temperature, top_p | yes | yes | yes | yes | yes |
| top_k, min_p, repetition penalty, logit_bias | yes | yes | yes | yes | no |
| presence and frequency penalty | yes | yes | no: counts the prompt | no: ignores them | no |
| log-probabilities | yes | no: names no ids | no: after its own softmax | no: ignores them | no |
| JSON schema, regular expression | both | both | JSON schema | no | no |

Every field that decides about the text is sent, since engines have defaults of their own. What an engine can't do is
refused before it is asked (`refusal`); nothing that a session asks for is left out silently.
"""

import hashlib
import json
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, Field, ValidationError

from p2pos.content import strict_json
from p2pos.errors import UnavailableError
from p2pos.wire.messages import Logprobs, Sampling

GrammarKind: TypeAlias = Literal["json_schema", "regex"]
Reason: TypeAlias = Literal["", "stop", "length"]

TEXT_SLACK = 8
"""Tokens that are asked for beyond what is wanted where text passes. Some show none of a character that is not whole
yet, and an engine's tokens may be more than those that its text is written in afterwards."""
LEAST_TEMPERATURE = 1e-4
"""Greedy below this, as `shard.sampling` has it."""
_SEEDS = 1 << 31
"""Seeds are made less than this: llama-server takes 32 bits."""
_DONE = b"[DONE]"


class Make(Enum):
    """Which engine it is."""

    VLLM = "vLLM"
    SGLANG = "SGLang"
    LLAMA = "llama-server"
    TRANSFORMERS = "transformers serve"
    OTHER = "an OpenAI-compatible engine"


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an engine was found to be able to do."""

    make: Make
    model: str
    """The name by which it serves the model; "" where it has no need of one."""
    tokens: bool
    """Whether prompt and text pass as token ids; else as text."""
    context: int
    """Positions; 0 where it doesn't say."""
    places: int
    """Texts that it writes at a time."""
    grammars: frozenset[GrammarKind] = frozenset()
    logprobs: bool = False
    adds_special: bool = True
    """Whether it puts a first token before a text."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A text that is wanted of an engine."""

    prompt: tuple[int, ...] | str
    """The tokens so far, given ones included, or their text."""
    max_tokens: int
    eos: tuple[int, ...]
    sampling: Sampling
    given: int = 0
    """How many of the tokens are of the text already."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event says."""

    text: str = ""
    tokens: tuple[int, ...] = ()
    finish: Reason = ""
    logprobs: tuple[Logprobs, ...] = ()
    """Of each token, where they were asked for."""
    prompt: tuple[int, ...] | None = None
    """The prompt as it came to be tokens, where the engine says."""
    prompt_count: int | None = None
    """How many these were."""


def refusal(can: Abilities, sampling: Sampling, eos: list[int], *, given: bool) -> str:
    """What of a session's order this engine can't do, in a few words, or ""."""
    greedy = sampling.temperature < LEAST_TEMPERATURE
    token_make = can.make in {Make.VLLM, Make.SGLANG}
    grammar = sampling.grammar
    if grammar is not None and grammar.kind not in can.grammars:
        return f"can't hold a text to a grammar ({grammar.kind})"
    if grammar is not None and given:
        return "can't go on with a text that is held to a grammar"
    if sampling.logprobs and not can.logprobs:
        return "gives no log-probabilities of token ids"
    if (sampling.presence_penalty or sampling.frequency_penalty) and not token_make:
        return "has no presence and frequency penalty over the text alone"
    if (sampling.presence_penalty or sampling.frequency_penalty) and given:
        return "would not count the text so far for its penalties"
    if can.make is Make.OTHER:
        if sampling.repetition_penalty != 1.0:
            return "has no repetition penalty that is known to be ours"
        if sampling.logit_bias:
            return "is not known to heed logit_bias"
        if not greedy and (sampling.top_k or sampling.min_p):
            return "has no top_k and min_p that are known to be ours"
    if not eos and can.make in {Make.LLAMA, Make.OTHER}:
        return "can't write past its own end of a text"
    return ""


def seed_of(sampling: Sampling, given: int) -> int:
    """The seed for the rest of a text. Where some is given already, it is not the draws of the beginning again."""
    if not given:
        return sampling.seed % _SEEDS
    digest = hashlib.blake2b(sampling.seed.to_bytes(8, "big") + given.to_bytes(8, "big"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % _SEEDS


def request(can: Abilities, wish: Wish) -> tuple[str, dict[str, Any]]:
    """Where to post what, for a stream of the text."""
    model = {"model": can.model} if can.model else {}
    match can.make:
        case Make.VLLM | Make.SGLANG:
            return "/v1/completions", {**model, **_tokens_body(can, wish)}
        case Make.LLAMA:
            return "/completion", {**model, **_llama_body(wish)}
        case Make.TRANSFORMERS:
            return "/v1/completions", {**model, **_transformers_body(wish)}
        case Make.OTHER:
            return "/v1/completions", {**model, **_plain_body(wish)}


def _plain_body(wish: Wish) -> dict[str, Any]:
    sampling = wish.sampling
    return {
        "prompt": wish.prompt,
        "max_tokens": wish.max_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": seed_of(sampling, wish.given),
        **_distribution(sampling),
    }


def _distribution(sampling: Sampling) -> dict[str, float]:
    greedy = sampling.temperature < LEAST_TEMPERATURE
    return (
        {"temperature": 0.0, "top_p": 1.0} if greedy else {"temperature": sampling.temperature, "top_p": sampling.top_p}
    )


def _filters(sampling: Sampling) -> tuple[int, float]:
    """top_k and min_p, off where the choice is greedy."""
    return (0, 0.0) if sampling.temperature < LEAST_TEMPERATURE else (sampling.top_k, sampling.min_p)


def _tokens_body(can: Abilities, wish: Wish) -> dict[str, Any]:
    """Of vLLM and SGLang, which have the same names for nearly all."""
    sampling = wish.sampling
    top_k, min_p = _filters(sampling)
    body: dict[str, Any] = {
        "prompt": wish.prompt,
        "max_tokens": wish.max_tokens,
        "stream": True,
        "seed": seed_of(sampling, wish.given),
        **_distribution(sampling),
        "top_k": top_k or -1,
        "min_p": min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "stop_token_ids": list(wish.eos),
        # SGLang heeds no stop token where it ignores its own end; vLLM ends at those that it is given
        "ignore_eos": not wish.eos if can.make is Make.SGLANG else True,
        "return_token_ids": True,
    }
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    if sampling.logprobs:
        body |= {"logprobs": sampling.logprobs - 1, "return_tokens_as_token_ids": True}
    if sampling.grammar is not None:
        name = "json" if sampling.grammar.kind == "json_schema" else "regex"
        if can.make is Make.VLLM:
            body["structured_outputs"] = {name: sampling.grammar.text}
        else:
            body[sampling.grammar.kind] = sampling.grammar.text
    return body


def _llama_body(wish: Wish) -> dict[str, Any]:
    sampling = wish.sampling
    top_k, min_p = _filters(sampling)
    body: dict[str, Any] = {
        "prompt": wish.prompt,
        "n_predict": wish.max_tokens,
        "stream": True,
        "return_tokens": True,
        "cache_prompt": True,
        "seed": seed_of(sampling, wish.given),
        **_distribution(sampling),
        "top_k": top_k,
        "min_p": min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": -1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "mirostat": 0,
        "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
    }
    if sampling.logit_bias:
        body["logit_bias"] = [[token, bias] for token, bias in sampling.logit_bias]
    if sampling.grammar is not None:
        body["json_schema"] = json.loads(sampling.grammar.text)
    return body


def _transformers_body(wish: Wish) -> dict[str, Any]:
    """Its own `generation_config` says all that OpenAI's fields can't, and some that it would take for another."""
    sampling = wish.sampling
    config: dict[str, Any] = {
        "max_new_tokens": wish.max_tokens,
        # an id that no model has; an empty list would mean the model's own
        "eos_token_id": list(wish.eos) or [(1 << 31) - 1],
        "repetition_penalty": sampling.repetition_penalty,
        "do_sample": sampling.temperature >= LEAST_TEMPERATURE,
    }
    if config["do_sample"]:
        top_k, min_p = _filters(sampling)
        config |= {**_distribution(sampling), "top_k": top_k, "min_p": min_p or None}
    if sampling.logit_bias:
        config["sequence_bias"] = [[[token], bias] for token, bias in sampling.logit_bias]
    return {
        "prompt": wish.prompt,
        "stream": True,
        "seed": seed_of(sampling, wish.given),
        "generation_config": json.dumps(config),
    }


class _Logprobs(BaseModel):
    tokens: list[str] = Field(max_length=4096)
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(BaseModel):
    text: str = ""
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    logprobs: _Logprobs | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None


class _Chunk(BaseModel):
    choices: list[_Choice] = Field(max_length=1)
    usage: _Usage | None = None


class _LlamaChunk(BaseModel):
    content: str
    tokens: list[int] = []
    stop: bool = False
    stop_type: str = ""
    tokens_evaluated: int | None = None


def read(make: Make, data: bytes) -> Piece | None:
    """What an event says; None where it only says that no more will come.

    Raises UnavailableError where it is none of this make, or says that something failed.
    """
    if data.strip() == _DONE:
        return None
    try:
        value = strict_json.loads(data)
        if isinstance(value, dict) and ("error" in value or value.get("object") == "error"):
            raise UnavailableError(f"reports: {complaint(value)}")
        if make is Make.LLAMA:
            return _llama_piece(_LlamaChunk.model_validate(value))
        return _piece(_Chunk.model_validate(value))
    except (ValidationError, ValueError, OverflowError, RecursionError):
        raise UnavailableError(f"sent what is no event of {make.value}: {_shown(data)}") from None


def complaint(value: Any) -> str:
    """The line in which an engine's JSON says what is wrong, shortened."""
    found = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(found, dict):
        found = found.get("message") or found.get("detail") or found
    return " ".join(str(found).split())[:300]


def _shown(data: bytes) -> str:
    return repr(data[:60].decode("utf-8", "replace"))


def _piece(chunk: _Chunk) -> Piece:
    count = chunk.usage.prompt_tokens if chunk.usage is not None else None
    if not chunk.choices:
        return Piece(prompt_count=count)
    choice = chunk.choices[0]
    tokens = tuple(choice.token_ids or ())
    return Piece(
        text=choice.text,
        tokens=tokens,
        finish=_reason(choice.finish_reason or ""),
        logprobs=() if choice.logprobs is None else _scores(choice.logprobs, tokens),
        prompt=None if choice.prompt_token_ids is None else tuple(choice.prompt_token_ids),
        prompt_count=count,
    )


def _scores(given: _Logprobs, tokens: tuple[int, ...]) -> tuple[Logprobs, ...]:
    """Of vLLM, which names a token `token_id:7` where it's asked to. Raises ValueError where it doesn't."""
    tops = given.top_logprobs or [None] * len(tokens)
    scores = []
    for name, chosen, top, token in zip(given.tokens, given.token_logprobs, tops, tokens, strict=True):
        if _id(name) != token or chosen is None:
            raise ValueError("log-probabilities of other tokens")
        ordered = sorted((top or {}).items(), key=lambda each: -each[1])
        scores.append(Logprobs(chosen, [(_id(each), value) for each, value in ordered[:20]]))
    return tuple(scores)


def _id(name: str) -> int:
    kind, _, number = name.partition(":")
    if kind != "token_id":
        raise ValueError(f"{name[:40]!r} names no token id")
    return int(number)


def _llama_piece(chunk: _LlamaChunk) -> Piece:
    finish: Reason = ""
    if chunk.stop:
        finish = _reason({"eos": "stop", "word": "stop", "limit": "length"}.get(chunk.stop_type, chunk.stop_type))
    # the last event of a stream has the tokens of none
    return Piece(chunk.content, tuple(chunk.tokens), finish, prompt_count=chunk.tokens_evaluated)


def _reason(reason: str) -> Reason:
    match reason:
        case "" | "stop" | "length":
            return reason
        case _:
            raise UnavailableError(f"ended a text for a reason of its own: {reason[:40]!r}")
