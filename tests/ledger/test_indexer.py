import itertools
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from p2pos.errors import ChainError, UserError
from p2pos.ledger import indexer as module
from p2pos.ledger.chain import Chain
from p2pos.ledger.index import Index
from p2pos.ledger.indexer import Indexer
from p2pos.ledger.rpc import RpcError
from tests.ledger.chains import ALICE, BOB, CAROL, OPERATOR, Ground, running_ground


class Shelf:
    """An index and its indexer."""

    def __init__(self, ground: Ground, path) -> None:
        self.path = path
        self.index = Index(path)
        self.indexer = Indexer(self.index, ground.chain)

    def content(self):
        """All that a fresh index of the same chain must have as well."""
        holdings = {one.address: self.index.holdings(one.address) for one in (ALICE, BOB, CAROL, OPERATOR)}
        return holdings, self.index.classes(), self.index.history(most=10_000)


@pytest.fixture
def shelf(ground, tmp_path) -> Iterator[Shelf]:
    made = Shelf(ground, tmp_path / "index.sqlite")
    yield made
    made.index.close()


def test_what_happened_is_told(ground, shelf):
    """Minting, moving and cancelling appear in the history, and the holdings are the chain's."""
    ground.give_lanterns(ALICE.address, 3)
    intent = ground.transfer(BOB.address, 2)
    with ground.anvil.mining():
        ground.chain.submit(OPERATOR, intent)
        ground.chain.cancel(ALICE, 77)
    block, held = shelf.indexer.checked_holdings(ALICE.address)
    assert block == ground.chain.block_number()
    assert held == {ground.lantern: 1}
    lines = [
        (one.kind, one.one, one.other, one.nonce or one.amount) for one in shelf.index.history(account=ALICE.address)
    ]
    assert lines[:3] == [
        ("cancelled", ALICE.address, "", 77),
        ("moved", ALICE.address, BOB.address, 2),
        ("made", "0x" + "0" * 40, ALICE.address, 3),
    ]
    assert shelf.index.holders(ground.lantern) == {ALICE.address: 1, BOB.address: 2}
    assert [one.id for one in shelf.index.classes()] == [ground.lantern]


def test_it_reads_on_where_it_stopped(ground, shelf, tmp_path):
    """An index that is opened again reads only what is new."""
    shelf.indexer.sync()
    shelf.index.close()
    again = Shelf(ground, shelf.path)
    before = again.index.newest().number
    ground.give_lanterns(CAROL.address, 1)
    assert again.indexer.sync() > before
    assert again.index.holdings(CAROL.address) == {ground.lantern: ground.balance(CAROL)}
    again.index.close()


def test_a_reorganisation_is_undone(ground, shelf):
    """What a reorganisation took away leaves the index too."""
    ground.give_lanterns(CAROL.address, 5)
    ground.anvil.mine(3)
    _, before = shelf.indexer.checked_holdings(CAROL.address)
    ground.give_lanterns(CAROL.address, 7)
    shelf.indexer.sync()
    ground.anvil.reorg(2)
    _, after = shelf.indexer.checked_holdings(CAROL.address)
    assert after == before


def test_random_histories_with_reorganisations(tmp_path):
    """After any sequence of mints, transfers, reorganisations and kills, the index equals one made afresh."""
    rng = random.Random(5)
    with running_ground() as ground:
        shelf = Shelf(ground, tmp_path / "index.sqlite")
        done: Counter[str] = Counter()
        for _ in range(40):
            deed = rng.choice(["mint", "move", "idle", "reorg", "reopen", "sync"])
            done[deed] += 1
            if deed == "mint":
                ground.give_lanterns(rng.choice([ALICE, BOB]).address, rng.randint(1, 9))
            elif deed == "move" and ground.balance(ALICE):
                intent = ground.transfer(BOB.address, rng.randint(1, ground.balance(ALICE)))
                with ground.anvil.mining():
                    ground.chain.submit(OPERATOR, intent)
            elif deed == "idle":
                ground.anvil.mine(rng.randint(1, 3))
            elif deed == "reorg":
                depth = rng.randint(1, 4)
                if ground.chain.block_number() - depth > ground.chain.first_block() + 1:
                    ground.anvil.reorg(depth)
            elif deed == "reopen":
                shelf.index.close()
                shelf = Shelf(ground, shelf.path)
            else:
                shelf.indexer.sync()
        shelf.indexer.sync()
        fresh = Shelf(ground, tmp_path / "fresh.sqlite")
        fresh.indexer.sync()
        assert shelf.content() == fresh.content()
        for one in (ALICE, BOB):
            shelf.indexer.checked_holdings(one.address)
        assert set(done) == {"mint", "move", "idle", "reorg", "reopen", "sync"}


def test_another_chain_altogether(ground, shelf):
    """Where no block is shared any more, the index is made again from nothing."""
    ground.give_lanterns(ALICE.address, 1)
    shelf.indexer.sync()
    before = shelf.content()
    shelf.index.store.run("UPDATE blocks SET hash = ?", (bytes(32),))
    shelf.indexer.sync()
    assert shelf.content() == before


def test_an_index_that_lies_is_caught(ground, shelf):
    """A balance that the chain doesn't confirm is never shown."""
    ground.give_lanterns(ALICE.address, 1)
    shelf.indexer.sync()
    shelf.index.store.run("UPDATE balances SET amount = '999'")
    with pytest.raises(ChainError, match="the index says"):
        shelf.indexer.checked_holdings(ALICE.address)
    with pytest.raises(ChainError, match="it is made again"):
        shelf.indexer.checked_holders(ground.lantern)


def test_an_end_point_with_a_small_range(ground, shelf, monkeypatch):
    """Where an end point refuses a range of blocks, smaller ones are asked for."""
    ground.anvil.mine(10)
    real, spans = Chain.raw_logs, []

    def few(self, first, last):
        if last - first >= 2:
            raise RpcError("query returned more than the allowed range")
        spans.append((first, last))
        return real(self, first, last)

    monkeypatch.setattr(Chain, "raw_logs", few)
    monkeypatch.setattr(module, "FIRST_SPAN", 8)
    head = Shelf(ground, shelf.path).indexer.sync()
    assert spans[-1][1] == head
    assert all(after[0] == before[1] + 1 for before, after in itertools.pairwise(spans))


def test_two_readers_of_one_file(ground, shelf):
    """A second process on the same file takes nothing in twice."""
    ground.give_lanterns(ALICE.address, 1)
    other = Shelf(ground, shelf.path)
    take, outcomes = other.index.take, []

    def late(chunk):
        if not outcomes:
            shelf.indexer.sync()
        outcomes.append(take(chunk))
        return outcomes[-1]

    other.index.take = late
    other.indexer.checked_holdings(ALICE.address)
    assert outcomes == [False]
    assert other.content() == shelf.content()
    other.index.close()


def test_a_file_that_is_no_index(tmp_path):
    """A file of another kind is refused with what to do."""
    path = tmp_path / "index.sqlite"
    path.write_text("hello, this is no database at all" * 100)
    with pytest.raises(UserError, match="is not an index"):
        Index(path)
