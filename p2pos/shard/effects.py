"""What the machines of a session ask their shells to do, and what a stage's shell tells of a run. Pure.

`session` speaks for a stage, `owner` for the one who asked for the text.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

from p2pos.errors import P2posError
from p2pos.types import PeerId
from p2pos.wire.messages import Logprobs, StageMessage, TensorHeader


@dataclass(frozen=True, slots=True)
class Send:
    """Give this to a peer."""

    peer: PeerId
    addresses: tuple[str, ...]
    message: StageMessage
    payload: bytes | memoryview = b""


@dataclass(frozen=True, slots=True)
class Run:
    """Pass these through the span: token ids at the head, elsewhere a header and bytes."""

    position: int
    rows: int
    tokens: tuple[int, ...] = ()
    header: TensorHeader | None = None
    payload: bytes | memoryview = b""
    sample: bool = False
    """At the tail: choose a token after the last row."""
    keys: tuple[bytes, ...] = ()
    """Of the blocks that these rows fill."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """The session begins at this position: what lies before is cached, and what is cached beyond isn't wanted."""

    position: int


@dataclass(frozen=True, slots=True)
class Release:
    """The session is over here: free its cache."""


StageEffect: TypeAlias = Send | Run | Adopt | Release


@dataclass(frozen=True, slots=True)
class Computed:
    """What came of a `Run`: hidden states to pass on, or at the tail a token where one was asked for."""

    position: int
    rows: int
    header: TensorHeader | None = None
    payload: bytes | memoryview = b""
    token: int | None = None
    logprobs: Logprobs | None = None


@dataclass(frozen=True, slots=True)
class Emit:
    """These tokens are the next of the text."""

    tokens: tuple[int, ...]
    logprobs: Logprobs | None = None
    """Of the one token, where `Sampling.logprobs` asks."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The text is whole: `stop` (an end token or a stop string) or `length`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    """The text can't go on, and whose fault it is."""

    error: P2posError


@dataclass(frozen=True, slots=True)
class Reroute:
    """Find a route without `lost`, and tell `on_route` or `on_no_route`."""

    lost: frozenset[PeerId]


@dataclass(frozen=True, slots=True)
class Blame:
    """A peer failed, and is better avoided for a while."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Note:
    """Something that whoever reads the log wants to know."""

    event: str
    fields: dict[str, Any]


OwnerEffect: TypeAlias = Send | Emit | Finish | Fail | Reroute | Blame | Note
