from collections.abc import Iterator

import pytest

from p2pos.errors import ChainError, UnavailableError, UserError
from p2pos.ledger import submitter as module
from p2pos.ledger.chain import Chain
from p2pos.ledger.queue import Queue, Verdict
from p2pos.ledger.submitter import MAX_OPEN, STUCK_BLOCKS, Submitter
from tests.ledger.chains import ALICE, BOB, CAROL, OPERATOR, running_ground
from tests.ledger.submitting import Service


@pytest.fixture
def service(ground, tmp_path) -> Iterator[Service]:
    made = Service(ground, tmp_path / "queue.sqlite")
    yield made
    made.queue.close()


def test_what_is_accepted_is_settled(ground, service):
    """A hundred and twenty transfers go in two batches; each takes effect once."""
    ground.give_lanterns(ALICE.address, 120)
    before = ground.balance(BOB)
    intents = [ground.transfer(BOB.address) for _ in range(120)]
    service.accept(*intents)
    service.run()
    assert set(service.states(*intents)) == {"settled"}
    assert ground.balance(BOB) - before == 120
    assert len({service.queue.status(intent.id).transaction for intent in intents}) == 2


def test_a_bad_intent_does_not_spoil_its_batch(ground, service):
    """One that the contract refuses is marked failed with the reason in words; its neighbours settle."""
    ground.give_lanterns(ALICE.address, 2)
    good, bad, late = ground.transfer(BOB.address), ground.transfer(BOB.address, 10**9), ground.transfer(BOB.address)
    service.accept(good, bad, late)
    service.run()
    assert service.states(good, bad, late) == ["settled", "failed", "settled"]
    status = service.queue.status(bad.id)
    assert status.refusal == "balance"
    assert f"not the {10**9} wanted" in status.reason


def test_what_expires_while_it_waits_is_not_paid_for(ground, service):
    """An intent whose deadline passed in the queue fails without a transaction."""
    intent = ground.transfer(BOB.address, deadline=1)
    service.accept(intent)
    nonce = ground.chain.nonce(OPERATOR.address)
    service.run()
    assert service.queue.status(intent.id).refusal == "expired"
    assert ground.chain.nonce(OPERATOR.address) == nonce


def test_what_was_settled_by_a_lost_batch_does_not_expire(ground, service):
    """Where a batch that was taken for lost got into a block after all, its intents are settled, whatever the time."""
    ground.give_lanterns(ALICE.address, 1)
    before = ground.balance(BOB)
    intent = ground.transfer(BOB.address, deadline=ground.chain.head().timestamp + 100)
    service.accept(intent)
    service.submitter.tick()
    (batch,) = service.queue.open_batches()
    service.queue.lose([batch.number])
    ground.anvil.mine()
    ground.anvil.rpc.call("evm_increaseTime", 1000)
    ground.anvil.mine(2)
    service.run()
    status = service.queue.status(intent.id)
    assert (status.state, status.transaction) == ("settled", batch.sendings[0].transaction)
    assert ground.balance(BOB) - before == 1
    ground.anvil.reorg(3)
    service.submitter.tick()
    assert service.states(intent) == ["submitted"]
    service.run()


def test_killed_between_writing_and_sending(ground, service, monkeypatch):
    """A batch that was written down but never sent is sent after the restart."""
    ground.give_lanterns(ALICE.address, 1)
    intent = ground.transfer(BOB.address)
    service.accept(intent)

    def die(self, transactions):
        raise UnavailableError("killed here")

    with monkeypatch.context() as patch:
        patch.setattr(Chain, "send_raw", die)
        with pytest.raises(UnavailableError):
            service.submitter.tick()
    assert ground.anvil.in_pool() == 0
    service.restart()
    service.run()
    assert service.states(intent) == ["settled"]


def test_killed_between_sending_and_noticing(ground, service):
    """A batch that was mined while nobody looked is found after the restart, and not sent again."""
    ground.give_lanterns(ALICE.address, 1)
    before = ground.balance(BOB)
    intent = ground.transfer(BOB.address)
    service.accept(intent)
    service.submitter.tick()
    ground.anvil.mine()
    nonce = ground.chain.nonce(OPERATOR.address)
    service.restart()
    service.run()
    assert service.states(intent) == ["settled"]
    assert ground.balance(BOB) - before == 1
    assert ground.chain.nonce(OPERATOR.address) == nonce


