"""`p2pos asset bundle`: names of classes, carried to a machine that never sees a chain."""

from pathlib import Path

import click

from p2pos.assets.bundle import MAX_BYTES, Bundle, Carried
from p2pos.cli.asset_common import read_file
from p2pos.cli.names import Ledger
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.tables import print_table
from p2pos.config import Settings
from p2pos.errors import UserError


@click.group()
def bundle() -> None:
    """Names of classes in a file, for a machine that signs off line."""


@bundle.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("classes", nargs=-1, metavar="[CLASS]...")
@json_option
@with_settings("rpc_url", "contract")
def export(settings: Settings, file: Path, classes: tuple[str, ...], as_json: bool) -> None:
    """Write to a new FILE what classes are called and how they are described; by default, all that are known here."""
    ledger = Ledger(settings)
    ledger.indexer.sync()
    ids = [ledger.class_id(text) for text in classes] or sorted(ledger.items())
    found: dict[int, Carried] = {}
    for id_ in ids:
        made = ledger.chain.item_class(id_)
        descriptor = ledger.describe(made.digest) if made is not None else None
        if made is None or descriptor is None:
            raise UserError(f"the descriptor of {ledger.item(id_)} is not here")
        found[id_] = Carried(descriptor, made.soulbound)
    try:
        with file.open("xb") as opened:
            opened.write(Bundle(ledger.chain.domain, found).dumps())
    except FileExistsError as exc:
        raise UserError(f"{file} is already there", hint="choose a new file") from exc
    except OSError as exc:
        raise UserError(f"{file}: {exc.strerror}") from exc
    if as_json:
        print_json({"file": str(file), "classes": len(found)})
    else:
        click.echo(f"wrote {len(found)} classes to {file}; p2pos asset bundle import {file} reads them elsewhere")


@bundle.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@json_option
@with_settings("contract")
def import_(settings: Settings, file: Path, as_json: bool) -> None:
    """Learn from a FILE (- for standard input) what classes are called. Needs no network, and proves nothing.

    Where no chain confirms a name, its class's id is shown beside it.
    """
    found = Bundle.parse(read_file(file, MAX_BYTES), str(file))
    if not settings.chain_id:
        settings = settings.model_copy(update={"chain_id": found.domain.chain_id})
    if not settings.contract:
        settings = settings.model_copy(update={"contract": found.domain.contract})
    Ledger(settings).carry(found)
    rows = [(one.descriptor.name, f"0x{id_:064x}") for id_, one in found.classes.items()]
    if as_json:
        print_json({"classes": [{"name": name, "id": id_} for name, id_ in rows]})
    else:
        print_table(("name", "class"), rows)
