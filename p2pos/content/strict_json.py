"""JSON that a stranger sent: parsed only where it nests no deeper than a document of ours ever does.

The standard parser descends once per level, in C. Where a library has raised the interpreter's recursion limit, a deep
enough document overflows the stack and ends the process.
"""

import json
import re
from typing import Any

MAX_DEPTH = 64
"""Levels. A model's config nests four deep, a manifest three."""
MAX_INT = (1 << 53) - 1
"""IEEE doubles are exact up to here."""
MAX_DIGITS = 17
"""Of such a number, with its sign. Python refuses to read those of thousands, in words of its own."""

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[{]|[\]}]', re.DOTALL)
"""Strings, one that never ends too, else each of its quotes would be looked at anew; and what nests."""


def loads(data: bytes, *, unique_keys: bool = False) -> Any:
    """The value.

    Args:
        data: UTF-8 text.
        unique_keys: refuse an object that names a key twice. Readers differ in which of the two they take, so what
            one person was shown another may not be.

    Raises:
        ValueError: it isn't JSON, nests more than `MAX_DEPTH` levels, or names a key twice.

    """
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:  # with fewer it can't nest deeper, strings or not
        _require_shallow(data)
    # decoded here, because the parser would guess UTF-16, in which the bytes counted above mean something else
    return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique if unique_keys else None)


def loads_exact(data: bytes) -> Any:
    """The value of a document that has one meaning only, whoever reads it.

    Raises ValueError as `loads` with `unique_keys`, and where it begins with a byte order mark, or holds a number that
    is no whole one up to 2⁵³: those that IEEE doubles, which most other readers have, can't tell apart.
    """
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
        _require_shallow(data)
    if data.startswith(b"\xef\xbb\xbf"):
        raise ValueError("begins with a byte order mark")
    return json.loads(
        data.decode("utf-8"),
        object_pairs_hook=_unique,
        parse_int=_whole,
        parse_float=_no_number,
        parse_constant=_no_number,
    )


def _whole(text: str) -> int:
    value = int(text) if len(text) <= MAX_DIGITS else MAX_INT + 1
    if abs(value) > MAX_INT:
        raise ValueError(f"holds {text[:20]}, which is no whole number up to 2⁵³")
    return value


def _no_number(text: str) -> Any:
    raise ValueError(f"holds {text[:20]}, which is no whole number")


def _require_shallow(data: bytes) -> None:
    depth = 0
    for token in _TOKENS.finditer(data):
        first = data[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nests more than {MAX_DEPTH} levels")
        elif first in b"]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise RepeatedKeyError(name)
            seen.add(name)
    return found


class RepeatedKeyError(ValueError):
    """An object names a key twice."""

    def __init__(self, key: str) -> None:
        super().__init__(f"names “{ascii(key[:40])[1:-1]}” twice")
