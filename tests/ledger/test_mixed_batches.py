from collections.abc import Iterator

import pytest

from p2pos.ledger import calldata
from p2pos.ledger.terms import Terms
from p2pos.ledger.typed_data import MAX_ITEMS, BatchTransfer, Item, Lock, Spend, Swap, Unlock
from p2pos.types import Address
from tests.ledger.chains import ALICE, BOB, CAROL, FAR, OPERATOR, Ground, person
from tests.ledger.submitting import Service

ALONE = person("nobody else")


@pytest.fixture
def service(ground: Ground, tmp_path) -> Iterator[Service]:
    ground.give_lanterns(ALICE.address, 100)
    made = Service(ground, tmp_path / "queue.sqlite")
    yield made
    made.queue.close()


def of_every_kind(ground: Ground) -> list:
    """One intent of each kind, that can be carried out in this order."""
    until = ground.chain.head().timestamp + 1000
    nonce = ground.nonces
    alice, bob, item = ALICE.address, BOB.address, ground.lantern
    return [
        ground.transfer(bob, 5),
        ground.sign(BatchTransfer(alice, bob, (item, item), (1, 2), next(nonce), FAR), ALICE),
        ground.sign(Lock(alice, CAROL.address, item, 1, until, next(nonce), FAR), ALICE),
        ground.sign(Unlock(alice, CAROL.address, item, next(nonce), FAR), CAROL),
        ground.sign(Spend(alice, CAROL.address, item, 3, until, next(nonce), FAR), ALICE),
        ground.sign(Swap(alice, bob, (Item(item, 4),), (Item(item, 1),), next(nonce), next(nonce), FAR), ALICE, BOB),
    ]


def test_every_kind_in_one_transaction(ground, service):
    """One batch carries all six kinds; each is judged by its own events."""
    before = ground.balance(BOB)
    intents = of_every_kind(ground)
    service.accept(*intents)
    service.run()
    assert service.states(*intents) == ["settled"] * 6
    assert len({service.queue.status(intent.id).transaction for intent in intents}) == 1
    assert ground.balance(BOB) - before == 5 + 3 + 3


def test_every_kind_alone(ground, tmp_path):
    """Each kind settles also where it travels alone, by the contract's own function for it."""
    ground.give_lanterns(ALICE.address, 100)
    service = Service(ground, tmp_path / "queue.sqlite", max_batch=1)
    intents = of_every_kind(ground)
    service.accept(*intents)
    service.run()
    assert service.states(*intents) == ["settled"] * 6
    assert len({service.queue.status(intent.id).transaction for intent in intents}) == 6
    service.queue.close()


def make_classes(ground: Ground, count: int, first: Address, second: Address) -> list[int]:
    """Classes by the operator, of the first half of which one has some and of the second half the other."""
    chain, terms = ground.chain, Terms(0)
    nonce, fees = chain.nonce(OPERATOR.address), chain.fees()
    salts = [number.to_bytes(32, "big") for number in range(1, count + 1)]
    ids = [calldata.class_id(OPERATOR.address, salt) for salt in salts]
    calls = [calldata.create_class(salt, terms, bytes(32)) for salt in salts]
    calls += [calldata.mint(first if at < count // 2 else second, id_, 10) for at, id_ in enumerate(ids)]
    raws = []
    for at, data in enumerate(calls):
        fields = chain.transaction_fields(data, to=chain.contract, nonce=nonce + at, gas=200_000, fees=fees)
        raws.append(OPERATOR.sign_transaction(fields).raw)
    assert not any(chain.send_raw(raws))
    while ground.anvil.in_pool():
        ground.anvil.mine()
    return ids


def test_the_grants_cover_the_dearest_of_each_kind(ground, service):
    """With all storage new and as many items as the contract takes, each kind settles within what a batch grants it."""
    rich, poor = person("rich in classes"), person("poor in classes")
    until = ground.chain.head().timestamp + 1000
    ids = make_classes(ground, 2 * MAX_ITEMS, rich.address, poor.address)
    hers, his = tuple(ids[:MAX_ITEMS]), tuple(ids[MAX_ITEMS:])
    world = person("a new world")
    ones = (1,) * MAX_ITEMS
    given = [tuple([Item(id_, 1) for id_ in row]) for row in (hers, his)]
    intents = [
        ground.sign(BatchTransfer(rich.address, person("heir").address, hers, ones, 1, FAR), rich),
        ground.sign(Swap(rich.address, poor.address, *given, 1 << 9, 1 << 9, FAR), rich, poor),
        ground.sign(Lock(rich.address, world.address, hers[0], 1, until, 1 << 10, FAR), rich),
        ground.sign(Spend(rich.address, world.address, hers[1], 1, until, 1 << 11, FAR), rich),
        ground.sign(Unlock(rich.address, world.address, hers[0], 1, FAR), world),
        ground.transfer(person("stranger").address, by=rich, nonce=1 << 12, id_=hers[2]),
    ]
    service.accept(*intents)
    service.run()
    assert service.states(*intents) == ["settled"] * len(intents)
    # more than three that are each granted what the swap may take pass a transaction's limit
    assert len({service.queue.status(intent.id).transaction for intent in intents}) == 2


def test_those_that_fail_are_told_apart_by_their_place(ground, service):
    """In a mixed batch the failing ones fail, each with its own reason; their neighbours settle."""
    until = ground.chain.head().timestamp
    nonce, item = ground.nonces, ground.lantern
    intents = [
        ground.transfer(BOB.address),
        ground.sign(Lock(ALICE.address, CAROL.address, item, 1, until + 400 * 86_400, next(nonce), FAR), ALICE),
        ground.transfer(BOB.address, 10**9),
        ground.sign(Unlock(ALICE.address, ALONE.address, item, next(nonce), FAR), ALONE),
        ground.sign(BatchTransfer(ALICE.address, BOB.address, (item,), (1,), next(nonce), FAR), ALICE),
    ]
    service.accept(*intents)
    service.run()
    assert service.states(*intents) == ["settled", "failed", "failed", "failed", "settled"]
    reasons = [service.queue.status(intent.id).reason for intent in intents]
    assert "a lock must end in the future, by" in reasons[1]
    assert f"not the {10**9} wanted" in reasons[2]
    assert "has nothing of class" in reasons[3]


def test_a_swap_that_someone_else_submitted(ground, service):
    """Carried out by another relayer first: it fails here as replayed, and nothing moves twice."""
    ground.give_lanterns(BOB.address, 1)
    swap = of_every_kind(ground)[-1]
    before = ground.balance(BOB)
    service.accept(swap)
    with ground.anvil.mining():
        ground.chain.submit(ALICE, swap)
    service.run()
    assert service.queue.status(swap.id).refusal == "replayed"
    assert ground.balance(BOB) - before == 3


def test_a_reorganisation_brings_every_kind_back(ground, service):
    """A mixed batch whose block is gone is carried out again, once."""
    intents = of_every_kind(ground)
    before = ground.balance(BOB)
    service.accept(*intents)
    ground.anvil.mine(2)
    service.run()
    ground.anvil.reorg(2)
    service.run()
    assert service.states(*intents) == ["settled"] * 6
    assert ground.balance(BOB) - before == 11
