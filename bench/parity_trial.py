"""One model type on trial: its stages against the whole model. `python -m bench.parity_trial` is a worker.

A worker reads a type's name a line on standard input and answers each with one JSON object a line, so that a type that
crashes or hangs takes nothing but its worker with it.
"""

import dataclasses
import itertools
import json
import resource
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from bench import tiny_models
from p2pos.errors import P2posError
from p2pos.shard import architecture, exceptions, support
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan

PROMPT, CHUNK, STEPS = 24, 13, 4
"""Tokens of the prompt, of its first chunk, and decoded after it; longer than every window of the tiny configs."""

CUTS = ((0, 3, 6), (0, 1, 3, 6), (0, 2, 4, 6))
"""In two and in three, so that each kind of layer comes first, in the middle and last in a span."""

TOLERANCE = 1e-5
"""Of a logit in fp32, the bar's. Logits here vary by about one."""

SAME = 1e-3
"""How far the whole model's logits with a cache may be from its own without one. They differ by rounding alone, which
comes in another order; a hundred times that is a fault of its code, and then no cut can be right."""

LOUD = 1e-2
"""By how much a cut that leaves layers out must differ, or the comparison says nothing."""

MEMORY = 8 << 30
"""Bytes of addresses for a worker: torch maps a few GiB of libraries; a model that isn't tiny after all fails."""

Stages = list[Stage]
Check = Callable[[Stages, Any, torch.Tensor], float]
"""Runs tokens (rows,) int64 through stages and through the whole model; gives the greatest difference of a logit."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one type."""

    model_type: str
    plan: bool
    diffs: dict[str, float]
    """The greatest difference found by each check."""
    reason: str
    """Why the type can't be served; "" where it can."""

    @property
    def equal(self) -> tuple[str, ...]:
        """The checks that hold."""
        return tuple(name for name, diff in self.diffs.items() if diff <= TOLERANCE) if not self.reason else ()


def split(stages: Stages, whole: Any, tokens: torch.Tensor) -> float:
    """Prefill in two chunks and cached decode, one session."""
    expected = whole_logits(whole, tokens)
    return float((stage_logits(stages, tokens) - expected).abs().max())


CHECKS: dict[str, Check] = {"split": split}
"""By name. `split` is what a node asks for; others say of a type what more holds for it."""


def bounds() -> list[int]:
    """Where the runs of a text begin and end."""
    return [0, CHUNK, *range(PROMPT, PROMPT + STEPS + 1)]


def stage_logits(stages: Stages, tokens: torch.Tensor) -> torch.Tensor:
    """Logits (runs, vocabulary) after each run, through stages in a row."""
    caches = [stage.new_cache() for stage in stages]
    found = []
    for start, end in itertools.pairwise(bounds()):
        flow = tokens[start:end]
        for stage, cache in zip(stages, caches, strict=True):
            flow = stage.run(flow, cache, want_logits=stage.is_tail)
        found.append(flow)
    return torch.stack(found)


@torch.inference_mode()
def whole_logits(whole: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Logits (runs, vocabulary) after each run of the whole model, with the cache that it makes itself."""
    name = architecture.cache_name(whole)
    kind = whole.config.get_text_config(decoder=True).model_type
    extra: dict[str, Any] = {"logits_to_keep": 1} if architecture.takes(whole, "logits_to_keep") else {}
    cache, found = None, []
    for start, end in itertools.pairwise(bounds()):
        pieces = range(start, end) if start and kind in exceptions.STEPWISE else [start]
        for begin, stop in itertools.pairwise([*pieces, end]):
            if kind in exceptions.POSITIONS:
                extra["position_ids"] = torch.arange(begin, stop)[None]
            given: dict[str, Any] = {name: cache} if cache is not None else {}
            output = whole(tokens[None, begin:stop], use_cache=True, **given, **extra)
            cache = output[name]
        found.append(output.logits[0, -1])
    return torch.stack(found)


def attempt(model_type: str, checks: dict[str, Check] = CHECKS) -> Outcome:
    """Put a type on trial. Raises what its code raises."""
    plan = tiny_models.has_plan(model_type)
    if model_type in exceptions.REFUSED:
        return Outcome(model_type, plan, {}, exceptions.REFUSED[model_type])
    with tempfile.TemporaryDirectory() as scratch, support.on_trial():
        directory = tiny_models.save(Path(scratch) / "model", model_type)
        whole = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        text, seed = tiny_models.TEXT, torch.Generator().manual_seed(1)
        tokens = torch.randint(text.start, text.stop, (PROMPT + STEPS,), generator=seed)
        reason = _own_fault(whole, tokens)
        diffs = dict.fromkeys(checks, 0.0)
        for cut in CUTS:
            spans = [LayerSpan(start, end) for start, end in itertools.pairwise(cut)]
            stages = [Stage.load(directory, span, dtype="f32") for span in spans]
            for name, check in checks.items():
                diffs[name] = max(diffs[name], check(stages, whole, tokens))
        missing = stage_logits([stages[0], *stages[2:]], tokens)
        if not float((missing - whole_logits(whole, tokens)).abs().max()) > LOUD:
            reason = reason or "its logits don't tell whether layers are left out, so nothing was found out"
        if not diffs["split"] <= TOLERANCE:  # so that NaN is a difference too
            reason = reason or f"its stages answer otherwise than the whole model, by {diffs['split']:.1g} of a logit"
    return Outcome(model_type, plan, diffs, reason)


@torch.inference_mode()
def _own_fault(whole: Any, tokens: torch.Tensor) -> str:
    """Why no cut of this model can be right: "" where the whole agrees with itself."""
    at_once = whole(tokens[None]).logits[0][[end - 1 for end in bounds()[1:]]]
    off = float((at_once - whole_logits(whole, tokens)).abs().max())
    return "" if off <= SAME else f"its own code answers otherwise with a cache than without, by {off:.1g} of a logit"


def try_out(model_type: str) -> Outcome:
    """Put a type on trial; what its code raises is the reason for which it isn't served."""
    try:
        return attempt(model_type)
    except P2posError as exc:
        reason = str(exc)
    except Exception as exc:  # noqa: BLE001 - a hundred and more architectures' code, any of which may raise anything
        line = (str(exc).strip() or "no more is said").splitlines()[0]
        reason = f"its code fails on a cut: {type(exc).__name__}: {line[:120]}"
    return Outcome(model_type, tiny_models.has_plan(model_type), {}, reason)


def main() -> None:
    """Answer types until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(try_out(line.strip()))), flush=True)


if __name__ == "__main__":
    main()
