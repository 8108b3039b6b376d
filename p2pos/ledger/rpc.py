"""JSON-RPC in arrays: many raw transactions, receipts or calls in one HTTP request.

web3 refuses `eth_sendRawTransaction` in its own batches, and a request per call costs a relayer most of its time;
so what comes in hundreds goes through here, and all else through `chain`.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import httpx

from p2pos.errors import ChainError, UnavailableError

TIMEOUT_S = 30.0
"""Of one request. A public end point answers a call within 1 s; a batch of 100 preflights takes anvil 0.2 s."""
MAX_BATCH = 100
"""Calls in one array; public end points refuse more (Infura and Alchemy allow 100 to 1,000)."""
MAX_ERROR = 300
"""Characters of an end point's own error text that are passed on."""


class RpcError(ChainError):
    """The end point answered this call with an error.

    Attributes:
        code: JSON-RPC's; 3 is a revert by geth's custom.
        data: a revert's return data, empty where there is none.

    """

    def __init__(self, message: str, code: int = 0, data: bytes = b"") -> None:
        super().__init__(f"the chain refused: {message[:MAX_ERROR]}", code=code)
        self.text = message
        self.code = code
        self.data = data


class Rpc:
    """One JSON-RPC end point over HTTP. May be used from several threads."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._ids = itertools.count(1)
        self._client = httpx.Client(timeout=TIMEOUT_S)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def call(self, method: str, *params: Any) -> Any:
        """One call's result. Raises RpcError, or UnavailableError where there is no sensible answer."""
        answer = self._result(self._post({**self._request(method, params)}))
        if isinstance(answer, RpcError):
            raise answer
        return answer

    def batch(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """The results of many calls, in their order; one that failed is its RpcError, as a value.

        Raises UnavailableError where the end point does not answer every one.
        """
        results: list[Any] = []
        for start in range(0, len(calls), MAX_BATCH):
            requests = [self._request(method, params) for method, params in calls[start : start + MAX_BATCH]]
            answers = self._post(requests)
            if not isinstance(answers, list):
                raise self._nonsense()
            by_id = {answer.get("id"): answer for answer in answers if isinstance(answer, dict)}
            for request in requests:
                if request["id"] not in by_id:
                    raise self._nonsense()
                results.append(self._result(by_id[request["id"]]))
        return results

    def _request(self, method: str, params: Sequence[Any]) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}

    def _post(self, body: Any) -> Any:
        try:
            response = self._client.post(self.url, json=body)
            return response.json()
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise unreachable(self.url, exc) from exc
        except ValueError as exc:
            raise self._nonsense() from exc

    def _result(self, answer: Any) -> Any:
        if not isinstance(answer, dict) or ("result" not in answer and "error" not in answer):
            raise self._nonsense()
        error = answer.get("error")
        if error is None:
            return answer["result"]
        if not isinstance(error, dict):
            return RpcError(str(error))
        code, data = error.get("code"), error.get("data")
        return RpcError(str(error.get("message")), code if isinstance(code, int) else 0, revert_data(data))

    def _nonsense(self) -> UnavailableError:
        return UnavailableError(f"{self.url} doesn't answer as a chain's JSON-RPC end point", hint="check --rpc-url")


def unreachable(url: str, cause: BaseException) -> UnavailableError:
    """The error for an end point that did not answer."""
    return UnavailableError(
        f"the chain at {url} can't be reached ({type(cause).__name__})", hint="is it running? check --rpc-url"
    )


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
