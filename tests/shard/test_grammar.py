import json
import random
import time
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from p2pos.errors import PeerError, UserError
from p2pos.models import DEFAULT
from p2pos.shard import sampling
from p2pos.shard.grammar import GrammarConstraint, Grammars, check, written
from p2pos.wire.messages import Grammar, Sampling

EOS = 1
VOCABULARY = 3540
"""Two more than the tokenizer knows: models round theirs up."""
TOKENIZER = Tokenizer.from_file(str(DEFAULT / "tokenizer.json"))
GRAMMARS = Grammars((DEFAULT / "tokenizer.json").read_bytes(), VOCABULARY, [EOS])


def schema(value: Any) -> Grammar:
    return Grammar("json_schema", json.dumps(value))


def allowed(constraint: GrammarConstraint) -> list[int]:
    scores = torch.zeros(VOCABULARY)
    constraint.mask(scores)
    return torch.nonzero(scores == 0).flatten().tolist()


def write(grammar: Grammar, seed: int, limit: int = 400) -> str:
    """A text of random tokens under a grammar, to its end."""
    constraint, tokens = GRAMMARS.start(grammar), []
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3
    while len(tokens) < limit:
        how = Sampling(temperature=2.0, seed=seed)
        chosen = sampling.choose(
            logits, how, prompt=(), generated=tokens, position=len(tokens), constraint=constraint
        ).token
        if chosen == EOS:
            return str(TOKENIZER.decode(tokens))
        tokens.append(chosen)
    raise AssertionError(f"no end after {limit} tokens")


BOUNDED = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "count": {"type": "integer", "minimum": -5, "maximum": 120},
        "kind": {"enum": ["lamp", "coin", None]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
    },
    "required": ["name", "count", "kind", "tags"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(8))
def test_random_text_meets_its_schema(seed: int) -> None:
    """Whatever the logits, what is written is JSON that the schema's own validator accepts."""
    import jsonschema

    jsonschema.validate(json.loads(write(schema(BOUNDED), seed)), BOUNDED)


def test_a_regex_and_a_lark_grammar_hold_too() -> None:
    """The other two kinds."""
    assert write(Grammar("regex", "(yes|no), [0-9]{2}"), 1)[:2] in {"ye", "no"}
    tool = f'start: "<call>" body "</call>"\nbody: %json {json.dumps(written({"const": {"a": 1}}))}'
    assert write(Grammar("lark", tool), 1) == '<call>{"a": 1}</call>'


def test_the_end_is_allowed_exactly_where_the_text_is_whole() -> None:
    """End tokens are masked until the grammar is complete, and are all that is left where nothing can follow."""
    constraint = GRAMMARS.start(Grammar("regex", "ab?"))
    assert EOS not in allowed(constraint)
    assert not constraint.whole
    constraint.accept(TOKENIZER.token_to_id("a"))
    assert constraint.whole
    assert EOS in allowed(constraint)
    constraint.accept(TOKENIZER.token_to_id("b"))
    assert allowed(constraint) == [EOS]


def test_every_end_token_ends() -> None:
    """A model with several end tokens may use any of them."""
    several = Grammars((DEFAULT / "tokenizer.json").read_bytes(), VOCABULARY, [EOS, 2])
    constraint = several.start(Grammar("regex", "a"))
    constraint.accept(TOKENIZER.token_to_id("a"))
    assert allowed(constraint) == [EOS, 2]


def test_a_replay_goes_on_where_the_other_was() -> None:
    """A stage that takes over needs the grammar and the tokens, nothing else; a copy is independent of its origin."""
    first = GRAMMARS.start(schema(BOUNDED))
    tokens = []
    for _ in range(12):
        tokens.append(random.Random(len(tokens)).choice(allowed(first)))
        first.accept(tokens[-1])
    second = GRAMMARS.start(schema(BOUNDED)).replay(tokens)
    assert allowed(second) == allowed(first)
    copy = first.copy()
    copy.accept(allowed(copy)[0])
    assert allowed(second) == allowed(first)


def test_logits_wider_or_narrower_than_the_vocabulary_are_masked() -> None:
    """Tokens that have no text can't come; a model with fewer logits than tokens is masked as far as it goes."""
    constraint = GRAMMARS.start(Grammar("regex", "[a-z]+"))
    wide = torch.zeros(VOCABULARY + 10)
    constraint.mask(wide)
    assert torch.isinf(wide[VOCABULARY - 2 :]).all()
    constraint.mask(torch.zeros(2000))


