"""What a person asks of the swarm, and how the sessions of one text are named. Pure."""

from dataclasses import dataclass, field

from p2pos.types import SessionId
from p2pos.wire.messages import Sampling

PATIENCE_S = 30.0
"""Seconds that a text waits for somebody to take a lost stage's place."""
LIFE_BYTES = 4
"""Of a session's 16: the last ones count how often its stages began anew."""


@dataclass(frozen=True, slots=True)
class Request:
    """A text to be written."""

    prompt: tuple[int, ...]
    max_tokens: int
    eos: tuple[int, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    vocabulary: int = 1 << 31
    """Tokens are smaller than this; a tail that says another is not believed."""
    patience_s: float = PATIENCE_S
    """Seconds that the text waits for somebody to take a lost stage's place."""


def root(session: bytes) -> bytes:
    """What all names of one text begin with."""
    return session[:-LIFE_BYTES]


def next_life(session: SessionId) -> SessionId:
    """The name of a text that begins anew. Raises OverflowError after 2³² lives."""
    life = int.from_bytes(session[-LIFE_BYTES:], "big") + 1
    return SessionId(root(session) + life.to_bytes(LIFE_BYTES, "big"))
