"""JSON-RPC with one end point, in arrays: many raw transactions, receipts or calls in one HTTP request.

web3 refuses `eth_sendRawTransaction` in its own batches, and a request per call costs a relayer most of its time. All
that `chain` asks goes through here, or through a `rpc_pool` of several.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from p2pos.errors import ChainError, UnavailableError
from p2pos.ledger.rpc_answers import is_sound, parse
from p2pos.ledger.rpc_http import Bounds, Http, TooLargeError, unreachable

__all__ = ["MAX_BATCH", "Rpc", "RpcError", "revert_data", "unreachable"]

MAX_BATCH = 100
"""Calls in one array; public end points refuse more (Infura and Alchemy allow 100 to 1,000)."""
MAX_ERROR = 300
"""Characters of an end point's own error text that are passed on."""
REVERTED = 3
"""The code of a revert, by geth's custom."""


class RpcError(ChainError):
    """The end point answered this call with an error.

    Attributes:
        text: what it said, as one line of `MAX_ERROR` characters at most.
        code: JSON-RPC's; 3 is a revert by geth's custom.
        data: a revert's return data, empty where there is none.

    """

    def __init__(self, message: str, code: int = 0, data: bytes = b"") -> None:
        self.text = one_line(message)
        super().__init__(f"the chain refused: {self.text}", code=code)
        self.code = code
        self.data = data

    @property
    def is_revert(self) -> bool:
        """The contract refused; any other error may be the end point's own."""
        return self.code == REVERTED or bool(self.data)


class Rpc:
    """One JSON-RPC end point over HTTP. May be used from several threads. Raises UserError for an odd URL."""

    def __init__(self, url: str, bounds: Bounds | None = None) -> None:
        self.url = url
        self.requests = 0
        """Sent since the start."""
        self.failures = 0
        """Of them, those that nobody answered sensibly."""
        self.trouble = ""
        """What the last request came to; "" when it was answered."""
        self._ids = itertools.count(1)
        self._http = Http(url, bounds)

    @property
    def name(self) -> str:
        """The URL as it may be shown to strangers."""
        return self._http.name

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def call(self, method: str, *params: Any, within_s: float | None = None) -> Any:
        """One call's result. Raises RpcError, or UnavailableError where there is no sensible answer in time."""
        answer = self._result(self._post(self._request(method, params), within_s), method, params)
        if isinstance(answer, RpcError):
            raise answer
        return answer

    def batch(self, calls: Sequence[tuple[str, Sequence[Any]]], *, within_s: float | None = None) -> list[Any]:
        """The results of many calls, in their order; one that failed is its RpcError, as a value.

        Args:
            calls: methods and their parameters.
            within_s: for each `MAX_BATCH` of them; by default `Bounds.total_s`, and never more.

        Raises:
            UnavailableError: the end point does not answer every one, sensibly and in time.
            RpcError: the answer to all of them together is an error, or too large.

        """
        results: list[Any] = []
        for start in range(0, len(calls), MAX_BATCH):
            part = calls[start : start + MAX_BATCH]
            requests = [self._request(method, params) for method, params in part]
            answers = self._post(requests, within_s)
            if isinstance(answers, dict) and isinstance(answers.get("error"), dict):
                raise self._result(answers, "", ())
            if not isinstance(answers, list):
                raise self._nonsense()
            by_id = {answer["id"]: answer for answer in answers if _has_id(answer)}
            for request, (method, params) in zip(requests, part, strict=True):
                results.append(self._result(by_id.get(request["id"]), method, params))
        return results

    @contextmanager
    def consistent(self) -> Iterator[None]:
        """What is asked within comes from one end point, as it does here anyway; see `RpcPool.consistent`."""
        yield

    def health(self) -> list[dict[str, Any]]:
        """What is known of the end point; see `RpcPool.health`."""
        return [
            {
                "name": self.name,
                "state": "failing" if self.trouble else "good",
                "because": self.trouble,
                "block": None,
                "in_use": True,
                "requests": self.requests,
                "failures": self.failures,
            }
        ]

    def _request(self, method: str, params: Sequence[Any]) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}

    def _post(self, body: Any, within_s: float | None) -> Any:
        self.requests += 1
        try:
            answer = self._http.post(json.dumps(body, separators=(",", ":")).encode(), within_s=within_s)
        except UnavailableError as exc:
            self.failures += 1
            self.trouble = exc.message
            raise
        except TooLargeError as exc:
            raise RpcError(str(exc)) from exc
        try:
            value = parse(answer)
        except ValueError as exc:
            raise self._nonsense() from exc
        self.trouble = ""
        return value

    def _result(self, answer: Any, method: str, params: Sequence[Any]) -> Any:
        if not isinstance(answer, dict):
            raise self._nonsense()
        error = answer.get("error")
        if error is None:
            if "result" not in answer or not is_sound(method, params, answer["result"]):
                raise self._nonsense()
            return answer["result"]
        if not isinstance(error, dict):
            return RpcError(str(error))
        code, data = error.get("code"), error.get("data")
        return RpcError(str(error.get("message")), code if isinstance(code, int) else 0, revert_data(data))

    def _nonsense(self) -> UnavailableError:
        self.failures += 1
        self.trouble = f"{self.name} doesn't answer as a chain's JSON-RPC end point"
        return UnavailableError(self.trouble, hint="check --rpc-url")


def _has_id(answer: object) -> bool:
    return isinstance(answer, dict) and isinstance(answer.get("id"), int)


def one_line(text: str) -> str:
    """A stranger's text as one line that can't change a terminal, of bounded length."""
    words = " ".join(text[: 4 * MAX_ERROR].split())
    return "".join(letter if letter.isprintable() else "�" for letter in words)[:MAX_ERROR]


def revert_data(data: Any) -> bytes:
    """The bytes of an error's `data`: hex, bare or one level down as some end points send it."""
    if isinstance(data, dict):
        data = data.get("data")
    if isinstance(data, str) and data.startswith("0x"):
        try:
            return bytes.fromhex(data[2:])
        except ValueError:
            return b""
    return b""
