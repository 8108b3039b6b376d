import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.cli.homes import NAME, Home, give


def test_sync_status_verify(home, tmp_path):
    """The index is read, told about, and found to be what the contract says."""
    file = give(home, tmp_path)
    assert home.run("asset", "submit", file) == 0
    block = home.json("index", "sync")["block"]
    status = home.json("index", "status")
    assert status["block"] == block
    assert status["classes"] == 2  # the fixture's, and the one that the ground begins with
    assert status["balances"] == 2
    assert home.run("index", "sync") == home.run("index", "status") == 0
    report = home.json("index", "verify", "--nonces")
    assert report["wrong"] == 0
    assert report["checked"]["balances"] == 2
    assert report["checked"]["nonces"] >= 1
    assert home.json("index", "verify", "--block", str(block - 1))["block"] == block - 1
    home.fails(2, "index", "verify", "--block", str(block + 1000))


def test_what_differs_is_said(home):
    """A balance that was tampered with makes verification fail, and is named."""
    home.json("index", "sync")
    path = home.json("index", "status")["index"]
    with sqlite3.connect(path) as file:
        file.execute("UPDATE balances SET amount = '999' WHERE account = (SELECT max(account) FROM balances)")
    file.close()
    assert home.run("index", "verify", "--json") == 1
    found = json.loads(home.out)
    assert {one["what"].partition("(")[0] for one in found["differences"]} == {"balanceOf", "totalSupply"}
    assert home.run("index", "verify") == 1
    assert "the index has 999" in home.out
    Path(path).unlink()
    assert home.json("index", "verify")["wrong"] == 0


def test_follow(home, ground):
    """It tells each new block, and ends at once when it is told to."""
    command = [sys.executable, "-m", "p2pos", "--home", str(home.path), "index", "follow", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        first = json.loads(process.stdout.readline())["block"]
        ground.anvil.mine()
        assert json.loads(process.stdout.readline())["block"] > first
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_a_url_that_is_none(home: Home):
    """A database's URL that can't be one is refused without being repeated."""
    line = home.fails(2, "index", "status", "--index-url", "mysql://me:word@host/x")
    assert "word@" not in line
    assert NAME not in line
