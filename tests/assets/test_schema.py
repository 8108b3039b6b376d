import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.assets.descriptor import Descriptor
from p2pos.assets.schema import schema
from p2pos.errors import UserError
from tests.assets.test_descriptor import descriptors

VALIDATOR = jsonschema.Draft202012Validator(schema())
BEYOND_A_SCHEMA = ("composed form", "a blank", "doesn't show", "as the files say", "is no attribute", "over the limit")
"""What the parser says of faults that a schema can't find."""

odd = st.none() | st.booleans() | st.integers(-(1 << 60), 1 << 60) | st.text(max_size=5)
odd |= st.sampled_from(
    ["x" * 1001, "ipfs://x", [], {}, ["x"], {"a": None}, {"A": 1}, {"a": 1}, {"a": [1]}, -1, 1 << 53]
)


@st.composite
def documents(draw):
    """Descriptors as authors write them, some with a fault."""
    value = json.loads(draw(descriptors()).canonical())
    for key in draw(st.lists(st.sampled_from(sorted(value)), max_size=3)):
        value.pop(key, None)
    if draw(st.booleans()):
        where = value
        if value.get("files") and draw(st.booleans()):
            where = value["files"][0]
        where[draw(st.sampled_from([*where, "other"]))] = draw(odd)
    return value


def test_the_schema_is_one():
    """It is a JSON Schema of the dialect that it says, and the page in docs has it."""
    jsonschema.Draft202012Validator.check_schema(schema())
    page = Path(__file__).parents[2] / "docs" / "descriptor.schema.json"
    assert json.loads(page.read_text()) == schema()


@settings(deadline=None)
@given(documents())
def test_schema_and_parser_agree(value):
    """What one refuses the other refuses, but for what no schema can say."""
    said = ""
    try:
        Descriptor.of_json(json.dumps(value).encode())
    except UserError as exc:
        said = exc.message
    if VALIDATOR.is_valid(value):
        assert not said or any(reason in said for reason in BEYOND_A_SCHEMA)
    else:
        assert said


@pytest.mark.parametrize(
    "value", [{}, {"name": ""}, {"name": "x", "kind": "Item"}, {"name": "x", "files": [{"role": "image"}]}]
)
def test_the_schema_refuses(value):
    """It refuses plain faults by itself."""
    assert not VALIDATOR.is_valid(value)
