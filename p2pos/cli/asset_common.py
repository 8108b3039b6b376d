"""What the asset commands share: options, reading of files and amounts."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import click

from p2pos.errors import UserError
from p2pos.ledger.typed_data import MAX_UINT256, unsigned

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

to_option: Decorator = click.option("--to", required=True, help="A wallet's name or an address.")
amount_option: Decorator = click.option("--amount", default="1", show_default=True, help="How many.")


def wallet_option(what: str) -> Decorator:
    """`--wallet NAME`, required."""
    option: Decorator = click.option("--wallet", "name", required=True, help=what)
    return option


def read_amount(text: str) -> int:
    """A count of items, 1 or more. Raises UserError."""
    digits = text.isascii() and text.isdecimal()
    count = unsigned(text, "--amount", MAX_UINT256) if digits else 0
    if count == 0:
        raise UserError(f"--amount: {text[:100]} is not a number of items", hint="give a whole number, 1 or more")
    return count


def read_file(file: Path, most: int) -> bytes:
    """Up to `most` bytes of a file, and one more where it is longer; - is standard input. Raises UserError."""
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(most + 1)
        with file.open("rb") as opened:
            return opened.read(most + 1)
    except OSError as exc:
        raise UserError(f"{file}: {exc.strerror}") from exc
