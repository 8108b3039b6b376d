"""How a command signs: it shows in plain words what will be signed, asks, and only then opens the wallet.

Commands sign with what `unlock` gives them and with nothing else, so none of them can sign unseen. What is shown is
read from what is signed: a typed struct's fields, a transaction's bytes.
"""

import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import click

from p2pos.cli.names import Ledger
from p2pos.cli.wallet import get_passphrase
from p2pos.errors import UserError
from p2pos.ledger import deeds, plain_words
from p2pos.ledger.signer import SignedTransaction, Signer
from p2pos.ledger.typed_data import Domain, Signable
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
        self._address = ledger.wallets.address(name)  # an unknown name is said before anything is asked
        self._opened: Signer | None = None
        self._agreed: dict[str, Any] | None = None

    @property
    def address(self) -> Address:
        """The wallet's."""
        return self._address

    def sign_typed(self, domain: Domain, struct: Signable) -> bytes:
        """Show, ask, sign. Returns the 65 bytes (r, s, v)."""
        sentence = plain_words.sentence(struct, names=self._ledger.people(), items=self._ledger.items())
        self._ask(sentence, [])
        return self._open().sign_typed(domain, struct)

    def sign_transaction(self, fields: dict[str, Any]) -> SignedTransaction:
        """Show, ask, sign. The same again under another nonce, as when another process took it, is not asked twice."""
        agreed = {key: value for key, value in fields.items() if key != "nonce"}
        if agreed != self._agreed:
            ledger = self._ledger
            told = deeds.told(fields, self.address, ledger.settings.contract, ledger.people(), ledger.items())
            self._ask(str(told), list(told.cautions))
        signed = self._open().sign_transaction(fields)
        self._agreed = agreed
        return signed

    def _ask(self, sentence: str, cautions: list[str]) -> None:
        click.echo(f"{self._name} signs: {printable(sentence)}", err=True)
        for line in cautions:
            click.secho(f"WARNING: {printable(line)}", err=True, fg="yellow")
        if self._yes:
            return
        if not sys.stdin.isatty():
            raise UserError("nobody is there to agree to this", hint="say --yes")
        click.confirm("Sign this?", abort=True, err=True)

    def _open(self) -> Signer:
        if self._opened is None:
            wallets, name = self._ledger.wallets, self._name
            secret = get_passphrase(self._ledger.settings, self._descriptor, f"wallet {name}")
            self._opened = wallets.unlock(name, secret)
        return self._opened

    def __repr__(self) -> str:
        return f"AskingSigner({self._name}, {self.address})"


def printable(text: str) -> str:
    """One line; what could steer a terminal, or hide or reorder what is shown, becomes �."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)
