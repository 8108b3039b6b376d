"""`p2pos asset`: classes of items, minting, sending, signing off line, and what the chain says of it all."""

import json
import time
from pathlib import Path
from typing import Any

import click

from p2pos.cli.asset_bundle import bundle
from p2pos.cli.asset_common import Decorator, amount_option, read_amount, read_file, to_option, wallet_option
from p2pos.cli.asset_content import export, fetch, import_, metadata_
from p2pos.cli.asset_issue import class_, mint
from p2pos.cli.asset_verify import verify
from p2pos.cli.asset_views import history, list_, show
from p2pos.cli.names import Ledger
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.passphrases import fd_option
from p2pos.cli.signing import unlock, yes_option
from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.ledger import intents, plain_words
from p2pos.ledger.client import RelayerClient
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.signer import Signer
from p2pos.ledger.typed_data import Domain, Transfer, unsigned

DAY_S = 86_400
MAX_VALID_S = 366 * DAY_S
"""The longest that a signed transfer stays good: who wants longer signs again."""
SETTLE_S = 120.0
"""How long a command waits for a block. Ten slots of Ethereum."""

valid_option: Decorator = click.option(
    "--valid-s",
    type=click.IntRange(1, MAX_VALID_S),
    default=DAY_S,
    show_default=True,
    help="Seconds from now in which it can be submitted.",
)


@click.group()
def asset() -> None:
    """Items and currencies. CLASS is a name, an id, or the unique beginning of an id."""


