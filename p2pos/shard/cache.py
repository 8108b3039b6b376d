"""The cache of one session at one stage: real layers for the span, lengths alone for the rest.

A model's forward asks the cache how long it is when it builds the attention mask, and it asks about the first layer of
each kind, wherever that layer lives. A stage that doesn't hold it must still answer rightly. Which layers a stage
holds shows in its first run: those that nothing was put into are another's.
"""

import inspect
from collections.abc import Iterator
from types import MethodType
from typing import Any, get_args

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, LinearAttentionCacheLayerMixin

from p2pos.shard import exceptions
from p2pos.types import LayerSpan


class _Count:
    """Tokens that have passed through. Apart from the cache, so that its layers needn't refer back to it."""

    def __init__(self) -> None:
        self.positions = 0


class _Spanning:
    """What makes a cache of transformers' one of a span. Stands before the cache's own class."""

    layers: list[Any]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._count = _Count()
        self._elsewhere: list[Any] | None = None

    @property
    def positions(self) -> int:
        """Tokens that have passed through."""
        return self._count.positions

    def advance(self, rows: int) -> None:
        """Tell the layers of other stages that `rows` more tokens have passed through them."""
        self._count.positions += rows
        if self._elsewhere is None:
            self._elsewhere = [layer for layer in self.layers if not _used(layer)]
            for layer in self._elsewhere:
                _answer_from(layer, self._count)
        for layer in self._elsewhere:
            if hasattr(layer, "cumulative_length"):  # a sliding window's whole length, from which its mask follows
                layer.cumulative_length += rows

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens that a layer has seen: all that passed through, where the cache doesn't know that layer's."""
        if not self._knows(layer_idx):
            return self.positions
        return int(super().get_seq_length(layer_idx))  # type: ignore[misc]  # the cache's class stands behind this one

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """How many keys a mask for so many more tokens covers, and where they begin."""
        if not self._knows(layer_idx):
            return self.positions + query_length, 0
        sizes: tuple[int, int] = super().get_mask_sizes(query_length, layer_idx)  # type: ignore[misc]  # as above
        return sizes

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held."""
        parts = [vars(layer) for layer in self.layers if _used(layer)]
        own = {name: value for name, value in vars(self).items() if name != "layers"}
        held = {id(tensor): tensor for part in (*parts, own) for tensor in _tensors(part)}
        return sum(tensor.numel() * tensor.element_size() for tensor in held.values())

    def _knows(self, layer_idx: int) -> bool:
        return layer_idx < len(self.layers) and any(isinstance(layer, CacheLayerMixin) for layer in self.layers)


class SpanCache(_Spanning, DynamicCache):  # type: ignore[misc]  # transformers ships no types
    """What the span's layers keep of one session (batch of one): keys and values, or states of another kind."""

    def __init__(self, config: Any, span: LayerSpan) -> None:
        super().__init__(config=config)
        while len(self.layers) < span.end:  # where the config counts an encoder's layers under the usual name
            self.layers.append(DynamicLayer())


def new(base: Any, config: Any, span: LayerSpan) -> SpanCache:
    """An empty cache for a span of this text model."""
    if config.get_text_config(decoder=True).model_type not in exceptions.CACHES_OF_THEIR_OWN:
        return SpanCache(config, span)
    named = inspect.signature(type(base).forward).parameters["past_key_values"].annotation
    kind = next(part for part in (named, *get_args(named)) if isinstance(part, type) and issubclass(part, Cache))
    cache: SpanCache = type("SpanCache", (_Spanning, kind), {})()
    return cache


def _used(layer: Any) -> bool:
    states = ("is_conv_states_initialized", "is_recurrent_states_initialized")
    return bool(getattr(layer, "is_initialized", False)) or any(
        any(getattr(layer, state, {}).values()) for state in states
    )


def _answer_from(layer: Any, count: _Count) -> None:
    """Make a layer of another stage answer as if it had seen what passed through this one."""
    if isinstance(layer, CacheLayerMixin):
        layer.get_seq_length = MethodType(lambda _: count.positions, layer)
    if isinstance(layer, LinearAttentionCacheLayerMixin):
        layer.has_previous_state = dict.fromkeys(layer.has_previous_state, True)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
