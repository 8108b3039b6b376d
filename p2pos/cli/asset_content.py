"""`p2pos asset metadata`, `fetch`, `export` and `import`: descriptors and files, and how they get about."""

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from p2pos.assets import library
from p2pos.assets.descriptor import Descriptor
from p2pos.assets.metadata import metadata
from p2pos.cli.names import Ledger
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.config import Settings
from p2pos.content import cid
from p2pos.content.car import Car
from p2pos.content.store import Store
from p2pos.errors import UnavailableError, UserError
from p2pos.types import Cid

if TYPE_CHECKING:
    from p2pos.node.gathering import Gathered

MOST_MIB = 1024
"""Of an item's files that come without a word from the person; a large model has a hundred."""

most_option = click.option(
    "--most-mib",
    type=click.IntRange(0),
    default=MOST_MIB,
    show_default=True,
    help="Fetch and read no more than this of files.",
)
version_option = click.option("--version", type=click.IntRange(1), help="An earlier version. Default: the current one.")


def digest_of(ledger: Ledger, item: str, version: int | None) -> bytes:
    """The digest of a class's descriptor, from the chain; a descriptor's CID may stand for the class.

    Raises UserError where there is no such class or version.
    """
    if item.startswith("b") and len(item) == 59:
        return cid.digest(item)
    ledger.indexer.sync()
    id_ = ledger.class_id(item)
    if version is not None:
        return ledger.version(id_, version).digest
    found = ledger.chain.item_class(id_)
    if found is None:
        raise UserError(f"there is no class 0x{id_:064x} on this contract", hint="see p2pos asset history")
    return found.digest


@click.command("metadata")
@click.argument("item", metavar="CLASS|CID")
@version_option
@with_settings("rpc_url", "contract")
def metadata_(settings: Settings, item: str, version: int | None) -> None:
    """Print a class's ERC-1155 metadata, for wallets and marketplaces."""
    ledger = Ledger(settings)
    descriptor = _here(ledger.store, digest_of(ledger, item, version))
    click.echo(json.dumps(metadata(descriptor), ensure_ascii=False, indent=1))


@click.command()
@click.argument("item", metavar="CLASS|CID")
@version_option
@most_option
@json_option
@with_settings("rpc_url", "contract", "bootstrap", "swarm_key_file")
def fetch(settings: Settings, item: str, version: int | None, most_mib: int, as_json: bool) -> int:
    """Fetch a class's descriptor and files from peers. What came before an interruption is kept."""
    ledger = Ledger(settings)
    done = gather(settings, ledger.store, digest_of(ledger, item, version), most=most_mib << 20)
    total = sum(done.nbytes.values())
    if as_json:
        print_json(
            {
                "cid": done.descriptor.cid(),
                "name": done.descriptor.name,
                "bytes": total,
                "peers": done.nbytes,
                "lacking": done.lacking,
            }
        )
    elif done.lacking:
        click.echo(f"nobody here has these files whole: {', '.join(done.lacking)}; what came is kept")
    else:
        click.echo(f"all of {done.descriptor.name} is here; {total:,} bytes came, from {len(done.nbytes)} peers")
    return UnavailableError.exit_code if done.lacking else 0


@click.command()
@click.argument("item", metavar="CLASS|CID")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@version_option
@json_option
@with_settings("rpc_url", "contract")
def export(settings: Settings, item: str, file: Path, version: int | None, as_json: bool) -> None:
    """Write a class's descriptor and files into a CAR, which IPFS tools read."""
    ledger = Ledger(settings)
    descriptor = _here(ledger.store, digest_of(ledger, item, version))
    try:
        written = library.write_car(file, descriptor, ledger.store.get)
    except UnavailableError as exc:
        raise UnavailableError(exc.message, hint=exc.hint or f"p2pos asset fetch {item}", **exc.fields) from exc
    if as_json:
        print_json({"file": str(file), "cid": descriptor.cid(), "name": descriptor.name, "bytes": written})
    else:
        click.echo(f"{file} has all of {descriptor.name}, {written:,} bytes; its root is {descriptor.cid()}")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
@with_settings()
def import_(settings: Settings, file: Path, as_json: bool) -> int:
    """Take in the descriptors and files in a CAR. Every block is hashed before anything is kept."""
    try:
        with file.open("rb") as opened:
            taken = library.take_in(Car(opened), Store(settings.content))
    except UserError as exc:
        raise UserError(f"{file}: {exc.message}", hint=exc.hint, **exc.fields) from exc
    except OSError as exc:
        raise UserError(f"{file}: {exc.strerror}") from exc
    if as_json:
        print_json(
            {
                "items": [
                    {"cid": one.cid, "name": one.descriptor.name, "missing": [each.role for each in one.missing]}
                    for one in taken
                ]
            }
        )
        return 0
    for one in taken:
        gaps = ", ".join(each.role for each in one.missing)
        state = f"these files are not whole: {gaps}" if gaps else f"all {len(one.descriptor.files)} files are here"
        click.echo(f"{one.descriptor.name}, {one.cid}: {state}")
    return 0


def gather(settings: Settings, store: Store, digest: bytes, *, most: int) -> "Gathered":
    """As `asset_swarm.gather`, which is imported only now."""
    done: Gathered = importlib.import_module("p2pos.cli.asset_swarm").gather(settings, store, digest, most)
    return done


def _here(store: Store, digest: bytes) -> Descriptor:
    """A descriptor in the store. Raises UnavailableError where it isn't there."""
    name = Cid(cid.from_digest(digest))
    data = store.get(name)
    if data is None:
        raise UnavailableError(f"the descriptor {name} is not here", hint="see p2pos asset fetch", cid=name)
    return Descriptor.parse(data, digest)
