"""`p2pos asset history`: everything that happened to a class of items, or to a wallet."""

import csv
import datetime as dt
import sys

import click

from p2pos.cli.names import Ledger
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.tables import print_table
from p2pos.cli.warnings import printable
from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.ledger import story
from p2pos.ledger.contracts import artifact
from p2pos.ledger.plain_words import when
from p2pos.ledger.reverts import Reverts

MOST = 100_000
"""Lines of one answer: 100 MB of JSON at most, some seconds."""


@click.command()
@click.argument("item", metavar="CLASS", required=False)
@click.option("--wallet", "--of", "who", metavar="WHO", help="Of this wallet, contact or address alone.")
@click.option("--oldest", is_flag=True, help="From the beginning. Default: the newest first.")
@click.option("--most", type=click.IntRange(1, MOST), default=50, show_default=True, help="Lines.")
@click.option("--csv", "as_csv", is_flag=True, help="Print lines of CSV, a head first.")
@json_option
@with_settings("rpc_url", "contract")
def history(
    settings: Settings, item: str | None, who: str | None, oldest: bool, most: int, as_csv: bool, as_json: bool
) -> None:
    """Tell what happened: to a class, to a wallet, to both together, or everything.

    Who made an item and for whom, who gave it to whom, what it was swapped for, which world it was carried into and
    when it came back, what a world took, how its descriptor changed; each with block, time and transaction.
    """
    if as_csv and as_json:
        raise UserError("give either --csv or --json")
    ledger = Ledger(settings)
    account = ledger.who(who) if who else ""
    block = ledger.indexer.sync()
    id_ = ledger.class_id(item) if item else None
    lines = ledger.index.history(account=account, id_=id_, most=most, oldest=oldest)
    reverts = Reverts(artifact().abi)
    words = story.Words(ledger.people(), ledger.items(), lambda data: reverts.read(data).text)
    if as_json:
        happenings = [
            {
                **one.as_json(),
                "kind": story.kind(one),
                "time": dt.datetime.fromtimestamp(one.timestamp, dt.UTC).isoformat(),
                "name": words.items.get(one.id) if one.id is not None else None,
                "story": story.told(one, words),
            }
            for one in lines
        ]
        print_json({"block": block, "happenings": happenings})
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(story.COLUMNS)
        writer.writerows([printable(cell) for cell in story.row(one, words)] for one in lines)
    elif lines:
        rows = [
            (str(one.block), when(one.timestamp), printable(story.told(one, words)), one.transaction) for one in lines
        ]
        print_table(("block", "time", "what happened", "transaction"), rows)
    else:
        click.echo("nothing")
