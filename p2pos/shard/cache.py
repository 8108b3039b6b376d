"""The KV cache of one session at one stage: real layers for the span, lengths alone for the rest.

A model's forward asks the cache how long it is when it builds the attention mask, and it asks about the first layer of
each kind, wherever that layer lives. A stage that doesn't hold it must still answer rightly.
"""

from typing import Any

from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from p2pos.types import LayerSpan


class _Elsewhere(DynamicLayer):  # type: ignore[misc]  # transformers ships no types
    """A full-attention layer of another stage: a length, no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0

    def get_seq_length(self) -> int:
        return self.length


class SpanCache(DynamicCache):  # type: ignore[misc]  # transformers ships no types
    """Keys and values of the span's layers for one session (batch of one)."""

    def __init__(self, config: Any, span: LayerSpan) -> None:
        super().__init__(config=config)
        self._span = span
        self.positions = 0
        """Tokens that have passed through."""
        for index, layer in enumerate(self.layers):
            if index not in span and type(layer) is DynamicLayer:
                self.layers[index] = _Elsewhere()

    def advance(self, rows: int) -> None:
        """Tell the layers of other stages that `rows` more tokens have passed through them."""
        self.positions += rows
        for index, layer in enumerate(self.layers):
            if index in self._span:
                continue
            if isinstance(layer, _Elsewhere):
                layer.length += rows
            elif hasattr(layer, "cumulative_length"):  # a sliding window's whole length, from which its mask follows
                layer.cumulative_length += rows

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors held."""
        tensors = [getattr(layer, name, None) for layer in self.layers for name in ("keys", "values")]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)
