"""`p2pos wallet`: encrypted keystores; and how every command gets a passphrase."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.ledger import passphrase
from p2pos.ledger.wallet import MAX_KEYSTORE, Wallets

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
    if not sys.stdin.isatty():
        raise UserError(
            f"no passphrase for {what}", hint="run it on a terminal, or give --passphrase-file or --passphrase-fd"
        )
    answer: str = click.prompt(f"Passphrase of {what}", hide_input=True, confirmation_prompt=confirm, err=True)
    return answer


@click.group()
def wallet() -> None:
    """Encrypted keystores (Ethereum V3), one file per wallet under the home's wallets/."""


@wallet.command()
@click.argument("name")
@fd_option
@json_option
@with_settings("passphrase_file")
def new(settings: Settings, name: str, passphrase_fd: int | None, as_json: bool) -> None:
    """Make a wallet with a new key."""
    wallets = Wallets(settings.wallets)
    wallets.require_free(name)
    secret = get_passphrase(settings, passphrase_fd, f"the new wallet {name}", confirm=True)
    _show(name, wallets.create(name, secret), wallets.path(name), as_json=as_json)


@wallet.command("import")
@click.argument("name")
@click.argument("file", type=click.File("rb"))
@fd_option
@json_option
@with_settings("passphrase_file")
def import_(settings: Settings, name: str, file: Any, passphrase_fd: int | None, as_json: bool) -> None:
    """Make a wallet of FILE (- for standard input): a private key in hex, or a V3 keystore with its passphrase."""
    wallets = Wallets(settings.wallets)
    wallets.require_free(name)
    try:
        text = file.read(MAX_KEYSTORE + 1).decode().strip()
    except UnicodeDecodeError as exc:
        raise UserError(f"{file.name} is not text", hint="give a private key in hex, or a V3 keystore") from exc
    if text.startswith("{"):
        secret = get_passphrase(settings, passphrase_fd, f"the keystore for {name}")
        found = wallets.import_keystore(name, text, secret)
    else:
        secret = get_passphrase(settings, passphrase_fd, f"the new wallet {name}", confirm=True)
        found = wallets.import_key(name, text, secret)
    _show(name, found, wallets.path(name), as_json=as_json)


@wallet.command("list")
@json_option
@with_settings()
def list_(settings: Settings, as_json: bool) -> None:
    """List the wallets."""
    wallets = Wallets(settings.wallets)
    rows = [(name, wallets.address(name)) for name in wallets.names()]
    if as_json:
        print_json({"wallets": [{"name": name, "address": address} for name, address in rows]})
    elif not rows:
        click.echo(f"no wallets in {wallets.directory}; p2pos wallet new NAME makes one")
    elif sys.stdout.isatty():
        table = Table("wallet", "address", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    else:
        for name, address in rows:
            click.echo(f"{name}\t{address}")


@wallet.command()
@click.argument("name")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to this new file, mode 0600. Default: print."
)
@with_settings()
def export(settings: Settings, name: str, out: Path | None) -> None:
    """Give out a wallet's keystore, still encrypted, for any Ethereum software."""
    text = Wallets(settings.wallets).export(name)
    if out is None:
        click.echo(text)
        return
    try:
        out.touch(mode=0o600, exist_ok=False)
        out.write_text(text + "\n")
    except OSError as exc:
        raise UserError(f"{out}: {exc.strerror}", hint="choose a new file") from exc
    click.echo(f"wrote {out}", err=True)


def _show(name: str, address: str, path: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "address": address, "path": str(path)})
    else:
        click.echo(f"{name} is {address}\nkept in {path}; without its passphrase nobody can open it")
