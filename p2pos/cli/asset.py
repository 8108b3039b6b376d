"""`p2pos asset`: classes of items, minting, sending, signing off line, and what the chain says of it all."""

from pathlib import Path

import click

from p2pos.cli.asset_bundle import bundle
from p2pos.cli.asset_common import DAY_S, read_file, wallet_option
from p2pos.cli.asset_content import export, fetch, import_, metadata_
from p2pos.cli.asset_history import history
from p2pos.cli.asset_intents import carry_out, chain_time, print_receipt, sign, submit
from p2pos.cli.asset_issue import burn, class_, mint, minter
from p2pos.cli.asset_kinds import lock, send, spend, unlock
from p2pos.cli.asset_kinds import sign as sign_group
from p2pos.cli.asset_swap import swap
from p2pos.cli.asset_verify import verify
from p2pos.cli.asset_views import list_, show
from p2pos.cli.names import Ledger
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.passphrases import fd_option
from p2pos.cli.signing import unlock as opened
from p2pos.cli.signing import yes_option
from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.ledger import intents
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.typed_data import Transfer, unsigned


@click.group()
def asset() -> None:
    """Items and currencies. CLASS is a name, an id, or the unique beginning of an id."""


@asset.command("submit")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--direct", is_flag=True, help="Submit to the chain, without a relayer; --wallet pays the gas.")
@click.option("--wallet", "name", help="Who pays, with --direct.")
@click.option("--no-wait", is_flag=True, help="Return once the relayer has it on disk.")
@yes_option
@fd_option
@json_option
@with_settings("rpc_url", "contract", "relayer_url", "passphrase_file")
def submit_(
    settings: Settings,
    file: Path,
    direct: bool,
    name: str | None,
    no_wait: bool,
    yes: bool,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Carry out what anyone signed."""
    ledger = Ledger(settings)
    if direct != (name is not None):
        raise UserError("--direct and --wallet NAME go together")
    intent = SignedIntent.parse(read_file(file, intents.MAX_BYTES))
    payer = opened(ledger, name, passphrase_fd, yes=yes) if name is not None else None
    carry_out(ledger, intent, payer, wait=not no_wait, as_json=as_json)


@asset.command()
@click.argument("what", metavar="NONCE|FILE")
@wallet_option("Who signed what is to be cancelled; signs the cancellation.")
@click.option("--direct", is_flag=True, help="By a transaction of the wallet's own, which pays the gas.")
@yes_option
@fd_option
@json_option
@with_settings("rpc_url", "contract", "relayer_url", "passphrase_file")
def cancel(
    settings: Settings, what: str, name: str, direct: bool, yes: bool, passphrase_fd: int | None, as_json: bool
) -> None:
    """Make what was signed worthless, an offer as well, by using up its nonce.

    Through a relayer this is a signed transfer of nothing to oneself, so it needs no coin for gas.
    """
    ledger = Ledger(settings)
    owner = ledger.wallets.address(name)
    if what.isascii() and what.isdecimal():
        nonce = unsigned(what, "NONCE")
    else:
        found = intents.parse_any(read_file(Path(what), intents.MAX_BYTES))
        nonces = dict(found.struct.signers)
        if owner not in nonces:
            raise UserError(f"{what} was signed by {' and '.join(map(ledger.name, nonces))}, not {name}")
        nonce = nonces[owner]
    if ledger.chain.is_nonce_used(owner, nonce):
        raise UserError(f"nonce {nonce} of {name} was already used or cancelled", hint="there is nothing to cancel")
    signer = opened(ledger, name, passphrase_fd, yes=yes)
    said = f"nonce {nonce} of {name} is used up: what was signed with it can't take effect any more"
    if direct:
        print_receipt(ledger.chain.cancel(signer, nonce), said, as_json=as_json, owner=owner, nonce=str(nonce))
        return
    struct = Transfer(owner, owner, 0, 0, nonce, chain_time(ledger) + DAY_S)
    outcome = submit(settings, sign(ledger.chain.domain, struct, signer), wait=True)
    if as_json:
        print_json({"owner": owner, "nonce": str(nonce), **outcome})
    else:
        click.echo(said)


for command in (
    bundle,
    class_,
    mint,
    minter,
    burn,
    send,
    lock,
    unlock,
    spend,
    swap,
    list_,
    show,
    history,
    metadata_,
    fetch,
    export,
    import_,
    verify,
):
    asset.add_command(command)
asset.add_command(sign_group, "sign")
