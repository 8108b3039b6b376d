import resource
from pathlib import Path

import pytest

from p2pos.errors import UnavailableError
from p2pos.ledger.client import RelayerClient
from tests.ledger.chains import ALICE, BOB, Ground
from tests.ledger.services import RelayerProcess

WAIT_S = 60.0


def limit_files(pid: int, size: int) -> None:
    """Let a process write no file beyond this size (-1: any): the kernel refuses as it does on a full disk."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if size < 0 else size, hard))


def test_a_relayer_on_a_full_disk(ground: Ground, tmp_path: Path):
    """While its disk takes nothing a relayer refuses in one line what comes; then it goes on with all it has."""
    ground.give_lanterns(ALICE.address, 10)
    service = RelayerProcess(ground, tmp_path)
    service.ready()
    before = ground.balance(BOB)
    kept, late = ground.transfer(BOB.address), ground.transfer(BOB.address)
    service.client.submit(kept)
    log = tmp_path / "relayer.log"
    journal = tmp_path / "relayer" / "queue.sqlite-wal"
    limit_files(service.process.pid, journal.stat().st_size)
    with pytest.raises(UnavailableError, match="can't be written") as caught:
        service.client.submit(late)
    assert "\n" not in str(caught.value)
    assert service.client.status(late.id) is None
    assert service.client.status(kept.id).state in {"accepted", "submitted"}
    limit_files(service.process.pid, -1)
    with ground.anvil.mining():
        service.client.submit(late)
        for intent in (kept, late):
            assert RelayerClient(service.client.url).wait(intent.id, WAIT_S).state == "settled"
        assert service.stop() == 0
    assert ground.balance(BOB) - before == 2
    text = log.read_text()
    assert "Traceback" not in text
