import socket

import pytest

from tests.cli.homes import Home
from tests.ledger.chains import ALICE, BOB, Ground, running_ground
from tests.ledger.services import RelayerProcess

CHAIN_ID = 84532
"""Base Sepolia's: the relayer takes any chain, not only anvil's own number."""


@pytest.fixture(scope="module")
def ground():
    with running_ground(chain_id=CHAIN_ID) as made:
        yield made


@pytest.fixture
def home(ground: Ground, tmp_path, capsys) -> Home:
    made = Home(tmp_path / "home", capsys)
    made.wallet("operator")
    made.configure(
        rpc_url=ground.anvil.url,
        chain_id=CHAIN_ID,
        contract=ground.chain.contract,
        passphrase_file=str(made.passphrase),
    )
    return made


def test_its_life(ground, home, tmp_path):
    """It says that it is ready in one line, shows its status, and ends with 0 when its leash is let go."""
    service = RelayerProcess(ground, tmp_path / "home")
    line = service.ready()
    assert set(line) == {"ready", "url", "senders"}
    summary = home.json("relayer", "status", "--relayer-url", line["url"])
    assert [one["address"] for one in summary["senders"]] == line["senders"] == [service.sender]
    assert home.run("relayer", "status", "--relayer-url", line["url"]) == 0
    assert f"sender\t{service.sender}, coin 1000.000000" in home.out
    assert service.stop() == 0


def test_it_ends_on_sigterm(ground, home, tmp_path):
    """SIGTERM ends it with 0, and what it accepted is still there for the next."""
    service = RelayerProcess(ground, tmp_path / "home")
    service.ready()
    ground.give_lanterns(ALICE.address, 1)
    intent = ground.transfer(BOB.address)
    service.client.submit(intent)
    service.process.terminate()
    assert service.stop() == 0
    service.start()
    service.ready()
    with ground.anvil.mining():
        assert service.client.wait(intent.id, 60.0).state == "settled"
    service.stop()


@pytest.mark.parametrize(
    ("options", "code", "line"),
    [
        (("--listen", "nowhere"), 2, "is not HOST:PORT"),
        (("--listen", "0.0.0.0:0"), 2, "listens on loopback only"),
        (("--wallet", "nobody"), 2, "there is no wallet “nobody”"),
        (("--contract", BOB.address), 2, "there is no contract at"),
        (("--rpc-url", "http://127.0.0.1:1"), 3, "can't be reached"),
    ],
)
def test_bad_input(home, options, code, line):
    """Each mistake is one line, before anything listens or is written."""
    assert line in home.fails(code, "relayer", "run", *options)
    assert not (home.path / "relayer").exists()


def test_a_port_in_use(home):
    """A port that is taken is named."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} on 127.0.0.1 is in use" in home.fails(2, "relayer", "run", "--listen", f"127.0.0.1:{port}")


def test_no_relayer(home):
    """Without a relayer's URL, or where none answers, `status` says which."""
    assert "no relayer is set" in home.fails(2, "relayer", "status")
    assert "can't be reached" in home.fails(3, "relayer", "status", "--relayer-url", "http://127.0.0.1:1")
