"""`p2pos index`: what the chain's events add up to, kept here, and whether it is what the contract says."""

import functools
import json
import signal
import threading
from types import FrameType
from typing import Any

import click

from p2pos import log
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.tables import print_table
from p2pos.config import Settings
from p2pos.errors import ChainError, UnavailableError
from p2pos.ledger.index import Index
from p2pos.ledger.index_open import open_index
from p2pos.ledger.index_verify import Difference, verify
from p2pos.ledger.indexer import Indexer
from p2pos.ledger.reader import Reader
from p2pos.ledger.typed_data import Domain, address

SHOWN = 20
"""Differences told on a terminal; --json has up to a thousand."""
TABLES = ("classes", "balances", "locks", "allowances", "happenings", "transactions", "names")
"""Counted by `status`."""


class Here:
    """The index of these settings, and what it is read from. Without wallets and web3, for `follow` runs for long."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @functools.cached_property
    def chain(self) -> Reader:
        """The chain with the contract. Raises as `Reader.connect`, and UserError where no contract is set."""
        one = self.settings
        chain = Reader.connect(one.rpc_url, chain_id=one.chain_id, contract=one.contract)
        chain.contract  # noqa: B018 - raises where none is set
        return chain

    @functools.cached_property
    def index(self) -> Index:
        """The index as it is, in a file or a database; the chain is asked only where the settings don't name it."""
        one = self.settings
        named = one.chain_id and one.contract
        domain = Domain(one.chain_id, address(one.contract, "contract")) if named else self.chain.domain
        return open_index(one.home, domain, one.index_url.get_secret_value())

    @functools.cached_property
    def indexer(self) -> Indexer:
        """The index in step with the chain."""
        return Indexer(self.index, self.chain)


@click.group()
def index() -> None:
    """The index of the chain: who holds what, and how it came to be."""


@index.command()
@json_option
@with_settings("rpc_url", "contract", "index_url")
def sync(settings: Settings, as_json: bool) -> None:
    """Read on to the newest block. The asset commands do so by themselves."""
    here = Here(settings)
    before = here.index.newest()
    block = here.indexer.sync()
    if as_json:
        print_json({"from": before.number if before else None, "block": block, "index": here.index.where})
        return
    click.echo(f"block {block}")


@index.command()
@json_option
@with_settings("rpc_url", "contract", "index_url")
def status(settings: Settings, as_json: bool) -> None:
    """Show how far the index has read and what is in it. Asks no chain where the settings name it."""
    here = Here(settings)
    with here.index.snapshot():
        newest, lowest = here.index.newest(), here.index.lowest_undo()
        counts = here.index.counts(TABLES)
    answer: dict[str, Any] = {
        "index": here.index.where,
        "block": newest.number if newest else None,
        "hash": f"0x{newest.hash.hex()}" if newest else None,
        "timestamp": newest.timestamp if newest else None,
        "undo_from": lowest,
        **counts,
    }
    if as_json:
        print_json(answer)
        return
    rows = [(name.replace("_", " "), "none" if value is None else str(value)) for name, value in answer.items()]
    print_table(None, rows)


@index.command("verify")
@click.option("--block", type=click.IntRange(0), help="At this block; by default the newest.")
@click.option("--nonces", is_flag=True, help="Each used nonce as well: a call for every intent that ever took effect.")
@json_option
@click.pass_context
@with_settings("rpc_url", "contract", "index_url")
def verify_(settings: Settings, context: click.Context, block: int | None, nonces: bool, as_json: bool) -> None:
    """Hold the index against the contract: balances, locks, allowances, classes. Exits 1 where they differ."""
    here = Here(settings)
    here.indexer.sync()
    report = verify(here.index, here.chain, block=block, nonces=nonces)
    if as_json:
        print_json(
            {
                "block": report.block.number,
                "hash": f"0x{report.block.hash.hex()}",
                "checked": dict(report.checked),
                "wrong": report.wrong,
                "differences": [one._asdict() for one in report.differences],
            }
        )
    else:
        checked = ", ".join(f"{count} {kind}" for kind, count in report.checked.items()) or "nothing"
        click.echo(f"block {report.block.number}: {checked} compared, {report.wrong} differ")
        for one in report.differences[:SHOWN]:
            click.echo(_line(one))
        if report.wrong:
            click.echo(f"to make the index again: remove {here.index.where}, then p2pos index sync")
    if report.wrong:
        context.exit(1)


@index.command()
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each new block.")
@with_settings("rpc_url", "contract", "index_url")
def follow(settings: Settings, as_json: bool) -> None:
    """Keep the index in step with the chain until SIGINT or SIGTERM."""
    here = Here(settings)
    indexer = here.indexer
    logger = log.get("index")
    stop = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    def tell(block: int) -> None:
        click.echo(json.dumps({"block": block}) if as_json else f"block {block}")

    def complain(trouble: ChainError | UnavailableError) -> None:
        logger.warning(trouble.message, hint=trouble.hint)

    former = [(one, signal.signal(one, end)) for one in (signal.SIGINT, signal.SIGTERM)]
    try:
        indexer.follow(stop, on_block=tell, on_trouble=complain)
    finally:
        for one, handler in former:
            signal.signal(one, handler)
        here.index.close()


def _line(one: Difference) -> str:
    return f"{one.what}: the index has {one.by_index}, the contract {one.by_chain}"
