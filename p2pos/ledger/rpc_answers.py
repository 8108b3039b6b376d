"""What a JSON-RPC method may answer, so that an end point which answers nonsense is found out at once. Pure.

Looked at is what the callers rely on: the form of figures, hashes and bytes, and that an answer is the answer to what
was asked: that block, that transaction, logs of that contract and those blocks.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic_core import from_json

QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
HASH = re.compile(r"0x[0-9a-fA-F]{64}")
DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*")


def parse(answer: bytes) -> Any:
    """The JSON that an end point sent. Raises ValueError where it is none, or nests so deep that it is an attack.

    By pydantic's parser, which stops at 201 levels: the standard one descends once per level until the stack overflows,
    where some library has raised the interpreter's limit. It takes two thirds of that one's time.
    """
    return from_json(answer, cache_strings="keys")


def is_sound(method: str, params: Sequence[Any], result: object) -> bool:
    """Whether this can be the result of such a call. What is known of no method is taken as it is."""
    check = _CHECKS.get(method)
    return check is None or check(params, result)


def is_text(pattern: re.Pattern[str], value: object) -> bool:
    """Whether it is a string of this form."""
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _quantity(_params: Sequence[Any], result: object) -> bool:
    return is_text(QUANTITY, result)


def _data(_params: Sequence[Any], result: object) -> bool:
    return is_text(DATA, result)


def _hash(_params: Sequence[Any], result: object) -> bool:
    return is_text(HASH, result)


def _block(params: Sequence[Any], result: object) -> bool:
    if result is None:
        return True
    if not isinstance(result, dict) or not is_text(QUANTITY, result.get("number")):
        return False
    asked = params[0] if params else ""
    return is_text(HASH, result.get("hash")) and (
        not is_text(QUANTITY, asked) or int(result["number"], 16) == int(asked, 16)
    )


def _named(field: str) -> Callable[[Sequence[Any], object], bool]:
    """The thing with this hash, or null."""

    def check(params: Sequence[Any], result: object) -> bool:
        if result is None:
            return True
        found = result.get(field) if isinstance(result, dict) else None
        return isinstance(found, str) and bool(params) and found.lower() == str(params[0]).lower()

    return check


def _logs(params: Sequence[Any], result: object) -> bool:
    asked: Mapping[str, Any] = params[0] if params and isinstance(params[0], Mapping) else {}
    if not isinstance(result, list):
        return False
    contract = asked.get("address")
    first, last = (_number(asked.get(name)) for name in ("fromBlock", "toBlock"))
    seen: tuple[object, object] = None, None
    for log in result:
        if not isinstance(log, dict):
            return False
        address, number = log.get("address"), log.get("blockNumber")
        if (address, number) == seen:  # as of the log before: nearly all
            continue
        block = _number(number)
        if not isinstance(address, str) or block < 0 or 0 <= last < block or block < first:
            return False
        if isinstance(contract, str) and address.lower() != contract.lower():
            return False
        seen = address, number
    return True


def _number(value: object) -> int:
    """-1 where it is none, or a tag."""
    try:
        return int(value, 16) if isinstance(value, str) else -1
    except ValueError:
        return -1


_CHECKS: dict[str, Callable[[Sequence[Any], object], bool]] = {
    **dict.fromkeys(
        (
            "eth_chainId",
            "eth_blockNumber",
            "eth_gasPrice",
            "eth_maxPriorityFeePerGas",
            "eth_getBalance",
            "eth_getTransactionCount",
            "eth_estimateGas",
        ),
        _quantity,
    ),
    "eth_getCode": _data,
    "eth_call": _data,
    "eth_sendRawTransaction": _hash,
    "eth_getBlockByNumber": _block,
    "eth_getTransactionReceipt": _named("transactionHash"),
    "eth_getTransactionByHash": _named("hash"),
    "eth_getLogs": _logs,
}
