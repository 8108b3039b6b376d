"""How a child notices that the process that started it is gone, even by kill -9: its standard input ends.

The parent holds the write end of a pipe and never writes. The kernel closes it when the parent dies, however it dies.
"""

import os
import sys

import trio


async def let_go() -> None:
    """Return when standard input ends. What is written to it is passed over."""
    async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
        async for _ in stream:
            pass