def test_a_reorganisation_brings_intents_back(ground, service):
    """Settled intents whose block is gone are submitted again, and take effect once."""
    ground.give_lanterns(ALICE.address, 3)
    before = ground.balance(BOB)
    intents = [ground.transfer(BOB.address) for _ in range(3)]
    service.accept(*intents)
    ground.anvil.mine(2)
    service.run()
    ground.anvil.reorg(2)
    assert ground.balance(BOB) == before
    service.submitter.tick()
    assert set(service.states(*intents)) == {"submitted"}
    service.run()
    assert set(service.states(*intents)) == {"settled"}
    assert ground.balance(BOB) - before == 3


def test_a_lost_transaction_of_the_same_account(ground, service):
    """Where a reorganisation took a transaction before ours for good, the intents begin again at its nonce."""
    ground.give_lanterns(ALICE.address, 2)
    before = ground.balance(BOB)
    ground.anvil.mine(2)
    intents = [ground.transfer(BOB.address) for _ in range(2)]
    service.accept(*intents)
    ground.give_lanterns(CAROL.address, 1)
    service.run()
    ground.anvil.reorg(2)
    service.run()
    assert service.states(*intents) == ["settled"] * 2
    assert ground.balance(BOB) - before == 2


def test_a_reorganisation_while_down(ground, service):
    """A reorganisation that happened while the relayer was down is noticed at its start."""
    ground.give_lanterns(ALICE.address, 1)
    before = ground.balance(BOB)
    intent = ground.transfer(BOB.address)
    service.accept(intent)
    ground.anvil.mine(2)
    service.run()
    ground.anvil.reorg(2)
    ground.anvil.mine(3)
    service.restart()
    service.run()
    assert service.states(intent) == ["settled"]
    assert ground.balance(BOB) - before == 1


def test_a_dropped_transaction_is_sent_again(ground, service):
    """What the pool forgot is handed over again."""
    ground.give_lanterns(ALICE.address, 1)
    intent = ground.transfer(BOB.address)
    service.accept(intent)
    service.submitter.tick()
    ground.anvil.rpc.call("anvil_dropAllTransactions")
    assert ground.anvil.in_pool() == 0
    service.run()
    assert service.states(intent) == ["settled"]


def test_a_stuck_transaction_is_outbid(ground, service):
    """A fee that the chain's base fee has overtaken is raised, on the same nonce."""
    ground.give_lanterns(ALICE.address, 1)
    intent = ground.transfer(BOB.address)
    service.accept(intent)
    service.submitter.tick()
    first = service.queue.open_batches()[0].sendings[0]
    for _ in range(STUCK_BLOCKS):
        ground.anvil.rpc.call("anvil_setNextBlockBaseFeePerGas", hex(2 * first.fees.max_fee))
        ground.anvil.mine()
        service.submitter.tick()
    (batch,) = service.queue.open_batches()
    assert len(batch.sendings) == 2
    assert batch.sendings[1].fees.max_fee > 2 * first.fees.max_fee
    service.run()
    assert service.states(intent) == ["settled"]
    assert service.queue.status(intent.id).transaction == batch.sendings[1].transaction
    ground.anvil.rpc.call("anvil_setNextBlockBaseFeePerGas", hex(10**9))
    ground.anvil.mine()


def test_a_sender_without_coin(ground, service):
    """Without coin for gas the trouble is said, nothing is lost, and all goes on once there is some."""
    ground.give_lanterns(ALICE.address, 1)
    intent = ground.transfer(BOB.address)
    service.accept(intent)
    ground.anvil.rpc.call("anvil_setBalance", OPERATOR.address, "0x1")
    service.submitter.tick()
    assert "funds" in service.submitter.trouble
    ground.anvil.rpc.call("anvil_setBalance", OPERATOR.address, hex(10**21))
    service.run()
    assert service.states(intent) == ["settled"]
    assert service.submitter.trouble == ""


def test_a_nonce_taken_by_another_transaction(ground, service):
    """Where the same account used the nonce elsewhere, the intents travel in another batch."""
    ground.give_lanterns(ALICE.address, 1)
    intent = ground.transfer(BOB.address)
    service.accept(intent)
    service.submitter.tick()
    ground.anvil.rpc.call("anvil_dropAllTransactions")
    ground.give_lanterns(CAROL.address, 1)
    service.run()
    assert service.states(intent) == ["settled"]


