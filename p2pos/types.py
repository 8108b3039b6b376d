"""The few values that everything speaks of, as distinct types.

A `NewType` costs nothing when the code runs and stops a peer id from being passed where an address belongs.
"""

from dataclasses import dataclass
from typing import NewType, Self

from p2pos.errors import UserError

PeerId = NewType("PeerId", str)
"""A libp2p peer id in base58btc, such as `12D3KooW…`."""

ModelId = NewType("ModelId", str)
"""The CID of a model's canonical manifest (see `p2pos.shard.manifest`)."""

SessionId = NewType("SessionId", bytes)
"""16 random bytes chosen by a session's owner."""

Cid = NewType("Cid", str)
"""A CIDv1 in base32: raw codec, sha2-256."""

Address = NewType("Address", str)
"""An EVM address with its EIP-55 checksum."""

Wei = NewType("Wei", int)
"""10⁻¹⁸ of the chain's native coin. Money is never a float."""

TokenId = NewType("TokenId", int)
"""An index into a model's vocabulary."""


@dataclass(frozen=True, slots=True, order=True)
class LayerSpan:
    """Decoder layers `start … end-1` of a model, counted from 0."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise UserError(f"a span of layers needs 0 ≤ start < end, not {self.start}:{self.end}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `A:B`. Raises UserError for anything else."""
        start, colon, end = text.partition(":")
        if not (colon and start.isdecimal() and end.isdecimal()):
            raise UserError(f"“{text}” is not a span of layers", hint="write A:B, for example 0:8")
        return cls(int(start), int(end))

    def __len__(self) -> int:
        return self.end - self.start

    def __contains__(self, layer: object) -> bool:
        return isinstance(layer, int) and self.start <= layer < self.end

    def __str__(self) -> str:
        return f"{self.start}:{self.end}"
