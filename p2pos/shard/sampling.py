"""How the tail chooses a token: penalties and filters by transformers, a draw that depends on seed and position.

The draw is a pure function of `(seed, position)`, so a stage that takes a session over in mid-sentence chooses the same
tokens. It is made on the CPU in fp32 for the same reason.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from p2pos.wire.messages import Logprobs, Sampling

LEAST_TEMPERATURE = 1e-4
"""Below this it's greedy: the likeliest token would win anyway, and logits over it no longer fit fp32."""


class Constraint(Protocol):
    """What holds a text to a grammar; `grammar.Grammars` makes them."""

    def mask(self, scores: torch.Tensor) -> None:
        """Set the scores, (vocabulary,) fp32, of all tokens that can't come next to -inf. Raises PeerError."""

    def accept(self, token: int) -> None:
        """Take the token that was chosen. Raises PeerError."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token, and how likely the model held it where that was asked for."""

    token: int
    logprobs: Logprobs | None = None


def choose(
    logits: torch.Tensor,
    sampling: Sampling,
    *,
    prompt: Sequence[int],
    generated: Sequence[int],
    position: int,
    constraint: Constraint | None = None,
) -> Chosen:
    """The next token.

    Args:
        logits: (vocabulary,) of any float dtype.
        sampling: penalties, bias, temperature, filters, seed. Applied in transformers' order.
        prompt: for the repetition penalty alone; may be empty where that is off.
        generated: the tokens chosen so far, for the penalties.
        position: of the token that is chosen.
        constraint: what the text is held to; it is told of the token.

    Raises PeerError where the constraint leaves no token.

    """
    raw = logits.detach().to("cpu", torch.float32)
    scores = _penalised(raw, sampling, prompt, generated)
    if constraint is not None:
        scores = scores.clone() if scores is raw else scores
        constraint.mask(scores)
    greedy = sampling.temperature < LEAST_TEMPERATURE
    token = int(scores.argmax()) if greedy else _draw(scores, sampling, position)
    if constraint is not None:
        constraint.accept(token)
    return Chosen(token, _logprobs(raw, token, sampling.logprobs - 1) if sampling.logprobs else None)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that looks random, from the first 53 bits of blake2b(seed, position)."""
    digest = hashlib.blake2b(seed.to_bytes(8, "big") + position.to_bytes(8, "big"), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def _penalised(raw: torch.Tensor, sampling: Sampling, prompt: Sequence[int], generated: Sequence[int]) -> torch.Tensor:
    """The scores, (vocabulary,) fp32, after penalties and bias; `raw` itself where there are none."""
    scores = raw
    if sampling.repetition_penalty != 1.0 and (prompt or generated):
        seen = torch.tensor([[*prompt, *generated]], dtype=torch.long)
        scores = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(seen, scores.unsqueeze(0))[0]
    if generated and (sampling.presence_penalty or sampling.frequency_penalty):
        # OpenAI's: logit -= count × frequency + (count > 0) × presence
        counts = Counter(generated)
        taken = [count * sampling.frequency_penalty + sampling.presence_penalty for count in counts.values()]
        scores = scores.index_add(0, torch.tensor(list(counts)), -torch.tensor(taken))
    bias = [(token, value) for token, value in sampling.logit_bias if token < len(scores)]
    if bias:
        tokens = torch.tensor([token for token, _ in bias], dtype=torch.long)
        scores = scores.index_add(0, tokens, torch.tensor([value for _, value in bias]))
    return scores


def _draw(scores: torch.Tensor, sampling: Sampling, position: int) -> int:
    """A token, with the probabilities that temperature and filters leave."""
    none = torch.empty((1, 0), dtype=torch.long)  # these look at no tokens
    rows = TemperatureLogitsWarper(sampling.temperature)(none, scores.unsqueeze(0))
    if sampling.top_k:
        rows = TopKLogitsWarper(min(sampling.top_k, rows.shape[-1]))(none, rows)
    if sampling.top_p < 1.0:
        rows = TopPLogitsWarper(sampling.top_p)(none, rows)
    if sampling.min_p:
        rows = MinPLogitsWarper(sampling.min_p)(none, rows)
    probabilities = rows[0].softmax(-1)
    ordered, order = probabilities.sort(descending=True, stable=True)
    # inverse transform sampling; the last index takes what rounding leaves of the sum
    rank = int(torch.searchsorted(ordered.cumsum(0), uniform(sampling.seed, position), right=True))
    return int(order[min(rank, int((ordered > 0).sum()) - 1)])


def _logprobs(raw: torch.Tensor, token: int, top: int) -> Logprobs:
    """Of the chosen token and of the `top` likeliest ones, of the model's own distribution."""
    logs = raw.log_softmax(-1)
    values, tokens = logs.topk(min(top, len(logs)))
    return Logprobs(float(logs[token]), list(zip(tokens.tolist(), values.tolist(), strict=True)))
