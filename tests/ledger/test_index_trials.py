"""The index under random reorganisations and kills: against a model, a process that dies, and a real chain."""

import os
import random

import pytest

from bench.index_chain import ModelChain
from bench.index_trial import Killed, Life, Outcome, held, kill_at, run_trials
from p2pos.ledger.index import Index
from p2pos.ledger.indexer import Indexer
from tests.ledger.chains import ALICE, BOB, CAROL, OPERATOR, running_ground

TRIALS = 2000
SOAK_TRIALS = 10_000
DEATHS = 40
"""Processes that die: a fork each, 20 ms."""
REAL_TRIALS = 12
"""On anvil, where a block takes a transaction to be made: 0.3 s each."""


def sound(outcome: Outcome, trials: int) -> None:
    assert not outcome.wrong, "\n".join(outcome.wrong[:20])
    assert outcome.done["trials"] == trials
    assert outcome.done["kills"] > trials // 4
    assert outcome.done["reorganisations"] > trials // 2
    assert outcome.done["changes in mid-sync"] > trials // 20


def test_two_thousand_reorganisations_and_kills(tmp_path):
    """After any of 2,000 random reorganisations and kills the index holds what is true, and nothing else."""
    outcome = run_trials(TRIALS, 1, tmp_path)
    sound(outcome, TRIALS)
    assert outcome.deepest >= 900


@pytest.mark.soak
def test_ten_thousand_reorganisations_and_kills(tmp_path):
    """The same, 10,000 times, others in every run."""
    seed = random.SystemRandom().getrandbits(32)  # a failure's lines begin with it
    sound(run_trials(SOAK_TRIALS, seed, tmp_path), SOAK_TRIALS)


def test_a_process_that_dies_at_any_step(tmp_path):
    """A process that ends without a word in the middle of a sync leaves an index that is whole and goes on."""
    rng = random.Random(9)
    chain = ModelChain(rng)
    died = 0
    for _ in range(DEATHS):
        chain.take_back(rng.randrange(8))
        chain.mine(rng.randint(8, 20), lambda work: [work.any() for _ in range(rng.randrange(4))])
        moment = rng.randint(1, 300)
        if not (child := os.fork()):
            index = Index(tmp_path / "index.sqlite")
            with kill_at(index.store, moment, lambda: os._exit(9)):
                Indexer(index, chain).sync()
            os._exit(0)
        died += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        index = Index(tmp_path / "index.sqlite")
        newest = index.newest()
        if newest is not None and chain.blocks[newest.number].hash == newest.hash:
            assert held(index) == chain.blocks[newest.number].truth
        Indexer(index, chain).sync()
        assert held(index) == chain.head.truth
        index.close()
    assert died > DEATHS // 3


def test_a_real_chain(tmp_path):
    """On anvil: mints, transfers and its own reorganisations, with kills in between; each time as if read afresh."""
    rng = random.Random(5)
    with running_ground() as ground:
        life = Life(random.Random(1), tmp_path / "life", Outcome())  # for its index alone
        people = (ALICE, BOB, CAROL, OPERATOR)
        killed = 0
        for trial in range(REAL_TRIALS):
            ground.give_lanterns(rng.choice([ALICE, BOB]).address, rng.randint(1, 9))
            if held_now := ground.balance(ALICE):
                intent = ground.transfer(BOB.address, rng.randint(1, held_now))
                with ground.anvil.mining():
                    ground.chain.submit(OPERATOR, intent)
            life.chain = ground.chain
            happened = _sync_or_die(life, rng)
            killed += happened
            depth = rng.randint(1, 4)
            if ground.chain.block_number() - depth > ground.chain.first_block() + 1:
                ground.anvil.reorg(depth)
            Indexer(life.index, ground.chain).sync()
            fresh = Index(tmp_path / f"{trial}.sqlite")
            Indexer(fresh, ground.chain).sync()
            assert held(fresh) == held(life.index)
            assert fresh.history(most=10_000) == life.index.history(most=10_000)
            fresh.close()
            for one in people[:2]:
                Indexer(life.index, ground.chain).checked_holdings(one.address)
        assert killed
        life.end()


def _sync_or_die(life: Life, rng: random.Random) -> bool:
    try:
        life._sync(killed=True)
    except Killed:
        life._reopen()
        return True
    return False