def test_an_intent_that_someone_else_submitted(ground, service):
    """Carried out by another relayer first: it fails here as replayed, and nothing moves twice."""
    ground.give_lanterns(ALICE.address, 2)
    before = ground.balance(BOB)
    intent = ground.transfer(BOB.address)
    service.accept(intent)
    with ground.anvil.mining():
        ground.chain.submit(ALICE, intent)
    service.run()
    assert service.queue.status(intent.id).refusal == "replayed"
    assert ground.balance(BOB) - before == 1


def test_a_lock_travels_with_transfers(ground, service):
    """A lock between transfers settles in the same transaction."""
    ground.give_lanterns(ALICE.address, 4)
    until = ground.chain.head().timestamp + 1000
    lock = ground.lock(CAROL.address, until)
    intents = [ground.transfer(BOB.address), lock, ground.transfer(BOB.address)]
    service.accept(*intents)
    service.run()
    assert service.states(*intents) == ["settled"] * 3
    assert len({service.queue.status(intent.id).transaction for intent in intents}) == 1
    assert ground.chain.lock_of(ALICE.address, ground.lantern, CAROL.address) == (1, until)
    with ground.anvil.mining():
        ground.anvil.rpc.call("anvil_setBalance", CAROL.address, hex(10**18))
        ground.chain.unlock(CAROL, ALICE.address, CAROL.address, ground.lantern)


def test_a_lock_that_the_contract_refuses(ground, service):
    """A lone lock that reverts is marked failed with the contract's reason."""
    until = ground.chain.head().timestamp + 365 * 86_400
    lock = ground.lock(CAROL.address, until)
    service.accept(lock)
    service.run()
    assert service.states(lock) == ["failed"]
    assert "a lock must end in the future, by" in service.queue.status(lock.id).reason


def test_batches_under_way_are_bounded(ground, service):
    """No more than MAX_OPEN batches are on their way at once."""
    ground.give_lanterns(ALICE.address, 3 * (MAX_OPEN + 2))
    service.submitter = Submitter(ground.chain, service.queue, OPERATOR, max_batch=3)
    intents = [ground.transfer(BOB.address) for _ in range(3 * (MAX_OPEN + 2))]
    service.accept(*intents)
    service.submitter.tick()
    assert len(service.queue.open_batches()) == MAX_OPEN
    service.run()
    assert set(service.states(*intents)) == {"settled"}


def test_what_comes_singly_is_gathered(ground, service):
    """While a batch is under way, what arrives waits for the next instead of paying for a transaction each."""
    ground.give_lanterns(ALICE.address, 3)
    intents = [ground.transfer(BOB.address) for _ in range(3)]
    for intent in intents:
        service.accept(intent)
        service.submitter.tick()
    assert service.states(*intents) == ["submitted", "accepted", "accepted"]
    service.run()
    assert service.queue.status(intents[1].id).transaction == service.queue.status(intents[2].id).transaction


def test_confirmations_are_waited_for(ground, tmp_path):
    """With three confirmations asked for, an intent settles in the third block, not before."""
    ground.give_lanterns(ALICE.address, 1)
    queue = Queue(tmp_path / "queue.sqlite")
    submitter = Submitter(ground.chain, queue, OPERATOR, confirmations=3)
    submitter.bind()
    intent = ground.transfer(BOB.address)
    queue.accept([intent], 0.0)
    submitter.tick()
    states = []
    for _ in range(3):
        ground.anvil.mine()
        submitter.tick()
        states.append(queue.status(intent.id).state)
    queue.close()
    assert states == ["submitted", "submitted", "settled"]


def test_a_queue_belongs_to_one_chain(ground, service):
    """A queue is not taken for another contract's, nor without an account that has batches under way."""
    service.queue.close()
    queue = Queue(service.path)
    with ground.anvil.mining():
        other = ground.chain.with_contract(ground.chain.deploy(OPERATOR))
    with pytest.raises(UserError, match="the queue is for contract"):
        Submitter(other, queue, OPERATOR).bind()
    ground.give_lanterns(ALICE.address, 1)
    queue.accept([ground.transfer(BOB.address)], 0.0)
    Submitter(ground.chain, queue, OPERATOR).tick()
    with pytest.raises(UserError, match=f"batches under way from sender {OPERATOR.address}"):
        Submitter(ground.chain, queue, ALICE).bind()
    Submitter(ground.chain, queue, ALICE, OPERATOR).bind()
    queue.close()
    service.restart()
    service.run()


