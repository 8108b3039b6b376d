"""Tool calls: which form a model's chat template writes them in, how to hold a text to it, how to read it back."""

import json
import secrets
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from p2pos.content import strict_json
from p2pos.node.openai.requests import Tool
from p2pos.shard.grammar import written
from p2pos.wire.messages import Grammar

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class Said:
    """Text of the answer that is no call."""

    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A call of a tool."""

    name: str
    arguments: str
    """JSON text, as the client gets it."""
    id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}", compare=False)


Part: TypeAlias = Said | Called


class Reader(Protocol):
    """Finds calls in a text that comes piece by piece."""

    def push(self, text: str) -> list[Part]:
        """Take a piece of text."""

    def end(self) -> list[Part]:
        """No more text will come."""


class Form(Protocol):
    """How a family of models writes tool calls."""

    def reader(self) -> Reader:
        """What reads one answer."""

    def grammar(self, tools: list[Tool]) -> Grammar:
        """Admits one call of one of these tools, with arguments that meet its schema."""


def form_of(template: str) -> Form | None:
    """The form that a chat template asks its model for, or None where it asks for none that is known here."""
    if "<function=" in template:  # Qwen3-Coder's XML within the same tags
        return None
    if _OPEN in template:
        return Hermes()
    if "tools" in template and '"parameters"' in template and "<|start_header_id|>" in template:
        return Llama3()
    return None


class Hermes:
    """`<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as Hermes, Qwen and many others have it."""

    def reader(self) -> Reader:
        """What reads one answer."""
        return _TagReader()

    def grammar(self, tools: list[Tool]) -> Grammar:
        """One call in its tags."""
        schema = json.dumps(written(_call_schema(tools, "arguments")))
        return Grammar("lark", f'start: "{_OPEN}\\n" call "\\n{_CLOSE}"\ncall: %json {schema}')


class Llama3:
    """`{"name": …, "parameters": {…}}` as the whole answer, as Llama 3 has it."""

    def reader(self) -> Reader:
        """What reads one answer."""
        return _WholeReader()

    def grammar(self, tools: list[Tool]) -> Grammar:
        """One call and nothing else."""
        return Grammar("json_schema", json.dumps(_call_schema(tools, "parameters")))


class _TagReader:
    """Reads calls in tags. What looks like a call and can't be read is given as the text that it is."""

    def __init__(self) -> None:
        self._held = ""
        self._inside = False
        self._looked = 0  # how much of what is held can't contain the end of a tag

    def push(self, text: str) -> list[Part]:
        """Take a piece of text."""
        self._held += text
        parts: list[Part] = []
        while (at := self._held.find(_CLOSE if self._inside else _OPEN, self._looked)) >= 0:
            before = self._held[:at]
            if self._inside:
                call = _read_call(before, "arguments")
                parts.append(call or Said(f"{_OPEN}{before}{_CLOSE}"))
                self._held = self._held[at + len(_CLOSE) :]
            else:
                parts += _said(before.rstrip())
                self._held = self._held[at + len(_OPEN) :]
            self._inside = not self._inside
            self._looked = 0
        if self._inside:
            self._looked = max(0, len(self._held) - len(_CLOSE))
            return parts
        # white space goes with what follows it: before a tag it says nothing
        shown = len(self._held[: len(self._held) - _overlap(self._held, _OPEN)].rstrip())
        parts += _said(self._held[:shown])
        self._held = self._held[shown:]
        return parts

    def end(self) -> list[Part]:
        """No more text will come. A call whose end tag is missing counts where it is whole."""
        held, self._held = self._held, ""
        if not self._inside:
            return _said(held)
        call = _read_call(held, "arguments")
        return [call] if call is not None else [Said(_OPEN + held)]


class _WholeReader:
    """Reads an answer that is nothing but calls, one after another, perhaps with `;` between them."""

    def __init__(self) -> None:
        self._held: list[str] = []
        self._plain = False

    def push(self, text: str) -> list[Part]:
        """Take a piece of text: an answer that begins with no brace is no call."""
        if self._plain:
            return _said(text)
        self._held.append(text)
        begun = "".join(self._held[:2] if len(self._held) > 2 else self._held).lstrip()
        if not begun or begun.startswith("{"):
            return []
        self._plain = True
        return _said(self._take())

    def end(self) -> list[Part]:
        """No more text will come."""
        text = self._take()
        calls: list[Part] = []
        rest = text.strip()
        while rest:
            try:
                _, size = json.JSONDecoder().raw_decode(rest)
            except (ValueError, RecursionError):
                return _said(text)
            call = _read_call(rest[:size], "parameters")
            if call is None:
                return _said(text)
            calls.append(call)
            rest = rest[size:].lstrip("; \n")
        return calls or _said(text)

    def _take(self) -> str:
        text, self._held = "".join(self._held), []
        return text


def _call_schema(tools: list[Tool], key: str) -> dict[str, Any]:
    """One call: the name of a tool, and under `key` what its schema admits."""
    options = []
    for index, tool in enumerate(tools):
        parameters = dict(tool.function.parameters or {"type": "object", "properties": {}})
        parameters.pop("$id", None)
        parameters.pop("$schema", None)
        where = f"#/anyOf/{index}/properties/{key}" if len(tools) > 1 else f"#/properties/{key}"
        options.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.function.name}, key: _moved(parameters, where)},
                "required": ["name", key],
                "additionalProperties": False,
            }
        )
    return {"anyOf": options} if len(options) > 1 else options[0]


def _moved(schema: Any, where: str) -> Any:
    """A schema that now stands at this pointer of another: what it refers to within itself has moved with it."""
    if isinstance(schema, list):
        return [_moved(each, where) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: where + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, where)
        for key, value in schema.items()
    }


def _read_call(text: str, key: str) -> Called | None:
    try:
        value = strict_json.loads(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(name := value.get("name"), str):
        return None
    arguments = value.get(key, {})
    if isinstance(arguments, str):
        return Called(name, arguments)
    return Called(name, json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None


def _said(text: str) -> list[Part]:
    return [Said(text)] if text else []


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that `tag` begins with."""
    return next((size for size in range(min(len(tag), len(text)), 0, -1) if text.endswith(tag[:size])), 0)