@asset.command()
@click.argument("item", metavar="CLASS")
@to_option
@amount_option
@wallet_option("The giver, who signs.")
@click.option("--out", required=True, help="The file to write; - for standard output.")
@valid_option
@click.option("--nonce", help="Any number not used before. Default: the next one of this home.")
@click.option("--chain-id", type=click.IntRange(min=1), help="The chain it is for. Default: of the settings.")
@yes_option
@fd_option
@json_option
@with_settings("contract", "passphrase_file")
def sign(
    settings: Settings,
    item: str,
    to: str,
    amount: str,
    name: str,
    out: str,
    valid_s: int,
    nonce: str | None,
    chain_id: int | None,
    yes: bool,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Sign a transfer into a file, off line. Anyone may submit it."""
    if chain_id is not None:
        settings = settings.model_copy(update={"chain_id": chain_id})
    ledger = Ledger(settings)
    path = None if out == "-" else Path(out)
    if path is not None and path.exists():
        raise UserError(f"{path} is already there", hint="choose a new file; a signed transfer is never replaced")
    owner, target, id_, count = ledger.wallets.address(name), ledger.who(to), ledger.class_id(item), read_amount(amount)
    number = ledger.nonces.take(ledger.domain, owner) if nonce is None else unsigned(nonce, "--nonce")
    struct = Transfer(owner, target, id_, count, number, int(time.time()) + valid_s)
    intent = _sign(ledger.domain, struct, unlock(ledger, name, passphrase_fd, yes=yes))
    text = json.dumps(intent.as_json(), indent=1) + "\n"
    if path is None:
        click.echo(text, nl=False)
        return
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as exc:
        raise UserError(f"{path}: {exc.strerror}", hint="choose another file") from exc
    if as_json:
        print_json({"file": str(path), "id": intent.id, "sentence": _sentence(ledger, intent), **intent.as_json()})
    else:
        click.echo(f"signed into {path}; p2pos asset submit {path} carries it out")


@asset.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--direct", is_flag=True, help="Submit to the chain, without a relayer; --wallet pays the gas.")
@click.option("--wallet", "name", help="Who pays, with --direct.")
@click.option("--no-wait", is_flag=True, help="Return once the relayer has it on disk.")
@yes_option
@fd_option
@json_option
@with_settings("rpc_url", "contract", "relayer_url", "passphrase_file")
def submit(
    settings: Settings,
    file: Path,
    direct: bool,
    name: str | None,
    no_wait: bool,
    yes: bool,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Carry out a signed transfer of anyone's."""
    ledger = Ledger(settings)
    if direct != (name is not None):
        raise UserError("--direct and --wallet NAME go together")
    intent = SignedIntent.parse(read_file(file, intents.MAX_BYTES))
    if direct:
        outcome = _submit_directly(ledger, intent, unlock(ledger, str(name), passphrase_fd, yes=yes))
        _settled(ledger, intent, outcome, as_json=as_json)
    else:
        _settled(ledger, intent, _submit(settings, intent, wait=not no_wait), as_json=as_json)


@asset.command()
@click.argument("item", metavar="CLASS")
@to_option
@amount_option
@wallet_option("The giver, who signs.")
@valid_option
@click.option("--direct", is_flag=True, help="Submit to the chain, without a relayer; the giver pays the gas.")
@yes_option
@fd_option
@json_option
@with_settings("rpc_url", "contract", "relayer_url", "passphrase_file")
def send(
    settings: Settings,
    item: str,
    to: str,
    amount: str,
    name: str,
    valid_s: int,
    direct: bool,
    yes: bool,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Give items: sign, submit, and wait until a block has it."""
    ledger = Ledger(settings)
    count, target, owner = read_amount(amount), ledger.who(to), ledger.wallets.address(name)
    ledger.indexer.sync()
    id_ = ledger.class_id(item)
    free = ledger.chain.balance(owner, id_) - ledger.chain.locked(owner, id_)
    if count > free:
        raise UserError(
            f"{name} has {free} × {ledger.item(id_)} to give, not {count}",
            hint="see p2pos asset list",
            available=free,
            wanted=count,
        )
    now_s = max(int(time.time()), ledger.chain.head().timestamp)
    number = ledger.nonces.take(ledger.chain.domain, owner)
    struct = Transfer(owner, target, id_, count, number, now_s + valid_s)
    signer = unlock(ledger, name, passphrase_fd, yes=yes)
    intent = _sign(ledger.chain.domain, struct, signer)
    outcome = _submit_directly(ledger, intent, signer) if direct else _submit(settings, intent, wait=True)
    _settled(ledger, intent, outcome, as_json=as_json)


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
    """Make a signed transfer worthless by using up its nonce.

    Through a relayer this is a signed transfer of nothing to oneself, so it needs no coin for gas.
    """
    ledger = Ledger(settings)
    owner = ledger.wallets.address(name)
    if what.isdecimal():
        nonce = unsigned(what, "NONCE")
    else:
        found = SignedIntent.parse(read_file(Path(what), intents.MAX_BYTES))
        if found.owner != owner:
            raise UserError(f"{what} was signed by {ledger.name(found.owner)}, not {name}")
        nonce = found.nonce
    if ledger.chain.is_nonce_used(owner, nonce):
        raise UserError(f"nonce {nonce} of {name} was already used or cancelled", hint="there is nothing to cancel")
    if direct:
        receipt = ledger.chain.cancel(unlock(ledger, name, passphrase_fd, yes=yes), nonce)
        outcome = {"state": "settled", "transaction": receipt.transaction, "block": receipt.block}
    else:
        deadline = max(int(time.time()), ledger.chain.head().timestamp) + DAY_S
        struct = Transfer(owner, owner, 0, 0, nonce, deadline)
        intent = _sign(ledger.chain.domain, struct, unlock(ledger, name, passphrase_fd, yes=yes))
        outcome = _submit(settings, intent, wait=True)
    if as_json:
        print_json({"owner": owner, "nonce": str(nonce), **outcome})
    else:
        click.echo(f"nonce {nonce} of {name} is used up: what was signed with it can't take effect any more")


for command in (bundle, class_, mint, list_, show, history, metadata_, fetch, export, import_, verify):
    asset.add_command(command)


def _sign(domain: Domain, struct: Transfer, signer: Signer) -> SignedIntent:
    """Sign a struct into an intent. Raises as the signer does."""
    return SignedIntent.of(domain, struct, signer.sign_typed(domain, struct))


def _sentence(ledger: Ledger, intent: SignedIntent) -> str:
    return plain_words.sentence(intent.struct, names=ledger.people(), items=ledger.items())


def _submit(settings: Settings, intent: SignedIntent, *, wait: bool) -> dict[str, Any]:
    client = RelayerClient(settings.relayer_url)
    status = client.submit(intent)
    return (client.wait(intent.id, SETTLE_S) if wait else status).as_json()


def _submit_directly(ledger: Ledger, intent: SignedIntent, payer: Signer) -> dict[str, Any]:
    chain = ledger.chain
    contract_wallets, revert = chain.preflight([intent], payer.address)[0]
    intents.check(intent, chain.domain, now_s=chain.head().timestamp, contract_wallets=contract_wallets)
    if revert is not None:
        raise intents.RefusedError(revert.refusal, revert.text, hint=revert.hint)
    receipt = chain.submit(payer, intent)
    return {"id": intent.id, "state": "settled", "transaction": receipt.transaction, "block": receipt.block}


def _settled(ledger: Ledger, intent: SignedIntent, outcome: dict[str, Any], *, as_json: bool) -> None:
    struct = intent.struct
    if as_json:
        print_json({**outcome, "type": intent.kind, "message": struct.message()})
        return
    if outcome["state"] != "settled":
        click.echo(f"the relayer has it and will submit it: intent {intent.id}")
        return
    items = ledger.items() if ledger.settings.contract else {}
    done = plain_words.deed(struct, names=ledger.people(), items=items)
    click.echo(f"done in block {outcome['block']}, transaction {outcome['transaction']}: {done}")
