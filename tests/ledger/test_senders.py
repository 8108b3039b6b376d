from collections.abc import Callable, Iterator

import pytest

from tests.ledger.chains import ALICE, BOB, COIN, Ground, person
from tests.ledger.submitting import Service

FIRST, SECOND, POOR = map(person, ("first sender", "second sender", "poor sender"))
Make = Callable[..., Service]


@pytest.fixture(scope="module", autouse=True)
def coin(ground: Ground) -> None:
    """The senders can pay for gas; nobody could take lanterns away from Alice."""
    for sender in (FIRST, SECOND):
        ground.anvil.rpc.call("anvil_setBalance", sender.address, hex(1000 * COIN))
    ground.give_lanterns(ALICE.address, 1000)


@pytest.fixture
def make(ground: Ground, tmp_path) -> Iterator[Make]:
    made = []

    def one(*senders, **options) -> Service:
        made.append(Service(ground, tmp_path / f"{len(made)}.sqlite", *senders, **options))
        return made[-1]

    yield one
    for service in made:
        service.queue.close()


def senders(service: Service) -> list[str]:
    return [batch.sender for batch in service.queue.open_batches()]


def test_the_work_is_shared(ground, make):
    """Each sender carries as much as the others, and all of it settles once."""
    service = make(FIRST, SECOND, max_batch=2, max_open=3)
    before = ground.balance(BOB)
    intents = [ground.transfer(BOB.address) for _ in range(12)]
    service.accept(*intents)
    service.submitter.tick()
    assert sorted(senders(service)) == sorted([FIRST.address] * 3 + [SECOND.address] * 3)
    service.run()
    assert set(service.states(*intents)) == {"settled"}
    assert ground.balance(BOB) - before == 12


def test_each_has_a_line_of_nonces_of_its_own(ground, make):
    """Batches of one sender follow its own nonces, whatever the other sends."""
    service = make(FIRST, SECOND, max_batch=1, max_open=3)
    start = {one.address: ground.chain.nonce(one.address) for one in (FIRST, SECOND)}
    service.accept(*[ground.transfer(BOB.address) for _ in range(6)])
    service.submitter.tick()
    for sender, nonce in start.items():
        own = [batch.nonce for batch in service.queue.open_batches() if batch.sender == sender]
        assert own == [nonce, nonce + 1, nonce + 2]
    service.run()


def test_a_sender_without_coin_holds_nobody_back(ground, make):
    """What a sender can't pay for another takes over after some blocks; the poor one's trouble is said meanwhile."""
    service = make(POOR, FIRST, max_batch=1, max_open=2)
    ground.anvil.rpc.call("anvil_setBalance", POOR.address, "0x1")
    before = ground.balance(BOB)
    intents = [ground.transfer(BOB.address) for _ in range(8)]
    service.accept(*intents)
    service.submitter.tick()
    assert POOR.address in senders(service)
    assert "funds" in service.submitter.trouble
    service.run()
    assert set(service.states(*intents)) == {"settled"}
    assert ground.balance(BOB) - before == 8
    assert ground.chain.nonce(POOR.address) == 0


def test_a_sender_that_is_stuck_gets_no_more(ground, make):
    """Where one sender's transaction waits through several blocks, what comes next goes by the other at once."""
    service = make(FIRST, SECOND, max_batch=1)
    first = ground.transfer(BOB.address)
    service.accept(first)
    service.submitter.tick()
    (stuck,) = service.queue.open_batches()
    other = SECOND if stuck.sender == FIRST.address else FIRST
    for _ in range(4):  # each block comes while the pool has lost it
        ground.anvil.rpc.call("anvil_dropAllTransactions")
        ground.anvil.mine()
        ground.anvil.rpc.call("anvil_setBalance", stuck.sender, "0x0")
        service.submitter.tick()
    late = ground.transfer(BOB.address)
    service.accept(late)
    service.submitter.tick()
    assert other.address in senders(service)
    ground.anvil.mine()
    service.submitter.tick()
    assert service.states(late) == ["settled"]
    ground.anvil.rpc.call("anvil_setBalance", stuck.sender, hex(1000 * COIN))
    service.run(most=40)
    assert service.states(first) == ["settled"]


def test_killed_with_two_senders(ground, make):
    """After a restart each batch is still its own sender's, and nothing takes effect twice."""
    service = make(FIRST, SECOND, max_batch=2)
    before = ground.balance(BOB)
    intents = [ground.transfer(BOB.address) for _ in range(10)]
    service.accept(*intents)
    service.submitter.tick()
    opened = service.queue.open_batches()
    service.restart()
    assert service.queue.open_batches() == opened
    service.run()
    assert set(service.states(*intents)) == {"settled"}
    assert ground.balance(BOB) - before == 10
