import json
from pathlib import Path

import pytest

from tests.cli.homes import NAME, give, held
from tests.ledger.chains import ALICE, BOB


def test_sign_and_submit(home, tmp_path):
    """Alice signs off line, anyone submits, and both balances come from the chain."""
    before = held(home, "alice"), held(home, "bob")
    file = str(tmp_path / "gift.json")
    options = ("--rpc-url", "http://127.0.0.1:1")
    signed = home.json("asset", "sign", "transfer", NAME, "--to", "bob", "--wallet", "alice", "--out", file, "--yes")
    assert signed["sentence"].startswith(f"alice gives bob 1 × {NAME}; anyone may submit this until ")
    assert signed["message"]["from"] == ALICE.address
    done = home.json("asset", "submit", file)
    assert done["state"] == "settled"
    assert (held(home, "alice"), held(home, "bob")) == (before[0] - 1, before[1] + 1)
    assert "can't be reached" in home.fails(3, "asset", "list", *options)


def test_signing_needs_no_chain(home, tmp_path, monkeypatch):
    """`sign` works while chain and relayer are away."""
    monkeypatch.setenv("P2POS_RPC_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("P2POS_RELAYER_URL", "http://127.0.0.1:1")
    file = give(home, tmp_path)
    assert json.loads(Path(file).read_text())["format"] == "p2pos-intent-1"


def test_replay_and_tampering(home, tmp_path):
    """The same file again is refused as replayed; a changed amount as tampered; nothing moves."""
    file = give(home, tmp_path)
    home.json("asset", "submit", file)
    before = held(home, "bob")
    assert "already carried out, in transaction 0x" in home.fails(2, "asset", "submit", file)
    intent = json.loads(Path(file).read_text())
    intent["message"]["amount"] = "400"
    other = tmp_path / "tampered.json"
    other.write_text(json.dumps(intent))
    assert "was changed after it was signed" in home.fails(2, "asset", "submit", str(other))
    assert held(home, "bob") == before


def test_submitting_directly(home, tmp_path):
    """Without a relayer, any wallet with coin carries an intent out; a second time the contract's word is passed on."""
    file = give(home, tmp_path)
    command = ("asset", "submit", file, "--direct", "--wallet", "operator", "--yes")
    assert home.json(*command)["state"] == "settled"
    assert "was already used or cancelled" in home.fails(2, *command)


def test_a_transaction_is_shown_before_it_is_signed(home, tmp_path):
    """Who pays is told what for and the most it can cost; without an answer or --yes nothing is signed."""
    command = ("asset", "submit", give(home, tmp_path), "--direct", "--wallet", "operator")
    assert "say --yes" in home.fails(2, *command)
    assert f"operator pays for what others signed: alice gives bob 1 × {NAME}; " in home.err
    assert "; the fee is at most 0.0" in home.err
    home.json(*command, "--yes")
    assert "the fee is at most 0.0" in home.err


def test_send(home):
    """`send` signs, submits and waits; the answer names block and transaction."""
    before = held(home, "bob")
    done = home.json("asset", "send", NAME, "--to", BOB.address, "--amount", "2", "--wallet", "alice", "--yes")
    assert (done["state"], done["message"]["amount"]) == ("settled", "2")
    assert held(home, "bob") == before + 2


def test_cancel(home, tmp_path):
    """A cancelled intent can't take effect, and cancelling takes no coin."""
    file = give(home, tmp_path)
    before = held(home, "bob")
    home.json("asset", "cancel", file, "--wallet", "alice", "--yes")
    assert "already used or cancelled" in home.fails(2, "asset", "submit", file)
    assert "nothing to cancel" in home.fails(2, "asset", "cancel", file, "--wallet", "alice", "--yes")
    assert home.run("asset", "history", "--wallet", "alice") == 0
    assert home.out.splitlines()[0].split("\t")[2].startswith("alice used up a nonce, so that nothing else")
    assert held(home, "bob") == before


def test_show_and_history(home):
    """A class shows its descriptor and holders; history tells who gave what, newest first."""
    shown = home.json("asset", "show", NAME)
    assert shown["descriptor"]["attributes"] == {"light": 3}
    assert (shown["cap"], shown["supply"]) == (1000, 500)
    assert {holder["owner"] for holder in shown["holders"]} >= {ALICE.address}
    home.json("asset", "send", NAME, "--to", "bob", "--amount", "3", "--wallet", "alice", "--yes")
    newest = home.json("asset", "history", NAME, "--wallet", "bob")["happenings"][0]
    assert (newest["kind"], newest["from"], newest["to"], newest["amount"]) == ("moved", ALICE.address, BOB.address, 3)
    assert home.json("asset", "show", shown["id"][:10])["id"] == shown["id"]


def test_views_for_people(home):
    """Off a terminal the tables are lines with tabs."""
    for command in (("list",), ("show", NAME), ("history",)):
        assert home.run("asset", *command) == 0
        assert NAME in home.out
        assert "\t" in home.out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("send", NAME, "--to", "bob", "--amount", "9999", "--wallet", "alice"), "to give, not 9999"),
        (("send", NAME, "--to", "bob", "--amount", "0", "--wallet", "alice"), "whole number, 1 or more"),
        (("send", NAME, "--to", "bob", "--amount", "-2", "--wallet", "alice"), "whole number, 1 or more"),
        (("send", NAME, "--to", "bob", "--amount", "1.5", "--wallet", "alice"), "whole number, 1 or more"),
        (("send", "Bronze Lamp", "--to", "bob", "--wallet", "alice"), "known here: Bronze Lantern"),
        (("send", NAME, "--to", "bobby", "--wallet", "alice"), "there is no wallet or contact “bobby”"),
        (("send", NAME, "--to", "0x12", "--wallet", "alice"), "is not an address"),
        (("send", "0x12", "--to", "bob", "--wallet", "alice"), "too short"),
        (("list", "--contract", BOB.address), "there is no contract at"),
        (("list", "--contract", "0x12"), "is not an address"),
        (("submit", "/nowhere"), "No such file"),
        (("submit", "-", "--direct"), "go together"),
        (("class", "new", "--wallet", "operator", "--yes"), "give either NAME or"),
        (("class", "new", " x", "--wallet", "operator", "--yes"), "begins or ends with a blank"),
    ],
)
def test_bad_input(home, arguments, line):
    """Each mistake is one line that says what was wrong, with exit code 2."""
    assert line in home.fails(2, "asset", *arguments)


