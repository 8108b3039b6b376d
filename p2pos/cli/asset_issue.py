"""`p2pos asset class …`, `mint`, `minter` and `burn`: how items come to be, change, and cease to be."""

import re
import secrets
from typing import Any

import click

from p2pos.cli.asset_common import amount_option, class_argument, read_amount, to_option, wallet_option
from p2pos.cli.asset_describe import MADE_OF_FILES, describe, describing, warn_of_name
from p2pos.cli.asset_intents import print_receipt, require_free
from p2pos.cli.names import Ledger, short
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.passphrases import fd_option
from p2pos.cli.signing import unlock, yes_option
from p2pos.config import Settings
from p2pos.content import cid
from p2pos.errors import UserError
from p2pos.ledger import calldata
from p2pos.ledger.plain_words import when
from p2pos.ledger.records import ClassInfo
from p2pos.ledger.terms import MAX_DELAY_S, MAX_ROYALTY_BPS, Policy, Terms
from p2pos.ledger.typed_data import MAX_UINT128, ZERO, unsigned

chain_settings = with_settings("rpc_url", "contract", "passphrase_file")


@click.group("class")
def class_() -> None:
    """Classes of items."""


@class_.command("new")
@click.argument("title", metavar="NAME", required=False)
@wallet_option("The issuer, who alone can mint or let others mint; pays the gas.")
@click.option("--kind", default="item", show_default=True, help="item, currency, or a word that worlds agree on.")
@click.option("--cap", default="0", show_default=True, help="The most there can ever be; 0 is no limit, 1 is unique.")
@click.option("--soulbound", is_flag=True, help="Items never change hands.")
@click.option(
    "--policy",
    type=click.Choice([one.name.lower() for one in Policy]),
    default="frozen",
    show_default=True,
    help="Who may change the descriptor: nobody, the issuer at once, or the issuer after --delay.",
)
@click.option("--delay", type=click.IntRange(1, MAX_DELAY_S), help="Seconds from an update's proposal to its effect.")
@click.option("--royalty", metavar="PERCENT", help="What --royalty-to is owed of each sale, up to 50, as 2.5.")
@click.option("--royalty-to", help="A wallet's name or an address. Default: the issuer.")
@describing
@yes_option
@fd_option
@json_option
@chain_settings
def class_new(
    settings: Settings,
    title: str | None,
    name: str,
    kind: str,
    cap: str,
    soulbound: bool,
    policy: str,
    delay: int | None,
    royalty: str | None,
    royalty_to: str | None,
    yes: bool,
    passphrase_fd: int | None,
    as_json: bool,
    **described: Any,
) -> None:
    """Make a class of items. Cap, policy and royalty are fixed for good."""
    ledger = Ledger(settings)
    if (title is None) == (described["document"] is None):
        raise UserError("give either NAME or --descriptor FILE")
    issuer = ledger.wallets.address(name)
    bps = _basis_points(royalty) if royalty is not None else 0
    if royalty_to is not None and not bps:
        raise UserError("--royalty-to needs --royalty")
    receiver = ledger.who(royalty_to) if royalty_to is not None else issuer if bps else ZERO
    most = unsigned(cap, "--cap", MAX_UINT128)
    terms = Terms(most, soulbound, Policy[policy.upper()], delay or 0, receiver, bps).sound()
    descriptor = describe(ledger, {"name": title, "kind": kind}, **described)
    warn_of_name(ledger, descriptor)
    data = descriptor.canonical()
    signer = unlock(ledger, name, passphrase_fd, yes=yes)
    ledger.store.put(data)
    id_ = ledger.chain.create_class(signer, secrets.token_bytes(32), terms, descriptor.digest())
    ledger.indexer.sync()
    if as_json:
        facts = {"id": f"0x{id_:064x}", "name": descriptor.name, "issuer": issuer, "cap": most, "cid": cid.of(data)}
        print_json({**facts, **terms_json(terms)})
    else:
        click.echo(f"made class {descriptor.name}, {short(id_)}; described by {cid.of(data)}")


