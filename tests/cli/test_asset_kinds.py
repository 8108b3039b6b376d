import csv
import json
from pathlib import Path

import pytest

from tests.cli.homes import NAME, Home, held
from tests.ledger.chains import ALICE, BOB

COIN = "Coin"


@pytest.fixture
def coins(home, ground) -> Home:
    """The home with a second class, of which alice and bob have some, as they have coin for gas."""
    for who in (ALICE, BOB):
        ground.anvil.rpc.call("anvil_setBalance", who.address, hex(10**20))
    if home.run("asset", "show", COIN) != 0:
        home.json("asset", "class", "new", COIN, "--kind", "currency", "--wallet", "operator", "--yes")
        for who in ("alice", "bob"):
            home.json("asset", "mint", COIN, "--to", who, "--amount", "1000", "--wallet", "operator", "--yes")
    return home


def locked(home: Home, who: str) -> int:
    return next(item["locked"] for item in home.json("asset", "list", who)["items"] if item["name"] == NAME)


def test_several_classes_at_once(coins):
    """`send` with --also gives several classes in one intent, all or none."""
    before = held(coins, "bob"), held(coins, "bob", COIN)
    done = coins.json(
        *("asset", "send", NAME, "--amount", "2", "--also", COIN, "30", "--to", "bob", "--wallet", "alice", "--yes")
    )
    assert (done["type"], done["state"]) == ("BatchTransfer", "settled")
    assert f"alice gives bob 2 × {NAME} and 30 × {COIN}, all or none; anyone may submit this until " in coins.err
    assert (held(coins, "bob"), held(coins, "bob", COIN)) == (before[0] + 2, before[1] + 30)
    line = coins.fails(2, "asset", "send", NAME, "--also", COIN, "99999", "--to", "bob", "--wallet", "alice", "--yes")
    assert "× Coin to give, not 99999" in line
    twice = ("asset", "send", NAME, "--also", NAME, "1", "--to", "bob", "--wallet", "alice", "--yes")
    assert "is given twice" in coins.fails(2, *twice)


def test_lock_and_unlock(coins):
    """What a world holds can't be given, until the world releases it by its signature."""
    command = ("asset", "lock", NAME, "--world", "bob", "--amount", "5", "--for-s", "3600", "--wallet", "alice")
    assert coins.json(*command, "--yes")["type"] == "Lock"
    assert f"alice lets world bob hold 5 × {NAME} in place until 20" in coins.err
    assert locked(coins, "alice") == 5
    free = held(coins, "alice") - 5
    line = coins.fails(2, "asset", "send", NAME, "--amount", str(free + 1), "--to", "bob", "--wallet", "alice", "--yes")
    assert f"has {free} ×" in line
    unlock = ("asset", "unlock", NAME, "--owner", "alice")
    early = coins.fails(2, *unlock, "--world", "bob", "--wallet", "operator", "--direct", "--yes")
    assert "only world" in early
    assert "only the world itself signs" in coins.fails(2, *unlock, "--world", "bob", "--wallet", "alice", "--yes")
    assert coins.json(*unlock, "--wallet", "bob", "--yes")["type"] == "Unlock"
    assert f"world bob releases all of alice's {NAME} that it holds in place" in coins.err
    assert locked(coins, "alice") == 0


def test_a_lock_until_a_time(coins, ground):
    """--until takes a time in UTC; one that is past, no time, and both ways at once are refused."""
    lock = ("asset", "lock", NAME, "--world", "bob", "--wallet", "alice", "--yes")
    assert "is past" in coins.fails(2, *lock, "--until", "2001-01-01")
    assert "is not a time" in coins.fails(2, *lock, "--until", "tomorrow")
    assert "either --for-s or" in coins.fails(2, *lock, "--until", "2101-01-01", "--for-s", "5")
    assert "a lock must end in the future, by" in coins.fails(2, *lock, "--until", "2101-01-01")
    coins.json(*lock, "--for-s", "60")
    ground.anvil.rpc.call("evm_increaseTime", 61)
    ground.anvil.mine()
    unlock = (
        "asset",
        "unlock",
        NAME,
        "--owner",
        "alice",
        "--world",
        "bob",
        "--wallet",
        "operator",
        "--direct",
        "--yes",
    )
    assert coins.json(*unlock)["state"] == "settled"
    assert "operator releases what world bob holds" in coins.err
    assert locked(coins, "alice") == 0


