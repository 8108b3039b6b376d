"""An error in OpenAI's shape, and which one each of ours becomes."""

from typing import Any

from p2pos.errors import P2posError, PeerError, UnavailableError, UserError

RETRY_AFTER_S = 2
"""When to try again where the swarm is busy: sessions last seconds."""


class ApiError(Exception):
    """What a request is answered with in place of what it asked for.

    Args:
        status: of HTTP.
        message: one line.
        param: the request's field that is at fault, or "".
        code: for programs, or "".
        kind: OpenAI's `type`; by default what belongs to the status.

    """

    def __init__(self, status: int, message: str, *, param: str = "", code: str = "", kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.kind = kind or ("invalid_request_error" if status < 500 and status != 429 else "server_error")

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        error = {"message": self.message, "type": self.kind, "param": self.param or None, "code": self.code or None}
        return {"error": error}

    @property
    def headers(self) -> dict[str, str]:
        """When to try again, where that may help."""
        return {"Retry-After": str(RETRY_AFTER_S)} if self.status in {429, 503} else {}


def from_error(error: P2posError) -> ApiError:
    """What an error of ours is to a client."""
    text = str(error)
    match error:
        case UserError():
            return ApiError(400, text)
        case UnavailableError() if error.fields.get("busy"):
            return ApiError(429, text, code="rate_limit_exceeded", kind="rate_limit_error")
        case UnavailableError():
            return ApiError(503, text, code="unavailable")
        case PeerError():
            return ApiError(502, text, code="peer_failed")
        case _:
            return ApiError(500, text)
