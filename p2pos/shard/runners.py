"""Two ways to run sessions through a stage: side by side over paged blocks, or one at a time, each with a cache.

The first is for architectures whose attention is all that a session's rows share; it forms batches and shares prefixes.
The second is for those that keep other state (recurrent, convolutional), or attend in a way of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from p2pos import log
from p2pos.errors import InternalError
from p2pos.shard import paged
from p2pos.shard.blocks import Blocks, Lease
from p2pos.shard.cache import SpanCache
from p2pos.shard.paged import PagedKv, Rows, Step
from p2pos.shard.stage import Stage
from p2pos.wire.messages import BLOCK_TOKENS

_log = log.get("engine")


@dataclass(frozen=True, slots=True)
class Work:
    """One session's rows of a step."""

    session: bytes
    position: int
    """Of the first row."""
    inputs: torch.Tensor
    """Token ids (rows,) int64 at the head, elsewhere hidden states (rows, width)."""
    want_logits: bool = False
    """At the tail: of the last row."""

    @property
    def rows(self) -> int:
        """How many."""
        return int(self.inputs.shape[0])


class Runner(Protocol):
    """Holds the sessions' caches and computes. All but `run` are called in the trio thread."""

    @property
    def cached_tokens(self) -> int:
        """Positions in the caches of sessions."""

    @property
    def cached_bytes(self) -> int:
        """Bytes of these."""

    @property
    def room(self) -> int:
        """Tokens that all sessions together may come to hold."""

    def admit(self, session: bytes, tokens: int, prefix: Sequence[bytes]) -> int | None:
        """Make room for so many tokens. How many of the prefix are here already, or None where there is no room."""

    def adopt(self, session: bytes, position: int) -> None:
        """The session goes on from this position, at most what `admit` found."""

    def prepare(self, session: bytes, position: int, rows: int) -> Any:
        """Take what the next rows need; give what `run` needs to know. Raises InternalError out of turn."""

    def run(self, works: Sequence[Work], prepared: Sequence[Any]) -> Sequence[torch.Tensor | Exception]:
        """In the worker thread: per work hidden states (rows, width), or logits (vocabulary,) where wanted.

        A work that fails by itself gives what it raised. Where `run` raises, it may be called again with fewer works.
        """

    def done(self, session: bytes, position: int, rows: int, keys: Sequence[bytes]) -> None:
        """The rows are in the cache; these are the keys of the blocks that they fill."""

    def release(self, session: bytes) -> None:
        """Forget a session; one that isn't here is passed over."""


