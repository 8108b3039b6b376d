"""`p2pos asset swap`: two people exchange items, both sides or neither, by passing a file from one to the other."""

import time
from pathlib import Path
from typing import Any

import click

from p2pos.cli.asset_common import pairs_option, read_file, read_pairs, valid_option, wallet_option
from p2pos.cli.asset_intents import carry_out, out_file, out_option, require_free, same_signer, say_written, sentence
from p2pos.cli.names import Ledger
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.passphrases import fd_option
from p2pos.cli.signing import unlock, yes_option
from p2pos.cli.tables import print_table
from p2pos.cli.warnings import printable, warn
from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.ledger import intents, plain_words
from p2pos.ledger.intents import Offer, RefusedError, SignedIntent
from p2pos.ledger.nonces import random_nonce
from p2pos.ledger.signer import Signer
from p2pos.ledger.typed_data import Item, Swap


@click.group()
def swap() -> None:
    """Exchange items with somebody: both sides move in one call, or neither."""


@swap.command()
@click.option("--with", "other", required=True, help="The other side: a wallet's name or an address.")
@pairs_option("give", "give", "What you give.")
@pairs_option("want", "want", "What you want for it.")
@wallet_option("Who offers, and signs.")
@out_option
@valid_option
@click.option("--chain-id", type=click.IntRange(min=1), help="The chain it is for. Default: the settings'.")
@yes_option
@fd_option
@json_option
@with_settings("contract", "passphrase_file")
def offer(
    settings: Settings,
    other: str,
    give: tuple[tuple[str, str], ...],
    want: tuple[tuple[str, str], ...],
    name: str,
    out: str,
    valid_s: int,
    chain_id: int | None,
    yes: bool,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Sign an offer into a file, off line. It does nothing until the other side accepts it.

    p2pos asset cancel FILE takes it back, as long as it was not accepted.
    """
    if chain_id is not None:
        settings = settings.model_copy(update={"chain_id": chain_id})
    ledger = Ledger(settings)
    first, second = ledger.wallets.address(name), ledger.who(other)
    gives, wants = (
        tuple(Item(id_, amount) for id_, amount in read_pairs(ledger, pairs, flag))
        for pairs, flag in ((give, "--give"), (want, "--want"))
    )
    if not gives and not wants:
        raise UserError(
            "nothing is given and nothing is wanted", hint="give --give CLASS AMOUNT or --want CLASS AMOUNT"
        )
    with out_file(out) as write:
        # the other side's nonce is chosen here, because both sign the same words: one of 2¹²⁸ is surely not used
        number, deadline = ledger.nonces.take(ledger.domain, first), int(time.time()) + valid_s
        struct = Swap(first, second, gives, wants, number, random_nonce(), deadline).sound()
        signer = unlock(ledger, name, passphrase_fd, yes=yes)
        signed = Offer.of(ledger.domain, struct, signer.sign_typed(ledger.domain, struct))
        write(signed)
    say_written(ledger, signed, out, as_json=as_json)


@swap.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@wallet_option("Who accepts, and signs.")
@click.option("--out", help="Sign only, off line, into this new file, which anyone may submit; - for standard output.")
@click.option("--direct", is_flag=True, help="Submit to the chain, without a relayer; the wallet pays the gas.")
@yes_option
@fd_option
@json_option
@with_settings("rpc_url", "contract", "relayer_url", "passphrase_file")
def accept(
    settings: Settings,
    file: Path,
    name: str,
    out: str | None,
    direct: bool,
    yes: bool,
    passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Show an offer, sign it as the other side, submit it, and wait until a block has it."""
    if out is not None and direct:
        raise UserError("give either --out or --direct")
    ledger = Ledger(settings)
    found = Offer.parse(read_file(file, intents.MAX_BYTES))
    same_signer(ledger, name, found.struct.second, str(file))
    if ledger.nonces.gave(found.domain, found.struct.second, found.struct.second_nonce):
        warn(["this offer takes a nonce that you signed with before: what that was for can't take effect any more"])
    if out is not None:
        intents.check_offer(found, ledger.domain, now_s=time.time(), contract_wallets={found.struct.first})
        with out_file(out) as write:
            intent = _countersigned(found, unlock(ledger, name, passphrase_fd, yes=yes))
            write(intent)
        say_written(ledger, intent, out, as_json=as_json)
        return
    ledger.indexer.sync()
    chain = ledger.chain
    wallets = {found.struct.first} if chain.has_code(found.struct.first) else set()
    intents.check_offer(found, chain.domain, now_s=chain.head().timestamp, contract_wallets=wallets)
    require_free(ledger, name, [(item.id, item.amount) for item in found.struct.second_gives])
    _require_offered(ledger, found)
    signer = unlock(ledger, name, passphrase_fd, yes=yes)
    carry_out(ledger, _countersigned(found, signer), signer if direct else None, as_json=as_json)


@swap.command()
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@json_option
@with_settings("contract")
def show(settings: Settings, file: Path, as_json: bool) -> None:
    """Show what an offer, or any signed file, would do, and whether it is sound. Needs no network."""
    ledger = Ledger(settings)
    found = intents.parse_any(read_file(file, intents.MAX_BYTES))
    fault = _fault(ledger, found)
    struct = found.struct
    facts: dict[str, Any] = {
        "file": str(file),
        "sentence": printable(_words(ledger, found)),
        "sound": not fault,
        "fault": fault or None,
        **found.as_json(),
    }
    if as_json:
        print_json(facts)
        return
    rows = [
        ("it says", facts["sentence"]),
        (
            "it is",
            "an offer, for the other side to accept" if isinstance(found, Offer) else "signed, and can be submitted",
        ),
        ("signed by", ", ".join(ledger.name(who) for who, _ in _signed_by(found))),
        ("chain", str(found.domain.chain_id)),
        ("contract", found.domain.contract),
        ("until", plain_words.when(struct.deadline)),
        ("sound", f"no: {fault}" if fault else "yes, as far as can be told without the chain"),
    ]
    print_table(None, rows)


def _countersigned(found: Offer, signer: Signer) -> SignedIntent:
    return found.countersign(signer.sign_typed(found.domain, found.struct))


def _require_offered(ledger: Ledger, found: Offer) -> None:
    """Raise UserError where the offer can't be carried out any more: better now than after signing."""
    struct, chain = found.struct, ledger.chain
    who = ledger.name(struct.first)
    if chain.is_nonce_used(struct.first, struct.first_nonce):
        raise UserError(f"{who} took this offer back, or it was accepted already", hint="ask for a new one")
    if chain.is_nonce_used(struct.second, struct.second_nonce):
        raise UserError("the nonce that this offer gives you is used already", hint="ask for a new one")
    for item in struct.first_gives:
        free = chain.balance(struct.first, item.id) - chain.locked(struct.first, item.id)
        if item.amount > free:
            raise UserError(
                f"{who} has {free} × {ledger.item(item.id)} to give, not the {item.amount} offered",
                hint="ask for a new offer",
            )


def _signed_by(found: SignedIntent | Offer) -> tuple[Any, ...]:
    return found.struct.signers[:1] if isinstance(found, Offer) else found.struct.signers


def _words(ledger: Ledger, found: SignedIntent | Offer) -> str:
    if ledger.settings.contract:
        return sentence(ledger, found)
    return plain_words.sentence(found.struct, names=ledger.book.spoken(), items={})


def _fault(ledger: Ledger, found: SignedIntent | Offer) -> str:
    """What is wrong with it, as far as can be told without the chain; "" for nothing."""
    domain = ledger.domain if ledger.settings.contract and ledger.settings.chain_id else found.domain
    try:
        if isinstance(found, Offer):
            intents.check_offer(found, domain, now_s=time.time())
        else:
            intents.check(found, domain, now_s=time.time())
    except RefusedError as exc:
        return exc.message
    return ""
