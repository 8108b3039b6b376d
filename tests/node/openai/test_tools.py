import json
from itertools import pairwise
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.node.openai.requests import Function, Tool
from p2pos.node.openai.tools import Called, Hermes, Llama3, Part, Reader, Said, form_of
from p2pos.shard.grammar import check
from tests.checkpoints import CHAT_TEMPLATE

WALK = Tool(
    type="function",
    function=Function(
        name="walk",
        parameters={
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$defs": {"way": {"enum": ["north", "south"]}},
            "type": "object",
            "properties": {"way": {"$ref": "#/$defs/way"}, "then": {"$ref": "#"}},
            "required": ["way"],
            "additionalProperties": False,
        },
    ),
)
WAIT = Tool(type="function", function=Function(name="wait"))
CALL = '<tool_call>\n{"name": "walk", "arguments": {"way": "north"}}\n</tool_call>'
WALKED = Called("walk", '{"way": "north"}')


def read(reader: Reader, pieces: list[str]) -> list[Part]:
    """What a reader finds, with neighbouring text joined."""
    found: list[Part] = []
    for part in [*(part for piece in pieces for part in reader.push(piece)), *reader.end()]:
        if isinstance(part, Said) and found and isinstance(found[-1], Said):
            found[-1] = Said(found[-1].text + part.text)
        else:
            found.append(part)
    return found


def cut(text: str, ends: list[int]) -> list[str]:
    places = sorted({0, len(text), *(end % (len(text) + 1) for end in ends)})
    return [text[a:b] for a, b in pairwise(places)]


CUTS = st.lists(st.integers(0, 1000), max_size=30)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Hello", [Said("Hello")]),
        (CALL, [WALKED]),
        (f"I go.\n{CALL}\n{CALL}", [Said("I go."), WALKED, WALKED]),
        (f"{CALL}\nDone", [WALKED, Said("\nDone")]),
        ('<tool_call>{"name": "wait"}', [Called("wait", "{}")]),
        ("<tool_call>walk north</tool_call>", [Said("<tool_call>walk north</tool_call>")]),
        ("<tool_call>{", [Said("<tool_call>{")]),
        ("a < b, a <tool> c", [Said("a < b, a <tool> c")]),
        ('<tool_call>{"name": 5}</tool_call>', [Said('<tool_call>{"name": 5}</tool_call>')]),
        ("", []),
    ],
)
@given(ends=CUTS)
def test_calls_in_tags_are_found_however_the_text_is_cut(text: str, parts: list[Part], ends: list[int]) -> None:
    """Token boundaries fall anywhere; calls, and text that only looks like one, are the same."""
    assert read(Hermes().reader(), cut(text, ends)) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Hello {", [Said("Hello {")]),
        ('{"name": "walk", "parameters": {"way": "north"}}', [WALKED]),
        ('\n{"name": "walk", "parameters": {"way": "north"}}; {"name": "wait"}', [WALKED, Called("wait", "{}")]),
        ('{"answer": 5}', [Said('{"answer": 5}')]),
        ('{"name": "walk", "parameters"', [Said('{"name": "walk", "parameters"')]),
        ('{"name": "wait"} and more', [Said('{"name": "wait"} and more')]),
    ],
)
@given(ends=CUTS)
def test_answers_that_are_calls_are_found_however_they_are_cut(text: str, parts: list[Part], ends: list[int]) -> None:
    """Llama's calls are the whole answer or none."""
    assert read(Llama3().reader(), cut(text, ends)) == parts


@given(st.text(alphabet='<tool_cal>/{}"name:x \n', max_size=60), CUTS)
def test_nothing_that_is_said_is_lost(text: str, ends: list[int]) -> None:
    """Text without a call comes through whole, but for white space before what might have been one."""
    for form in (Hermes(), Llama3()):
        said = "".join(part.text for part in read(form.reader(), cut(text, ends)) if isinstance(part, Said))
        if '"name"' not in text:
            assert "".join(said.split()) == "".join(text.split())


def test_arguments_that_are_text_are_left_as_they_are() -> None:
    """Some models write the arguments as JSON within a string."""
    text = '<tool_call>{"name": "walk", "arguments": "{\\"way\\": 1}"}</tool_call>'
    assert read(Hermes().reader(), [text]) == [Called("walk", '{"way": 1}')]


def test_every_call_has_an_id_of_its_own() -> None:
    """Clients send the id back with the tool's answer."""
    calls = [part for part in read(Hermes().reader(), [CALL + CALL]) if isinstance(part, Called)]
    assert len({call.id for call in calls}) == 2


@pytest.mark.parametrize("tools", [[WALK], [WAIT], [WALK, WAIT]], ids=["one", "no arguments", "two"])
@pytest.mark.parametrize("form", [Hermes(), Llama3()])
def test_the_grammar_of_a_call_can_be_compiled(form: Any, tools: list[Tool]) -> None:
    """References within a tool's schema still mean the same where the schema stands within another."""
    check(form.grammar(tools))


def test_references_move_with_their_schema() -> None:
    """A validator finds in the moved schema what it found before."""
    schema = json.loads(Llama3().grammar([WAIT, WALK]).text)
    jsonschema.validate({"name": "walk", "parameters": {"way": "north", "then": {"way": "south"}}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "walk", "parameters": {"way": "up"}}, schema)


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (CHAT_TEMPLATE, Hermes),
        ('<|start_header_id|>{% if tools %}{"name": function name, "parameters": dictionary}{% endif %}', Llama3),
        ("<tool_call>\n<function=name>", type(None)),
        ("{% for message in messages %}{{ message.content }}{% endfor %}", type(None)),
    ],
)
def test_the_template_says_which_form(template: str, form: type) -> None:
    """What a model was taught stands in its chat template; a form that isn't known here is none."""
    assert isinstance(form_of(template), form)
