"""`p2pos contact`: other people's addresses, by name."""

import sys
from pathlib import Path

import click

from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.tables import print_table
from p2pos.cli.warnings import warn_of
from p2pos.config import Settings
from p2pos.content import strict_json
from p2pos.errors import UserError
from p2pos.ledger.contacts import MAX_BYTES, checksummed, parse_people
from p2pos.ledger.people import People
from p2pos.types import Address

CONTACTS = "contact's name"


@click.group()
def contact() -> None:
    """Names for other people's addresses. A contact's name does wherever an address does."""


@contact.command()
@click.argument("name")
@click.argument("address")
@click.option("--yes", is_flag=True, help="Add it, whatever it looks like.")
@json_option
@with_settings()
def add(settings: Settings, name: str, address: str, yes: bool, as_json: bool) -> None:
    """Call an ADDRESS by a NAME. The address must have its checksum: capital and small letters as it was shown."""
    people = People.of_home(settings.home)
    found = checksummed(address, "ADDRESS")
    people.require_free(name, CONTACTS)
    _agree(people, [found], yes=yes)
    people.contacts.add({name: found})
    if as_json:
        print_json({"name": name, "address": found})
    else:
        click.echo(f"{name} is {found}")


@contact.command("list")
@json_option
@with_settings()
def list_(settings: Settings, as_json: bool) -> None:
    """List the contacts. What --json prints can be imported elsewhere."""
    known = People.of_home(settings.home).contacts.all()
    if as_json:
        print_json({"contacts": [{"name": name, "address": address} for name, address in known.items()]})
    elif known:
        print_table(("name", "address"), list(known.items()))
    else:
        click.echo("no contacts; p2pos contact add NAME ADDRESS makes one")


@contact.command()
@click.argument("name")
@json_option
@with_settings()
def remove(settings: Settings, name: str, as_json: bool) -> None:
    """Forget a contact."""
    address = People.of_home(settings.home).contacts.remove(name)
    if as_json:
        print_json({"name": name, "address": address})
    else:
        click.echo(f"{name}, {address}, is no longer a contact")


@contact.command()
@click.argument("name")
@click.argument("new_name", metavar="NEW")
@json_option
@with_settings()
def rename(settings: Settings, name: str, new_name: str, as_json: bool) -> None:
    """Call a contact otherwise."""
    people = People.of_home(settings.home)
    if name not in people.contacts.all():
        people.contacts.rename(name, new_name)  # raises: there is none
    people.require_free(new_name, CONTACTS, besides=name)
    people.contacts.rename(name, new_name)
    if as_json:
        print_json({"name": new_name, "address": people.contacts.all()[new_name]})
    else:
        click.echo(f"{name} is called {new_name} now")


@contact.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--yes", is_flag=True, help="Add them, whatever they look like.")
@json_option
@with_settings()
def import_(settings: Settings, file: Path, yes: bool, as_json: bool) -> None:
    """Add the contacts of a FILE (- for standard input): JSON of {NAME: ADDRESS, …}, or what `contact list` prints.

    All are added or none. One that is there already under the same name with the same address stays.
    """
    people = People.of_home(settings.home)
    there = people.contacts.all()
    new = {name: of for name, of in _read(file).items() if there.get(name) != of}
    for name in new:
        if name in there:
            raise UserError(f"contact {name} is already there, with {there[name]}", hint="rename one of them")
    people.require_all_free(new, CONTACTS)
    _agree(people, list(new.values()), yes=yes)
    people.contacts.add(new)
    if as_json:
        print_json({"contacts": [{"name": name, "address": of} for name, of in new.items()]})
    else:
        click.echo(f"added {len(new)} contacts")


def _agree(people: People, addresses: list[Address], *, yes: bool) -> None:
    """Warn of addresses that look like known ones, and ask. Raises UserError, or click's Abort."""
    warned = [address for address in addresses if warn_of(people, address)]
    if not warned or yes:
        return
    if not sys.stdin.isatty():
        raise UserError("an address looks like a known one, and nobody is there to agree to it", hint="say --yes")
    click.confirm("Add it all the same?", abort=True, err=True)


def _read(file: Path) -> dict[str, Address]:
    try:
        if str(file) == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with file.open("rb") as opened:
                data = opened.read(MAX_BYTES + 1)
    except OSError as exc:
        raise UserError(f"{file}: {exc.strerror}") from exc
    if len(data) > MAX_BYTES:
        raise UserError(f"{file} is longer than {MAX_BYTES} bytes")
    try:
        return parse_people(strict_json.loads(data, unique_keys=True), str(file))
    except ValueError as exc:
        raise UserError(f"{file} is not JSON") from exc
