"""The index over both of its stores, fed by a chain in memory."""

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.index_chain import ModelChain
from bench.index_deeds import TOPICS
from bench.index_trial import held
from p2pos.errors import ChainError, InternalError, UnavailableError, UserError
from p2pos.ledger.index import UNDO_BLOCKS, Index
from p2pos.ledger.index_decode import MAX_ITEMS
from p2pos.ledger.index_open import open_index
from p2pos.ledger.index_postgres import PostgresStore
from p2pos.ledger.index_store import SqliteStore
from p2pos.ledger.indexer import Indexer
from p2pos.ledger.typed_data import Domain
from p2pos.types import Address
from tests.ledger.postgres import running_postgres

CONTRACT = Address("0x5FbDB2315678afecb367f032d93F642f64180aa3")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgres() as url:
        yield url


class Follower:
    """A chain with an index that can be let go of and opened again, as by another process."""

    def __init__(self, seed: int, store) -> None:
        self.rng = random.Random(seed)
        self.chain = ModelChain(self.rng)
        self._store = store
        self.index = Index(store())

    def grow(self, blocks: int, deeds: int = 3) -> None:
        self.chain.mine(blocks, lambda work: [work.any() for _ in range(self.rng.randint(0, deeds))])

    def sync(self) -> int:
        return Indexer(self.index, self.chain).sync()

    def reopen(self) -> None:
        self.index.close()
        self.index = Index(self._store())

    def is_true(self) -> bool:
        return held(self.index) == self.chain.head.truth and self.index.newest().hash == self.chain.head.hash


@pytest.fixture(params=["sqlite", "postgres"])
def follower(request, tmp_path) -> Iterator[Follower]:
    if request.param == "sqlite":
        made = Follower(3, lambda: SqliteStore(tmp_path / "index.sqlite"))
    else:
        url, schema = request.getfixturevalue("server"), f"p2pos_{abs(hash(tmp_path))}"
        made = Follower(3, lambda: PostgresStore(url, schema))
    yield made
    made.index.close()


def test_a_cold_sync(follower):
    """All that the contract's events say of 1,500 blocks is there after one sync."""
    follower.grow(1500, 2)
    follower.sync()
    assert follower.is_true()


def test_reorganisations_of_any_depth(follower):
    """Blocks that are replaced are undone, 1 of them or 1,000, and deeper than that all is read again."""
    follower.grow(UNDO_BLOCKS + 200, 1)
    follower.sync()
    for depth in (1, 7, 100, 1000, UNDO_BLOCKS + 100):
        follower.chain.take_back(depth)
        follower.grow(depth + 1, 1)
        follower.sync()
        assert follower.is_true()


def test_random_lives(follower):
    """Growth, reorganisations and reopening in any order leave what is true."""
    for _ in range(40):
        deed = follower.rng.choice(["grow", "reorganise", "reopen"])
        if deed == "grow":
            follower.grow(follower.rng.randint(1, 20))
        elif deed == "reopen":
            follower.reopen()
        else:
            follower.chain.take_back(follower.rng.randint(1, 30))
            follower.grow(follower.rng.randint(0, 30))
        follower.sync()
        assert follower.is_true()


def test_a_failure_in_the_middle_of_a_write(follower, monkeypatch):
    """What fails before the commit leaves nothing behind, and the next sync goes on."""
    follower.grow(20)
    follower.sync()
    before = held(follower.index)
    follower.grow(5)
    for table in ("happenings", "mentions", "transactions", "blocks"):
        store = type(follower.index.store)
        real = store.append

        def append(self, into, columns, rows, *, real=real, table=table):
            real(self, into, columns, rows)
            if into == table:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(store, "append", append)
            with pytest.raises(KeyboardInterrupt):
                follower.sync()
        assert held(follower.index) == before
    follower.sync()
    assert follower.is_true()


def test_two_processes_at_once(follower):
    """Where another one has read the same blocks meanwhile, they are not taken in twice."""
    follower.grow(30)
    other = Index(follower._store())
    take, outcomes = other.take, []

    def late(chunk):
        if not outcomes:
            follower.sync()
        outcomes.append(take(chunk))
        return outcomes[-1]

    other.take = late
    Indexer(other, follower.chain).sync()
    assert outcomes == [False]
    assert held(other) == held(follower.index) == follower.chain.head.truth
    other.close()


