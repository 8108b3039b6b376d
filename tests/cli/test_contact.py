import json

import pytest

from p2pos.ledger.abi import checksummed
from tests.cli.homes import Home
from tests.ledger.chains import ALICE, BOB, CAROL


@pytest.fixture
def home(tmp_path, capsys) -> Home:
    return Home(tmp_path / "home", capsys)


def test_its_life(home):
    """A contact is added, listed, called otherwise and forgotten."""
    assert home.json("contact", "add", "小明", BOB.address) == {"name": "小明", "address": BOB.address}
    assert home.json("contact", "list") == {"contacts": [{"name": "小明", "address": BOB.address}]}
    assert home.run("contact", "list") == 0
    assert home.out == f"小明\t{BOB.address}\n"
    assert home.json("contact", "rename", "小明", "bob")["address"] == BOB.address
    assert home.json("contact", "remove", "bob")["address"] == BOB.address
    assert home.run("contact", "list") == 0
    assert "no contacts; p2pos contact add" in home.out


def test_lists_travel(home, tmp_path, capsys):
    """What one home lists another imports, once or twice; what differs there is refused whole."""
    home.json("contact", "add", "bob", BOB.address)
    file = tmp_path / "contacts.json"
    file.write_text(json.dumps(home.json("contact", "list")))
    other = Home(tmp_path / "other", capsys)
    assert other.json("contact", "import", str(file)) == {"contacts": [{"name": "bob", "address": BOB.address}]}
    assert other.json("contact", "import", str(file)) == {"contacts": []}
    file.write_text(json.dumps({"anna": ALICE.address, "bob": CAROL.address}))
    assert "contact bob is already there" in other.fails(2, "contact", "import", str(file))
    assert len(other.json("contact", "list")["contacts"]) == 1


def test_an_address_that_looks_like_a_known_one(home):
    """An address that begins and ends like a contact's is warned of, and not added unless somebody says so."""
    home.json("contact", "add", "bob", BOB.address)
    forged = checksummed(BOB.address[2:7].lower() + "0" * 30 + BOB.address[-5:].lower())
    line = home.fails(2, "contact", "add", "robert", forged)
    assert "say --yes" in line
    assert f"WARNING: {forged} only LOOKS like bob {BOB.address}" in home.err
    home.json("contact", "add", "robert", forged, "--yes")
    assert "WARNING" in home.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("add", "bill", "0x12"), "is not an address"),
        (("add", "bill", BOB.address.lower()), "has no checksum"),
        (("add", "bill", BOB.address[:-1] + "z"), "is not an address"),
        (("add", "b0b", CAROL.address), "looks like contact bob"),
        (("add", "alice", CAROL.address), "wallet alice is already there"),
        (("add", "Ьob", CAROL.address), "mixes the scripts"),
        (("add", "a\u200bb", CAROL.address), "can't be seen"),
        (("remove", "nobody"), "contacts here: bob"),
        (("rename", "nobody", "x"), "contacts here: bob"),
        (("rename", "bob", "alice"), "wallet alice is already there"),
        (("import", "/nowhere"), "No such file"),
    ],
)
def test_bad_input(home, arguments, line):
    """Each mistake is one line with exit code 2, and changes nothing."""
    home.wallet("alice")
    home.json("contact", "add", "bob", BOB.address)
    before = home.json("contact", "list")
    assert line in home.fails(2, "contact", *arguments)
    assert home.json("contact", "list") == before


def test_a_list_that_is_no_json(home, tmp_path):
    """A file that is not JSON, names somebody twice, or nests without end is refused in a line."""
    for text in ("{", "[" * 100_000, f'{{"bob": "{BOB.address}", "bob": "{CAROL.address}"}}'):
        file = tmp_path / "contacts.json"
        file.write_text(text)
        assert "is not JSON" in home.fails(2, "contact", "import", str(file))
