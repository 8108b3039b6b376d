"""How every command gets a passphrase or another secret: from a descriptor, a private file, or a person.

Never from an argument, which other users of the machine can list.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.ledger import passphrase, private_file

fd_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--passphrase-fd", type=click.IntRange(min=0), help="An open file descriptor whose first line is the passphrase."
)


def get_passphrase(settings: Settings, descriptor: int | None, what: str, *, confirm: bool = False) -> str:
    """The passphrase: of the descriptor, else of the settings' file, else asked for without echo.

    Args:
        settings: may name a file.
        descriptor: `--passphrase-fd`.
        what: whose passphrase is asked for.
        confirm: ask twice.

    Raises UserError where it can't be had.

    """
    if descriptor is not None:
        return passphrase.from_descriptor(descriptor)
    if settings.passphrase_file is not None:
        return passphrase.from_file(settings.passphrase_file)
    return ask(
        f"Passphrase of {what}",
        f"no passphrase for {what}",
        hint="run it on a terminal, or give --passphrase-file or --passphrase-fd",
        confirm=confirm,
    )


def ask(prompt: str, otherwise: str, *, hint: str, confirm: bool = False) -> str:
    """Ask for a secret on the terminal, without echo. Raises UserError, `otherwise`, where there is none."""
    if not sys.stdin.isatty():
        raise UserError(otherwise, hint=hint)
    answer: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer


def read_secret(file: Path, most: int, what: str) -> str:
    """The text of a file of mode 0600, or of standard input for -. Raises UserError."""
    if str(file) == "-":
        data = sys.stdin.buffer.read(most + 1)
        if len(data) > most:
            raise UserError(f"{what} is longer than {most} bytes")
    else:
        try:
            data = private_file.read(file, most, what)
        except FileNotFoundError as exc:
            raise UserError(f"{file}: {exc.strerror}") from exc
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        raise UserError(f"{what} is not text") from None  # the cause holds what was read
