"""Chats into prompts, by the model's own template, in a process of its own (`render`) that can be ended."""

import json
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import trio
from trio_typing import TaskStatus

from p2pos import log
from p2pos.node.client import ModelFiles
from p2pos.node.openai.errors import ApiError
from p2pos.node.openai.requests import Message, Tool

DEADLINE_S = 15.0
"""Seconds for one chat to be rendered: the limits of `render`, on a busy machine, and the process's start."""
MAX_ANSWER = 100 << 20
"""Bytes: `render.MAX_TEXT` characters, six bytes each where they are escaped."""
MAX_BANNED = 256
"""Templates that are remembered as taking too long."""

_log = log.get("templates")


def template_of(files: ModelFiles, *, tools: bool) -> str:
    """The model's chat template. Raises ApiError where it has none."""
    if files.chat_template is not None:
        return files.chat_template
    found = files.tokenizer_config.get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("tool_use" if tools and "tool_use" in named else "default")
    if not isinstance(found, str):
        raise ApiError(400, "this model has no chat template; use /v1/completions", param="model")
    return found


def special_tokens(files: ModelFiles) -> dict[str, str]:
    """The texts of the special tokens, by the names that templates know them by."""
    found = {}
    for name, value in files.tokenizer_config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    return found


def as_template_sees(messages: list[Message]) -> list[dict[str, Any]]:
    """Messages as transformers' templates expect them."""
    return [_message(message) for message in messages]


def _message(message: Message) -> dict[str, Any]:
    seen: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role, "content": message.text}
    if message.name is not None:
        seen["name"] = message.name
    if message.tool_call_id is not None:
        seen["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        seen["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": _arguments(call.function.arguments)},
            }
            for call in message.tool_calls
        ]
    return seen


def _arguments(text: str) -> Any:
    """Templates write the arguments out themselves, so they get the object and not its text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


class Renderer:
    """Renders chats, one at a time. Its process starts with the first, and again after one that had to be ended."""

    def __init__(self) -> None:
        self._lock = trio.Lock()
        self._process: trio.Process | None = None
        self._banned: OrderedDict[str, None] = OrderedDict()
        """Templates that took too long: whoever asks again doesn't hold the others up again."""

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then the process ends."""
        try:
            task_status.started()
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await self._end()

    async def render(
        self, files: ModelFiles, messages: list[Message], tools: list[Tool], more: Mapping[str, Any] | None = None
    ) -> str:
        """The prompt for the model's next message. `more` are further variables of the template.

        Raises ApiError where the model has no template, or it refuses these messages or takes too much.
        """
        template = template_of(files, tools=bool(tools))
        order = {
            "template": template,
            "messages": as_template_sees(messages),
            "tools": [tool.model_dump(exclude_none=True) for tool in tools] or None,
            "variables": {**(more or {}), **special_tokens(files)},
        }
        async with self._lock:
            if template in self._banned:
                raise ApiError(400, "the model's chat template takes too long", param="messages")
            answer = await self._ask(json.dumps(order).encode() + b"\n")
            if answer is None:
                self._banned[template] = None
                if len(self._banned) > MAX_BANNED:
                    self._banned.popitem(last=False)
                raise ApiError(400, "the model's chat template takes too long", param="messages")
        if "error" in answer:
            raise ApiError(400, str(answer["error"])[:500], param="messages")
        return str(answer["text"])

    async def _ask(self, line: bytes) -> dict[str, Any] | None:
        """One answer, or None where the process ended or had to be ended."""
        answer = b""
        try:
            with trio.move_on_after(DEADLINE_S):
                process = self._process or await self._start()
                await process.stdin.send_all(line)  # type: ignore[union-attr]  # it was started with pipes
                answer = await _line(process.stdout)  # type: ignore[arg-type]  # as above
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the process ended itself: it had reached a limit
        finally:
            if not answer:  # half an answer would be taken for the next one's
                with trio.CancelScope(shield=True):
                    await self._end()
        if not answer:
            _log.warning("rendering a chat template was ended")
            return None
        value: dict[str, Any] = json.loads(answer)
        return value

    async def _start(self) -> trio.Process:
        self._process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "p2pos.node.openai.render"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # the libraries' own threads would reserve address space, which is limited
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        return self._process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        await process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                await pipe.aclose()


async def _line(stream: trio.abc.ReceiveStream) -> bytes:
    """What comes up to a line's end; b"" where the stream ends before, or too much comes."""
    pieces = bytearray()
    while not pieces.endswith(b"\n"):
        piece = await stream.receive_some(1 << 16)
        pieces += piece
        if not piece or len(pieces) > MAX_ANSWER:
            return b""
    return bytes(pieces)
