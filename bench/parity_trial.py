"""One model type on trial: its stages against the whole model. `python -m bench.parity_trial` is a worker.

A worker reads a type's name a line on standard input and answers each with one JSON object a line, so that a type that
crashes or hangs takes nothing but its worker with it.
"""

import dataclasses
import itertools
import json
import math
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
from p2pos import log
from p2pos.errors import P2posError
from p2pos.shard import activations, architecture, exceptions, support
from p2pos.shard.runners import Paged, Work, choose
from p2pos.shard.stage import Stage
from p2pos.types import LayerSpan

PROMPT, CHUNK, STEPS = 24, 13, 4
"""Tokens of the prompt, of its first chunk, and decoded after it; longer than every window of the tiny configs."""

CUTS = ((0, 3, 6), (0, 1, 3, 6), (0, 2, 4, 6))
"""In two and in three, so that each kind of layer comes first, in the middle and last in a span."""

TOLERANCE = 1e-5
"""Of a logit in fp32, the bar's. Logits here vary by about one."""

ROUNDING = 1e-4
"""Of a logit where the comparison adds in another order than the whole model does: several texts in one batch."""

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
        if self.reason:
            return ()
        allowed = {"split": TOLERANCE, **{name: tolerance for name, (_, tolerance) in MORE.items()}}
        return tuple(name for name, diff in self.diffs.items() if diff <= allowed[name])


def split(stages: Stages, whole: Any, tokens: torch.Tensor) -> float:
    """Prefill in two chunks and cached decode, one session."""
    expected = whole_logits(whole, tokens)
    return float((stage_logits(stages, tokens) - expected).abs().max().nan_to_num(math.inf))


@torch.inference_mode()
def side_by_side(stages: Stages, whole: Any, tokens: torch.Tensor) -> float:
    """Two texts in the same steps over paged blocks, chunks and decode steps mixed; infinite where that isn't done."""
    texts = (tokens, tokens.flip(0)[:9])
    steps = ((CHUNK, 5), (PROMPT - CHUNK, 1), (1, 1), (1, 1), (1, 1))
    expected = [whole(text[None]).logits[0] for text in texts]
    chosen = [choose(stage, max_tokens=256, max_bytes=1 << 30) for stage in stages]
    runners = [runner for runner in chosen if isinstance(runner, Paged)]
    if len(runners) < len(chosen):
        return math.inf
    names = [bytes([number]) for number in range(len(texts))]
    for runner in runners:
        for name, text in zip(names, texts, strict=True):
            runner.admit(name, len(text), [])
    ends, worst = [0] * len(texts), 0.0
    for counts in steps:
        rows = [text[end : end + count] for text, end, count in zip(texts, ends, counts, strict=True)]
        for runner in runners:
            last = runner is runners[-1]
            works = [Work(*each, want_logits=last) for each in zip(names, ends, rows, strict=True)]
            rows = runner.run(works, [runner.prepare(work.session, work.position, work.rows) for work in works])
            for work in works:
                runner.done(work.session, work.position, work.rows, [])
        ends = [end + count for end, count in zip(ends, counts, strict=True)]
        for logits, wanted, end in zip(rows, expected, ends, strict=True):
            worst = max(worst, float((logits - wanted[end - 1]).abs().max().nan_to_num(math.inf)))
    return worst


MORE: dict[str, tuple[Check, float]] = {"paged": (side_by_side, ROUNDING)}
"""Checks besides `split`, by the name that the record has them under, with what a logit may differ by. They run after
it on the same stages; what one raises says that it doesn't hold."""


def bounds() -> list[int]:
    """Where the runs of a text begin and end."""
    return [0, CHUNK, *range(PROMPT, PROMPT + STEPS + 1)]


def stage_logits(stages: Stages, tokens: torch.Tensor) -> torch.Tensor:
    """Logits (runs, vocabulary) after each run, through stages in a row; what passes between them as on the wire."""
    caches = [stage.new_cache() for stage in stages]
    found = []
    for start, end in itertools.pairwise(bounds()):
        flow = tokens[start:end]
        for stage, cache in zip(stages, caches, strict=True):
            if not stage.is_head:
                header, payload = activations.to_wire(flow)
                flow = activations.from_wire(
                    header, payload, width=stage.width, dtype="f32", device=stage.device, peer="the stage before"
                )
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


def attempt(model_type: str) -> Outcome:
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
        diffs = dict.fromkeys(("split", *MORE), 0.0)
        loudest = 0.0
        for cut in CUTS:
            spans = [LayerSpan(start, end) for start, end in itertools.pairwise(cut)]
            stages = [Stage.load(directory, span, dtype="f32") for span in spans]
            diffs["split"] = max(diffs["split"], split(stages, whole, tokens))
            if len(stages) > 2:
                gap = stage_logits([stages[0], *stages[2:]], tokens) - whole_logits(whole, tokens)
                loudest = max(loudest, float(gap.abs().max()))
            for name, (check, _) in MORE.items():
                diffs[name] = max(diffs[name], _or_infinite(check, stages, whole, tokens))
        if loudest < LOUD:
            reason = reason or "its logits don't tell whether layers are left out, so nothing was found out"
        if diffs["split"] > TOLERANCE:
            reason = reason or f"its stages answer otherwise than the whole model, by {diffs['split']:.1g} of a logit"
    return Outcome(model_type, plan, diffs, reason)


def _or_infinite(check: Check, stages: Stages, whole: Any, tokens: torch.Tensor) -> float:
    try:
        return check(stages, whole, tokens)
    except Exception:  # noqa: BLE001 - a hundred and more architectures' code, any of which may raise anything
        return math.inf


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
    log.configure(level="error")  # standard output is for answers
    for line in sys.stdin:
        print(json.dumps(dataclasses.asdict(try_out(line.strip()))), flush=True)


if __name__ == "__main__":
    main()
