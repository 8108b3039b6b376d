"""Text held to a JSON schema, a regular expression or a Lark grammar, by llguidance, where tokens are chosen.

A grammar may come from a stranger. Its text is bounded by the wire, its nesting and expansion are checked here before
it is compiled, and llguidance counts the work of compiling and of each step against the limits below. What exceeds one
ends that session.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Self
from urllib.parse import unquote

import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from p2pos.content import strict_json
from p2pos.errors import PeerError, UserError
from p2pos.wire.messages import Grammar

MAX_EXPANSION = 20_000
"""Alternatives that a schema has when those of `anyOf`, `allOf` and `$ref` are multiplied out, as compiling does where
they stand beside other keywords. Some 40 µs each; schemas in use have hundreds."""
MAX_REFERENCES = 100
"""References that lead from one to the next."""
MAX_PROPERTIES = 2000
"""Of one object: compiling takes the square of their number, 3 s for 6,500."""
MAX_LARK_LINES = 200
"""Of a Lark grammar, and so of its rules: llguidance follows a chain of them on the stack, which ends at some 2,500."""

_LIMITS = LLParserLimits(
    max_items_in_row=1000,  # half of the default: rows of a thousand items take some 40 ms a step
    initial_lexer_fuel=300_000,  # ~6 ms of regex analysis by llguidance's own figure, with room to spare
    step_lexer_fuel=100_000,  # ~7 ms a step
    step_max_items=20_000,  # ~1 ms a step
    max_lexer_states=50_000,  # 50 to 100 MB, at 1 to 2 kB each
    max_grammar_size=50_000,  # symbols; a tenth of the default
    verbose_errors=False,  # an error says what is wrong, not the whole grammar
)
_WRITTEN = {"whitespace_flexible": False, "key_separator": ": ", "item_separator": ", "}
"""JSON as `json.dumps` writes it. With white space at will, a weak model writes nothing else."""


class Grammars:
    """Makes constraints for one model's vocabulary. Making this takes about a second for 100,000 tokens.

    Args:
        tokenizer: the bytes of tokenizer.json.
        vocabulary: how many logits the model gives; may be more than the tokenizer knows.
        eos: the ids that end a text.

    Raises UserError where the tokenizer can't be used.

    """

    def __init__(self, tokenizer: bytes, vocabulary: int, eos: Sequence[int]) -> None:
        if not eos:
            raise UserError("a grammar needs a model with an end-of-sequence token")
        try:
            # without `slices`, which speed up what a bitmask costs, JSON strings would cost milliseconds a token
            self._tokenizer = LLTokenizer(
                json.dumps(json.loads(tokenizer)),  # an argument that is no JSON object would be taken for a path
                n_vocab=vocabulary,
                eos_token=list(eos),
                slices=LLTokenizer.json_slices(),
            )
        except ValueError as exc:
            raise UserError(f"the tokenizer can't be used with a grammar: {_line(str(exc))}") from exc

    def start(self, grammar: Grammar) -> "GrammarConstraint":
        """The constraint of a text that begins now. Raises PeerError where the grammar can't be compiled or met."""
        try:
            source = _compile(grammar)
        except UserError as exc:
            raise PeerError("", exc.message) from exc
        return GrammarConstraint(LLMatcher(self._tokenizer, source, log_level=0, limits=_LIMITS))


class GrammarConstraint:
    """What holds one text to its grammar. Its state is a pure function of the grammar and the tokens accepted."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher
        self._raise_error()

    def mask(self, scores: torch.Tensor) -> None:
        """Set to -inf what can't come next.

        scores: (vocabulary,) fp32 on the CPU. End tokens are left exactly where the text is whole. Raises PeerError
        where nothing can come next, or the limits are reached.
        """
        # one byte per token: 200 where it may come, 0 where not
        allowed = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8) != 0
        self._raise_error()
        size = min(len(allowed), len(scores))
        scores[size:] = float("-inf")
        scores[:size].masked_fill_(~allowed[:size], float("-inf"))
        if bool((scores == float("-inf")).all()):
            raise PeerError("", "the grammar allows no token that the model can choose")

    def accept(self, token: int) -> None:
        """Take the token that was chosen. Raises PeerError where the grammar doesn't allow it."""
        if not self._matcher.consume_token(token):
            self._raise_error()
            raise PeerError("", f"token {token} is not what the grammar allows")

    def replay(self, tokens: Iterable[int]) -> Self:
        """Take tokens that another stage chose, so that this one goes on from there. Raises PeerError."""
        for token in tokens:
            self.accept(token)
        return self

    def copy(self) -> "GrammarConstraint":
        """Another that has accepted the same tokens."""
        return GrammarConstraint(self._matcher.deep_copy())

    @property
    def whole(self) -> bool:
        """Whether the text may end here."""
        return bool(self._matcher.is_accepting())

    def _raise_error(self) -> None:
        if self._matcher.is_error():
            raise PeerError("", f"the grammar can't be met: {_line(self._matcher.get_error())}")


