"""Tables: aligned on a terminal, separated by tabs elsewhere."""

import sys
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(head: tuple[str, ...] | None, rows: Sequence[tuple[str, ...]]) -> None:
    """Rows for a person on a terminal; separated by tabs elsewhere."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    table = Table(*(head or ("",) * len(rows[0])), box=None, pad_edge=False, show_header=head is not None)
    for row in rows:
        table.add_row(*map(Text, row))  # a stranger's “[bold]” is text here, not markup
    Console().print(table)
