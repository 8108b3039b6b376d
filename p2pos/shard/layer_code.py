"""What the source of a layer's code says of it, where nothing else does."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def results(forward: Callable[..., Any]) -> int:
    """How many values a layer's `forward` returns in a tuple; 0 where it returns one value alone.

    Of returns that differ in length, the longest counts. A name that was bound to a tuple, or had one added, is one.
    """
    function = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(forward))))
    named: dict[str, int] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    named[target.id] = max(_length(node.value), named.get(target.id, 0))
    for node in ast.walk(function):
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            named[node.target.id] = named.get(node.target.id, 0) + _length(node.value)
    found = [0]
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Name):
            found.append(named.get(node.value.id, 0))
        elif isinstance(node, ast.Return) and node.value is not None:
            found.append(_length(node.value))
    return max(found)


def _length(value: ast.expr) -> int:
    """Of a tuple, or of the tuples in a sum: `(hidden,) + others` counts one."""
    match value:
        case ast.Tuple(elts=values):
            return len(values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _length(left) + _length(right)
        case _:
            return 0