def test_readers_see_one_moment(follower):
    """Within a snapshot another process's writing is not seen."""
    follower.grow(10)
    follower.sync()
    reader = Index(follower._store())
    with reader.snapshot():
        before = reader.newest(), held(reader)
        follower.grow(10)
        follower.sync()
        assert (reader.newest(), held(reader)) == before
    assert held(reader) == follower.chain.head.truth
    reader.close()


def test_history_by_account_and_class(follower):
    """What an account and a class were in is what the whole history says of them, newest first.

    What an account made, or took as a world, is its own doing too.
    """

    def parties(one):
        return {one.one, one.other, *([one.operator] if one.kind in {"made", "spent"} else [])}

    follower.grow(300)
    follower.sync()
    every = follower.index.history(most=100_000)
    places = [(one.block, one.log, one.position) for one in every]
    assert places == sorted(places, reverse=True)
    for account in map(Address, {one.one for one in every if one.one.strip("0x")}):
        mine = [one for one in every if account in parties(one)]
        assert follower.index.history(account=account, most=100_000) == mine
        assert follower.index.history(account=account, most=3) == mine[:3]
    for known in follower.index.classes():
        sides = [one for one in every if known.id in {one.id, *(id_ for side in one.sides for id_, _ in side)}]
        assert follower.index.history(id_=known.id, most=100_000) == sides
        issuer = [one for one in sides if known.issuer in parties(one)]
        assert follower.index.history(account=known.issuer, id_=known.id, most=100_000) == issuer
    assert {"swapped", "spent", "locked", "updated", "made", "class"} <= {one.kind for one in every}


def test_a_lagging_end_point(follower):
    """An end point a few blocks behind is followed back; one far behind is refused, and nothing is lost."""
    follower.grow(UNDO_BLOCKS + 300, 1)
    follower.sync()
    follower.chain.lag = 5
    assert follower.sync() == follower.chain.head.number
    assert follower.is_true()
    follower.chain.lag = UNDO_BLOCKS + 50
    with pytest.raises(UnavailableError, match="was read before"):
        follower.sync()
    follower.chain.lag = 0
    follower.sync()
    assert follower.is_true()


def test_logs_of_a_node_that_lags(follower):
    """Where logs come from a node behind the one that gave the headers, it is noticed that some lack."""
    follower.grow(40, 9)
    real, asked = follower.chain.raw_logs, []

    def behind(first, last):
        asked.append((first, last))
        return real(first, min(last, 30) if len(asked) < 5 else last)

    follower.chain.raw_logs = behind
    follower.sync()
    assert len(asked) > 4
    assert follower.is_true()


def test_a_chain_that_changes_between_headers_and_logs(follower):
    """Logs of another chain than the headers', even where they are none, are not taken in."""
    follower.grow(3, 9)
    old, real = follower.chain.head, follower.chain.raw_logs

    def change(first, last):
        follower.chain.raw_logs = real
        follower.chain.take_back(2)
        follower.chain.mine(2)
        return real(first, last)

    follower.chain.raw_logs = change
    follower.sync()
    assert old.truth != follower.chain.head.truth
    assert follower.is_true()


HOSTILE = {
    "another contract's": lambda log: {**log, "address": "0x" + "11" * 20},
    "a block that was not asked for": lambda log: {**log, "blockNumber": "0x7fffffff"},
    "no block": lambda log: {key: value for key, value in log.items() if key != "blockNumber"},
    "an odd hash": lambda log: {**log, "blockHash": "0x12"},
    "short data": lambda log: {**log, "data": log["data"][:-2]},
    "a signed amount": lambda log: {**log, "data": log["data"][:66] + "-" + "0" * 62 + "5"},
    "an odd address": lambda log: {**log, "topics": [*log["topics"][:3], "0x" + "ff" * 32]},
    "no text": lambda log: {**log, "data": 7},
    "an index without end": lambda log: {**log, "logIndex": hex(1 << 70)},
    "topics missing": lambda log: {**log, "topics": log["topics"][:2]},
    "none at all": lambda _: "log",
    "more than there is": lambda log: {**log, "data": log["data"][:66] + "f" * 64},
    "a class without a maker": lambda log: {**log, "topics": [UPDATED, *log["topics"][1:3]], "data": "0x" + "00" * 64},
    "an array without end": lambda log: {
        **log,
        "topics": [BATCH, *log["topics"][1:]],
        "data": "0x" + f"{64:064x}{64:064x}{MAX_ITEMS + 1:064x}" + "00" * 32 * (MAX_ITEMS + 1),
    },
}
UPDATED, BATCH = TOPICS["ClassUpdated"], TOPICS["TransferBatch"]


