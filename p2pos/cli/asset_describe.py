"""How a person describes a class: by options, by a file, or by what is to change."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from p2pos.assets import library
from p2pos.assets.descriptor import MAX_BYTES, Descriptor
from p2pos.assets.plain_text import warnings
from p2pos.cli.asset_common import Decorator, read_file
from p2pos.cli.names import Ledger
from p2pos.errors import UserError

MADE_OF_FILES = {"image", "animation_url"}
"""Fields of a descriptor that follow from its files."""

describe_options: Sequence[Decorator] = [
    click.option("--description", help="For people."),
    click.option("--attribute", "attributes", multiple=True, metavar="KEY=VALUE", help="May be given many times."),
    click.option("--unit", "units", multiple=True, metavar="KEY=UNIT", help="What such a number counts: mass=g."),
    click.option("--file", "files", multiple=True, metavar="ROLE=PATH", help="model=lantern.glb, image=lantern.png …"),
    click.option("--licence", default="", help="Of these files: an SPDX identifier or a URL."),
    click.option(
        "--descriptor",
        "document",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A JSON file with the descriptor, in place of the options that describe; --file adds to it.",
    ),
]
"""What `describe` takes by name."""


def describing(command: Any) -> Any:
    """Give a command `describe_options`."""
    for option in reversed(describe_options):
        command = option(command)
    return command


def describe(
    ledger: Ledger,
    base: Mapping[str, Any] | None,
    *,
    description: str | None,
    attributes: Sequence[str],
    units: Sequence[str],
    files: Sequence[str],
    licence: str,
    document: Path | None,
) -> Descriptor:
    """A descriptor of what the options say; the files go into the store.

    Args:
        ledger: whose store, and whose classes a name should not be mistaken for.
        base: the fields that the options change; None where there are none, and `document` has all.
        description: and so on: as the options give them. A file with a role that the base has takes its place.
        attributes: see `description`.
        units: see `description`.
        files: see `description`.
        licence: see `description`.
        document: a file with the descriptor.

    Raises UserError: a malformed option, a bad file, a descriptor that is none.

    """
    if document is not None:
        fields = Descriptor.of_json(read_file(document, 4 * MAX_BYTES)).model_dump(exclude=MADE_OF_FILES)
    else:
        fields = dict(base or {})
        fields |= {} if description is None else {"description": description}
        fields["attributes"] = {**fields.get("attributes", {}), **dict(map(_attribute, attributes))}
        fields["units"] = {**fields.get("units", {}), **dict(map(_pair, units))}
    added = [library.add_file(ledger.store, Path(path), role, licence=licence) for role, path in map(_pair, files)]
    replaced = {one.role for one in added}
    kept = [one for one in fields.get("files", []) if document is not None or one["role"] not in replaced]
    return Descriptor.make(**{**fields, "files": [*kept, *[one.model_dump() for one in added]]})


def warn_of_name(ledger: Ledger, descriptor: Descriptor, *, but: int | None = None) -> None:
    """Say where a name could be mistaken for another class's; `but` is the class itself."""
    others = {name: "another class" for id_, name in ledger.items().items() if id_ != but}
    for warning in warnings(descriptor.name, others):
        click.echo(f"beware: {warning}", err=True)


def _attribute(text: str) -> tuple[str, bool | int | str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--attribute: “{text}” is not KEY=VALUE")
    if value in {"true", "false"}:
        return key, value == "true"
    return key, int(value) if value.removeprefix("-").isdecimal() and value.isascii() and len(value) < 20 else value


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise UserError(f"“{text}” is not of the form KEY=VALUE")
    return key, value
