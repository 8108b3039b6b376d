from typing import Any

import pytest
import trio
from transformers import AutoTokenizer

from p2pos.node.client import ModelFiles
from p2pos.node.openai.errors import ApiError
from p2pos.node.openai.requests import Message, Tool
from p2pos.node.openai.templates import Renderer, as_template_sees, special_tokens, template_of
from p2pos.types import ModelId
from tests import checkpoints

HELLO = [Message(role="user", content="Hello")]
TOOL = Tool.model_validate({"type": "function", "function": {"name": "walk", "parameters": {"type": "object"}}})


def files(template: str | None = None, **config: Any) -> ModelFiles:
    return ModelFiles(ModelId("m"), {}, {}, None, config, template)


def render_all(*orders: tuple[str, list[Message], list[Tool]]) -> list[str]:
    """What one renderer answers to each, or the message of its refusal."""
    answers = []

    async def main() -> None:
        renderer = Renderer()
        async with trio.open_nursery() as nursery:
            await nursery.start(renderer.run)
            for template, messages, tools in orders:
                try:
                    answers.append(await renderer.render(files(template, bos_token="<s>"), messages, tools))
                except ApiError as exc:
                    answers.append(exc.message)
            nursery.cancel_scope.cancel()

    trio.run(main)
    return answers


def test_a_chat_is_rendered_as_transformers_does(tmp_path) -> None:
    """The same messages, calls and tools give the text of apply_chat_template."""
    checkpoints.save_chat(tmp_path / "m", num_hidden_layers=1)
    messages = [
        Message(role="system", content="Be brief"),
        *HELLO,
        Message.model_validate(
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "function": {"name": "walk", "arguments": '{"way": "灯"}'}}],
            }
        ),
        Message(role="tool", content="You see a lamp", tool_call_id="c"),
    ]
    expected = AutoTokenizer.from_pretrained(tmp_path / "m").apply_chat_template(
        as_template_sees(messages),
        tools=[TOOL.model_dump(exclude_none=True)],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert render_all((checkpoints.CHAT_TEMPLATE, messages, [TOOL])) == [expected]


def test_further_variables_reach_the_template_and_no_more() -> None:
    """What a client gives beside the chat is seen by the template, and replaces nothing of it."""

    async def main() -> None:
        renderer = Renderer()
        async with trio.open_nursery() as nursery:
            await nursery.start(renderer.run)
            template = "{{ bos_token }}{{ messages[0].content }}{{ enable_thinking }}"
            more = {"enable_thinking": False, "bos_token": "x", "conversations": [], "chat_template": "y"}
            assert await renderer.render(files(template, bos_token="<s>"), HELLO, [], more) == "<s>HelloFalse"
            nursery.cancel_scope.cancel()

    trio.run(main)


SPIN = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def test_a_template_that_runs_wild_harms_nobody() -> None:
    """One that takes too long, too much memory or space, or reaches for Python is refused, and the next is rendered."""
    wild = [
        SPIN,
        SPIN,  # now known, and refused without a process
        "{{ 'x' * 10 ** 11 }}",
        "{{ 'x' * 20000000 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception('roles must alternate') }}",
        "{% for %}",
    ]
    answers = render_all(*((template, HELLO, []) for template in [*wild, "{{ bos_token }}{{ messages[0].content }}"]))
    assert answers[0] == answers[1] == "the model's chat template takes too long"
    assert "memory" in answers[2]
    assert answers[3] == "the model's chat template writes too much"
    assert "refuses these messages" in answers[4]
    assert answers[5] == "the model's chat template refuses these messages: roles must alternate"
    assert "can't be read" in answers[6]
    assert answers[7] == "<s>Hello"


def test_a_cancelled_chat_does_not_answer_the_next() -> None:
    """A client that hangs up while its chat is rendered leaves nothing behind for another's answer."""

    async def main() -> None:
        renderer = Renderer()
        async with trio.open_nursery() as nursery:
            await nursery.start(renderer.run)
            with trio.move_on_after(0):
                await renderer.render(files("{{ 'first' }}"), HELLO, [])
            assert await renderer.render(files("{{ 'second' }}"), HELLO, []) == "second"
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_where_a_template_is_found() -> None:
    """A file of its own comes first; a list has one by name for tools; a model without one can't chat."""
    assert template_of(files("own", chat_template="config"), tools=False) == "own"
    assert template_of(files(chat_template="config"), tools=False) == "config"
    both = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    assert template_of(files(chat_template=both), tools=False) == "a"
    assert template_of(files(chat_template=both), tools=True) == "b"
    for nothing in (files(), files(chat_template=[5]), files(chat_template={"a": 1})):
        with pytest.raises(ApiError, match="no chat template"):
            template_of(nothing, tools=False)


def test_special_tokens_are_texts() -> None:
    """Both forms that tokenizer_config.json has; what is no text isn't there."""
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}, "pad_token": None, "other": "x"}
    assert special_tokens(files(**config)) == {"bos_token": "<s>", "eos_token": "</s>"}
