"""Attention over a paged KV cache, behind transformers' attention interface: many sessions' rows in one forward.

A stage's model is called once with the rows of all sessions side by side, `(1, rows, width)`, and each row's position.
Everything in a transformer but attention treats rows alike. Attention comes here: `attend` writes the new keys and
values to their sessions' blocks, and answers each session from its own blocks by the model's own attention function.
Which positions a row may see is the model's word as well: its masks are functions of two positions, asked here.

Decode steps are answered together, padded to the longest of them; each chunk of a prompt is answered by itself. On a
CPU a long session's decode step is answered by itself as well, where its blocks lie in a row: then nothing is copied.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, Cache
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from p2pos.errors import InternalError
from p2pos.wire.messages import BLOCK_TOKENS

PREFIX = "p2pos_"
"""Before the name of the attention function that answers each session: `p2pos_sdpa`, `p2pos_eager`."""


LONG = 256
"""Positions from which copying a session's keys and values costs a CPU more than one more call."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One session's part of a step."""

    position: int
    """Of its first row."""
    count: int
    blocks: Sequence[int]
    """The session's blocks, with room for these rows."""

    @property
    def in_a_row(self) -> bool:
        """Whether its blocks are neighbours, so that a view shows them all."""
        used = self.blocks[: -(-(self.position + self.count) // BLOCK_TOKENS)]
        return all(after - before == 1 for before, after in pairwise(used))

    def together(self, device: torch.device) -> bool:
        """Whether it is answered together with others of its kind."""
        return self.count == 1 and not (device.type == "cpu" and self.position >= LONG and self.in_a_row)


class _Group:
    """Sessions that are answered by one call of the attention function."""

    def __init__(self, rows: slice, sessions: Sequence[Rows], device: torch.device) -> None:
        self.rows = rows
        self.size = len(sessions)
        self.count = sessions[0].count
        self.longest = max(each.position + each.count for each in sessions)
        self.fresh = self.size == 1 and sessions[0].position == 0
        self.run: slice | None = None
        if self.size == 1 and sessions[0].in_a_row:
            first = sessions[0].blocks[0] * BLOCK_TOKENS
            self.run = slice(first, first + self.longest)
        self._sessions = sessions
        self._device = device

    @cached_property
    def _lengths(self) -> torch.Tensor:
        """(sessions, 1, 1, 1): of each session, these rows included."""
        lengths = [each.position + each.count for each in self._sessions]
        return torch.tensor(lengths, device=self._device).view(-1, 1, 1, 1)

    @cached_property
    def _slots(self) -> torch.Tensor:
        """(sessions × longest,): where each position's keys and values lie."""
        wide = -(-self.longest // BLOCK_TOKENS)
        blocks = [list(each.blocks[:wide]) for each in self._sessions]
        table = torch.tensor([each + [0] * (wide - len(each)) for each in blocks], device=self._device)
        inside = torch.arange(BLOCK_TOKENS, device=self._device)
        slots = (table.unsqueeze(-1) * BLOCK_TOKENS + inside).view(self.size, -1)
        # past its end a session reads its last slot again: a slot that nobody wrote may hold NaN, which no mask removes
        places = torch.arange(self.longest, device=self._device).minimum(self._lengths.view(-1, 1) - 1)
        return slots.gather(1, places).view(-1)

    def gather(self, pool: torch.Tensor) -> torch.Tensor:
        """(sessions, heads, longest, width) of a pool (heads, slots, width): a view where the blocks lie in a row."""
        if self.run:
            return pool[:, self.run].unsqueeze(0)
        found = pool.index_select(1, self._slots)
        return found.view(pool.shape[0], self.size, self.longest, pool.shape[2]).transpose(0, 1)

    def mask(self, rule: Callable[..., Any], *, knows_causal: bool) -> torch.Tensor | None:
        """What each row may see, (sessions, 1, rows, longest) bool, or None where the attention function needs none."""
        device = self._device
        # a mask of ones costs nothing, and without one transformers' sdpa takes a way that is ten times slower for the
        # one row of a decode step with grouped heads on a CPU (0.53 ms against 0.05 at 128 positions)
        if rule is causal_mask_function and self.fresh and knows_causal and self.count > 1:
            return None
        if rule is causal_mask_function and self.size == self.count == 1:
            return torch.ones(1, 1, 1, self.longest, dtype=torch.bool, device=device)
        keys = torch.arange(self.longest, device=device).view(1, 1, 1, -1)
        queries = self._lengths - self.count + torch.arange(self.count, device=device).view(1, 1, -1, 1)
        zero = torch.zeros((), dtype=torch.long, device=device)
        seen = rule(zero, zero, queries, keys)
        allowed: torch.Tensor = (seen & (keys < self._lengths)).expand(self.size, 1, self.count, self.longest)
        return allowed


class Step:
    """What one forward is made of.

    Args:
        sessions: their rows, in the order in which they stand in the batch: those first that are answered `together`.
        device: of the model.

    """

    def __init__(self, sessions: Sequence[Rows], device: torch.device) -> None:
        start = 0
        while start < len(sessions) and sessions[start].together(device):
            start += 1
        self.groups = [_Group(slice(0, start), sessions[:start], device)] if start else []
        for each in sessions[start:]:
            self.groups.append(_Group(slice(start, start + each.count), [each], device))
            start += each.count
        places = [
            each.blocks[position // BLOCK_TOKENS] * BLOCK_TOKENS + position % BLOCK_TOKENS
            for each in sessions
            for position in range(each.position, each.position + each.count)
        ]
        self.positions = torch.tensor(
            [p for each in sessions for p in range(each.position, each.position + each.count)], device=device
        )
        self.slots = torch.tensor(places, device=device)
        self._masks: dict[tuple[int, Any], torch.Tensor | None] = {}

    def mask(self, number: int, rule: Callable[..., Any], additive: torch.dtype | None) -> torch.Tensor | None:
        """The mask of one group, made once for all layers that share the rule.

        Args:
            number: of the group.
            rule: of two positions, as transformers writes masks.
            additive: the dtype of a mask that is added to the scores; None gives a bool mask, for sdpa.

        """
        key = number, rule
        if key not in self._masks:
            mask = self.groups[number].mask(rule, knows_causal=additive is None)
            if mask is not None and additive is not None:
                zeros = torch.zeros(mask.shape, dtype=additive, device=mask.device)
                mask = zeros.masked_fill(~mask, torch.finfo(additive).min)
            self._masks[key] = mask
        return self._masks[key]


class PagedKv:
    """Keys and values of a span's layers, in blocks that sessions share out among themselves.

    Args:
        shapes: layer → (heads, key width, value width), as `probe` found them.
        blocks: how many blocks there are.
        dtype: of the cache.
        device: where it lies. On a CPU, memory is only taken as blocks are written.

    """

    def __init__(
        self, shapes: dict[int, tuple[int, int, int]], *, blocks: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        slots = blocks * BLOCK_TOKENS  # a head's positions lie in a row, as attention reads them
        self.keys = {n: torch.empty(h, slots, k, dtype=dtype, device=device) for n, (h, k, _) in shapes.items()}
        self.values = {n: torch.empty(h, slots, v, dtype=dtype, device=device) for n, (h, _, v) in shapes.items()}

    @staticmethod
    def block_bytes(shapes: dict[int, tuple[int, int, int]], dtype: torch.dtype) -> int:
        """Bytes of one block over all layers."""
        return BLOCK_TOKENS * dtype.itemsize * sum(heads * (key + value) for heads, key, value in shapes.values())

    def attend(
        self,
        base: Callable[..., Any],
        step: Step,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: Callable[..., Any],
        additive: torch.dtype | None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Write the step's keys and values, and answer its rows.

        Args:
            base: the model's own attention function.
            step: whose rows these are.
            module: the attention layer.
            query: (1, heads, rows, key width).
            key: (1, kv heads, rows, key width).
            value: (1, kv heads, rows, value width).
            rule: the mask as a function of positions.
            additive: see `Step.mask`.
            kwargs: what else the model gives its attention function.

        Returns:
            (1, rows, heads, value width).

        """
        keys, values = self.keys[module.layer_idx], self.values[module.layer_idx]  # type: ignore[index]  # an int, which nn.Module's types don't know
        keys.index_copy_(1, step.slots, key[0])
        values.index_copy_(1, step.slots, value[0])
        parts = []
        for number, group in enumerate(step.groups):
            asked = query[:, :, group.rows]
            if group.size > 1 or group.count == 1:  # (1, heads, sessions, width) → (sessions, heads, 1, width)
                asked = asked.transpose(0, 2)
            mask = step.mask(number, rule, additive)
            found, _ = base(module, asked, group.gather(keys), group.gather(values), mask, **kwargs)
            parts.append(found.reshape(1, -1, *found.shape[2:]))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


_current: ContextVar[tuple[PagedKv, Step] | None] = ContextVar("step", default=None)


@contextmanager
def during(kv: Any, step: Step) -> Iterator[None]:
    """Answer the attention of this context's forward from `kv`."""
    token = _current.set((kv, step))
    try:
        yield
    finally:
        _current.reset(token)


class Rule:
    """A mask as a model hands it to its layers: not yet a tensor, because each session has its own positions."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


class Through(Cache):  # type: ignore[misc]  # transformers ships no types
    """The cache that the model sees: it hands new keys and values on, and `attend` keeps them."""

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[_ThroughLayer() for _ in range(layers)])


class _ThroughLayer(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return key_states, value_states


class _Probe:
    """Stands for a `PagedKv` in one forward, to see what the model's layers would keep."""

    def __init__(self) -> None:
        self.shapes: dict[int, tuple[int, int, int]] = {}

    def attend(
        self,
        _base: Any,
        _step: Step,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: Callable[..., Any],
        _additive: Any,
        **_kwargs: Any,
    ) -> torch.Tensor:
        rule(*(torch.zeros((), dtype=torch.long) for _ in range(4)))
        if module.layer_idx in self.shapes:
            raise InternalError(f"layer {module.layer_idx} attends twice")
        self.shapes[module.layer_idx] = key.shape[1], key.shape[3], value.shape[3]
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3])


def probe(forward: Callable[[Step], Any], device: torch.device) -> dict[int, tuple[int, int, int]]:
    """What each layer keeps of a token: (heads, key width, value width), found by passing one through.

    Raises whatever the model's code raises where it doesn't attend through the interface as it should.
    """
    found = _Probe()
    step = Step([Rows(0, 1, [0])], device)
    with during(found, step):
        forward(step)
    return found.shapes


def register(base: str) -> str:
    """Make the attention function that answers sessions by `base` (`sdpa` or `eager`), and give its name.

    Outside of `during` it does what `base` does.
    """
    if base.startswith(PREFIX):
        return base
    name = PREFIX + base

    def attend(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        function = ALL_ATTENTION_FUNCTIONS[base] if base != "eager" else _eager(module)
        current = _current.get()
        if current is None:
            return function(module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]  # transformers ships no types
        if not isinstance(attention_mask, Rule):
            raise InternalError("the model makes its mask by itself")
        kv, step = current
        additive = query.dtype if base == "eager" else None
        found = kv.attend(function, step, module, query, key, value, attention_mask.function, additive, **kwargs)
        return found, None

    def mask(*args: Any, mask_function: Callable[..., Any] = causal_mask_function, **kwargs: Any) -> Any:
        if _current.get() is None:
            return ALL_MASK_ATTENTION_FUNCTIONS[base](*args, mask_function=mask_function, **kwargs)
        return Rule(mask_function)

    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, mask)
    return name


def _eager(module: nn.Module) -> Callable[..., Any]:
    """The eager attention of a layer's own model, which transformers keeps beside it."""
    function: Callable[..., Any] = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
    return function
