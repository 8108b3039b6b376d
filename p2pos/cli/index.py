"""`p2pos index`: what the chain's events add up to, kept here, and whether it is what the contract says."""

import json
import signal
import threading
from types import FrameType
from typing import Any

import click

from p2pos import log
from p2pos.cli.names import Ledger
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.tables import print_table
from p2pos.config import Settings
from p2pos.errors import ChainError, UnavailableError
from p2pos.ledger.index_verify import Difference, verify

SHOWN = 20
"""Differences told on a terminal; --json has up to a thousand."""
TABLES = ("classes", "balances", "locks", "allowances", "happenings", "transactions", "names")
"""Counted by `status`."""


@click.group()
def index() -> None:
    """The index of the chain: who holds what, and how it came to be."""


@index.command()
@json_option
@with_settings("rpc_url", "contract", "index_url")
def sync(settings: Settings, as_json: bool) -> None:
    """Read on to the newest block. The asset commands do so by themselves."""
    ledger = Ledger(settings)
    before = ledger.index.newest()
    block = ledger.indexer.sync()
    if as_json:
        print_json({"from": before.number if before else None, "block": block, "index": ledger.index.where})
        return
    click.echo(f"block {block}")


@index.command()
@json_option
@with_settings("rpc_url", "contract", "index_url")
def status(settings: Settings, as_json: bool) -> None:
    """Show how far the index has read and what is in it. Asks no chain where the settings name it."""
    ledger = Ledger(settings)
    with ledger.index.snapshot():
        newest, lowest = ledger.index.newest(), ledger.index.lowest_undo()
        counts = ledger.index.counts(TABLES)
    answer: dict[str, Any] = {
        "index": ledger.index.where,
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
    ledger = Ledger(settings)
    ledger.indexer.sync()
    report = verify(ledger.index, ledger.chain, block=block, nonces=nonces)
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
            click.echo(f"to make the index again: remove {ledger.index.where}, then p2pos index sync")
    if report.wrong:
        context.exit(1)


@index.command()
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each new block.")
@with_settings("rpc_url", "contract", "index_url")
def follow(settings: Settings, as_json: bool) -> None:
    """Keep the index in step with the chain until SIGINT or SIGTERM."""
    ledger = Ledger(settings)
    indexer = ledger.indexer
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
        ledger.index.close()


def _line(one: Difference) -> str:
    return f"{one.what}: the index has {one.by_index}, the contract {one.by_chain}"
