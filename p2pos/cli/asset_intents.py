"""How a command makes an intent: two commands of one kind, one that carries it out and one that signs it off line.

Both take the same options and make the same struct; they differ in where the time comes from and where the intent
goes. A `Kind` describes what is special about a transfer, a lock and so on (`asset_kinds`).
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from p2pos.cli.asset_common import Decorator, new_file, valid_option, wallet_option
from p2pos.cli.names import Ledger
from p2pos.cli.options import json_option, print_json, with_settings
from p2pos.cli.passphrases import fd_option
from p2pos.cli.signing import unlock, yes_option
from p2pos.cli.warnings import printable
from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.ledger import intents, plain_words
from p2pos.ledger.client import RelayerClient
from p2pos.ledger.intents import Offer, SignedIntent
from p2pos.ledger.records import Receipt
from p2pos.ledger.signer import Signer
from p2pos.ledger.typed_data import Domain, Signable, unsigned
from p2pos.types import Address

SETTLE_S = 120.0
"""How long a command waits for a block. Ten slots of Ethereum."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An intent but for its nonce and its deadline."""

    make: Callable[[int, int], Signable]
    """Of nonce and deadline."""
    needs: tuple[tuple[int, int], ...] = ()
    """(class, amount) that the signer must have free."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is special about one kind of intent."""

    name: str
    """Of the command that signs it: `p2pos asset sign NAME`."""
    signer: str
    """Who `--wallet` is."""
    params: Sequence[Decorator]
    """Arguments and options, which `draft` is given."""
    draft: Callable[..., Draft]
    """Of a Ledger, the signer's address, the time now, and what `params` gave. Raises UserError."""
    direct: Callable[..., Receipt] | None = None
    """A function of the contract's that does the same without an intent, for `--direct`: of a Ledger, a Signer, and
    what `params` gave. None submits the intent in a transaction of the signer's own."""


def online(kind: Kind, name: str, text: str) -> click.Command:
    """The command that signs, submits, and waits until a block has it."""

    def command(
        settings: Settings,
        *,
        name: str,
        valid_s: int,
        direct: bool,
        yes: bool,
        passphrase_fd: int | None,
        as_json: bool,
        **what: Any,
    ) -> None:
        ledger = Ledger(settings)
        owner = ledger.wallets.address(name)
        ledger.indexer.sync()
        if direct and kind.direct is not None:
            receipt = kind.direct(ledger, unlock(ledger, name, passphrase_fd, yes=yes), **what)
            print_receipt(receipt, as_json=as_json)
            return
        now_s = chain_time(ledger)
        draft = kind.draft(ledger, owner, now_s, **what)
        require_free(ledger, name, draft.needs)
        struct = draft.make(ledger.nonces.take(ledger.chain.domain, owner), now_s + valid_s).sound()
        signer = unlock(ledger, name, passphrase_fd, yes=yes)
        carry_out(ledger, sign(ledger.chain.domain, struct, signer), signer if direct else None, as_json=as_json)

    help_ = "Submit to the chain, without a relayer; the wallet pays the gas."
    return _command(
        name,
        text,
        command,
        [
            *kind.params,
            wallet_option(kind.signer),
            valid_option,
            click.option("--direct", is_flag=True, help=help_),
            yes_option,
            fd_option,
            json_option,
            with_settings("rpc_url", "contract", "relayer_url", "passphrase_file"),
        ],
    )


def offline(kind: Kind, text: str) -> click.Command:
    """The command that signs into a file and needs no network."""

    def command(
        settings: Settings,
        *,
        name: str,
        out: str,
        valid_s: int,
        nonce: str | None,
        chain_id: int | None,
        yes: bool,
        passphrase_fd: int | None,
        as_json: bool,
        **what: Any,
    ) -> None:
        if chain_id is not None:
            settings = settings.model_copy(update={"chain_id": chain_id})
        ledger = Ledger(settings)
        owner = ledger.wallets.address(name)
        now_s = int(time.time())
        draft = kind.draft(ledger, owner, now_s, **what)
        number = None if nonce is None else unsigned(nonce, "--nonce")
        with out_file(out) as write:
            number = ledger.nonces.take(ledger.domain, owner) if number is None else number
            struct = draft.make(number, now_s + valid_s).sound()
            intent = sign(ledger.domain, struct, unlock(ledger, name, passphrase_fd, yes=yes))
            write(intent)
        say_written(ledger, intent, out, as_json=as_json)

    return _command(
        kind.name,
        text,
        command,
        [
            *kind.params,
            wallet_option(kind.signer),
            out_option,
            valid_option,
            click.option("--nonce", help="Any number not used before. Default: the next one of this home."),
            click.option("--chain-id", type=click.IntRange(min=1), help="The chain it is for. Default: the settings'."),
            yes_option,
            fd_option,
            json_option,
            with_settings("contract", "passphrase_file"),
        ],
    )


def _command(name: str, text: str, function: Callable[..., None], params: Sequence[Decorator]) -> click.Command:
    decorated: Callable[..., Any] = function
    for one in reversed(params):
        decorated = one(decorated)
    return click.command(name, help=text)(decorated)


# ---- signing into a file

out_option: Decorator = click.option("--out", required=True, help="The new file to write; - for standard output.")


