import json
import stat
import threading

import pytest

from p2pos.errors import UserError
from p2pos.ledger.contacts import Contacts, checksummed, parse_people
from p2pos.ledger.people import People
from p2pos.ledger.wallet import Wallets
from tests.ledger.chains import ALICE, BOB, CAROL, person


@pytest.fixture
def contacts(tmp_path):
    return Contacts(tmp_path / "home" / "contacts.json")


@pytest.fixture
def people(tmp_path, contacts):
    return People(Wallets(tmp_path / "home" / "wallets"), contacts)


def test_contacts_are_kept(contacts):
    """Contacts come back in order of their names, from a file that nobody else can read."""
    contacts.add({"小明": BOB.address, "carol": CAROL.address})
    assert Contacts(contacts.path).all() == {"carol": CAROL.address, "小明": BOB.address}
    assert stat.S_IMODE(contacts.path.stat().st_mode) == 0o600


def test_removing_and_renaming(contacts):
    """A contact is forgotten or called otherwise; an unknown one is said to be, and a taken name is kept."""
    contacts.add({"bob": BOB.address, "carol": CAROL.address})
    with pytest.raises(UserError, match="contact carol is already there"):
        contacts.rename("bob", "carol")
    contacts.rename("bob", "robert")
    assert contacts.remove("carol") == CAROL.address
    assert contacts.all() == {"robert": BOB.address}
    with pytest.raises(UserError, match="no contact “bob”: contacts here: robert"):
        contacts.remove("bob")


def test_a_name_keeps_its_address(contacts):
    """A name is never given another address silently."""
    contacts.add({"bob": BOB.address})
    contacts.add({"bob": BOB.address})
    with pytest.raises(UserError, match="already there"):
        contacts.add({"anna": ALICE.address, "bob": CAROL.address})
    assert contacts.all() == {"bob": BOB.address}


def test_two_processes_at_once(contacts):
    """What several writers add at the same time is all there."""
    names = [f"friend{at}" for at in range(8)]
    threads = [
        threading.Thread(target=Contacts(contacts.path).add, args=({name: person(name).address},)) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contacts.all() == {name: person(name).address for name in names}


def test_whom_something_was_given(contacts):
    """Who was given something is remembered, once."""
    contacts.remember_given([BOB.address, CAROL.address])
    contacts.remember_given([BOB.address])
    assert contacts.given() == {BOB.address, CAROL.address}
    assert contacts.all() == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"format": "p2pos-contacts-1"}',
        '{"format": "p2pos-contacts-1", "given": [], "contacts": [5]}',
        '{"format": "p2pos-contacts-1", "given": ["0x12"], "contacts": []}',
    ],
)
def test_a_damaged_file(contacts, text):
    """A file that is damaged, or that others can read, is refused with its name and never overwritten."""
    contacts.add({"bob": BOB.address})
    contacts.path.write_text(text)
    with pytest.raises(UserError, match=r"contacts\.json"):
        contacts.add({"carol": CAROL.address})
    assert contacts.path.read_text() == text
    contacts.path.chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        contacts.all()


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ([], "is not a list of contacts"),
        ({"contacts": [5]}, "is not a list of contacts"),
        ({"contacts": [{"address": BOB.address}]}, "without a name"),
        ({"contacts": [{"name": "bob", "address": BOB.address}] * 2}, "two contacts called “bob”"),
        ({"bob": "0x12"}, "contact bob: “0x12” is not an address"),
        ({"bob": BOB.address.lower()}, "has no checksum"),
        ({"bob": 5}, "is not an address"),
        ({"b b": BOB.address}, "can't be a contact's name"),
    ],
)
def test_a_list_that_is_none(value, line):
    """A list from elsewhere is refused whole at its first fault, which is named."""
    with pytest.raises(UserError, match=line):
        parse_people(value, "the file")


def test_both_forms_of_a_list():
    """Names with addresses come as one object or as what `contact list` prints."""
    listed = {"contacts": [{"name": "bob", "address": BOB.address}]}
    assert parse_people(listed, "it") == parse_people({"bob": BOB.address}, "it") == {"bob": BOB.address}


def test_a_checksum_must_be_there_and_right():
    """A flipped capital, and no capitals at all, are both refused; the right ones pass."""
    assert checksummed(BOB.address, "it") == BOB.address
    at = next(at for at, letter in enumerate(BOB.address) if letter.isupper())
    flipped = BOB.address[:at] + BOB.address[at].lower() + BOB.address[at + 1 :]
    with pytest.raises(UserError, match="wrong checksum"):
        checksummed(flipped, "it")
    with pytest.raises(UserError, match="has no checksum"):
        checksummed(BOB.address.lower(), "it")


def test_names_are_unique_across_both(people):
    """A contact can't have a wallet's name nor the other way round, and neither one that only looks like another's."""
    people.wallets.watch("alice", ALICE.address)
    people.contacts.add({"bill": BOB.address})
    for name, line in (
        ("alice", "wallet alice is already there"),
        ("a1ice", "looks like wallet alice"),
        ("bill", "contact bill is already there"),
        ("biII", "looks like contact bill"),
        ("ВОВ!", "can't be a wallet's name"),
    ):
        with pytest.raises(UserError, match=line):
            people.require_free(name, "wallet's name")
    people.require_free("Alice", "wallet's name", besides="alice")
    people.require_free("王", "contact's name")
    with pytest.raises(UserError, match="looks like"):
        people.require_all_free(["anna", "аппа", "Anna"], "contact's name")


def test_who_is_meant(people):
    """A wallet's name, a contact's or an address stands for an address; an unknown name lists the known ones."""
    people.wallets.watch("alice", ALICE.address)
    people.contacts.add({"bob": BOB.address})
    assert [people.who(text) for text in ("alice", "bob", CAROL.address, CAROL.address.lower())] == [
        ALICE.address,
        BOB.address,
        CAROL.address,
        CAROL.address,
    ]
    with pytest.raises(UserError, match="no wallet or contact “rob”: known here: alice, bob"):
        people.who("rob")


def test_how_names_are_spoken(people):
    """A contact is called one, with the whole address where something goes there for the first time."""
    people.contacts.add({"bob": BOB.address, "anna": ALICE.address})
    people.wallets.watch("cold", CAROL.address)
    assert people.spoken() == {
        BOB.address: "bob (contact)",
        ALICE.address: "anna (contact)",
        CAROL.address: "cold (watch-only)",
    }
    assert people.spoken(first=[BOB.address])[BOB.address] == f"bob (contact) {BOB.address}"
    assert people.names()[BOB.address] == "bob"


def test_a_damaged_list_hides_no_wallet(people):
    """Where the contacts can't be read, wallets still have their names."""
    people.wallets.watch("alice", ALICE.address)
    people.contacts.add({"bob": BOB.address})
    people.contacts.path.write_text(json.dumps([]))
    assert people.names() == {ALICE.address: "alice"}
    assert people.given() == frozenset()
