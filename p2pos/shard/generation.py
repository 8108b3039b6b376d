"""What a checkpoint says of writing with it: the tokens that end a text, and how to sample where nobody says.

Its author's word, in generation_config.json, as transformers reads it: a text is greedy unless `do_sample` is true, and
then keeps the 50 likeliest tokens unless `top_k` says otherwise. The repetition penalty counts in both.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_EOS = 64
"""Tokens that may end a text, as many as `Open.eos` carries; Llama 3 has three."""

MAX_VOCABULARY = 1 << 31
"""Token ids are below this on the wire."""

TOP_K = 50
"""What transformers samples from where `do_sample` is true and `top_k` isn't given."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """How to write where the person doesn't say. The fields are as those of `wire.messages.Sampling`."""

    eos: tuple[int, ...] = ()
    """The ids that end a text."""
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    min_p: float = 0.0


def read(generation: Mapping[str, Any], config: Mapping[str, Any], vocabulary: int) -> Defaults:
    """Read generation_config.json, and config.json for the ids that end a text where the first has none.

    Args:
        generation: the first file's object; empty where there's none.
        config: the second's.
        vocabulary: token ids are below this.

    Raises:
        ValueError: that says which value makes no sense. Values are looked at even where `do_sample` makes them idle.

    """
    eos = _eos(generation, config, vocabulary)
    samples = generation.get("do_sample")
    if samples is not None and not isinstance(samples, bool):
        raise ValueError(f"do_sample is {_shown(samples)}, not true or false")
    temperature = _number(generation, "temperature", 1.0, low=0.0, high=100.0)
    top_p = _number(generation, "top_p", 1.0, low=0.0, high=1.0)
    top_k = _number(generation, "top_k", TOP_K, low=0, high=1 << 20)
    min_p = _number(generation, "min_p", 0.0, low=0.0, high=1.0)
    penalty = _number(generation, "repetition_penalty", 1.0, low=0.01, high=100.0)
    if not top_k.is_integer():
        raise ValueError(f"top_k is {top_k}, not a whole number")
    if not samples or top_p == 0.0:  # a top_p of 0 keeps the likeliest token alone
        return Defaults(eos, repetition_penalty=penalty)
    return Defaults(eos, temperature, top_p, int(top_k), penalty, min_p)


def _eos(generation: Mapping[str, Any], config: Mapping[str, Any], vocabulary: int) -> tuple[int, ...]:
    text = config.get("text_config")
    places = (generation, config, text if isinstance(text, Mapping) else {})
    value: Any = next((found for place in places if (found := place.get("eos_token_id")) is not None), [])
    ids = value if isinstance(value, list) else [value]
    if len(ids) > MAX_EOS:
        raise ValueError(f"eos_token_id lists {len(ids)} ids, more than {MAX_EOS}")
    for token in ids:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocabulary:
            raise ValueError(f"eos_token_id {_shown(token)} is not in the vocabulary, which has {vocabulary} ids")
    return tuple(dict.fromkeys(ids))


def _number(values: Mapping[str, Any], name: str, otherwise: float, *, low: float, high: float) -> float:
    value = values.get(name)
    if value is None:
        return float(otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or math.isnan(value):
        raise ValueError(f"{name} is {_shown(value)}, outside {low:g} … {high:g}")
    return float(value)


def _shown(value: object) -> str:
    """A value in a few words: what's shown may be a stranger's."""
    return repr(value)[:40] if not isinstance(value, int) or abs(value) < 1 << 63 else "a huge number"