def test_a_world_spends(coins):
    """A world takes what it was allowed and no more, and what is revoked it can't take."""
    allow = ("asset", "spend", "allow", COIN, "--world", "bob", "--max", "50", "--wallet", "alice", "--yes")
    use = ("asset", "spend", "use", COIN, "--owner", "alice", "--wallet", "bob", "--yes")
    assert "may take 0 of class" in coins.fails(2, *use, "--amount", "1")
    assert coins.json(*allow)["type"] == "Spend"
    assert "alice lets world bob take up to 50 × Coin for good, until " in coins.err
    before = [held(coins, who, COIN) for who in ("alice", "bob")]
    assert coins.json(*use, "--amount", "20")["left"] == 30
    assert "bob takes 20 × Coin from alice, as allowed" in coins.err
    assert coins.json(*use, "--amount", "5", "--burn")["left"] == 25
    assert [held(coins, who, COIN) for who in ("alice", "bob")] == [before[0] - 25, before[1] + 20]
    assert "may take 25 of class" in coins.fails(2, *use, "--amount", "26")
    assert "either --to or --burn" in coins.fails(2, *use, "--to", "bob", "--burn")
    revoke = ("asset", "spend", "revoke", COIN, "--world", "bob", "--wallet", "alice", "--yes")
    coins.json(*revoke)
    assert "alice no longer lets world bob take any Coin" in coins.err
    assert "may take 0 of class" in coins.fails(2, *use, "--amount", "1")
    coins.json(*allow)
    coins.json(*revoke, "--direct")
    assert "may take 0 of class" in coins.fails(2, *use, "--amount", "1")


SIGN = {
    "transfer": (NAME, "--to", "bob", "--also", COIN, "2"),
    "lock": (NAME, "--world", "bob", "--for-s", "3600"),
    "unlock": (NAME, "--owner", "bob"),
    "spend": (COIN, "--world", "bob", "--max", "7"),
    "revoke": (COIN, "--world", "bob"),
}


@pytest.mark.parametrize("kind", SIGN)
def test_signing_off_line(coins, tmp_path, monkeypatch, kind):
    """Every kind is signed without a network, into a file that states what it is."""
    monkeypatch.setenv("P2POS_RPC_URL", "http://127.0.0.1:1")
    file = tmp_path / "signed.json"
    signed = coins.json("asset", "sign", kind, *SIGN[kind], "--wallet", "alice", "--out", str(file), "--yes")
    assert json.loads(file.read_text())["format"] == "p2pos-intent-1"
    assert signed["sentence"].split(";")[0] in coins.err
    shown = coins.json("asset", "swap", "show", str(file))
    assert (shown["sound"], shown["sentence"]) == (True, signed["sentence"])


def test_what_was_signed_off_line_is_submitted(coins, tmp_path):
    """A file of any kind is carried out by `submit`."""
    for kind in ("transfer", "lock"):
        file = str(tmp_path / kind)
        coins.json("asset", "sign", kind, *SIGN[kind], "--wallet", "alice", "--out", file, "--yes")
        assert coins.json("asset", "submit", file)["state"] == "settled"
    assert coins.run("asset", "unlock", NAME, "--owner", "alice", "--wallet", "bob", "--yes") == 0
    assert f": world bob releases all of alice's {NAME} that it holds in place" in coins.out