def check(grammar: Grammar) -> None:
    """Compile a grammar without a vocabulary, as its author would want to hear of faults before a session opens.

    Raises UserError that says what is wrong.
    """
    failed, reasons = LLMatcher.validate_grammar_with_warnings(_compile(grammar), None, limits=_LIMITS)
    if failed:
        raise UserError(_line(reasons[0]))


def schema(value: Any) -> Grammar:
    """The grammar of a JSON schema."""
    return Grammar("json_schema", json.dumps(value))


def written(schema: Any) -> Any:
    """A schema for use in a Lark grammar after `%json`: its JSON is written as `json_schema` grammars have theirs."""
    return {**schema, "x-guidance": _WRITTEN} if isinstance(schema, dict) else schema


def _compile(grammar: Grammar) -> str:
    """What llguidance takes. Raises UserError for what isn't a schema, or would take too long."""
    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.text)
    if grammar.kind == "lark":
        if len(grammar.text.splitlines()) > MAX_LARK_LINES:
            raise UserError(f"the grammar has more than {MAX_LARK_LINES} lines")
        for schema in _embedded(grammar.text):
            _check_expansion(schema)
        return LLMatcher.grammar_from_lark(grammar.text)
    try:
        schema = strict_json.loads(grammar.text.encode())
    except (ValueError, RecursionError) as exc:
        raise UserError(f"the schema is not JSON: {exc}") from exc
    if not isinstance(schema, dict | bool):
        raise UserError("a schema is a JSON object")
    _check_expansion(schema)
    if schema is False:
        raise UserError("the schema is false, which nothing meets")
    try:
        return LLMatcher.grammar_from_json_schema(json.dumps(written({} if schema is True else schema)))
    except ValueError as exc:  # what Python's JSON admits and Rust's doesn't: half a character, NaN
        raise UserError(f"the schema is not JSON: {_line(str(exc))}") from exc


def _embedded(lark: str) -> list[Any]:
    """The schemas that stand in a Lark grammar after `%json`."""
    schemas = []
    for piece in lark.split("%json")[1:]:
        text = piece.lstrip()
        try:
            _, end = json.JSONDecoder().raw_decode(text)
            schemas.append(strict_json.loads(text[:end].encode()))
        except (ValueError, RecursionError) as exc:
            raise UserError(f"what follows %json is not a schema: {exc}") from exc
    return schemas


def _check_expansion(schema: Any) -> None:
    size = _Expansion(schema).of(schema, 0)
    if size > MAX_EXPANSION:
        raise UserError(f"the schema has more than {MAX_EXPANSION} alternatives when multiplied out")


class _Expansion:
    """An upper bound of the alternatives that compiling a schema looks at."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._known: dict[str, int] = {}

    def of(self, schema: Any, references: int) -> int:
        """The alternatives, or a number over the limit."""
        if isinstance(schema, list):
            return self._sum(schema, references)
        if not isinstance(schema, dict):
            return 1
        if "$id" in schema and schema is not self._root:
            raise UserError("the schema has an $id within it, which changes what its references mean")
        size = 1
        for key in ("properties", "patternProperties"):
            if isinstance(under := schema.get(key), dict):
                if len(under) > MAX_PROPERTIES:
                    raise UserError(f"an object of the schema has more than {MAX_PROPERTIES} properties")
                size += self._sum(list(under.values()), references)
        for key in ("items", "prefixItems", "additionalItems", "additionalProperties", "propertyNames", "contains"):
            if key in schema:
                size += self.of(schema[key], references)
        for key in ("anyOf", "oneOf"):
            if isinstance(options := schema.get(key), list):
                size = self._capped(size * self._sum(options, references))
        for each in schema["allOf"] if isinstance(schema.get("allOf"), list) else []:
            size = self._capped(size * self.of(each, references))
        if isinstance(schema.get("$ref"), str):
            size = self._capped(size * self._target(schema["$ref"], references + 1))
        return size

    def _target(self, pointer: str, references: int) -> int:
        if references > MAX_REFERENCES:
            raise UserError(f"the schema has a chain of more than {MAX_REFERENCES} references")
        if pointer not in self._known:
            self._known[pointer] = 1  # what refers to itself is compiled once
            self._known[pointer] = self.of(self._find(pointer), references)
        return self._known[pointer]

    def _find(self, pointer: str) -> Any:
        """What a `#/…` pointer means (RFC 6901)."""
        where, *parts = pointer.split("/")
        if where != "#":
            raise UserError(f"the schema refers to {pointer[:100]}; only what it holds itself, #/…, can be used")
        found = self._root
        for part in parts:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdecimal() and len(key) < 6 and int(key) < len(found):
                found = found[int(key)]
            else:
                raise UserError(f"the schema refers to {pointer[:100]}, which it hasn't got")
        return found

    def _sum(self, schemas: list[Any], references: int) -> int:
        return self._capped(max(1, sum(self.of(each, references) for each in schemas)))

    def _capped(self, size: int) -> int:
        return min(size, MAX_EXPANSION + 1)


def _line(text: str) -> str:
    """The first line of a message of llguidance, with the position that follows it where it is one of a regex."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("<")]
    named = [line for line in lines[1:] if line.startswith("error:")]
    return " ".join([*lines[:1], *named])[:500]
