"""Memory that the process has freed, given back to the system."""

import ctypes

TRIM_BYTES = 1 << 20
"""Of a freed tensor from which giving memory back is worth the call."""


def trim() -> None:
    """Give freed memory back. glibc keeps it, between what stays: hundreds of MB by the end of a load."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # no other C library has it, nor needs it as much
    if give_back is not None:
        give_back(0)
