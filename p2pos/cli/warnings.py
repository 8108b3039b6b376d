"""Lines that nobody should overlook, before something is signed or remembered."""

import click

from p2pos.ledger import cautions
from p2pos.ledger.cautions import Known
from p2pos.ledger.people import People
from p2pos.types import Address


def warn(lines: list[str]) -> bool:
    """Show them on standard error. Returns whether there are any."""
    for line in lines:
        click.secho(f"WARNING: {printable(line)}", err=True, fg="yellow")
    return bool(lines)


def warn_of(people: People, address: Address) -> bool:
    """Warn of an address that only looks like a known one. Returns whether there was anything to say."""
    return warn(cautions.about_address(address, Known(people.names(), people.given())))


def printable(text: str) -> str:
    """One line; what could steer a terminal, or hide or reorder what is shown, becomes �."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)
