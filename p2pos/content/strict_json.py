"""JSON that a stranger sent: parsed only where it nests no deeper than a document of ours ever does.

The standard parser descends once per level, in C. Where a library has raised the interpreter's recursion limit, a deep
enough document overflows the stack and ends the process.
"""

import json
import re
from typing import Any

MAX_DEPTH = 64
"""Levels. A model's config nests four deep, a manifest three."""

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def loads(data: bytes) -> Any:
    """The value. Raises ValueError where it isn't JSON, or nests more than `MAX_DEPTH` levels."""
    depth = 0
    for token in _TOKENS.finditer(data):
        first = data[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nests more than {MAX_DEPTH} levels")
        elif first in b"]}":
            depth -= 1
    return json.loads(data)