def choose(stage: Stage, *, max_tokens: int, max_bytes: int) -> Runner:
    """The runner that suits a stage, with caches of at most so many tokens and bytes."""
    try:
        shapes = stage.page()
    except Exception as exc:  # noqa: BLE001 - the model's code is not ours; whatever it raises, it isn't for paging
        _log.info("one session at a time", why=str(exc) or type(exc).__name__)
        return Serial(stage, max_tokens, max_bytes)
    blocks = min(max_tokens // BLOCK_TOKENS, max_bytes // PagedKv.block_bytes(shapes, stage.dtype))
    return Paged(stage, shapes, max(1, blocks))


class Paged:
    """All sessions' rows in one forward, over blocks that they share out.

    Args:
        stage: one for which `Stage.page` found the shapes.
        shapes: layer → (heads, key width, value width).
        blocks: how many there are.

    """

    def __init__(self, stage: Stage, shapes: dict[int, tuple[int, int, int]], blocks: int) -> None:
        self._stage = stage
        self._kv = PagedKv(shapes, blocks=blocks, dtype=stage.dtype, device=stage.device)
        self._bytes = PagedKv.block_bytes(shapes, stage.dtype)
        self.blocks = Blocks(blocks)
        self._leases: dict[bytes, Lease] = {}
        self._lengths: dict[bytes, int] = {}

    @property
    def cached_tokens(self) -> int:
        """Positions in the caches of sessions; those that several share count for each."""
        return sum(self._lengths.values())

    @property
    def cached_bytes(self) -> int:
        """Bytes of the blocks that sessions hold."""
        return self.blocks.held * self._bytes

    @property
    def room(self) -> int:
        """Tokens of all blocks."""
        return self.blocks.count * BLOCK_TOKENS

    def admit(self, session: bytes, tokens: int, prefix: Sequence[bytes]) -> int | None:
        """See `Runner`."""
        lease = self.blocks.admit(tokens, prefix)
        if lease is None:
            return None
        self._leases[session] = lease
        self._lengths[session] = len(lease.blocks) * BLOCK_TOKENS
        return self._lengths[session]

    def adopt(self, session: bytes, position: int) -> None:
        """See `Runner`."""
        self.blocks.settle(self._leases[session], position // BLOCK_TOKENS)
        self._lengths[session] = position

    def prepare(self, session: bytes, position: int, rows: int) -> Rows:
        """See `Runner`."""
        if position != self._lengths[session]:
            raise InternalError(f"the cache is at {self._lengths[session]}, not at {position}")
        lease = self._leases[session]
        self.blocks.grow(lease, position + rows)
        return Rows(position, rows, tuple(lease.blocks))

    def run(self, works: Sequence[Work], prepared: Sequence[Rows]) -> list[torch.Tensor]:
        """See `Runner`."""
        device = self._stage.device
        order = sorted(range(len(works)), key=lambda index: not prepared[index].together(device))
        step = Step([prepared[index] for index in order], device)
        inputs = torch.cat([works[index].inputs for index in order]) if len(works) > 1 else works[0].inputs
        ends, end = [], 0
        for index in order:
            end += works[index].rows
            ends.append(end)
        wanted = [place for place, index in enumerate(order) if works[index].want_logits]
        at = torch.tensor([ends[place] - 1 for place in wanted], device=device) if wanted else None
        with paged.during(self._kv, step):
            hidden, logits = self._stage.run_rows(inputs, step.positions, at)
        found: list[torch.Tensor] = [hidden] * len(works)
        for place, index in enumerate(order):
            if works[index].want_logits and logits is not None:
                found[index] = logits[wanted.index(place)]
            else:
                found[index] = hidden[ends[place] - works[index].rows : ends[place]]
        return found

    def done(self, session: bytes, position: int, rows: int, keys: Sequence[bytes]) -> None:
        """See `Runner`."""
        lease = self._leases.get(session)
        if lease is None:
            return
        self._lengths[session] = position + rows
        for index, key in enumerate(keys, position // BLOCK_TOKENS):
            self.blocks.name(lease, index, key)

    def release(self, session: bytes) -> None:
        """See `Runner`."""
        lease = self._leases.pop(session, None)
        self._lengths.pop(session, None)
        if lease is not None:
            self.blocks.release(lease)


class Serial:
    """One session after another, each with a cache of its own.

    Args:
        stage: any.
        max_tokens: positions that all caches may come to hold.
        max_bytes: that they may take; two tokens are passed through to see what a session and each token of it take.

    """

    def __init__(self, stage: Stage, max_tokens: int, max_bytes: int) -> None:
        self._stage = stage
        cache, one = stage.new_cache(), stage.nothing()
        stage.run(one, cache)
        first = cache.nbytes
        stage.run(one, cache)
        self._token_bytes = cache.nbytes - first
        self._session_bytes = first - self._token_bytes
        self._max_tokens, self._max_bytes = max_tokens, max_bytes
        self._caches: dict[bytes, SpanCache] = {}
        self._promised: dict[bytes, int] = {}

    @property
    def room(self) -> int:
        """Tokens of one session that has all to itself."""
        left = max(0, self._max_bytes - self._session_bytes)
        return min(self._max_tokens, left // self._token_bytes if self._token_bytes else self._max_tokens)

    @property
    def cached_tokens(self) -> int:
        """Positions in the caches."""
        return sum(cache.positions for cache in self._caches.values())

    @property
    def cached_bytes(self) -> int:
        """Bytes of the caches' tensors."""
        return sum(cache.nbytes for cache in self._caches.values())

    def admit(self, session: bytes, tokens: int, prefix: Sequence[bytes]) -> int | None:  # noqa: ARG002 - nothing is shared
        """See `Runner`."""
        promised = sum(self._promised.values()) + tokens
        taken = (len(self._promised) + 1) * self._session_bytes + promised * self._token_bytes
        if promised > self._max_tokens or taken > self._max_bytes:
            return None
        self._caches[session] = self._stage.new_cache()
        self._promised[session] = tokens
        return 0

    def adopt(self, session: bytes, position: int) -> None:
        """See `Runner`."""
        if position != self._caches[session].positions:
            raise InternalError("a cache that shares nothing can't begin in mid-text")

    def prepare(self, session: bytes, position: int, rows: int) -> SpanCache:  # noqa: ARG002 - it grows by itself
        """See `Runner`."""
        cache = self._caches[session]
        if position != cache.positions:
            raise InternalError(f"the cache is at {cache.positions}, not at {position}")
        return cache

    def run(self, works: Sequence[Work], prepared: Sequence[SpanCache]) -> list[torch.Tensor | Exception]:
        """See `Runner`. A cache that has grown can't be asked again, so a work that fails takes no other with it."""
        found: list[torch.Tensor | Exception] = []
        for work, cache in zip(works, prepared, strict=True):
            try:
                found.append(self._stage.run(work.inputs, cache, want_logits=work.want_logits))
            except Exception as exc:  # noqa: BLE001 - the model's code is not ours
                found.append(exc)
        return found

    def done(self, session: bytes, position: int, rows: int, keys: Sequence[bytes]) -> None:
        """Nothing: the model's own cache counts."""

    def release(self, session: bytes) -> None:
        """See `Runner`."""
        self._caches.pop(session, None)
        self._promised.pop(session, None)
