"""Who is at fault: the user, a peer, the chain, the network's absence, or we ourselves.

Every error that leaves a package is one of these. It carries its facts as fields, so that a log line, a
`--json` answer and a person's terminal can each show them in their own way.
"""

from typing import Any, ClassVar


class P2posError(Exception):
    """The root of the hierarchy.

    Args:
        message: one line that says what was wrong; no trailing full stop.
        hint: one line that says what to do about it, or "".
        **fields: the facts, as JSON values.

    """

    exit_code: ClassVar[int] = 1
    fault: ClassVar[str] = "internal"

    def __init__(self, message: str, *, hint: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = fields

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints of it."""
        return {"fault": self.fault, "message": self.message, "hint": self.hint, **self.fields}


class UserError(P2posError):
    """The person asked for something that can't be: bad input, a wrong passphrase, an unknown name."""

    exit_code = 2
    fault = "user"


class PeerError(P2posError):
    """A peer broke the protocol, failed, or answered nonsense.

    Args:
        peer: its peer id, or "" where it isn't known yet.
        message: what it did.
        **fields: the facts.

    """

    fault = "peer"

    def __init__(self, peer: str, message: str, *, hint: str = "", **fields: Any) -> None:
        super().__init__(message, hint=hint, peer=peer, **fields)
        self.peer = peer


class ChainError(P2posError):
    """The chain answered and refused: a revert, a reorg, a fee too low."""

    fault = "chain"


class UnavailableError(P2posError):
    """A network, a peer or a chain that is needed could not be reached in time."""

    exit_code = 3
    fault = "unavailable"


class InternalError(P2posError):
    """A fault of ours: a rule of this code was broken by this code."""