@class_.command("update")
@class_argument
@wallet_option("The issuer; pays the gas.")
@click.option("--name", "title", help="What people call it from now on.")
@describing
@yes_option
@fd_option
@json_option
@chain_settings
def class_update(
    settings: Settings,
    item: str,
    name: str,
    title: str | None,
    yes: bool,
    passphrase_fd: int | None,
    as_json: bool,
    **described: Any,
) -> None:
    """Give a class a new descriptor: the old one with changes, or a whole new one.

    With the policy “issuer” it holds at once. With “delayed” it is proposed, and p2pos asset class apply puts it in
    force when the delay is over.
    """
    ledger = Ledger(settings)
    ledger.indexer.sync()
    id_ = ledger.class_id(item)
    found = _class(ledger, id_)
    if found.policy is Policy.FROZEN:
        raise UserError(f"{ledger.item(id_)} is frozen: its descriptor never changes", hint="make a new class")
    base = None if described["document"] is not None else _described(ledger, found)
    if base is not None and title is not None:
        base["name"] = title
    descriptor = describe(ledger, base, **described)
    warn_of_name(ledger, descriptor, but=id_)
    if descriptor.digest() == found.digest:
        raise UserError("this is the descriptor that the class has", hint="there is nothing to change")
    data = descriptor.canonical()
    signer = unlock(ledger, name, passphrase_fd, yes=yes)
    ledger.store.put(data)
    receipt = ledger.chain.transact(signer, calldata.update_class(id_, descriptor.digest()))
    facts: dict[str, Any] = {"id": f"0x{id_:064x}", "cid": cid.of(data), "version": found.version + 1}
    said = f"{descriptor.name} has a new descriptor, version {found.version + 1}"
    if found.policy is Policy.DELAYED:
        _, due = ledger.chain.pending_update(id_)
        facts["due"] = due
        said = f"version {found.version + 1} of {descriptor.name} is proposed; it can be applied from {when(due)} on"
    print_receipt(receipt, said, as_json=as_json, **facts)


@class_.command("apply")
@class_argument
@wallet_option("Anyone who pays the gas.")
@yes_option
@fd_option
@json_option
@chain_settings
def class_apply(settings: Settings, item: str, name: str, yes: bool, passphrase_fd: int | None, as_json: bool) -> None:
    """Put a proposed descriptor in force, once its delay is over. Anyone may."""
    ledger = Ledger(settings)
    ledger.indexer.sync()
    id_ = ledger.class_id(item)
    receipt = ledger.chain.transact(unlock(ledger, name, passphrase_fd, yes=yes), calldata.apply_update(id_))
    found = _class(ledger, id_)
    facts = {"id": f"0x{id_:064x}", "cid": cid.from_digest(found.digest), "version": found.version}
    print_receipt(receipt, f"{ledger.item(id_)} has version {found.version} now", as_json=as_json, **facts)


@class_.command("withdraw")
@class_argument
@wallet_option("The issuer; pays the gas.")
@yes_option
@fd_option
@json_option
@chain_settings
def class_withdraw(
    settings: Settings, item: str, name: str, yes: bool, passphrase_fd: int | None, as_json: bool
) -> None:
    """Take back a proposed descriptor."""
    ledger = Ledger(settings)
    ledger.indexer.sync()
    id_ = ledger.class_id(item)
    receipt = ledger.chain.transact(unlock(ledger, name, passphrase_fd, yes=yes), calldata.withdraw_update(id_))
    said = f"the proposed descriptor of {ledger.item(id_)} is withdrawn"
    print_receipt(receipt, said, as_json=as_json, id=f"0x{id_:064x}")