def test_a_dead_end_is_an_error() -> None:
    """Where the logits leave no token of the grammar, that is said, and nothing is made up."""
    constraint = GRAMMARS.start(Grammar("regex", "a"))
    with pytest.raises(PeerError, match="allows no token"):
        constraint.mask(torch.full((VOCABULARY,), float("-inf")))
    with pytest.raises(PeerError):
        constraint.accept(EOS)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"type": "string", "minLength": 5, "maxLength": 3}, r"minLength \(5\) is greater than maxLength \(3\)"),
        ({"enum": []}, "Unsatisfiable"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "incompatible types"),
        (False, "false"),
        ({"not": {}}, "Unimplemented keys"),
        ({"type": "lamp"}, "Invalid type: lamp"),
        ([1], "a schema is a JSON object"),
        ({"$ref": "#/definitions/x"}, "refers to #/definitions/x, which it hasn't got"),
        ({"$ref": "http://example.com/x"}, "only what it holds itself"),
        ({"properties": {"a": {"$id": "x:y"}}}, "an \\$id within it"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
    ],
)
def test_a_schema_that_cannot_be_met_is_refused(value: Any, reason: str) -> None:
    """With the reason, both where it's checked without a vocabulary and where tokens are chosen."""
    with pytest.raises(UserError, match=reason):
        check(schema(value))
    with pytest.raises(PeerError, match=reason):
        GRAMMARS.start(schema(value))


@pytest.mark.parametrize(
    "grammar",
    [
        Grammar("json_schema", "{"),
        Grammar("json_schema", '{"a":' * 100 + "1" + "}" * 100),
        Grammar("regex", "a("),
        Grammar("lark", "start"),
        Grammar("lark", "start: %json {"),
    ],
    ids=lambda grammar: grammar.text[:12],
)
def test_text_that_is_no_grammar_is_refused_in_one_line(grammar: Grammar) -> None:
    """Broken JSON, a broken regex, a broken grammar."""
    with pytest.raises(UserError) as caught:
        check(grammar)
    assert "\n" not in str(caught.value)


def nested(depth: int) -> Any:
    value: Any = {"type": "string"}
    for _ in range(depth):
        value = {"type": "object", "properties": {"a": value}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
    return value


def chained(count: int) -> Any:
    steps = {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2, "allOf": [{}]} for i in range(count)}
    return {"$defs": {**steps, f"d{count}": {"type": "null"}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    "grammar",
    [
        schema(nested(25)),
        schema(chained(40)),
        schema(chained(900)),
        Grammar("lark", f"start: %json {json.dumps(nested(25))}"),
        schema({"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(1900)}}),
        schema({"anyOf": [{"pattern": f"(a|b|c)*x.{{{i}}}y"} for i in range(1000)]}),
        schema({"properties": {f"{i:x}": {} for i in range(6500)}}),
        Grammar("lark", "start: r0\n" + "\n".join(f"r{i}: r{i + 1}" for i in range(4000)) + '\nr4000: "a"'),
        Grammar("regex", "((((a{1,100}){1,100}){1,100}){1,100}){1,100}"),
        Grammar("lark", "start: x\nx: " + " | ".join(["x x"] * 50 + ['"a"'])),
    ],
    ids=range(10),
)
def test_a_grammar_that_would_take_long_does_not(grammar: Grammar) -> None:
    """What would multiply out, or overflow the stack, takes a second of processor time at most, refused or not."""
    began_s = time.process_time()
    try:
        constraint = GRAMMARS.start(grammar)
        for _ in range(20):
            constraint.accept(allowed(constraint)[0])
    except PeerError:
        pass
    assert time.process_time() - began_s < 1.0


def test_a_schema_that_refers_to_itself_is_compiled_once() -> None:
    """A tree, as people write them, is no danger."""
    node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}
    check(schema({"$defs": {"node": node}, "$ref": "#/$defs/node"}))
    check(schema({"type": "array", "items": {"$ref": "#"}}))


def test_a_tokenizer_that_cannot_be_used_is_named() -> None:
    """Files that are no tokenizer, or a model that has no end, get one clear line."""
    for bad in (b"{}", b"nonsense", b"[]"):
        with pytest.raises(UserError, match="can't be used with a grammar"):
            Grammars(bad, 10, [1])
    with pytest.raises(UserError, match="end-of-sequence"):
        Grammars((DEFAULT / "tokenizer.json").read_bytes(), VOCABULARY, [])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYWORDS = st.sampled_from(["anyOf", "allOf", "properties", "items", "$ref", "type", "enum", "required", "pattern"])


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(KEYWORDS, JSON | st.sampled_from(["#", "string", "object", "#/anyOf/0"]), max_size=4))
def test_whatever_a_stranger_sends_is_refused_or_compiled(value: Any) -> None:
    """Nothing but a UserError comes of text that only looks like a schema."""
    with suppress(UserError):
        check(schema(value))
