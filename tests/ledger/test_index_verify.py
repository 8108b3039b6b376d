"""An index of the real contract held against the contract, and an index that was tampered with."""

import random
from collections.abc import Iterator

import pytest

from bench.index_chain import ModelChain
from bench.index_deeds import TOPICS
from p2pos.errors import ChainError, UserError
from p2pos.ledger import calldata
from p2pos.ledger.index import Index
from p2pos.ledger.index_decode import _EVENTS
from p2pos.ledger.index_store import SqliteStore
from p2pos.ledger.index_verify import verify
from p2pos.ledger.indexer import Indexer
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.terms import Policy, Terms
from p2pos.ledger.typed_data import BatchTransfer, Item, Lock, Signable, Spend, Swap, Transfer, Unlock
from tests.ledger.chains import ALICE, BOB, CAROL, COIN, FAR, OPERATOR, Ground, running_ground

A, B, W = ALICE.address, BOB.address, CAROL.address
DYNAMIC = ("TransferBatch", "IntentFailed", "CallFailed", "URI")
"""Events whose data is as long as what they tell of."""
SIGNERS = {A: ALICE, B: BOB, W: CAROL}


def signed(ground: Ground, struct: Signable) -> SignedIntent:
    domain = ground.chain.domain
    return SignedIntent.of(domain, struct, *[SIGNERS[who].sign_typed(domain, struct) for who, _ in struct.signers])


def everything(ground: Ground) -> None:
    """Each deed that the contract knows, some left standing."""
    chain, n, lantern = ground.chain, ground.nonces, ground.lantern
    for who in (B, W):
        ground.anvil.rpc.call("anvil_setBalance", who, hex(10 * COIN))
    salts = iter(range(1, 100))

    def make(terms: Terms) -> int:
        return chain.create_class(OPERATOR, next(salts).to_bytes(32, "big"), terms, b"\x01" * 32)

    coin = make(Terms(0, policy=Policy.ISSUER))
    medal = make(Terms(9, soulbound=True, policy=Policy.DELAYED, delay=3600, royalty_receiver=B, royalty_bps=250))
    quick = make(Terms(0, policy=Policy.DELAYED, delay=1))
    for who in (A, B):
        for item in (coin, lantern):
            chain.mint(OPERATOR, who, item, 1000)
    chain.mint(OPERATOR, A, medal, 3)
    chain.transact(ALICE, calldata.burn(medal, 1))
    chain.transact(OPERATOR, calldata.set_minter(coin, B, 50))
    chain.mint(BOB, W, coin, 20)
    chain.transact(OPERATOR, calldata.update_class(coin, b"\x02" * 32))
    chain.transact(OPERATOR, calldata.update_class(quick, b"\x03" * 32))
    chain.transact(OPERATOR, calldata.withdraw_update(quick))
    chain.transact(OPERATOR, calldata.update_class(quick, b"\x04" * 32))
    ground.anvil.rpc.call("evm_increaseTime", 5)
    ground.anvil.mine()
    chain.transact(ALICE, calldata.apply_update(quick))
    chain.transact(OPERATOR, calldata.update_class(medal, b"\x05" * 32))  # stays proposed
    soon = chain.head().timestamp + 7200
    for struct in (
        BatchTransfer(A, B, (lantern, coin), (2, 3), next(n), FAR),
        Lock(A, W, lantern, 4, soon, next(n), FAR),
        Lock(A, B, lantern, 2, soon, next(n), FAR),
        Unlock(A, W, lantern, next(n), FAR),
        Spend(A, W, coin, 50, (1 << 64) - 1, next(n), FAR),
        Spend(B, W, coin, 5, soon, next(n), FAR),
        Swap(A, B, (Item(lantern, 1),), (Item(coin, 20), Item(lantern, 3)), next(n), next(n), FAR),
        Swap(A, B, (), (Item(coin, 1),), next(n), next(n), FAR),
    ):
        chain.submit(OPERATOR, signed(ground, struct))
    chain.transact(CAROL, calldata.spend(A, coin, 3, B))
    chain.transact(CAROL, calldata.spend(A, coin, 4, "0x" + "0" * 40))
    chain.transact(BOB, calldata.revoke_spend(W, coin))
    chain.cancel(ALICE, next(n))
    good, bad = Transfer(A, B, coin, 7, next(n), FAR), Transfer(A, B, coin, 10**9, next(n), FAR)
    chain.relay(OPERATOR, [signed(ground, good), signed(ground, bad)])
    calls = [calldata.submit(signed(ground, one)) for one in (Transfer(A, B, coin, 7, next(n), FAR), bad)]
    chain.transact(OPERATOR, calldata.relay_calls(calls, 200_000), gas=3_000_000)
    chain.transact(ALICE, calldata._function("setApprovalForAll", "address", "bool")(B, True))


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with running_ground() as made, made.anvil.mining():
        everything(made)
        yield made


