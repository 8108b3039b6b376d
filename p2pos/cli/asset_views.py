"""`p2pos asset list` and `show`: what the chain says."""

import json
from typing import Any

import click

from p2pos.cli.asset_issue import terms_json
from p2pos.cli.names import Ledger, short
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.tables import print_table
from p2pos.config import Settings
from p2pos.content import cid
from p2pos.errors import UserError
from p2pos.ledger.plain_words import when
from p2pos.ledger.records import ClassInfo
from p2pos.ledger.terms import Policy


@click.command("list")
@click.argument("who", required=False)
@json_option
@with_settings("rpc_url", "contract")
def list_(settings: Settings, who: str | None, as_json: bool) -> None:
    """List what WHO holds (a wallet or an address; by default, all wallets here), proven against the chain."""
    ledger = Ledger(settings)
    owners = [ledger.who(who)] if who else list(ledger.owners())
    if not owners:
        raise UserError("there are no wallets here", hint="name an address, or make one with p2pos wallet new")
    answer: list[dict[str, Any]] = []
    for owner in owners:
        block, held = ledger.indexer.checked_holdings(owner)
        items = [
            {
                "id": f"0x{id_:064x}",
                "name": ledger.items().get(id_),
                "amount": amount,
                "locked": ledger.chain.locked(owner, id_),
            }
            for id_, amount in held.items()
        ]
        answer.append({"owner": owner, "wallet": ledger.owners().get(owner), "block": block, "items": items})
    if as_json:
        print_json(answer[0] if who else {"holdings": answer})
        return
    rows = [
        (ledger.name(one["owner"]), f"{item['amount']} × {name}", str(item["locked"] or ""), short(id_))
        for one in answer
        for item in one["items"]
        for id_ in [int(item["id"], 16)]
        for name in [ledger.item(id_)]
    ]
    if rows:
        print_table(("owner", "items", "locked", "class"), rows)
    else:
        click.echo("nothing")


@click.command()
@click.argument("item", metavar="CLASS")
@json_option
@with_settings("rpc_url", "contract")
def show(settings: Settings, item: str, as_json: bool) -> None:
    """Show a class: its issuer, supply, descriptor and holders."""
    ledger = Ledger(settings)
    ledger.indexer.sync()
    id_ = ledger.class_id(item)
    found = ledger.chain.item_class(id_)
    if found is None:
        raise UserError(f"there is no class 0x{id_:064x} on this contract", hint="see p2pos asset history")
    block, holders = ledger.indexer.checked_holders(id_)
    descriptor = ledger.describe(found.digest)
    pending, due = ledger.chain.pending_update(id_)
    if as_json:
        print_json(
            {
                "id": f"0x{id_:064x}",
                "issuer": found.issuer,
                "cap": found.cap,
                "supply": found.supply,
                "minted": found.minted,
                "burned": found.burned,
                "version": found.version,
                **terms_json(found),
                "cid": cid.from_digest(found.digest),
                "descriptor": descriptor.model_dump(mode="json") if descriptor else None,
                "proposed": {"cid": cid.from_digest(pending), "due": due} if pending else None,
                "block": block,
                "holders": [{"owner": who, "amount": amount} for who, amount in holders.items()],
            }
        )
        return
    rows = [
        ("class", f"0x{id_:064x}"),
        ("name", descriptor.name if descriptor else "its descriptor is not here"),
        ("issuer", ledger.name(found.issuer)),
        ("supply", _supply(found)),
        *_terms(ledger, found),
        ("descriptor", f"version {found.version}, {cid.from_digest(found.digest)}"),
    ]
    if pending:
        rows.append(("proposed", f"from {when(due)} on, {cid.from_digest(pending)}"))
    if descriptor:
        rows += [("kind", descriptor.kind), ("description", descriptor.description or "none")]
        for key, value in descriptor.attributes.items():
            unit = descriptor.units.get(key)
            rows.append((key, json.dumps(value, ensure_ascii=False) + (f" {unit}" if unit else "")))
        rows += [(f"file {file.role}", f"{file.media_type}, {file.size:,} bytes") for file in descriptor.files]
    rows += [(f"held by {ledger.name(who)}", str(amount)) for who, amount in holders.items()]
    print_table(None, rows)


def _supply(found: ClassInfo) -> str:
    burned = f", {found.burned} destroyed" if found.burned else ""
    return (f"{found.supply} of {found.cap}" if found.cap else f"{found.supply}, no limit") + burned


def _terms(ledger: Ledger, found: ClassInfo) -> list[tuple[str, str]]:
    """What was fixed for good, where it is out of the ordinary."""
    changed = {
        Policy.FROZEN: "never",
        Policy.ISSUER: "by the issuer, at once",
        Policy.DELAYED: f"by the issuer, {found.delay} s after saying so",
    }
    rows = [("changes", changed[found.policy])]
    if found.soulbound:
        rows.append(("soulbound", "never changes hands"))
    if found.royalty_bps:
        rows.append(("royalty", f"{found.royalty_bps / 100:g} % to {ledger.name(found.royalty_receiver)}"))
    return rows