def test_the_wrong_chain(home, monkeypatch):
    """A chain with another id than the settings' is refused."""
    monkeypatch.setenv("P2POS_CHAIN_ID", "5")
    assert "has id 31337, not 5" in home.fails(2, "asset", "list")


def test_a_wrong_passphrase(home, tmp_path):
    """A wrong passphrase is one line, and no file is half-written."""
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("Secret")
    out = tmp_path / "gift.json"
    options = ("--wallet", "alice", "--out", str(out), "--yes", "--passphrase-file", str(wrong))
    assert "wrong passphrase" in home.fails(2, "asset", "sign", "transfer", NAME, "--to", "bob", *options)
    assert not out.exists()


def test_nobody_agreed(home, tmp_path):
    """Without a terminal and without --yes nothing is signed."""
    out = tmp_path / "gift.json"
    line = home.fails(2, "asset", "sign", "transfer", NAME, "--to", "bob", "--wallet", "alice", "--out", str(out))
    assert "say --yes" in line
    assert not out.exists()


def test_only_the_issuer_mints(home):
    """The contract's refusal is passed on in words, as the mistake that it is."""
    line = home.fails(2, "asset", "mint", NAME, "--to", "bob", "--amount", "501", "--wallet", "operator", "--yes")
    assert "is capped at 1000" in line
    assert line.endswith("mint fewer")


def test_a_class_from_a_file(home, tmp_path):
    """A whole descriptor can come from a file; its CID is what stands on chain."""
    file = tmp_path / "coin.json"
    file.write_text(json.dumps({"name": "Copper", "kind": "currency"}))
    made = home.json("asset", "class", "new", "--descriptor", str(file), "--wallet", "operator", "--yes")
    assert home.json("asset", "show", "Copper")["cid"] == made["cid"]