@pytest.fixture
def index(ground, tmp_path) -> Iterator[Index]:
    made = Index(SqliteStore(tmp_path / "index.sqlite"))
    Indexer(made, ground.chain).sync()
    yield made
    made.close()


def test_the_contract_agrees(ground, index):
    """All that the real contract holds after each kind of deed is what the index made of its events."""
    report = verify(index, ground.chain, nonces=True)
    assert (report.wrong, report.differences) == (0, [])
    kinds = (
        "balances",
        "locked",
        "locks",
        "allowances",
        "approvals",
        "minters",
        "classes",
        "updates",
        "supplies",
        "nonces",
    )
    assert all(report.checked[kind] for kind in kinds), report.checked


def test_history_of_the_real_contract(ground, index):
    """Each deed is one line, a swap with both of its sides, a spend with the world that spent."""
    every = index.history(most=1000)
    kinds = {one.kind for one in every}
    assert kinds >= {"class", "made", "moved", "burned", "spent", "swapped", "locked", "released", "allowed", "revoked"}
    assert kinds >= {"minter", "proposed", "withdrawn", "updated", "cancelled", "failed", "call failed", "approved"}
    swap = next(one for one in every if one.kind == "swapped" and one.first_gives)
    assert (swap.one, swap.other, swap.first_gives) == (A, B, ((ground.lantern, 1),))
    assert sorted(amount for _, amount in swap.second_gives) == [3, 20]
    spent = [one for one in every if one.kind == "spent"]
    assert [(one.one, one.operator, one.amount) for one in spent] == [(A, W, 4), (A, W, 3)]
    assert all(one.timestamp == ground.chain.headers([one.block])[0].timestamp for one in every[:5])


def test_the_model_makes_the_same_logs(ground):
    """The logs of the chain in memory have as many topics, and as many words, as those of the real contract."""
    names = {topic: name for name, topic in TOPICS.items()}
    model = ModelChain(random.Random(1))
    for _ in range(300):
        model.mine(1, lambda work: work.any())

    def forms(logs):
        found = {}
        for log in logs:
            name = names[log["topics"][0]]
            words = "any" if name in DYNAMIC else len(log["data"][2:]) // 64
            found.setdefault(name, set()).add((len(log["topics"]), words))
        return found

    real = forms(ground.chain.raw_logs(0, ground.chain.block_number()))
    assert set(real) == set(TOPICS)
    assert {name.partition("(")[0] for name in _EVENTS} == set(TOPICS) - {"URI"}
    made = forms(model.raw_logs(0, model.head.number))
    assert made == {name: real[name] for name in made}
    assert len(made) > len(TOPICS) // 2


@pytest.mark.parametrize(
    ("tampering", "what"),
    [
        ("UPDATE balances SET amount = '7' WHERE item = (SELECT min(item) FROM balances)", "balanceOf"),
        ("DELETE FROM balances WHERE account = (SELECT max(account) FROM balances)", "totalSupply"),
        ("UPDATE locks SET amount = '1'", "lockOf"),
        ("DELETE FROM locks", "lockedOf"),
        ("UPDATE allowances SET remaining = '1'", "spendAllowance"),
        ("UPDATE minters SET allowance = '1'", "mintAllowance"),
        ("UPDATE descriptors SET version = 9", "classOf"),
        ("UPDATE descriptors SET pending_from = '9' WHERE pending IS NOT NULL", "pendingUpdateOf"),
        ("UPDATE supplies SET burned = '9'", "classOf"),
        ("UPDATE classes SET cap = '77'", "classOf"),
    ],
)
def test_tampering_is_named(ground, index, tampering, what):
    """Whatever is changed in the index, verification says which cell, what the index has and what the contract."""
    index.store.run(tampering)
    report = verify(index, ground.chain)
    assert report.wrong > 0
    assert what in {one.what.partition("(")[0] for one in report.differences}
    assert all(one.by_index != one.by_chain for one in report.differences)


def test_at_an_older_block(ground, index):
    """The index can be held against the contract as it was, block by block, as far back as it can undo."""
    newest = index.newest().number
    for block in range(index.lowest_undo(), newest, 4):
        assert verify(index, ground.chain, block=block, nonces=True).wrong == 0
    with pytest.raises(UserError, match="can be verified at blocks"):
        verify(index, ground.chain, block=newest + 1)


def test_another_chain(ground, index):
    """An index of blocks that the chain does not have is not compared with it."""
    index.store.run("UPDATE blocks SET hash = ?", (bytes(32),))
    with pytest.raises(ChainError, match="another block"):
        verify(index, ground.chain)


def test_nothing_read_yet(ground, tmp_path):
    """An empty index says what to do."""
    empty = Index(SqliteStore(tmp_path / "empty.sqlite"))
    with pytest.raises(UserError, match="read nothing yet"):
        verify(empty, ground.chain)
    empty.close()
