"""A relayer's client. Synchronous: the command line's, and through a thread anyone's."""

import json
import time
from collections.abc import Sequence
from typing import Any

import httpx

from p2pos.errors import ChainError, P2posError, UnavailableError, UserError
from p2pos.ledger.intents import Refusal, RefusedError, SignedIntent
from p2pos.ledger.queue import Status

TIMEOUT_S = 30.0
"""Of one request. An admission takes a relayer under 1 s; its own request to a slow chain up to 30."""
POLL_S = 0.2
"""Between two looks at an intent's state."""


class RelayerClient:
    """One relayer over HTTP."""

    def __init__(self, url: str) -> None:
        if not url:
            raise UserError("no relayer is set", hint="give --relayer-url, or --home of a devnet")
        if not url.startswith(("http://", "https://")):
            raise UserError(f"“{url}” is not an http or https URL", hint="check --relayer-url")
        self.url = url.rstrip("/")
        self._client = httpx.Client(timeout=TIMEOUT_S)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def submit(self, intent: SignedIntent) -> Status:
        """Hand an intent in. Returns its status once the relayer has it on disk.

        Raises RefusedError as the relayer said it; UnavailableError where it is full or away.
        """
        return _status(self._ask("POST", "/intents", content=json.dumps(intent.as_json())))

    def submit_many(self, intents: Sequence[SignedIntent]) -> list[Status | P2posError]:
        """Hand in up to a hundred at once. Returns per intent its status, or the error that `submit` would raise."""
        answers = self._ask("POST", "/intents", content=json.dumps([intent.as_json() for intent in intents]))
        if not isinstance(answers, list) or len(answers) != len(intents):
            raise self._nonsense()
        return [
            self._error(one["error"], 0) if isinstance(one, dict) and "error" in one else _status(one)
            for one in answers
        ]

    def status(self, id_: str) -> Status | None:
        """What the relayer knows of an intent, or None."""
        answer = self._ask("GET", f"/intents/{id_}", missing=None)
        return _status(answer) if answer is not None else None

    def summary(self) -> dict[str, Any]:
        """Its `/status`."""
        answer: dict[str, Any] = self._ask("GET", "/status")
        return answer

    def wait(self, id_: str, timeout_s: float) -> Status:
        """Wait until an intent is settled or has failed.

        Raises:
            RefusedError: it failed.
            UnavailableError: it is still under way after `timeout_s`.

        """
        ends_s = time.monotonic() + timeout_s
        while True:
            status = self.status(id_)
            if status is None:
                raise ChainError(f"the relayer at {self.url} does not know intent {id_}", hint="submit it again")
            if status.state == "settled":
                return status
            if status.state == "failed":
                raise RefusedError(Refusal(status.refusal), status.reason, **_fields(status))
            if time.monotonic() >= ends_s:
                raise UnavailableError(
                    f"intent {id_} is {status.state} but in no block after {timeout_s:.0f} s",
                    hint="the relayer goes on with it; ask later with p2pos asset submit",
                )
            time.sleep(POLL_S)

    def _ask(self, method: str, path: str, *, content: str | None = None, **default: Any) -> Any:
        try:
            try:
                response = self._client.request(method, self.url + path, content=content)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                # an idle connection that the server closed meanwhile; every request of ours may be repeated
                response = self._client.request(method, self.url + path, content=content)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise UnavailableError(
                f"the relayer at {self.url} can't be reached ({type(exc).__name__})", hint="check --relayer-url"
            ) from exc
        if response.status_code == httpx.codes.NOT_FOUND and default:
            return default["missing"]
        try:
            answer = response.json()
        except ValueError as exc:
            raise self._nonsense() from exc
        if response.is_success:
            return answer
        raise self._error(answer.get("error") if isinstance(answer, dict) else None, response.status_code)

    def _error(self, error: object, code: int) -> P2posError:
        """The error that a relayer's answer stands for. Raises UnavailableError where it is none."""
        if not isinstance(error, dict) or not isinstance(error.get("message"), str):
            raise self._nonsense()
        fields = {key: value for key, value in error.items() if key not in {"message", "hint", "fault", "refusal"}}
        message, hint, refusal = error["message"], str(error.get("hint", "")), error.get("refusal")
        if isinstance(refusal, str) and refusal in set(Refusal):
            return RefusedError(Refusal(refusal), message, hint=hint, **fields)
        if code == httpx.codes.SERVICE_UNAVAILABLE or error.get("fault") == UnavailableError.fault:
            return UnavailableError(message, hint=hint, **fields)
        return ChainError(message, hint=hint, **fields)

    def _nonsense(self) -> UnavailableError:
        return UnavailableError(f"{self.url} doesn't answer as a relayer", hint="check --relayer-url")


def _status(answer: Any) -> Status:
    strange = UnavailableError("the relayer's answer is not a status", hint="it may be of another version")
    try:
        made = Status(**answer)
    except TypeError as exc:
        raise strange from exc
    texts = (made.id, made.state, made.refusal, made.reason, made.transaction)
    if not all(isinstance(one, str) for one in texts) or not isinstance(made.block, int | None):
        raise strange
    if made.refusal not in {"", *Refusal} or (made.state == "failed" and not made.refusal):
        raise strange
    return made


def _fields(status: Status) -> dict[str, Any]:
    return {key: value for key, value in status.as_json().items() if key not in {"refusal", "reason"}}