def test_a_chain_that_asks_too_much(ground, tmp_path):
    """While the base fee is above what the operator pays nothing is sent, the trouble is said, and nothing is lost."""
    ground.give_lanterns(ALICE.address, 1)
    service = Service(ground, tmp_path / "queue.sqlite", max_fee=3 * 10**9)
    intent = ground.transfer(BOB.address)
    service.accept(intent)
    nonce = ground.chain.nonce(OPERATOR.address)
    ground.anvil.rpc.call("anvil_setNextBlockBaseFeePerGas", hex(4 * 10**9))
    ground.anvil.mine()
    service.submitter.tick()
    assert service.submitter.trouble == "the chain asks 4 gwei per gas, and this relayer pays 3"
    assert service.states(intent) == ["accepted"]
    assert ground.chain.nonce(OPERATOR.address, pending=True) == nonce
    ground.anvil.rpc.call("anvil_setNextBlockBaseFeePerGas", hex(10**9))
    ground.anvil.mine()
    service.run()
    assert service.states(intent) == ["settled"]
    assert service.submitter.trouble == ""
    service.queue.close()


def test_no_bid_passes_the_cap(ground, tmp_path):
    """What is stuck is outbid up to the operator's cap and no further; the trouble is said."""
    ground.give_lanterns(ALICE.address, 1)
    cap = 2 * ground.chain.head().base_fee + 2 * 10**9
    service = Service(ground, tmp_path / "queue.sqlite", max_fee=cap)
    intent = ground.transfer(BOB.address)
    service.accept(intent)
    service.submitter.tick()
    for _ in range(8 * STUCK_BLOCKS):
        ground.anvil.rpc.call("anvil_setNextBlockBaseFeePerGas", hex(2 * cap))
        ground.anvil.mine()
        service.submitter.tick()
    (batch,) = service.queue.open_batches()
    assert max(sending.fees.max_fee for sending in batch.sendings) <= cap
    assert "stuck at the highest fee" in service.submitter.trouble
    ground.anvil.rpc.call("anvil_setNextBlockBaseFeePerGas", hex(10**9))
    ground.anvil.mine()
    service.run()
    assert service.states(intent) == ["settled"]
    service.queue.close()


def test_a_transaction_before_ours_that_never_comes(ground, service):
    """Where the pool lost the account's transaction before ours, for good, ours begin again at its nonce."""
    ground.give_lanterns(ALICE.address, 2)
    before = ground.balance(BOB)
    service.submitter = Submitter(ground.chain, service.queue, OPERATOR, max_batch=1)
    intents = [ground.transfer(BOB.address) for _ in range(2)]
    service.accept(*intents)
    service.submitter.tick()
    first, second = service.queue.open_batches()
    ground.anvil.rpc.call("anvil_dropAllTransactions")
    service.queue.lose([first.number])  # as if it had been another program's
    service.queue.fail([Verdict(service.queue.waiting(1)[0].seq, "failed")])
    service.run()
    assert service.states(*intents) == ["failed", "settled"]
    assert ground.balance(BOB) - before == 1
    assert ground.chain.nonce(OPERATOR.address) == first.nonce + 1 == second.nonce


def test_a_chain_that_lost_its_state(tmp_path):
    """A chain that began anew is told from a reorganisation; nothing is sent, and what was accepted stays."""
    with running_ground() as ground:
        ground.give_lanterns(ALICE.address, 2)
        service = Service(ground, tmp_path / "queue.sqlite")
        done, late = ground.transfer(BOB.address), ground.transfer(BOB.address)
        service.accept(done)
        service.run()
        state = ground.anvil.rpc.call("anvil_dumpState")
        service.accept(late)
        ground.anvil.rpc.call("anvil_reset")
        for _ in range(2):
            with pytest.raises(ChainError, match="began anew|has lost the contract") as caught:
                service.submitter.tick()
            assert "\n" not in str(caught.value)
        assert ground.anvil.in_pool() == 0
        assert service.states(done, late) == ["settled", "accepted"]
        assert state
        service.queue.close()


def test_old_transactions_are_forgotten(ground, service, monkeypatch):
    """Once no reorganisation can reach them, signed transactions and bodies go; the verdicts stay."""
    monkeypatch.setattr(module, "WATCHED_BLOCKS", 4)
    ground.give_lanterns(ALICE.address, 1)
    intent = ground.transfer(BOB.address)
    service.accept(intent)
    service.run()
    ground.anvil.mine(10)
    service.submitter.tick()
    assert service.queue._file.db.execute("SELECT count(*) FROM sendings").fetchone() == (0,)
    assert service.states(intent) == ["settled"]