@click.command()
@class_argument
@click.option("--minter", "who", required=True, help="Who may mint: a wallet's name or an address.")
@click.option("--allowance", required=True, help="How many more they may make from now on; 0 takes it back.")
@wallet_option("The issuer; pays the gas.")
@yes_option
@fd_option
@json_option
@chain_settings
def minter(
    settings: Settings,
    item: str,
    who: str,
    allowance: str,
    name: str,
    yes: bool,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Let somebody besides the issuer mint, up to an allowance. It replaces what they might mint before."""
    ledger = Ledger(settings)
    ledger.indexer.sync()
    id_, target, most = ledger.class_id(item), ledger.who(who), read_amount(allowance, "--allowance", 0)
    signer = unlock(ledger, name, passphrase_fd, yes=yes)
    receipt = ledger.chain.transact(signer, calldata.set_minter(id_, target, most))
    said = f"{ledger.name(target)} may make {most} more × {ledger.item(id_)}"
    print_receipt(receipt, said, as_json=as_json, id=f"0x{id_:064x}", minter=target, allowance=most)


@click.command()
@class_argument
@to_option
@amount_option
@wallet_option("The issuer, or a minter; pays the gas.")
@yes_option
@fd_option
@json_option
@chain_settings
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


@click.command()
@class_argument
@amount_option
@wallet_option("The holder; pays the gas.")
@yes_option
@fd_option
@json_option
@chain_settings
def burn(
    settings: Settings, item: str, amount: str, name: str, yes: bool, passphrase_fd: int | None, as_json: bool
) -> None:
    """Destroy items for good. Under a cap they can't be made again."""
    ledger = Ledger(settings)
    count, holder = read_amount(amount), ledger.wallets.address(name)
    ledger.indexer.sync()
    id_ = ledger.class_id(item)
    if not _class(ledger, id_).soulbound:  # of those every unit counts as locked, and may be burned all the same
        require_free(ledger, name, [(id_, count)])
    receipt = ledger.chain.transact(unlock(ledger, name, passphrase_fd, yes=yes), calldata.burn(id_, count))
    said = f"{name} destroyed {count} × {ledger.item(id_)}"
    facts = {"id": f"0x{id_:064x}", "amount": count, "balance": ledger.chain.balance(holder, id_)}
    print_receipt(receipt, said, as_json=as_json, **facts)


def terms_json(terms: Terms | ClassInfo) -> dict[str, Any]:
    """What is fixed for good, for `--json`; the cap apart."""
    return {
        "soulbound": terms.soulbound,
        "policy": terms.policy.name.lower(),
        "delay_s": terms.delay,
        "royalty_receiver": terms.royalty_receiver if terms.royalty_bps else None,
        "royalty_bps": terms.royalty_bps,
    }


def _class(ledger: Ledger, id_: int) -> ClassInfo:
    found = ledger.chain.item_class(id_)
    if found is None:
        raise UserError(f"there is no class 0x{id_:064x} on this contract", hint="see p2pos asset history")
    return found


_PERCENT = re.compile(r"(\d{1,2})(?:\.(\d{1,2}))?", re.ASCII)


def _basis_points(text: str) -> int:
    """1/10000 of a price, from per cent with at most two decimals. Raises UserError."""
    found = _PERCENT.fullmatch(text)
    points = int(found[1]) * 100 + int((found[2] or "0").ljust(2, "0")) if found else 0
    if not 0 < points <= MAX_ROYALTY_BPS:
        raise UserError(f"--royalty: {text[:40]} % can't be", hint="give more than 0 and up to 50, as 2.5 or 0.25")
    return points


def _described(ledger: Ledger, found: ClassInfo) -> dict[str, Any]:
    """The fields of the descriptor that a class has. Raises UserError where it is not here."""
    old = ledger.describe(found.digest)
    if old is None:
        raise UserError("the class's descriptor is not here, so it can't be changed", hint="give --descriptor FILE")
    return old.model_dump(exclude=MADE_OF_FILES)
