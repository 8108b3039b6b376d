"""`p2pos wallet`: keystores, watched addresses and external signers, one file each."""

import sys
from pathlib import Path

import click

from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.passphrases import fd_option, get_passphrase
from p2pos.cli.tables import print_table
from p2pos.cli.wallet_new import add_external, import_, new, watch
from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.ledger import passphrase, private_file
from p2pos.ledger.people import People
from p2pos.ledger.wallet import Kind, Wallets


@click.group()
def wallet() -> None:
    """Encrypted keystores (Ethereum V3), watched addresses and external signers, under the home's wallets/."""


for command in (new, import_, watch, add_external):
    wallet.add_command(command)


@wallet.command("list")
@json_option
@with_settings()
def list_(settings: Settings, as_json: bool) -> None:
    """List the wallets. A file that is none is named with the reason, and hides no other."""
    wallets = Wallets(settings.wallets)
    sound, refused = wallets.look()
    if as_json:
        print_json(
            {
                "wallets": [
                    {"name": one.name, "address": one.address, "kind": one.kind.value}
                    | ({"end_point": one.end_point} if one.end_point else {})
                    for one in sound
                ],
                "refused": [{"name": one.name, "why": str(one.error)} for one in refused],
            }
        )
    elif sound:
        print_table(
            ("name", "address", "kind"),
            [(one.name, one.address, f"{one.kind.value} {one.end_point}".rstrip()) for one in sound],
        )
    elif not refused:
        click.echo(f"no wallets in {wallets.directory}; p2pos wallet new NAME makes one")
    for one in refused:
        click.echo(f"warning: {one.error}", err=True)


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
        private_file.write_new(out, text.encode() + b"\n")
    except FileExistsError as exc:
        raise UserError(f"{out} is already there", hint="choose a new file") from exc
    click.echo(f"wrote {out}", err=True)


@wallet.command()
@click.argument("name")
@click.option(
    "--new-passphrase-fd",
    type=click.IntRange(min=0),
    help="An open file descriptor whose first line is the new passphrase. Default: asked for.",
)
@fd_option
@json_option
@with_settings("passphrase_file")
def passwd(
    settings: Settings, name: str, new_passphrase_fd: int | None, passphrase_fd: int | None, as_json: bool
) -> None:
    """Change a keystore's passphrase. The old one opens it until the new one does."""
    wallets = Wallets(settings.wallets)
    found = wallets.get(name)
    if found.kind is not Kind.KEYSTORE:
        raise UserError(f"wallet {name} is {found.kind}: it has no passphrase here")
    old = get_passphrase(settings, passphrase_fd, f"wallet {name}")
    wallets.unlock(name, old)  # a wrong old passphrase is said before a new one is asked for
    if new_passphrase_fd is not None:
        new_ = passphrase.from_descriptor(new_passphrase_fd)
    else:
        # what --passphrase-file opens is the old one
        unfiled = settings.model_copy(update={"passphrase_file": None})
        new_ = get_passphrase(unfiled, None, f"wallet {name} from now on", confirm=True)
    wallets.change_passphrase(name, old, new_)
    if as_json:
        print_json({"name": name, "address": found.address, "path": str(wallets.path(name))})
    else:
        click.echo(f"{name} opens with the new passphrase; copies of its file made before still open with the old one")


@wallet.command()
@click.argument("name")
@click.argument("new_name", metavar="NEW")
@json_option
@with_settings()
def rename(settings: Settings, name: str, new_name: str, as_json: bool) -> None:
    """Call a wallet otherwise."""
    people = People.of_home(settings.home)
    found = people.wallets.get(name)
    people.require_free(new_name, "wallet's name", besides=name)
    people.wallets.rename(name, new_name)
    if as_json:
        print_json({"name": new_name, "address": found.address, "path": str(people.wallets.path(new_name))})
    else:
        click.echo(f"{name} is called {new_name} now")


@wallet.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Remove it without asking for its address.")
@json_option
@with_settings()
def remove(settings: Settings, name: str, yes: bool, as_json: bool) -> None:
    """Take a wallet out of the list. Its file is moved aside, not destroyed."""
    wallets = Wallets(settings.wallets)
    try:
        address = wallets.address(name)
    except UserError:
        if not wallets.path(name).exists():
            raise
        address = None  # a broken file can be removed, too
    if not yes:
        _ask_for_address(name, address)
    aside = wallets.remove(name)
    if as_json:
        print_json({"name": name, "address": address, "path": str(aside)})
    else:
        click.echo(f"{name} is no longer a wallet here; its file is kept as {aside}")


def _ask_for_address(name: str, address: str | None) -> None:
    """Make sure that it is this wallet. Raises UserError, or click's Abort."""
    if not sys.stdin.isatty():
        raise UserError("nobody is there to agree to this", hint="say --yes")
    if address is None:
        click.confirm(f"The file of {name} can't be read. Move it aside?", abort=True, err=True)
        return
    typed: str = click.prompt(f"To remove {name}, type its address {address}", err=True)
    if typed.strip() != address:
        raise UserError(f"that is not the address of {name}: nothing was removed")
