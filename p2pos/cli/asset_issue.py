"""`p2pos asset class new` and `mint`: what an issuer does."""

import secrets
from pathlib import Path

import click

from p2pos.assets import library
from p2pos.assets.descriptor import MAX_BYTES, Descriptor
from p2pos.assets.plain_text import warnings
from p2pos.cli.asset_common import amount_option, read_amount, read_file, to_option, wallet_option
from p2pos.cli.names import Ledger, short
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.passphrases import fd_option
from p2pos.cli.signing import unlock, yes_option
from p2pos.config import Settings
from p2pos.content import cid
from p2pos.errors import UserError
from p2pos.ledger.terms import Terms
from p2pos.ledger.typed_data import unsigned


@click.group("class")
def class_() -> None:
    """Classes of items."""


@class_.command("new")
@click.argument("title", metavar="NAME", required=False)
@wallet_option("The issuer, who alone can mint; pays the gas.")
@click.option("--kind", default="item", show_default=True, help="item, currency, or a word that worlds agree on.")
@click.option("--cap", default="0", show_default=True, help="The most there can ever be; 0 is no limit, 1 is unique.")
@click.option("--description", default="", help="For people.")
@click.option("--attribute", "attributes", multiple=True, metavar="KEY=VALUE", help="May be given many times.")
@click.option("--unit", "units", multiple=True, metavar="KEY=UNIT", help="What such a number counts: mass=g.")
@click.option("--file", "files", multiple=True, metavar="ROLE=PATH", help="model=lantern.glb, image=lantern.png …")
@click.option("--licence", default="", help="Of these files: an SPDX identifier or a URL.")
@click.option(
    "--descriptor",
    "document",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A JSON file with the descriptor, in place of NAME and the options above; --file adds to it.",
)
@yes_option
@fd_option
@json_option
@with_settings("rpc_url", "contract", "passphrase_file")
def class_new(
    settings: Settings,
    title: str | None,
    name: str,
    kind: str,
    cap: str,
    description: str,
    attributes: tuple[str, ...],
    units: tuple[str, ...],
    files: tuple[str, ...],
    licence: str,
    document: Path | None,
    yes: bool,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Make a class of items."""
    ledger = Ledger(settings)
    most = unsigned(cap, "--cap", (1 << 128) - 1)
    if (title is None) == (document is None):
        raise UserError("give either NAME or --descriptor FILE")
    if document is not None:
        fields = Descriptor.of_json(read_file(document, 4 * MAX_BYTES)).model_dump(exclude={"image", "animation_url"})
    else:
        fields = {"name": title, "kind": kind, "description": description}
        fields |= {"attributes": dict(map(_attribute, attributes)), "units": dict(map(_pair, units))}
    added = [library.add_file(ledger.store, Path(path), role, licence=licence) for role, path in map(_pair, files)]
    descriptor = Descriptor.make(**{**fields, "files": [*fields.get("files", []), *added]})
    for warning in warnings(descriptor.name, dict.fromkeys(ledger.items().values(), "another class")):
        click.echo(f"beware: {warning}", err=True)
    data = descriptor.canonical()
    chain = ledger.chain
    signer = unlock(ledger, name, passphrase_fd, yes=yes)
    ledger.store.put(data)
    id_ = chain.create_class(signer, secrets.token_bytes(32), Terms(most), descriptor.digest())
    ledger.indexer.sync()
    if as_json:
        print_json(
            {"id": f"0x{id_:064x}", "name": descriptor.name, "issuer": signer.address, "cap": most, "cid": cid.of(data)}
        )
    else:
        click.echo(f"made class {descriptor.name}, {short(id_)}; described by {cid.of(data)}")


@click.command()
@click.argument("item", metavar="CLASS")
@to_option
@amount_option
@wallet_option("The issuer; pays the gas.")
@yes_option
@fd_option
@json_option
@with_settings("rpc_url", "contract", "passphrase_file")
def mint(
    settings: Settings, item: str, to: str, amount: str, name: str, yes: bool, passphrase_fd: int | None, as_json: bool
) -> None:
    """Make items of a class."""
    ledger = Ledger(settings)
    count, target = read_amount(amount), ledger.who(to)
    ledger.indexer.sync()
    id_ = ledger.class_id(item)
    receipt = ledger.chain.mint(unlock(ledger, name, passphrase_fd, yes=yes), target, id_, count)
    balance = ledger.chain.balance(target, id_)
    if as_json:
        print_json(
            {
                "id": f"0x{id_:064x}",
                "to": target,
                "amount": count,
                "balance": balance,
                "transaction": receipt.transaction,
                "block": receipt.block,
            }
        )
    else:
        click.echo(f"made {count} × {ledger.item(id_)} for {ledger.name(target)}, who now has {balance}")


def _attribute(text: str) -> tuple[str, bool | int | str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--attribute: “{text}” is not KEY=VALUE")
    if value in {"true", "false"}:
        return key, value == "true"
    return key, int(value) if value.removeprefix("-").isdecimal() and value.isascii() else value


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise UserError(f"“{text}” is not of the form KEY=VALUE")
    return key, value
