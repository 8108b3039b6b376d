"""Running a piece of trio in a test."""

from collections.abc import Awaitable, Callable

import trio


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run to the end. Of a group of errors, raise the first as itself, for `pytest.raises`."""
    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup):
            leaf = leaf.exceptions[0]
        raise leaf from None
