"""What people sign: to give, to lock, to release, to let a world spend. Each kind online and off line."""

from collections.abc import Sequence
from typing import Any

import click

from p2pos.cli.asset_common import (
    amount_option,
    class_argument,
    for_option,
    owner_option,
    pairs_option,
    read_amount,
    read_pairs,
    read_until,
    to_option,
    until_option,
    wallet_option,
    world_option,
)
from p2pos.cli.asset_intents import Draft, Kind, offline, online, print_receipt
from p2pos.cli.names import Ledger
from p2pos.cli.options import json_option, with_settings
from p2pos.cli.passphrases import fd_option
from p2pos.cli.signing import unlock as opened
from p2pos.cli.signing import yes_option
from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.ledger import calldata
from p2pos.ledger.records import Receipt
from p2pos.ledger.signer import Signer
from p2pos.ledger.typed_data import ZERO, BatchTransfer, Lock, Spend, Transfer, Unlock
from p2pos.types import Address

# ---- giving


def _transfer(
    ledger: Ledger, owner: Address, _now_s: int, *, item: str, to: str, amount: str, also: Sequence[tuple[str, str]]
) -> Draft:
    target, pairs = ledger.who(to), read_pairs(ledger, [(item, amount), *also], "--amount")
    if len(pairs) > 1:
        ids, amounts = zip(*pairs, strict=True)
        return Draft(lambda nonce, deadline: BatchTransfer(owner, target, ids, amounts, nonce, deadline), pairs)
    ((id_, count),) = pairs
    return Draft(lambda nonce, deadline: Transfer(owner, target, id_, count, nonce, deadline), pairs)


TRANSFER = Kind(
    "transfer",
    "The giver, who signs.",
    [class_argument, to_option, amount_option, pairs_option("also", "also", "More to give with it, all or none.")],
    _transfer,
)
send = online(TRANSFER, "send", "Give items: sign, submit, and wait until a block has it.")

# ---- locks


def _lock(
    ledger: Ledger,
    owner: Address,
    now_s: int,
    *,
    item: str,
    world: str,
    amount: str,
    for_s: int | None,
    until: str | None,
) -> Draft:
    id_, count, holder = ledger.class_id(item), read_amount(amount), ledger.who(world)
    ends_s = read_until(now_s, for_s, until)
    return Draft(
        lambda nonce, deadline: Lock(owner, holder, id_, count, ends_s, nonce, deadline), needs=((id_, count),)
    )


LOCK = Kind(
    "lock", "The owner, who signs.", [class_argument, world_option, amount_option, for_option, until_option], _lock
)
lock = online(
    LOCK,
    "lock",
    "Let a world hold items in place: they stay in the wallet and can't move.\n\nThe world may release them early;"
    " once the time is over, anyone may. At most a week.",
)


def _unlock(ledger: Ledger, world: Address, _now_s: int, *, item: str, owner: str, world_: str | None) -> Draft:
    if world_ is not None and ledger.who(world_) != world:
        raise UserError(
            "only the world itself signs a release",
            hint="once the lock's time is over anyone can release it, with --direct",
        )
    id_, holder = ledger.class_id(item), ledger.who(owner)
    return Draft(lambda nonce, deadline: Unlock(holder, world, id_, nonce, deadline))


def _unlock_directly(ledger: Ledger, signer: Signer, *, item: str, owner: str, world_: str | None) -> Receipt:
    world = ledger.who(world_) if world_ is not None else signer.address
    return ledger.chain.unlock(signer, ledger.who(owner), world, ledger.class_id(item))


UNLOCK = Kind(
    "unlock",
    "The world, who signs; with --direct, anyone who pays the gas.",
    [
        class_argument,
        owner_option,
        click.option("--world", "world_", help="The world that holds them. Default: --wallet."),
    ],
    _unlock,
    _unlock_directly,
)
unlock = online(
    UNLOCK,
    "unlock",
    "Release all that a world holds of an owner's class.\n\nThe world signs it; with --direct, and once the lock's time"
    " is over, anyone does it who pays for the transaction.",
)

# ---- spends


def _allow(
    ledger: Ledger,
    owner: Address,
    now_s: int,
    *,
    item: str,
    world: str,
    amount: str,
    for_s: int | None,
    until: str | None,
) -> Draft:
    id_, most, taker = ledger.class_id(item), read_amount(amount, "--max"), ledger.who(world)
    ends_s = read_until(now_s, for_s, until)
    return Draft(lambda nonce, deadline: Spend(owner, taker, id_, most, ends_s, nonce, deadline))


SPEND = Kind(
    "spend",
    "The owner, who signs.",
    [
        class_argument,
        world_option,
        click.option("--max", "amount", required=True, help="The most that the world may take."),
        for_option,
        until_option,
    ],
    _allow,
)


def _revoke(ledger: Ledger, owner: Address, _now_s: int, *, item: str, world: str) -> Draft:
    id_, taker = ledger.class_id(item), ledger.who(world)
    return Draft(lambda nonce, deadline: Spend(owner, taker, id_, 0, 0, nonce, deadline))


def _revoke_directly(ledger: Ledger, signer: Signer, *, item: str, world: str) -> Receipt:
    return ledger.chain.transact(signer, calldata.revoke_spend(ledger.who(world), ledger.class_id(item)))


REVOKE = Kind("revoke", "The owner, who signs.", [class_argument, world_option], _revoke, _revoke_directly)


@click.group()
def spend() -> None:
    """Let a world take items for good: so many of one class, until a time."""


spend.add_command(online(SPEND, "allow", "Let a world take items, in place of what it might take of them before."))
spend.add_command(online(REVOKE, "revoke", "Take back what a world may take."))


@spend.command("use")
@class_argument
@owner_option
@amount_option
@click.option("--to", help="Who gets them: a wallet's name or an address. Default: the world.")
@click.option("--burn", is_flag=True, help="Nobody gets them: they are destroyed.")
@wallet_option("The world; pays the gas.")
@yes_option
@fd_option
@json_option
@with_settings("rpc_url", "contract", "passphrase_file")
def use(
    settings: Settings,
    item: str,
    owner: str,
    amount: str,
    to: str | None,
    burn: bool,
    name: str,
    yes: bool,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Take what an owner allowed: the world does it, by a transaction."""
    if burn and to is not None:
        raise UserError("give either --to or --burn")
    ledger = Ledger(settings)
    ledger.indexer.sync()
    id_, count, holder, world = ledger.class_id(item), read_amount(amount), ledger.who(owner), ledger.who(name)
    target = ZERO if burn else ledger.who(to) if to is not None else world
    left, until = ledger.chain.spend_allowance(holder, id_, world)
    signer = opened(ledger, name, passphrase_fd, yes=yes)
    receipt = ledger.chain.transact(signer, calldata.spend(holder, id_, count, target))
    said = f"{name} took {count} × {ledger.item(id_)} from {ledger.name(holder)}"
    facts: dict[str, Any] = {"owner": holder, "id": f"0x{id_:064x}", "amount": count, "to": target}
    print_receipt(receipt, said, as_json=as_json, **facts, left=left - count, until=until)


# ---- the same off line


@click.group()
def sign() -> None:
    """Sign into a file, off line. Anyone may submit it, with p2pos asset submit."""


for _kind, _text in (
    (TRANSFER, "Sign that items are given."),
    (LOCK, "Sign that a world may hold items in place."),
    (UNLOCK, "Sign, as the world, that items are released."),
    (SPEND, "Sign that a world may take items for good."),
    (REVOKE, "Sign that a world may no longer take items."),
):
    sign.add_command(offline(_kind, _text))
