import json
import time

import pytest

from p2pos.assets.bundle import Bundle, Carried
from p2pos.assets.descriptor import Descriptor
from p2pos.cli.names import Ledger, short
from p2pos.cli.signing import unlock
from p2pos.config import Settings
from p2pos.errors import UserError
from p2pos.ledger import calldata
from p2pos.ledger.abi import checksummed
from p2pos.ledger.signatures import recover
from p2pos.ledger.typed_data import Domain, Transfer, digest
from tests.cli.homes import Home
from tests.ledger.chains import ALICE, BOB, CAROL, person
from tests.ledger.clef_server import running_signer

CONTRACT = person("contract").address
DOMAIN = Domain(31337, CONTRACT)
LANTERN, OTHER = 7 << 240, 8 << 240


@pytest.fixture
def ledger(tmp_path, capsys) -> Ledger:
    """A home that never saw a chain: alice's wallet, bob among the contacts, a class that was carried here."""
    home = Home(tmp_path / "home", capsys)
    home.wallet("alice")
    made = Ledger(
        Settings(home=home.path, chain_id=31337, contract=CONTRACT, passphrase_file=home.passphrase, rpc_url="")
    )
    made.contacts.add({"bob": BOB.address})
    made.carry(Bundle(DOMAIN, {LANTERN: Carried(Descriptor.make(name="Bronze Lantern"), soulbound=False)}))
    return made


def gift(to: str = BOB.address, id_: int = LANTERN) -> Transfer:
    return Transfer(ALICE.address, to, id_, 1, 5, int(time.time()) + 3600)


def transaction(nonce: int = 0) -> dict:
    return {
        "type": 2,
        "chainId": 31337,
        "nonce": nonce,
        "to": CONTRACT,
        "value": 0,
        "data": calldata.mint(BOB.address, LANTERN, 3),
        "gas": 100_000,
        "maxFeePerGas": 10**9,
        "maxPriorityFeePerGas": 1,
    }


def test_an_address_is_whole_the_first_time(ledger, capsys):
    """A contact's address stands beside the name until something was signed for it; the class's id always does."""
    signer = unlock(ledger, "alice", None, yes=True)
    signer.sign_typed(DOMAIN, gift())
    first = capsys.readouterr().err
    item = f"1 × Bronze Lantern ({short(LANTERN)})"
    assert first.startswith(f"alice signs: alice gives bob (contact) {BOB.address} {item}; anyone may submit this ")
    signer.sign_typed(DOMAIN, gift())
    assert capsys.readouterr().err.startswith(f"alice signs: alice gives bob (contact) {item}; anyone")


def test_what_is_shown_is_what_is_signed(ledger):
    """The signature is the wallet's, over the struct that was shown."""
    struct = gift()
    assert recover(digest(DOMAIN, struct), unlock(ledger, "alice", None, yes=True).sign_typed(DOMAIN, struct)) == (
        ALICE.address
    )


def test_a_forged_address_and_an_unknown_class(ledger, capsys):
    """A receiver that only looks like a contact, and a class of which nothing is known, are warned of."""
    forged = checksummed(BOB.address[2:7].lower() + "0" * 30 + BOB.address[-5:].lower())
    unlock(ledger, "alice", None, yes=True).sign_typed(DOMAIN, gift(forged, 8))
    shown = capsys.readouterr().err
    assert f"WARNING: {forged} only LOOKS like bob {BOB.address}" in shown
    assert "WARNING: nothing is known here of class 0x8" in shown


def test_another_contract_is_warned_of(ledger, capsys):
    """What would count at another contract than the settings name is said."""
    unlock(ledger, "alice", None, yes=True).sign_typed(Domain(1, CAROL.address), gift())
    assert f"WARNING: this counts on chain 1 at contract {CAROL.address}" in capsys.readouterr().err


def test_nobody_agreed(ledger, capsys, monkeypatch):
    """Without a terminal and without --yes it is shown, nothing is opened, and nobody is remembered as given to."""
    ledger.settings.passphrase_file.chmod(0o644)  # would be refused if it were read
    signer = unlock(ledger, "alice", None, yes=False)
    for sign in (lambda: signer.sign_typed(DOMAIN, gift()), lambda: signer.sign_transaction(transaction())):
        with pytest.raises(UserError, match="say --yes"):
            sign()
        assert "alice signs: alice " in capsys.readouterr().err
    assert ledger.contacts.given() == frozenset()


def test_a_transaction_is_shown_once(ledger, capsys):
    """A transaction is read from its bytes, with its fee; the same again under another nonce is not shown twice.

    Whoever gets something for the first time is shown with the whole address.
    """
    signer = unlock(ledger, "alice", None, yes=True)
    assert signer.sign_transaction(transaction()) == ALICE.sign_transaction(transaction())
    shown = capsys.readouterr().err
    made = f"alice makes 3 × Bronze Lantern ({short(LANTERN)}) for bob (contact)"
    assert f"{made} {BOB.address}; the fee is at most 0.0001 " in shown
    signer.sign_transaction(transaction(nonce=1))
    assert capsys.readouterr().err == ""
    signer.sign_transaction(transaction() | {"gas": 200_000})
    assert f"{made}; the fee is at most 0.0002 " in capsys.readouterr().err


def test_a_watched_wallet_does_not_sign(ledger):
    """A watch-only wallet is refused before anything is asked."""
    ledger.wallets.watch("cold", CAROL.address)
    with pytest.raises(UserError, match="watch-only"):
        unlock(ledger, "cold", None, yes=True)