class out_file:  # noqa: N801 - a context manager, used as a function is
    """Where a signed thing goes. The file is made before anything is signed, so that a bad name costs no signature."""

    def __init__(self, out: str) -> None:
        self._context: Any = nullcontext() if out == "-" else new_file(Path(out))

    def __enter__(self) -> Callable[[SignedIntent | Offer], None]:
        file = self._context.__enter__()

        def write(signed: SignedIntent | Offer) -> None:
            text = json.dumps(signed.as_json(), indent=1) + "\n"
            if file is None:
                click.echo(text, nl=False)
            else:
                file.write(text)

        return write

    def __exit__(self, *failure: object) -> None:
        self._context.__exit__(*failure)


def say_written(ledger: Ledger, signed: SignedIntent | Offer, out: str, *, as_json: bool) -> None:
    """Tell where it is, and what comes next. Nothing where it went to standard output."""
    if out == "-":
        return
    next_ = f"p2pos asset submit {out} carries it out"
    if isinstance(signed, Offer):
        next_ = f"with p2pos asset swap accept {out} the other side agrees"
    if as_json:
        print_json({"file": out, "id": signed.id, "sentence": sentence(ledger, signed), **signed.as_json()})
    else:
        click.echo(f"signed into {out}; {next_}")


# ---- signing and carrying out


def sign(domain: Domain, struct: Signable, signer: Signer) -> SignedIntent:
    """Sign a struct of one signer's into an intent. Raises as the signer does."""
    return SignedIntent.of(domain, struct, signer.sign_typed(domain, struct))


def chain_time(ledger: Ledger) -> int:
    """Seconds since the epoch: this computer's, or the newest block's where that is ahead."""
    return max(int(time.time()), ledger.chain.head().timestamp)


def require_free(ledger: Ledger, name: str, needs: Sequence[tuple[int, int]]) -> None:
    """Raise UserError where a wallet has not so much to give."""
    owner = ledger.wallets.address(name)
    for id_, count in needs:
        free = ledger.chain.balance(owner, id_) - ledger.chain.locked(owner, id_)
        if count > free:
            found = ledger.chain.item_class(id_)
            if found is not None and found.soulbound:
                raise UserError(
                    f"{ledger.item(id_)} is soulbound: it never changes hands", hint="its holder can only burn it"
                )
            raise UserError(
                f"{name} has {free} × {ledger.item(id_)} to give, not {count}",
                hint="see p2pos asset list",
                available=free,
                wanted=count,
            )


def carry_out(ledger: Ledger, intent: SignedIntent, payer: Signer | None, *, wait: bool = True, as_json: bool) -> None:
    """Have an intent carried out, by a relayer or by a transaction of the payer's, and say what became of it."""
    outcome = submit_directly(ledger, intent, payer) if payer else submit(ledger.settings, intent, wait=wait)
    struct = intent.struct
    if as_json:
        print_json({**outcome, "type": intent.kind, "message": struct.message()})
    elif outcome["state"] != "settled":
        click.echo(f"the relayer has it and will submit it: intent {intent.id}")
    else:
        items = ledger.items() if ledger.settings.contract else {}
        done = plain_words.deed(struct, names=ledger.people(), items=items)
        click.echo(printable(f"done in block {outcome['block']}, transaction {outcome['transaction']}: {done}"))


def submit(settings: Settings, intent: SignedIntent, *, wait: bool) -> dict[str, Any]:
    """Hand an intent to the relayer."""
    client = RelayerClient(settings.relayer_url)
    status = client.submit(intent)
    return (client.wait(intent.id, SETTLE_S) if wait else status).as_json()


def submit_directly(ledger: Ledger, intent: SignedIntent, payer: Signer) -> dict[str, Any]:
    """Carry an intent out by a transaction. Raises RefusedError where the contract would refuse it."""
    chain = ledger.chain
    contract_wallets, revert = chain.preflight([intent], payer.address)[0]
    intents.check(intent, chain.domain, now_s=chain.head().timestamp, contract_wallets=contract_wallets)
    if revert is not None:
        raise intents.RefusedError(revert.refusal, revert.text, hint=revert.hint)
    receipt = chain.submit(payer, intent)
    return {"id": intent.id, "state": "settled", "transaction": receipt.transaction, "block": receipt.block}


def print_receipt(receipt: Receipt, said: str = "done", *, as_json: bool, **facts: Any) -> None:
    """Say that a transaction is in a block."""
    if as_json:
        print_json({**facts, "state": "settled", "transaction": receipt.transaction, "block": receipt.block})
    else:
        click.echo(f"{printable(said)}, in block {receipt.block}, transaction {receipt.transaction}")


def sentence(ledger: Ledger, signed: SignedIntent | Offer) -> str:
    """What is signed, in plain words."""
    return plain_words.sentence(signed.struct, names=ledger.book.spoken(), items=ledger.spoken_items(ledger.items()))


def same_signer(ledger: Ledger, name: str, signer: Address, what: str) -> None:
    """Raise UserError where a wallet is not the one that must sign."""
    if ledger.wallets.address(name) != signer:
        raise UserError(f"{what} is for {ledger.name(signer)} to sign, not {name}")
