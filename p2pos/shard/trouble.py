"""How long a session has been in trouble, what of, and how much longer it tries. Pure."""

from dataclasses import dataclass

from p2pos.errors import P2posError, PeerError, UnavailableError
from p2pos.types import PeerId
from p2pos.wire.messages import Fault

MAX_ATTEMPTS = 20
"""Repairs without a token between them, after which it is no use."""
STEADY_S = 10.0
"""Seconds of running after which a failure is a new one: a long prompt gives no token for minutes."""
MAX_BACKOFF = 8.0
"""Times longer than usual that answers are waited for, after that many repairs without a token."""


@dataclass(slots=True)
class Trouble:
    """What has gone wrong since the last token."""

    since_s: float | None = None
    """When it began; None where all is well."""
    attempts: int = 0
    """Repairs since."""
    error: P2posError | None = None
    """The last that went wrong."""
    cause: str = ""
    """What kind of thing that was; it outlives the trouble."""

    @property
    def backoff(self) -> float:
        """How many times longer than usual to wait for answers: who answers late isn't gone."""
        return float(min(2 ** max(0, self.attempts - 1), MAX_BACKOFF))

    @property
    def hopeless(self) -> bool:
        """Whether it was tried too often."""
        return self.attempts > MAX_ATTEMPTS

    def began(self, now_s: float) -> None:
        """The route is being changed."""
        self.since_s = now_s if self.since_s is None else self.since_s

    def more(self, cause: str, error: P2posError, now_s: float, *, steady: bool) -> None:
        """Something went wrong. `steady`: it had gone well for `STEADY_S` without a token, so this is a new trouble."""
        self.cause, self.error = cause, error
        if self.since_s is None or steady:
            self.since_s, self.attempts = now_s, 0
        self.attempts += 1

    def lasts(self, seconds: float, now_s: float) -> bool:
        """Whether it has lasted so long at least."""
        return self.since_s is not None and now_s - self.since_s >= seconds

    def over(self) -> None:
        """A token came."""
        self.since_s, self.attempts, self.error = None, 0, None


def error_of(sender: PeerId, fault: Fault) -> P2posError:
    """The error that a person sees for a stage's fault."""
    if fault.code == "busy":
        return UnavailableError(
            f"the node {sender} is busy: {fault.text}", hint="try again later", peer=sender, busy=True
        )
    if fault.code in {"next_stage", "deadline", "unknown"}:
        return UnavailableError(f"the node {sender} reports: {fault.text}", hint="try again", peer=sender)
    return PeerError(sender, f"the node {sender} failed ({fault.code}): {fault.text}", code=fault.code)
