"""Signing on a machine without a network: real processes in a network namespace that has not even a loopback."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.homes import Home
from tests.ledger.chains import ALICE, BOB, CAROL, COIN, Ground, running_ground
from tests.ledger.clef_server import running_signer
from tests.node.natlab import why_not

NAME = "Bronze Lantern"

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module")
def ground():
    with running_ground() as made, made.anvil.mining():
        yield made


@pytest.fixture
def online(ground: Ground, tmp_path, capsys) -> Home:
    """A home with a chain, where alice has a lantern; her key is not here."""
    home = Home(tmp_path / "online", capsys)
    home.configure(
        rpc_url=ground.anvil.url,
        chain_id=31337,
        contract=ground.chain.contract,
        passphrase_file=str(home.passphrase),
    )
    home.wallet("operator")
    ground.anvil.rpc.call("anvil_setBalance", CAROL.address, hex(COIN))
    options = ("--wallet", "operator", "--yes")
    home.json("asset", "class", "new", NAME, *options)
    home.json("asset", "mint", NAME, "--to", ALICE.address, "--amount", "2", *options)
    return home


def off_line(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `p2pos` where no packet goes anywhere."""
    return subprocess.run(
        [
            *(str(shutil.which("unshare")), "--user", "--map-root-user", "--net"),
            *(sys.executable, "-m", "p2pos", "--home", str(home), *arguments),
        ],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_signed_there_and_submitted_here(ground: Ground, online: Home, tmp_path, capsys):
    """Names travel in a bundle; a machine with the key and no network signs; another submits.

    Who pays there signs with another process, by Clef's JSON-RPC.
    """
    bundle, gift = tmp_path / "names.json", tmp_path / "gift.json"
    online.json("asset", "bundle", "export", str(bundle), NAME)
    cold = Home(tmp_path / "cold", capsys)
    cold.wallet("alice")
    cold.configure(
        rpc_url=ground.anvil.url, chain_id=31337, contract=ground.chain.contract, passphrase_file=str(cold.passphrase)
    )
    assert "can't be reached" in off_line(cold.path, "asset", "list", "alice").stderr
    assert off_line(cold.path, "asset", "bundle", "import", str(bundle)).returncode == 0
    assert off_line(cold.path, "contact", "add", "bob", BOB.address).returncode == 0
    sign = ("asset", "sign", "transfer", NAME, "--to", "bob", "--wallet", "alice", "--out", str(gift))
    assert "say --yes" in off_line(cold.path, *sign).stderr
    assert not gift.exists()
    done = off_line(cold.path, *sign, "--yes")
    assert done.returncode == 0, done.stderr
    assert f"alice gives bob (contact) {BOB.address} 1 × {NAME} (0x" in done.stderr
    assert "WARNING" not in done.stderr
    assert json.loads(gift.read_text())["message"]["to"] == BOB.address
    with running_signer("carol", tmp_path) as (_, path):
        online.json("wallet", "add-external", "carol", "--ipc", str(path), "--address", CAROL.address)
        settled = online.json("asset", "submit", str(gift), "--direct", "--wallet", "carol", "--yes")
    assert f"waiting up to 5 minutes for you to confirm at unix:{path} …" in online.err
    assert settled["state"] == "settled"
    held = online.json("asset", "list", BOB.address)["items"]
    assert [(one["name"], one["amount"]) for one in held] == [(NAME, 1)]
