"""What the kernel sees to for a child, set between fork and exec: that it dies with its parent, and a memory cap."""

import ctypes
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
"""Loaded before any fork, because a child between fork and exec must not load libraries."""


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