def test_a_file_that_can_not_be_written(coins, tmp_path):
    """A missing directory or a file that is there is said before anything is shown or signed, and costs no nonce."""
    there = tmp_path / "there"
    there.write_text("")
    book = next(coins.path.glob(f"nonces/*{ALICE.address}.json"))
    before = book.read_text()
    for out, fault in ((tmp_path / "no" / "where.json", "can't be written: No such file"), (there, "is already there")):
        line = coins.fails(
            2, "asset", "sign", "transfer", NAME, "--to", "bob", "--wallet", "alice", "--out", str(out), "--yes"
        )
        assert fault in line
        assert "signs:" not in coins.err
    assert book.read_text() == before
    assert there.read_text() == ""


@pytest.fixture
def bobs(coins, ground, relayer, tmp_path, capsys) -> Home:
    """Bob's own machine, which has no wallet but his."""
    made = Home(tmp_path / "bob", capsys)
    made.configure(
        rpc_url=ground.anvil.url,
        chain_id=31337,
        contract=ground.chain.contract,
        relayer_url=relayer.client.url,
        passphrase_file=str(made.passphrase),
    )
    made.wallet("bob")
    return made


def offer(home: Home, file: Path, *, give: tuple[str, str] = (NAME, "1"), want: tuple[str, str] = (COIN, "20")) -> str:
    sides = ("--give", *give, "--want", *want)
    home.json("asset", "swap", "offer", "--with", "bob", *sides, "--wallet", "alice", "--out", str(file), "--yes")
    return str(file)


def test_a_swap_between_two_machines(coins, bobs, tmp_path):
    """Alice signs an offer on hers, bob sees it and countersigns on his, and both sides move in one block."""
    before = [held(coins, who, what) for who in ("alice", "bob") for what in (NAME, COIN)]
    file = offer(coins, tmp_path / "offer.json")
    said = f"alice gives bob 1 × {NAME}, and bob gives alice 20 × {COIN}, both or neither"
    assert said in coins.err
    shown = bobs.json("asset", "swap", "show", file)
    assert shown["sound"] is True
    assert shown["sentence"].startswith(f"{ALICE.address} gives bob 1 × item 0x")
    assert "this is an offer, not a signed intent" in bobs.fails(2, "asset", "submit", file)
    done = bobs.json("asset", "swap", "accept", file, "--wallet", "bob", "--yes")
    assert (done["type"], done["state"]) == ("Swap", "settled")
    after = [held(coins, who, what) for who in ("alice", "bob") for what in (NAME, COIN)]
    assert [new - old for old, new in zip(before, after, strict=True)] == [-1, 20, 1, -20]
    assert "was accepted already" in bobs.fails(2, "asset", "swap", "accept", file, "--wallet", "bob", "--yes")


def test_a_swap_accepted_off_line(coins, bobs, tmp_path):
    """Bob may sign only, into a file that anyone submits."""
    file, signed = offer(coins, tmp_path / "offer.json"), tmp_path / "swap.json"
    bobs.json("asset", "swap", "accept", file, "--wallet", "bob", "--out", str(signed), "--yes")
    assert coins.run("asset", "swap", "show", str(signed)) == 0
    assert "signed, and can be submitted" in coins.out
    assert coins.json("asset", "submit", str(signed))["state"] == "settled"


def test_offers_that_are_not_accepted(coins, bobs, tmp_path):
    """A tampered, cancelled, empty or someone else's offer is refused before anything is signed."""
    file = offer(coins, tmp_path / "offer.json")
    assert "for bob to sign, not alice" in coins.fails(2, "asset", "swap", "accept", file, "--wallet", "alice", "--yes")
    value = json.loads(Path(file).read_text())
    value["message"]["secondGives"][0]["amount"] = "900"
    other = tmp_path / "changed.json"
    other.write_text(json.dumps(value))
    accept = ("asset", "swap", "accept", str(other), "--wallet", "bob", "--yes")
    assert "was changed after it was signed" in bobs.fails(2, *accept)
    assert "signs:" not in bobs.err
    assert bobs.json("asset", "swap", "show", str(other))["sound"] is False
    coins.json("asset", "cancel", file, "--wallet", "alice", "--yes")
    assert "took this offer back" in bobs.fails(2, "asset", "swap", "accept", file, "--wallet", "bob", "--yes")
    nothing = ("asset", "swap", "offer", "--with", "bob", "--wallet", "alice", "--out", str(tmp_path / "x"), "--yes")
    assert "nothing is given" in coins.fails(2, *nothing)
    rich = offer(coins, tmp_path / "rich.json", want=(COIN, "99999"))
    assert "to give, not 99999" in bobs.fails(2, "asset", "swap", "accept", rich, "--wallet", "bob", "--yes")
    poor = offer(coins, tmp_path / "poor.json", give=(COIN, "99999"))
    assert "not the 99999 offered" in bobs.fails(2, "asset", "swap", "accept", poor, "--wallet", "bob", "--yes")


