"""How the tail chooses a token: penalties and filters by transformers, a draw that depends on seed and position.

The draw is a pure function of `(seed, position)`, so a stage that takes a session over in mid-sentence chooses the same
tokens. It is made on the CPU in fp32 for the same reason.
"""

import hashlib

import torch
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from p2pos.wire.messages import Sampling


def choose(logits: torch.Tensor, sampling: Sampling, seen: list[int], position: int) -> int:
    """The next token.

    Args:
        logits: (vocabulary,) of any float dtype.
        sampling: temperature, filters, penalty, seed. Applied in transformers' order.
        seen: prompt and tokens so far, for the repetition penalty; may be empty where it is off.
        position: of the token that is chosen.

    """
    scores = logits.detach().to("cpu", torch.float32).unsqueeze(0)
    ids = torch.tensor([seen], dtype=torch.long)
    if sampling.repetition_penalty != 1.0 and seen:
        scores = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(ids, scores)
    if sampling.temperature == 0.0:
        return int(scores.argmax())
    scores = TemperatureLogitsWarper(sampling.temperature)(ids, scores)
    if sampling.top_k:
        scores = TopKLogitsWarper(min(sampling.top_k, scores.shape[-1]))(ids, scores)
    if sampling.top_p < 1.0:
        scores = TopPLogitsWarper(sampling.top_p)(ids, scores)
    probabilities = scores[0].softmax(-1)
    ordered, order = probabilities.sort(descending=True, stable=True)
    # inverse transform sampling; the last index takes what rounding leaves of the sum
    rank = int(torch.searchsorted(ordered.cumsum(0), uniform(sampling.seed, position), right=True))
    return int(order[min(rank, int((ordered > 0).sum()) - 1)])


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that looks random, from the first 53 bits of blake2b(seed, position)."""
    digest = hashlib.blake2b(seed.to_bytes(8, "big") + position.to_bytes(8, "big"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
