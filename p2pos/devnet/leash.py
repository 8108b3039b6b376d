"""How a child notices that its owner is gone, even by SIGKILL: the pipe on its standard input ends.

The owner holds the pipe's other end and never writes to it. The kernel closes that end when the owner dies, on
every POSIX system and however it dies. `die_with_parent` adds the kernel's own word for it where there is one.
"""

import ctypes
import os
import resource
import signal
import sys
from functools import partial

import trio

PR_SET_PDEATHSIG = 1  # linux/prctl.h
CHUNK_BYTES = 4096  # what is read is thrown away; the owner sends nothing


async def stdin_closed() -> None:
    """Return when standard input reaches its end. May be cancelled.

    It reads in a thread, because a terminal or a file on standard input must not be made non-blocking: that
    would change it for the shell too.
    """
    read = partial(os.read, 0, CHUNK_BYTES)
    while await trio.to_thread.run_sync(read, abandon_on_cancel=True):  # type: ignore[call-arg] # stubs older than it
        pass


def _load_libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


_LIBC = _load_libc()  # before any fork: a child between fork and exec must not load libraries


def die_with_parent() -> None:
    """Ask the kernel to SIGKILL this process when the thread that started it ends. Does nothing outside Linux.

    To be called between fork and exec, by a child whose parent started it from its main thread.
    """
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def cap_memory(limit_bytes: int) -> None:
    """Limit this process's address space, so that a leak ends it and not the machine. Does nothing outside Linux.

    To be called between fork and exec. macOS accepts the limit and does not keep it.
    """
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
