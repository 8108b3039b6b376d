"""Who is who in one home: its wallets and its contacts, by name and by address.

Names are unique across both, and no two look alike. A file that is damaged hides its own names and no others.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Self

from p2pos.errors import UserError
from p2pos.ledger import naming
from p2pos.ledger.contacts import Contacts
from p2pos.ledger.typed_data import address
from p2pos.ledger.wallet import Kind, Wallets
from p2pos.types import Address


class People:
    """Wallets and contacts together."""

    def __init__(self, wallets: Wallets, contacts: Contacts) -> None:
        self.wallets = wallets
        self.contacts = contacts

    @classmethod
    def of_home(cls, home: Path) -> Self:
        """Those of one home."""
        return cls(Wallets(home / "wallets"), Contacts(home / "contacts.json"))

    def who(self, text: str) -> Address:
        """The address that a name, or the address itself, stands for. Raises UserError for an unknown name."""
        if text.startswith(("0x", "0X")):
            return address(text)
        if text in self.wallets.names():
            return self.wallets.address(text)
        contacts = self.contacts.all()
        if text in contacts:
            return contacts[text]
        known = ", ".join([*self.wallets.names(), *contacts][:10]) or "none yet"
        raise UserError(f"there is no wallet or contact “{text}”", hint=f"known here: {known}")

    def names(self) -> dict[Address, str]:
        """Names by address. A wallet's own name comes before a contact's for the same address."""
        return self._contact_names() | {one.address: one.name for one in self.wallets.look()[0]}

    def given(self) -> frozenset[Address]:
        """To whom something was signed before."""
        try:
            return self.contacts.given()
        except UserError:
            return frozenset()

    def trouble(self) -> str:
        """Why the contacts can't be read; "" where they can."""
        try:
            self.contacts.all()
        except UserError as exc:
            return str(exc)
        return ""

    def spoken(self, first: Iterable[Address] = ()) -> dict[Address, str]:
        """Names by address as sentences before signing say them: what it is with the name, where it is no own wallet.

        Args:
            first: addresses to which something goes for the first time, which are said whole.

        """
        wallets, _ = self.wallets.look()
        own = {one.address: one.name for one in wallets if one.kind is not Kind.WATCH_ONLY}
        watched = {one.address: f"{one.name} (watch-only)" for one in wallets if one.kind is Kind.WATCH_ONLY}
        contacts = {of: f"{name} (contact)" for of, name in self._contact_names().items()}
        named = contacts | watched
        new = {of: f"{named[of]} {of}" for of in first if of in named}
        return named | new | own

    def require_free(self, name: str, what: str, *, besides: str = "") -> None:
        """Raise UserError where a wallet or contact can't be called this: see `naming`, or too like another's name.

        Args:
            name: what it shall be called.
            what: “wallet's name” or “contact's name”.
            besides: a name that is about to be given up.

        """
        self.require_all_free([name], what, besides=besides)

    def require_all_free(self, names: Iterable[str], what: str, *, besides: str = "") -> None:
        """As `require_free`, of many names that come together."""
        taken = dict.fromkeys(self.wallets.names(), "wallet") | dict.fromkeys(self.contacts.all(), "contact")
        taken.pop(besides, None)
        seen = {skeleton: name for name in taken for skeleton in naming.skeletons(name)}
        for name in names:
            naming.require_fit(name, what)
            if name in taken:
                raise UserError(f"{taken[name]} {name} is already there", hint="choose another name")
            like = next((seen[skeleton] for skeleton in naming.skeletons(name) if skeleton in seen), "")
            if like:
                raise UserError(
                    f"“{name}” looks like {taken[like]} {like}, and one could be taken for the other",
                    hint="choose another name",
                )
            taken[name] = "new"
            seen |= dict.fromkeys(naming.skeletons(name), name)

    def _contact_names(self) -> dict[Address, str]:
        try:
            return {of: name for name, of in reversed(self.contacts.all().items())}
        except UserError:
            return {}
