"""How a command signs: it shows in plain words what will be signed, asks, and only then opens the wallet.

Commands sign with what `unlock` gives them and with nothing else, so none of them can sign unseen. What is shown is
read from what is signed: a typed struct's fields, a transaction's bytes.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import click

from p2pos.cli.names import Ledger
from p2pos.cli.passphrases import get_passphrase
from p2pos.cli.warnings import printable, warn
from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.ledger import cautions, deeds, plain_words
from p2pos.ledger.cautions import Known
from p2pos.ledger.external_signer import ExternalSigner
from p2pos.ledger.signer import SignedTransaction, Signer
from p2pos.ledger.typed_data import Domain, Signable
from p2pos.ledger.wallet import Kind, Wallet, Wallets
from p2pos.types import Address

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

yes_option: Decorator = click.option("--yes", is_flag=True, help="Sign without asking; what is signed is still shown.")


def unlock(ledger: Ledger, name: str, descriptor: int | None, *, yes: bool) -> Signer:
    """A signer for a wallet. The wallet is opened when something is first agreed to, not before.

    Args:
        ledger: whose wallets, names and settings.
        name: of the wallet.
        descriptor: `--passphrase-fd`.
        yes: nobody is asked; everything is shown all the same.

    Raises:
        UserError: there is no such wallet. Later, from the signing: nobody is there to agree, a wrong passphrase.
        click.Abort: from the signing, where the answer is no.

    """
    return AskingSigner(ledger, name, descriptor, yes=yes)


class AskingSigner:
    """A wallet that says what it is asked to sign, and asks."""

    def __init__(self, ledger: Ledger, name: str, descriptor: int | None, *, yes: bool) -> None:
        self._ledger = ledger
        self._name = name
        self._descriptor = descriptor
        self._yes = yes
        self._wallet = ledger.wallets.require_signing(name)  # who can't sign is told so before anything is asked
        self._opened: Signer | None = None
        self._agreed: dict[str, Any] | None = None
        self._named: list[Address] = []
        """Whom the transaction that was agreed to names."""

    @property
    def address(self) -> Address:
        """The wallet's."""
        return self._wallet.address

    def sign_typed(self, domain: Domain, struct: Signable) -> bytes:
        """Show, ask, sign. Returns the 65 bytes (r, s, v)."""
        ledger = self._ledger
        to = [one for one in cautions.receivers(struct) if one != self.address]
        names = ledger.book.spoken(first=set(to) - ledger.book.given())
        items = ledger.items()
        lines = cautions.of(domain, struct, ledger.known(items), now_s=int(time.time()))
        self._ask(plain_words.sentence(struct, names=names, items=ledger.spoken_items(items)), lines)
        signature = self._open().sign_typed(domain, struct)
        if not ledger.book.trouble():
            ledger.contacts.remember_given(to)
        return signature

    def sign_transaction(self, fields: dict[str, Any]) -> SignedTransaction:
        """Show, ask, sign. The same again under another nonce, as when another process took it, is not asked twice."""
        agreed = {key: value for key, value in fields.items() if key != "nonce"}
        if agreed != self._agreed:
            ledger = self._ledger
            contract, items = ledger.settings.contract, ledger.spoken_items(ledger.items())
            told = deeds.told(fields, self.address, contract, ledger.book.spoken(), items)
            new = set(self._others(told)) - ledger.book.given()
            if new:
                told = deeds.told(fields, self.address, contract, ledger.book.spoken(first=new), items)
            self._named = self._others(told)
            known = Known(ledger.people(), ledger.book.given())
            alike = [line for one in told.addresses for line in cautions.about_address(one, known)]
            self._ask(str(told), [*told.cautions, *alike])
        signed = self._open().sign_transaction(fields)
        self._agreed = agreed
        if not self._ledger.book.trouble():
            self._ledger.contacts.remember_given(self._named)
        return signed

    def _others(self, told: deeds.Told) -> list[Address]:
        return [one for one in told.addresses if one != self.address]

    def _ask(self, sentence: str, lines: list[str]) -> None:
        click.echo(f"{self._name} signs: {printable(sentence)}", err=True)
        trouble = self._ledger.book.trouble()
        warn([*lines, *([f"no contact is known: {trouble}"] if trouble else [])])
        if self._yes:
            return
        if not sys.stdin.isatty():
            raise UserError("nobody is there to agree to this", hint="say --yes")
        click.confirm("Sign this?", abort=True, err=True)

    def _open(self) -> Signer:
        if self._opened is None:
            self._opened = open_wallet(self._ledger.settings, self._wallet, self._descriptor)
        return self._opened

    def __repr__(self) -> str:
        return f"AskingSigner({self._name}, {self.address})"


def open_wallet(settings: Settings, wallet: Wallet, descriptor: int | None) -> Signer:
    """A signer that shows nothing and asks nobody: for `unlock`, and for services whose owner said what they sign.

    Raises UserError: a watched wallet, a wrong passphrase.
    """
    wallets = Wallets(settings.wallets)
    wallets.require_signing(wallet.name)
    if wallet.kind is Kind.EXTERNAL:
        return ExternalSigner(
            wallet.name, wallet.address, wallet.end_point, tell=lambda line: click.echo(line, err=True)
        )
    return wallets.unlock(wallet.name, get_passphrase(settings, descriptor, f"wallet {wallet.name}"))
