"""Every kind of intent against the real contract."""

from collections.abc import Iterator

import pytest

from p2pos.ledger import calldata
from p2pos.ledger.events import CallFailed, Moved, Spent, Swapped
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.records import MistakeError
from p2pos.ledger.settlement import Outcome
from p2pos.ledger.terms import Policy, Terms
from p2pos.ledger.typed_data import BatchTransfer, Domain, Item, Lock, Signable, Spend, Swap, Transfer, Unlock, digest
from tests.ledger.chains import ALICE, BOB, CAROL, FAR, OPERATOR, Ground, running_ground
from tests.ledger.structs import SAMPLES

A, B, W = ALICE.address, BOB.address, CAROL.address
SIGNERS = {A: ALICE, B: BOB, W: CAROL}


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with running_ground() as made, made.anvil.mining():
        yield made


@pytest.fixture
def coin(ground) -> int:
    """A second class, of which alice and bob have a thousand each."""
    id_ = ground.chain.create_class(OPERATOR, next(ground.nonces).to_bytes(32, "big"), Terms(0), bytes(32))
    for who in (A, B):
        ground.chain.mint(OPERATOR, who, id_, 1000)
        ground.chain.mint(OPERATOR, who, ground.lantern, 1000)
    return id_


def signed(ground: Ground, struct: Signable) -> SignedIntent:
    domain = ground.chain.domain
    return SignedIntent.of(domain, struct, *[SIGNERS[who].sign_typed(domain, struct) for who, _ in struct.signers])


def soon(ground: Ground) -> int:
    return ground.chain.head().timestamp + 3600


def kinds(ground: Ground, coin: int) -> list[Signable]:
    """One of each, in an order in which each can be carried out."""
    n, lantern = ground.nonces, ground.lantern
    return [
        Transfer(A, B, lantern, 1, next(n), FAR),
        BatchTransfer(A, B, (lantern, coin), (2, 3), next(n), FAR),
        BatchTransfer(A, B, (coin,), (1,), next(n), FAR),
        Lock(A, W, lantern, 4, soon(ground), next(n), FAR),
        Unlock(A, W, lantern, next(n), FAR),
        Spend(A, W, coin, 5, soon(ground), next(n), FAR),
        Spend(A, W, coin, 0, 77, next(n), FAR),
        Swap(A, B, (Item(lantern, 1),), (Item(coin, 20), Item(lantern, 3)), next(n), next(n), FAR),
        Swap(A, B, (Item(lantern, 1), Item(coin, 1)), (), next(n), next(n), FAR),
        Swap(A, B, (), (Item(coin, 1),), next(n), next(n), FAR),
    ]


@pytest.mark.parametrize("struct", SAMPLES, ids=lambda one: type(one).__name__)
def test_the_contract_hashes_as_we_do(ground, struct):
    """The digest that is signed is the one that the contract works out."""
    domain = ground.chain.domain
    found = ground.chain._view(f"hash{type(struct).__name__}", struct.arguments())
    assert found == digest(domain, struct) != digest(Domain(1, domain.contract), struct)


def test_each_is_carried_out_alone(ground, coin):
    """Each kind takes effect in a transaction of its own, and its events prove that it did."""
    for struct in kinds(ground, coin):
        (found,) = ground.chain.preflight([signed(ground, struct)], OPERATOR.address)
        assert found == (frozenset(), None), struct
        receipt = ground.chain.submit(OPERATOR, signed(ground, struct))
        assert Outcome(receipt.events).took_effect(struct), struct


def test_all_are_carried_out_together(ground, coin):
    """All kinds travel in one `relayCalls`; what fails in it is told by its position and changes nothing."""
    structs = kinds(ground, coin)
    bad = Transfer(A, B, ground.lantern, 10**9, next(ground.nonces), FAR)
    structs.insert(3, bad)
    calls = [calldata.submit(signed(ground, one)) for one in structs]
    data = calldata.relay_calls([*calls, b"\x01\x02\x03\x04"], 200_000)
    receipt = ground.chain.transact(OPERATOR, data, gas=15_000_000)
    for at, struct in enumerate(structs):
        assert Outcome(receipt.events).took_effect(struct) == (struct is not bad), struct
        assert (Outcome(receipt.events).failure(struct, at) is None) == (struct is not bad)
    why = [ground.chain.reverts.read(one.reason).name for one in receipt.events if isinstance(one, CallFailed)]
    assert why == ["ERC1155InsufficientBalance", "NotRelayable"]


def test_what_a_swap_moves(ground, coin):
    """Both sides move in one call, told by `Swapped`; a second time it is refused."""
    before = ground.chain.balances([(A, coin), (B, coin), (A, ground.lantern), (B, ground.lantern)])
    struct = Swap(A, B, (Item(ground.lantern, 2),), (Item(coin, 30),), next(ground.nonces), next(ground.nonces), FAR)
    receipt = ground.chain.submit(OPERATOR, signed(ground, struct))
    assert [one[1:] for one in receipt.events if isinstance(one, Swapped)] == [
        (A, B, struct.first_nonce, struct.second_nonce)
    ]
    after = ground.chain.balances([(A, coin), (B, coin), (A, ground.lantern), (B, ground.lantern)])
    assert [new - old for old, new in zip(before, after, strict=True)] == [30, -30, -2, 2]
    with pytest.raises(MistakeError, match="already used"):
        ground.chain.submit(OPERATOR, signed(ground, struct))


def test_a_world_spends_what_it_was_allowed(ground, coin):
    """A world takes up to what was allowed, and no more."""
    ground.anvil.rpc.call("anvil_setBalance", W, hex(10**20))
    ground.chain.submit(OPERATOR, signed(ground, Spend(A, W, coin, 5, soon(ground), next(ground.nonces), FAR)))
    receipt = ground.chain.transact(CAROL, calldata.spend(A, coin, 3, B))
    spent, moved = [one for one in receipt.events if isinstance(one, Spent | Moved)]
    assert spent[1:] == (A, W, coin, 3, B)
    assert moved[3:] == (A, B, coin, 3)
    assert ground.chain.spend_allowance(A, coin, W)[0] == 2
    with pytest.raises(MistakeError, match="may take 2 of class"):
        ground.chain.transact(CAROL, calldata.spend(A, coin, 3, B))


def test_what_a_class_is(ground):
    """Terms, counts, versions and what is proposed read back as they were given."""
    chain = ground.chain
    terms = Terms(9, soulbound=True, policy=Policy.DELAYED, delay=60, royalty_receiver=B, royalty_bps=250)
    id_ = chain.create_class(OPERATOR, next(ground.nonces).to_bytes(32, "big"), terms, b"\x01" * 32)
    chain.mint(OPERATOR, A, id_, 5)
    chain.transact(ALICE, calldata.burn(id_, 2))
    chain.transact(OPERATOR, calldata.update_class(id_, b"\x02" * 32))
    found = chain.item_class(id_)
    assert found[:6] == (OPERATOR.address, 9, 5, 2, b"\x01" * 32, 1)
    assert found[6:] == (True, Policy.DELAYED, 60, B, 250)
    assert found.supply == 3
    pending, due = chain.pending_update(id_)
    assert (pending, due > chain.head().timestamp) == (b"\x02" * 32, True)
    assert chain.pending_update(ground.lantern) == (b"", 0)
    with pytest.raises(MistakeError, match="never changes hands"):
        chain.transfer(ALICE, B, id_, 1)
