"""What the asset commands share: options, and reading of amounts, times and files."""

import datetime as dt
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias

import click

from p2pos.cli.names import Ledger
from p2pos.errors import UserError
from p2pos.ledger.typed_data import MAX_ITEMS, MAX_UINT64, MAX_UINT128, unsigned

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

DAY_S = 86_400
MAX_VALID_S = 366 * DAY_S
"""The longest that an intent stays good: who wants longer signs again."""

class_argument: Decorator = click.argument("item", metavar="CLASS")
to_option: Decorator = click.option("--to", required=True, help="A wallet's name or an address.")
world_option: Decorator = click.option("--world", required=True, help="The world: a wallet's name or an address.")
owner_option: Decorator = click.option("--owner", required=True, help="Whose: a wallet's name or an address.")
amount_option: Decorator = click.option("--amount", default="1", show_default=True, help="How many.")
valid_option: Decorator = click.option(
    "--valid-s",
    type=click.IntRange(1, MAX_VALID_S),
    default=DAY_S,
    show_default=True,
    help="Seconds from now in which it can be submitted.",
)
for_option: Decorator = click.option(
    "--for-s", type=click.IntRange(1), help=f"How long, in seconds from now. Default: {DAY_S}."
)
until_option: Decorator = click.option(
    "--until", metavar="TIME", help="Until when, in place of --for-s: as 2026-12-24T18:00, in UTC."
)


def wallet_option(what: str) -> Decorator:
    """`--wallet NAME`, required."""
    option: Decorator = click.option("--wallet", "name", required=True, help=what)
    return option


def pairs_option(flag: str, name: str, text: str) -> Decorator:
    """`--FLAG CLASS AMOUNT`, any number of times."""
    option: Decorator = click.option(
        f"--{flag}", name, nargs=2, multiple=True, metavar="CLASS AMOUNT", help=f"{text} May be given many times."
    )
    return option


def read_amount(text: str, what: str = "--amount", least: int = 1) -> int:
    """A count of items that a class can have. Raises UserError that names `what`."""
    digits = text.isascii() and text.isdecimal()
    count = unsigned(text, what, MAX_UINT128) if digits else -1
    if count < least:
        raise UserError(f"{what}: {text[:100]} is not a number of items", hint=f"give a whole number, {least} or more")
    return count


def read_pairs(ledger: Ledger, pairs: Sequence[tuple[str, str]], what: str) -> tuple[tuple[int, int], ...]:
    """Classes and how many of each. Raises UserError for too many, and for a class that is given twice."""
    if len(pairs) > MAX_ITEMS:
        raise UserError(f"{what}: {len(pairs)} classes are more than {MAX_ITEMS}", hint="do it in several goes")
    found: dict[int, int] = {}
    for item, amount in pairs:
        id_ = ledger.class_id(item)
        if id_ in found:
            raise UserError(f"{what}: “{item}” is given twice", hint="give one amount for it")
        found[id_] = read_amount(amount, what)
    return tuple(found.items())


def read_until(now_s: int, for_s: int | None, until: str | None) -> int:
    """The second since the epoch that `--for-s` or `--until` means. Raises UserError where it is past, or both are."""
    if until is None:
        ends = now_s + (for_s or DAY_S)
        if ends > MAX_UINT64:
            raise UserError(f"--for-s: {str(for_s)[:40]} s is longer than there is time", hint="give fewer seconds")
        return ends
    if for_s is not None:
        raise UserError("give either --for-s or --until")
    try:
        moment = dt.datetime.fromisoformat(until)
    except ValueError as exc:
        raise UserError(f"--until: “{until[:100]}” is not a time", hint="write it as 2026-12-24T18:00, in UTC") from exc
    second = int((moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp())
    if not now_s < second <= MAX_UINT64:
        raise UserError(f"--until: {until} is past", hint="times are in UTC")
    return second


def read_file(file: Path, most: int) -> bytes:
    """Up to `most` bytes of a file, and one more where it is longer; - is standard input. Raises UserError."""
    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(most + 1)
        with file.open("rb") as opened:
            return opened.read(most + 1)
    except OSError as exc:
        raise UserError(f"{file}: {exc.strerror}") from exc


@contextmanager
def new_file(path: Path) -> Iterator[IO[str]]:
    """A file to write a signed thing into, made before anything is signed, and gone again where nothing was.

    Raises UserError where it is there already or can't be made.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError as exc:
        raise UserError(f"{path} is already there", hint="choose a new file; what is signed is never replaced") from exc
    except OSError as exc:
        raise UserError(f"{path} can't be written: {exc.strerror}", hint="choose another file") from exc
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
