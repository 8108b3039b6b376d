from collections.abc import Iterator

import pytest

from tests.cli.homes import NAME, Home
from tests.ledger.chains import Ground, running_ground
from tests.ledger.services import RelayerProcess


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with running_ground() as made, made.anvil.mining():
        yield made


@pytest.fixture(scope="module")
def relayer(ground, tmp_path_factory) -> Iterator[RelayerProcess]:
    service = RelayerProcess(ground, tmp_path_factory.mktemp("relayer"))
    service.ready()
    yield service
    service.stop()


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    return tmp_path_factory.mktemp("asset") / "home"


@pytest.fixture
def home(ground, relayer, where, capsys) -> Home:
    """A home on the chain, with operator, alice and bob, and from the first test on a class and ten lanterns."""
    fresh = not where.exists()
    made = Home(where, capsys)
    if fresh:
        made.configure(
            rpc_url=ground.anvil.url,
            chain_id=31337,
            contract=ground.chain.contract,
            relayer_url=relayer.client.url,
            passphrase_file=str(made.passphrase),
        )
        for name in ("operator", "alice", "bob"):
            made.wallet(name)
        options = ("--wallet", "operator", "--yes")
        made.json("asset", "class", "new", NAME, *options, "--attribute", "light=3", "--cap", "1000")
        made.json("asset", "mint", NAME, "--to", "alice", "--amount", "500", *options)
    return made