def test_the_life_of_a_class(coins, ground):
    """Terms are fixed when a class is made; its descriptor changes as its policy says; minters mint within bounds."""
    make = ("asset", "class", "new", "Medal", "--wallet", "operator", "--yes", "--cap", "10", "--soulbound")
    made = coins.json(*make, "--policy", "delayed", "--delay", "60", "--royalty", "2.5", "--royalty-to", "bob")
    assert (made["policy"], made["delay_s"], made["royalty_bps"]) == ("delayed", 60, 250)
    assert "it never changes hands; its descriptor is changed by the issuer after a delay of 60 s" in coins.err
    minter = ("asset", "minter", "Medal", "--minter", "bob", "--wallet", "operator", "--yes")
    assert coins.json(*minter, "--allowance", "3")["allowance"] == 3
    mint = ("asset", "mint", "Medal", "--to", "alice", "--wallet", "bob", "--yes")
    assert coins.json(*mint, "--amount", "2")["balance"] == 2
    assert "as a minter may make 1 more" in coins.fails(2, *mint, "--amount", "2")
    assert "soulbound" in coins.fails(2, "asset", "send", "Medal", "--to", "bob", "--wallet", "alice", "--yes")
    assert coins.json("asset", "burn", "Medal", "--wallet", "alice", "--yes")["balance"] == 1
    update = ("asset", "class", "update", "Medal", "--wallet", "operator", "--yes")
    assert coins.json(*update, "--attribute", "year=2026")["version"] == 2
    shown = coins.json("asset", "show", "Medal")
    assert (shown["version"], shown["supply"], shown["burned"], bool(shown["proposed"])) == (1, 1, 1, True)
    apply = ("asset", "class", "apply", "Medal", "--wallet", "alice", "--yes")
    assert "may take effect from" in coins.fails(2, *apply)
    ground.anvil.rpc.call("evm_increaseTime", 61)
    ground.anvil.mine()
    assert coins.json(*apply)["version"] == 2
    assert coins.json("asset", "show", "Medal")["descriptor"]["attributes"] == {"year": 2026}
    coins.json(*update, "--name", "Order")
    coins.json("asset", "class", "withdraw", "Medal", "--wallet", "operator", "--yes")
    assert "no update of class" in coins.fails(2, *apply)
    assert "nothing to change" in coins.fails(2, *update, "--attribute", "year=2026")
    assert coins.run("asset", "show", "Medal") == 0
    assert "royalty\t2.5 % to bob" in coins.out


