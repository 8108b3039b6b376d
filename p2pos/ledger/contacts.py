"""Other people's addresses, by name: one file of mode 0600 in a home.

Also who was given something before: the first time, an address is shown whole, whatever it is called. Both are
remembered here and nowhere else.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from p2pos.content import strict_json
from p2pos.errors import UserError
from p2pos.ledger import naming, private_file
from p2pos.ledger.typed_data import address
from p2pos.types import Address

FORMAT = "p2pos-contacts-1"
MAX_CONTACTS = 10_000
"""More than anyone knows; a file of them is read in 50 ms."""
MAX_BYTES = 8 << 20
"""Of the file: 10,000 names of 200 bytes with their addresses, and as many addresses given to, fit four times."""
MAX_GIVEN = 20_000
"""Addresses given to that are remembered; the oldest are forgotten first, and then shown whole once more."""


class Contacts:
    """The contacts of one home."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> dict[str, Address]:
        """Addresses by name, in order of the names. Raises UserError where the file is damaged or not private."""
        return dict(sorted(self._read()[0].items()))

    def given(self) -> frozenset[Address]:
        """Addresses for which something was signed before. Raises as `all`."""
        return frozenset(self._read()[1])

    def add(self, people: Mapping[str, Address]) -> None:
        """Add all of these or none.

        The caller makes sure that the names fit (`People.require_fit`). Raises UserError where one is taken or the
        file is full.
        """

        def change(names: dict[str, Address], _: list[Address]) -> None:
            for name, of in people.items():
                if names.get(name, of) != of:
                    raise UserError(f"contact {name} is already there, with {names[name]}", hint="choose another name")
                names[name] = of
            if len(names) > MAX_CONTACTS:
                raise UserError(f"there can't be more than {MAX_CONTACTS} contacts", hint="remove some")

        self._change(change)

    def remove(self, name: str) -> Address:
        """Forget a contact. Returns its address. Raises UserError for an unknown name."""
        found: list[Address] = []

        def change(names: dict[str, Address], _: list[Address]) -> None:
            found.append(_get(names, name))
            del names[name]

        self._change(change)
        return found[0]

    def rename(self, name: str, new: str) -> None:
        """Call a contact otherwise. Raises UserError for an unknown name, or a new one that is taken."""

        def change(names: dict[str, Address], _: list[Address]) -> None:
            of = _get(names, name)
            if new in names:
                raise UserError(f"contact {new} is already there, with {names[new]}", hint="choose another name")
            del names[name]
            names[new] = of

        self._change(change)

    def remember_given(self, to: Iterable[Address]) -> None:
        """Something was signed for these addresses. Raises UserError where the file can't be written."""
        new = list(dict.fromkeys(to))
        if set(new) <= self.given():
            return

        def change(_: dict[str, Address], given: list[Address]) -> None:
            given += [one for one in new if one not in given]
            del given[:-MAX_GIVEN]

        self._change(change)

    # ----

    def _change(self, change: Callable[[dict[str, Address], list[Address]], None]) -> None:
        """Read, change and write back, while no other process does."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise UserError(f"{self.path} can't be written: {exc.strerror}", hint="choose another --home") from exc
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # held for one small file's time
            names, given = self._read()
            change(names, given)
            value = {
                "format": FORMAT,
                "contacts": [{"name": name, "address": of} for name, of in sorted(names.items())],
                "given": given,
            }
            private_file.replace(self.path, json.dumps(value, ensure_ascii=False, indent=1).encode())
        finally:
            os.close(handle)

    def _read(self) -> tuple[dict[str, Address], list[Address]]:
        try:
            data = private_file.read(self.path, MAX_BYTES, "contacts")
        except FileNotFoundError:
            return {}, []
        damaged = UserError(f"{self.path} is damaged", hint="mend it, or move it away and add the contacts again")
        try:
            value = strict_json.loads(data, unique_keys=True)
        except ValueError as exc:
            raise damaged from exc
        if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("given"), list):
            raise damaged
        return parse_people(value, str(self.path)), [address(one, str(self.path)) for one in value["given"]]


def parse_people(value: Any, what: str) -> dict[str, Address]:
    """Read names and addresses: {"contacts": [{"name", "address"}, …]}, or {name: address, …}.

    Raises UserError, which names the contact and its fault: a name that can't be one or is there twice, a wrong
    address. An address's checksum must be right; one in small letters alone has none and is refused.
    """
    if not isinstance(value, dict):
        raise UserError(f"{what} is not a list of contacts")
    listed = value.get("contacts", [{"name": name, "address": of} for name, of in value.items()])
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise UserError(f"{what} is not a list of contacts")
    if len(listed) > MAX_CONTACTS:
        raise UserError(f"{what} has {len(listed)} contacts, and there can't be more than {MAX_CONTACTS}")
    found: dict[str, Address] = {}
    for entry in listed:
        name = entry.get("name")
        if not isinstance(name, str):
            raise UserError(f"{what} has a contact without a name")
        naming.require_fit(name, "contact's name")
        if name in found:
            raise UserError(f"{what} has two contacts called “{name}”")
        found[name] = checksummed(entry.get("address"), f"contact {name}")
    return found


def checksummed(text: object, what: str) -> Address:
    """An address whose checksum shows that it was copied right. Raises UserError, also where it has none."""
    found = address(text, what)
    if found != text:
        raise UserError(
            f"{what}: {text} has no checksum, so that a wrong digit would not be seen",
            hint="copy it with its capital letters, as wallets and explorers show it",
        )
    return found


def _get(names: Mapping[str, Address], name: str) -> Address:
    if name not in names:
        known = ", ".join(sorted(names)[:10]) or "none yet"
        raise UserError(f"there is no contact “{name}”", hint=f"contacts here: {known}")
    return names[name]
