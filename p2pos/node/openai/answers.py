"""Answers in OpenAI's shapes: whole, or as the chunks of a stream. Pure.

A stream's chunks, put together, are the whole answer: both are made of the same parts.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from p2pos.node.openai.texts import Scored, Spelled
from p2pos.node.openai.tools import Called, Part, Said

DONE = b"data: [DONE]\n\n"
"""The end of a stream."""


@dataclass(frozen=True, slots=True)
class Delta:
    """What one text of an answer goes on with, all at once."""

    index: int
    parts: tuple[Part, ...] = ()
    scored: tuple[Scored, ...] = ()
    finish: str = ""
    """`stop`, `length` or `tool_calls` where it's the last one."""


@dataclass(slots=True)
class Usage:
    """Tokens that a request took."""

    prompt: int
    completion: int = 0

    def as_dict(self) -> dict[str, int]:
        """OpenAI's shape."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


@dataclass(slots=True)
class Heading:
    """What is the same in every chunk of an answer."""

    id: str
    model: str
    created_s: int
    """Seconds since the epoch."""
    fingerprint: str

    def around(self, kind: str, choices: list[dict[str, Any]], usage: dict[str, int] | None) -> dict[str, Any]:
        """An answer or chunk with these choices."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created_s,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
            "usage": usage,
        }


class Shape(Protocol):
    """The two kinds of answer."""

    kind: str
    chunk_kind: str

    def opening(self, index: int) -> dict[str, Any] | None:
        """The first chunk of one text, before there is any; None where there's none such."""

    def chunk(self, delta: Delta) -> dict[str, Any]:
        """A chunk's choice."""

    def whole(self, deltas: Sequence[Delta]) -> dict[str, Any]:
        """The choice that these chunks of one text make."""


@dataclass(slots=True)
class CompletionShape:
    """Of `/v1/completions`."""

    echoes: Sequence[str] = ()
    """Text that each choice begins with."""
    kind: str = "text_completion"
    chunk_kind: str = "text_completion"

    def opening(self, index: int) -> dict[str, Any] | None:
        """The echoed prompt."""
        echo = self._echo(index)
        return {"index": index, "text": echo, "logprobs": None, "finish_reason": None} if echo else None

    def chunk(self, delta: Delta) -> dict[str, Any]:
        """Some text."""
        return {
            "index": delta.index,
            "text": _text(delta.parts),
            "logprobs": self._logprobs(delta.scored),
            "finish_reason": delta.finish or None,
        }

    def whole(self, deltas: Sequence[Delta]) -> dict[str, Any]:
        """All the text."""
        joined = _join(deltas)
        return {**self.chunk(joined), "text": self._echo(joined.index) + _text(joined.parts)}

    def _echo(self, index: int) -> str:
        return self.echoes[index] if self.echoes else ""

    @staticmethod
    def _logprobs(scored: Sequence[Scored]) -> dict[str, Any] | None:
        if not scored:
            return None
        return {
            "tokens": [each.chosen.text for each in scored],
            "token_logprobs": [each.chosen.logprob for each in scored],
            "top_logprobs": [{top.text: top.logprob for top in each.top} for each in scored],
            "text_offset": [each.offset for each in scored],
        }


@dataclass(slots=True)
class ChatShape:
    """Of `/v1/chat/completions`."""

    calls: dict[int, int] = field(default_factory=dict)
    """How many calls each choice has made, for a stream numbers them."""
    kind: str = "chat.completion"
    chunk_kind: str = "chat.completion.chunk"

    def opening(self, index: int) -> dict[str, Any] | None:
        """Who speaks."""
        return {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }

    def chunk(self, delta: Delta) -> dict[str, Any]:
        """Text, calls, or both."""
        change: dict[str, Any] = {}
        text = _text(delta.parts)
        if text:
            change["content"] = text
        calls = _calls(delta.parts)
        if calls:
            first = self.calls.get(delta.index, 0)
            self.calls[delta.index] = first + len(calls)
            change["tool_calls"] = [{"index": first + number, **call} for number, call in enumerate(calls)]
        return {
            "index": delta.index,
            "delta": change,
            "logprobs": self._logprobs(delta.scored),
            "finish_reason": delta.finish or None,
        }

    def whole(self, deltas: Sequence[Delta]) -> dict[str, Any]:
        """The message."""
        joined = _join(deltas)
        text, calls = _text(joined.parts), _calls(joined.parts)
        message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        return {
            "index": joined.index,
            "message": message,
            "logprobs": self._logprobs(joined.scored),
            "finish_reason": joined.finish or None,
        }

    @staticmethod
    def _logprobs(scored: Sequence[Scored]) -> dict[str, Any] | None:
        if not scored:
            return None
        content = [{**_spelled(each.chosen), "top_logprobs": [_spelled(top) for top in each.top]} for each in scored]
        return {"content": content, "refusal": None}


def event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def _join(deltas: Sequence[Delta]) -> Delta:
    return Delta(
        deltas[0].index,
        tuple(part for delta in deltas for part in delta.parts),
        tuple(scored for delta in deltas for scored in delta.scored),
        deltas[-1].finish,
    )


def _text(parts: Sequence[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Said))


def _calls(parts: Sequence[Part]) -> list[dict[str, Any]]:
    return [
        {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
        for part in parts
        if isinstance(part, Called)
    ]


def _spelled(token: Spelled) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.data)}