def test_an_external_signer_signs(ledger, tmp_path, capsys):
    """A wallet whose key is with another process signs what was shown here, by HTTP and by a unix socket."""
    with running_signer("carol", tmp_path) as (url, path):
        for name, end_point in (("one", url), ("two", f"unix:{path}")):
            ledger.wallets.add_external(name, CAROL.address, end_point)
            struct = Transfer(CAROL.address, BOB.address, LANTERN, 1, 5, int(time.time()) + 60)
            signature = unlock(ledger, name, None, yes=True).sign_typed(DOMAIN, struct)
            assert recover(digest(DOMAIN, struct), signature) == CAROL.address
            shown = capsys.readouterr().err
            assert f"{name} signs: " in shown
            assert f"waiting up to 5 minutes for you to confirm at {end_point} …" in shown


def test_adding_an_external_signer(tmp_path, capsys):
    """`add-external` asks the signer for its accounts, and takes only one that it has."""
    home = Home(tmp_path / "home", capsys)
    with running_signer("carol", tmp_path) as (url, path):
        made = home.json("wallet", "add-external", "ledger", "--url", url, "--address", CAROL.address)
        assert made["address"] == CAROL.address
        home.json("wallet", "add-external", "same", "--ipc", str(path), "--address", CAROL.address)
        line = home.fails(2, "wallet", "add-external", "other", "--url", url, "--address", BOB.address)
        assert f"shows no account {BOB.address}: it shows {CAROL.address}" in line
    listed = home.json("wallet", "list")["wallets"]
    assert [(one["kind"], one["end_point"]) for one in listed] == [("external", url), ("external", f"unix:{path}")]


def test_a_soulbound_class_is_warned_of(ledger, capsys):
    """What a bundle says never changes hands is said to before it is given."""
    ledger.carry(Bundle(DOMAIN, {OTHER: Carried(Descriptor.make(name="Medal"), soulbound=True)}))
    unlock(ledger, "alice", None, yes=True).sign_typed(DOMAIN, gift(id_=OTHER))
    assert "WARNING: Medal is soulbound: it can't change hands" in capsys.readouterr().err


def test_contacts_that_cannot_be_read(ledger, capsys):
    """Where the contacts can't be read, that is said, addresses are whole, and the file is left alone."""
    ledger.contacts.path.write_text("{")
    unlock(ledger, "alice", None, yes=True).sign_typed(DOMAIN, gift())
    shown = capsys.readouterr().err
    assert f"alice gives {BOB.address} 1 × " in shown
    assert f"WARNING: no contact is known: {ledger.contacts.path} is damaged" in shown
    assert ledger.contacts.path.read_text() == "{"


def test_whose_things_are_ours(ledger):
    """Wallets, watched ones too, are what a home holds things in; contacts only have names."""
    ledger.wallets.watch("cold", CAROL.address)
    assert ledger.owners() == {ALICE.address: "alice", CAROL.address: "cold"}
    assert ledger.people() == {ALICE.address: "alice", CAROL.address: "cold", BOB.address: "bob"}
    assert ledger.who("bob") == BOB.address
    assert ledger.name(BOB.address) == "bob"


def test_two_classes_of_one_name(ledger):
    """Classes whose names look alike are told apart by their ids."""
    more = {OTHER: Carried(Descriptor.make(name="Bronze Lantem"), soulbound=False)}
    ledger.carry(Bundle(DOMAIN, more))
    assert ledger.spoken_items(ledger.items()) == {
        LANTERN: f"Bronze Lantern ({short(LANTERN)})",
        OTHER: f"Bronze Lantem ({short(OTHER)})",
    }
    assert ledger.class_id("Bronze Lantem") == OTHER
    assert ledger.class_id(short(LANTERN)) == LANTERN


@pytest.mark.parametrize("name", ["Coin; the fee is 0 (0x123)", "Sword and 500 Gold", "1000 Gold", "Gold until 2026"])
def test_a_class_whose_name_says_more(ledger, name):
    """A name that could pass for part of the sentence stands in quotes, with its id."""
    ledger.carry(Bundle(DOMAIN, {OTHER: Carried(Descriptor.make(name=name), soulbound=False)}))
    assert ledger.spoken_items(ledger.items())[OTHER] == f"“{name}” ({short(OTHER)})"


def test_a_bundle_of_another_contract(ledger):
    """Names of another contract's classes are refused, and those that are here stay."""
    with pytest.raises(UserError, match="check --contract"):
        ledger.carry(Bundle(Domain(1, CONTRACT), {}))
    assert ledger.items() == {LANTERN: "Bronze Lantern"}


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"chainId": "-1"},
        {"contract": "0x12"},
        {"classes": 5},
        {"classes": [5]},
        {"classes": [{"id": "0x12", "soulbound": False, "descriptor": {"name": "x"}}]},
        {"classes": [{"id": f"0x{1:064x}", "soulbound": 1, "descriptor": {"name": "x"}}]},
        {"classes": [{"id": f"0x{1:064x}", "soulbound": False, "descriptor": {"name": ""}}]},
        {"classes": [{"id": f"0x{1:064x}", "soulbound": False, "descriptor": {"name": "x\u202e"}}]},
        {"classes": [{"id": f"0x{1:064x}", "soulbound": False, "descriptor": None}]},
        {"classes": [{"id": "0x" + "g" * 64, "soulbound": False, "descriptor": {"name": "x"}}]},
    ],
)
def test_a_bundle_that_is_none(ledger, change):
    """A bundle is refused whole at its first fault, in a line that names the file."""
    value = json.loads(ledger.carried.dumps()) | change
    with pytest.raises(UserError, match="the file"):
        Bundle.parse(json.dumps(value).encode(), "the file")