@pytest.mark.parametrize("how", HOSTILE)
def test_a_log_that_can_not_be(how, tmp_path):
    """An end point that makes a log up is told of in one line, and what was known stays."""
    follower = Follower(4, lambda: SqliteStore(tmp_path / "index.sqlite"))
    follower.grow(10, 5)
    follower.sync()
    before = held(follower.index)
    follower.chain.mine(1, lambda work: work.relayed(2))
    real = follower.chain.raw_logs

    def lie(first, last):
        logs = list(real(first, last))
        moves = [at for at, log in enumerate(logs) if len(log["topics"]) == 4]
        logs[moves[-1]] = HOSTILE[how](logs[moves[-1]])
        return logs

    follower.chain.raw_logs = lie
    with pytest.raises(ChainError) as caught:
        follower.sync()
    assert "\n" not in str(caught.value)
    assert held(follower.index) == before
    follower.chain.raw_logs = real
    follower.sync()
    assert follower.is_true()
    follower.index.close()


def test_following(tmp_path):
    """It keeps in step until it is told to stop, goes on after trouble, and stops at once."""
    follower = Follower(5, lambda: SqliteStore(tmp_path / "index.sqlite"))
    follower.grow(5)
    stop, seen, troubles = threading.Event(), [], []
    real = follower.chain.newest

    def fail():
        follower.chain.newest = real
        raise UnavailableError("the chain is away")

    def on_block(number):
        seen.append(number)
        if len(seen) == 3:
            stop.set()
        elif len(seen) == 2:
            follower.chain.newest = fail
        follower.grow(2)

    Indexer(follower.index, follower.chain).follow(stop, on_block=on_block, on_trouble=troubles.append, poll_s=0.001)
    assert seen == [5, 7, 9]
    assert [str(one) for one in troubles] == ["the chain is away"]
    follower.index.close()


def test_a_block_too_old_to_go_back_to(tmp_path):
    """The index never pretends to undo what it kept nothing of."""
    follower = Follower(6, lambda: SqliteStore(tmp_path / "index.sqlite"))
    follower.grow(UNDO_BLOCKS + 50, 1)
    follower.sync()
    assert follower.index.lowest_undo() == 51
    old = follower.index.blocks(below=49, most=1)[0]
    with pytest.raises(InternalError, match="can't be undone"):
        follower.index.roll_back(old)
    assert follower.is_true()
    follower.index.close()


def test_a_url_with_a_secret(server, capsys):
    """No error about a database has the password in it."""
    domain = Domain(1, CONTRACT)
    secret = "a%20secret%3Aof%2Ftests"
    wrong = server.replace(secret, "hidden-word")
    for url in (wrong, wrong.replace("hidden-word", "hidden-word%ss"), "postgresql://u:hidden-word@127.0.0.1:1/x"):
        with pytest.raises((UserError, UnavailableError)) as caught:
            open_index(Path("/nowhere"), domain, url)
        told = f"{caught.value} {caught.value.as_dict()} {caught.value.__cause__ or ''}"
        assert "hidden-word" not in told
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="not one of PostgreSQL"):
        open_index(Path("/nowhere"), domain, "mysql://u:hidden-word@h/x")
    index = open_index(Path("/nowhere"), domain, server)
    assert secret not in index.where
    assert "secret" not in index.where
    index.close()


def test_without_psycopg(monkeypatch, tmp_path):
    """Where psycopg is missing, one line says what to install."""
    import sys

    monkeypatch.delitem(sys.modules, "p2pos.ledger.index_postgres", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UserError, match=r"pip install 'p2pos\[postgres\]'"):
        open_index(tmp_path, Domain(1, CONTRACT), "postgresql://localhost/x")


def test_a_connection_that_is_lost(server):
    """A connection that the server ended is told of, made again, and nothing is doubled."""
    follower = Follower(8, lambda: PostgresStore(server, "p2pos_lost"))
    follower.grow(10)
    follower.sync()
    killer = PostgresStore(server, "p2pos_killer")
    killer.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
    )
    follower.grow(10)
    with pytest.raises(UnavailableError, match="can't be used"):
        follower.sync()
    follower.sync()
    assert follower.is_true()
    killer.close()
    follower.index.close()
