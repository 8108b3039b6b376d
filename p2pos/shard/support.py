"""Which model types a stage serves: what the parity bench found, shipped as `support.json`.

The bench cuts a small model of each type that transformers knows, and compares what comes out with the whole model.
A node takes the record's word; it builds no test models. `scripts/make_support.py` writes the record anew.
"""

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import resources

HINT = "see docs/models.md for the types that can; Llama, Qwen3 and Gemma 3 are among them"

_trial: ContextVar[bool] = ContextVar("p2pos_support_trial", default=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found of one type."""

    plan: bool
    """Whether transformers publishes a pipeline plan for it."""
    equal: tuple[str, ...]
    """The checks in which its stages answered as the whole model does; `split` is the one that a node asks for."""
    reason: str
    """Why it is not served; "" where it is."""


@dataclass(frozen=True, slots=True)
class Record:
    """What one run of the bench found."""

    transformers: str
    """The version that it was made with."""
    types: dict[str, Verdict]


@functools.cache
def record() -> Record:
    """The record that came with the package."""
    return parse(resources.files("p2pos.shard").joinpath("support.json").read_text(encoding="utf-8"))


def parse(text: str) -> Record:
    """A record from its JSON."""
    value = json.loads(text)
    types = {
        name: Verdict(bool(entry["plan"]), tuple(entry["equal"]), str(entry["reason"]))
        for name, entry in value["types"].items()
    }
    return Record(str(value["transformers"]), types)


def dump(found: Record) -> str:
    """The JSON of a record, one type a line."""
    lines = [
        f"    {json.dumps(name)}: "
        + json.dumps({"plan": verdict.plan, "equal": list(verdict.equal), "reason": verdict.reason}, ensure_ascii=False)
        for name, verdict in sorted(found.types.items())
    ]
    return (
        f'{{\n  "transformers": {json.dumps(found.transformers)},\n  "types": {{\n' + ",\n".join(lines) + "\n  }\n}\n"
    )


def holds(model_type: str, check: str = "split") -> bool:
    """Whether the stages of a type were found equal to the whole model in a check of this name."""
    if _trial.get():
        return True
    verdict = record().types.get(model_type)
    return verdict is not None and check in verdict.equal


def why_not(model_type: str) -> str:
    """Why a node doesn't serve a type; "" where it does."""
    if holds(model_type):
        return ""
    verdict = record().types.get(model_type)
    if verdict is None:
        return f"nobody has compared its stages with the whole model under transformers {record().transformers}"
    return verdict.reason


@contextmanager
def on_trial() -> Iterator[None]:
    """Within this, every check holds of every type: for the bench, which finds out what belongs in the record."""
    token = _trial.set(True)
    try:
        yield
    finally:
        _trial.reset(token)
