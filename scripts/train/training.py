"""One pass over the stories: AdamW, a warm-up, a cosine down, one process.

A batch is halved, and each half goes forward and backward in a Python thread of its own, by operations that use one
core each. The threads meet once a step; torch's own threads meet in every operation, and spend their time waiting as
soon as another process takes a core. It also makes the order of sums, and so the weights, the same for any number of
cores.
"""

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaForCausalLM

from scripts.train.tokenizer import EOS


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is trained, and how fast. The defaults are the default model's."""

    seed: int = 2
    stories: int = 13_000
    """Each is seen once; they make the number of steps."""
    batch: int = 4
    """Sequences in a step: few, because steps are what a short training lacks."""
    sequence: int = 256
    """Tokens in a sequence; most stories fit."""
    peak_rate: float = 2e-3
    """AdamW's learning rate after the warm-up; twice as much was worse after 200,000 tokens."""
    floor_share: float = 0.05
    """Of the peak, at the end."""
    warmup_share: float = 0.05
    """Of the steps."""
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    threads: int = 2
    """The parts of a batch. Fixed, because the order of sums shows in the weights."""


def pack(texts: Sequence[str], tokenizer: Tokenizer, length: int) -> torch.Tensor:
    """All texts as one run of tokens, BOS before and EOS after each, cut into rows.

    Returns (rows, length) int64; the tokens after the last full row are dropped.
    """
    end = tokenizer.token_to_id(EOS)
    run = [token for encoding in tokenizer.encode_batch(list(texts)) for token in (*encoding.ids, end)]
    rows = len(run) // length
    return torch.tensor(run[: rows * length], dtype=torch.int64).view(rows, length)


def rate_share(step: int, steps: int, plan: Plan) -> float:
    """The learning rate at a step, as a share of the peak: linear up, cosine down to the floor."""
    warmup = max(1, round(steps * plan.warmup_share))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return plan.floor_share + (1 - plan.floor_share) * 0.5 * (1 + math.cos(math.pi * done))


def train(model: LlamaForCausalLM, rows: torch.Tensor, plan: Plan) -> float:
    """Train the model in place, on each row once.

    Args:
        model: fp32 weights; matrix products run in bf16.
        rows: (rows, sequence) int64.
        plan: the rest.

    Returns the mean loss of the last twentieth of the steps, in nats per token.

    """
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in parameters if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=plan.peak_rate, betas=(0.9, 0.98), fused=True)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(plan.seed))
    batches = [rows[chosen] for chosen in torch.split(order, plan.batch)]
    schedule = LambdaLR(optimizer, lambda step: rate_share(step, len(batches), plan))

    def gradients(part: torch.Tensor) -> tuple[float, tuple[torch.Tensor, ...]]:
        """The loss of a part of a batch, and its gradient by each parameter."""
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=part, labels=part, use_cache=False).loss
        return loss.item(), torch.autograd.grad(loss, parameters)

    losses: list[float] = []
    start_s = time.monotonic()
    model.train()
    with one_core_per_operation(), ThreadPoolExecutor(plan.threads) as pool:
        for step, batch in enumerate(batches):
            parts = batch.chunk(plan.threads)
            weights = [len(part) / len(batch) for part in parts]
            results = list(pool.map(gradients, parts))
            for parameter, *grads in zip(parameters, *(grads for _, grads in results), strict=True):
                parameter.grad = sum(weight * grad for weight, grad in zip(weights, grads, strict=True))
            torch.nn.utils.clip_grad_norm_(parameters, plan.clip_norm)
            optimizer.step()
            schedule.step()
            losses.append(sum(weight * loss for weight, (loss, _) in zip(weights, results, strict=True)))
            if step % 100 == 0:
                so_far_s = time.monotonic() - start_s
                print(
                    f"step {step} of {len(batches)}, {so_far_s:.0f} s, loss {losses[-1]:.2f} nats/token",
                    file=sys.stderr,
                )
    model.eval()
    tail = losses[-max(1, len(losses) // 20) :]
    return sum(tail) / len(tail)


@contextlib.contextmanager
def one_core_per_operation() -> Iterator[None]:
    """Keep torch from splitting an operation among its own threads, until the end of the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