def test_a_story(coins, bobs, ground, tmp_path):
    """History tells all that happened to an item, in order, with block, time and transaction."""
    by_operator, by_alice = ("--wallet", "operator", "--yes"), ("--wallet", "alice", "--yes")
    coins.json("asset", "class", "new", "Key", "--cap", "2", "--policy", "issuer", *by_operator)
    coins.json("asset", "mint", "Key", "--to", "alice", "--amount", "2", *by_operator)
    coins.json("asset", "lock", "Key", "--world", "operator", "--for-s", "3600", *by_alice)
    coins.json("asset", "unlock", "Key", "--owner", "alice", *by_operator)
    file = offer(coins, tmp_path / "offer.json", give=("Key", "1"))
    bobs.json("asset", "swap", "accept", file, "--wallet", "bob", "--yes")
    coins.json("asset", "spend", "allow", "Key", "--world", "bob", "--max", "1", *by_alice)
    coins.json("asset", "spend", "use", "Key", "--owner", "alice", "--burn", "--wallet", "bob", "--yes")
    coins.json("asset", "class", "update", "Key", "--attribute", "teeth=4", *by_operator)
    told = coins.json("asset", "history", "Key", "--oldest")["happenings"]
    stories = [one["story"] for one in told]
    assert stories == [
        "operator made the class Key: at most 2 ever, to be changed by the issuer",
        "operator made 2 × Key for alice",
        f"alice carried 1 × Key into world operator, to stay until {stories[2].rpartition('until ')[2]}",
        "1 × Key of alice's came back from world operator",
        "alice swapped 1 × Key for 20 × Coin with bob",
        f"alice let world bob take up to 1 × Key, until {stories[5].rpartition('until ')[2]}",
        "world bob took 1 × Key from alice, as allowed, and destroyed it",
        stories[7],
    ]
    assert stories[7].startswith("version 2 of Key came into force, described by bafkrei")
    assert [one["story"] for one in coins.json("asset", "history", "Key")["happenings"]] == stories[::-1]
    assert [one["story"] for one in coins.json("asset", "history", "Key", "--most", "2")["happenings"]] == stories[
        :5:-1
    ]
    blocks = [one["block"] for one in told]
    assert blocks == sorted(blocks)
    block = ground.anvil.rpc.call("eth_getBlockByNumber", hex(blocks[4]), True)
    assert told[4]["timestamp"] == int(block["timestamp"], 16)
    assert told[4]["transaction"] in {one["hash"] for one in block["transactions"]}
    both = coins.json("asset", "history", "Key", "--wallet", "bob", "--oldest")["happenings"]
    assert [one["story"] for one in both] == [stories[4], stories[5], stories[6]]


def test_a_story_as_csv(coins):
    """--csv prints a head and a line for each happening, as a spreadsheet reads it."""
    assert coins.run("asset", "history", COIN, "--csv", "--oldest", "--most", "2") == 0
    head, first, second = csv.reader(coins.out.splitlines())
    assert dict(zip(head, first, strict=True))["story"].startswith("operator made the class Coin: without a limit")
    assert dict(zip(head, second, strict=True))["amount"] == "1000"
    assert "either --csv or" in coins.fails(2, "asset", "history", "--csv", "--json")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("class", "new", "X", "--policy", "delayed"), "give --policy delayed and --delay together"),
        (("class", "new", "X", "--delay", "60"), "give --policy delayed and --delay together"),
        (("class", "new", "X", "--royalty", "51"), "can't be: give more than 0 and up to 50"),
        (("class", "new", "X", "--royalty", "1.234"), "can't be: give more than 0 and up to 50"),
        (("class", "new", "X", "--royalty-to", "bob"), "--royalty-to needs --royalty"),
        (("class", "update", NAME, "--name", "Y"), "is frozen"),
        (("minter", COIN, "--minter", "bob", "--allowance", "-1"), "whole number, 0 or more"),
        (("mint", NAME, "--to", "bob", "--amount", str(1 << 128)), "--amount: "),
        (("burn", COIN, "--amount", "5"), "operator has 0 × Coin to give, not 5"),
        (("lock", COIN, "--world", "bob", "--amount", "1"), "operator has 0 × Coin to give, not 1"),
        (("swap", "show", "/nowhere"), "No such file"),
    ],
    ids=lambda one: " ".join(one)[:40] if isinstance(one, tuple) else "",
)
def test_mistakes(coins, arguments, line):
    """Each mistake is one line that says what was wrong, with exit code 2, and nothing was signed."""
    wallet = () if arguments[0] == "swap" else ("--wallet", "operator", "--yes")
    assert line in coins.fails(2, "asset", *arguments, *wallet)
    assert "signs:" not in coins.err
