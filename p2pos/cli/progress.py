"""Progress bars on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

Start: TypeAlias = Callable[[str, int], Callable[[int], None]]
"""Given a title and a total of bytes, what to call with each piece's bytes."""


@contextmanager
def progress_bars() -> Iterator[Start]:
    """A bar per task on standard error, where that is a terminal; else nothing."""
    bars = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=Console(stderr=True), transient=True
    )

    def start(title: str, total: int) -> Callable[[int], None]:
        task = bars.add_task(title, total=total)
        return lambda count: bars.advance(task, count)

    if sys.stderr.isatty():
        with bars:
            yield start
    else:
        yield start
