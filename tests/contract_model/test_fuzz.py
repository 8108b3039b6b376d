"""The contract does what its documentation says, call by call, whatever is called."""

import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from p2pos.ledger.contracts import artifact
from tests.contract_model.abi import selector
from tests.contract_model.calls import CALLS
from tests.contract_model.fuzz import Tally, run
from tests.contract_model.pair import Build

SEEDS = range(4)
PER_SEED = 50_000
SOAK_OPERATIONS = int(os.environ.get("CONTRACT_FUZZ_OPERATIONS", "10000000"))
PER_TASK = 50_000

UNREACHABLE = {
    # of OpenZeppelin's interfaces and libraries; see docs/contract.md
    "ERC1155InvalidApprover",
    "ERC1155InvalidSender",
    "InvalidShortString",
    "StringTooLong",
    "StringsInsufficientHexLength",
}


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    """What all runs of this module did."""
    return Tally()


@pytest.mark.parametrize("seed", SEEDS)
def test_contract_and_model_agree(tally: Tally, seed: int) -> None:
    """Of 50,000 random calls, each has the outcome, value and events that the model foretells, and so has the state."""
    tally.add(run(Build(artifact().bytecode), seed, PER_SEED))
    assert tally.operations >= (seed + 1) * PER_SEED


def test_runs_reach_everything(tally: Tally) -> None:
    """The runs before saw every function take effect and be refused, and every error that there is."""
    assert set(tally.taken) == set(CALLS)
    assert set(tally.refused) == {*CALLS, ""} - {"revokeSpend"}
    seen = set(tally.errors)
    errors = [entry for entry in artifact().abi if entry["type"] == "error"]
    selectors = {
        entry["name"]: selector(f"{entry['name']}({','.join(one['type'] for one in entry['inputs'])})")
        for entry in errors
    }
    assert {name for name, head in selectors.items() if head not in seen} == UNREACHABLE
    assert tally.members > tally.operations / 10
    assert tally.starved > 100


@pytest.mark.soak
def test_contract_and_model_agree_for_long() -> None:
    """The same for ten million calls, other ones each time (CONTRACT_FUZZ_OPERATIONS says how many)."""
    base = secrets.randbits(64) << 32
    tasks = [base + number for number in range(-(-SOAK_OPERATIONS // PER_TASK))]
    total = Tally()
    with ProcessPoolExecutor() as pool:
        for tally in pool.map(run, [Build(artifact().bytecode)] * len(tasks), tasks, [PER_TASK] * len(tasks)):
            total.add(tally)
    assert total.operations >= SOAK_OPERATIONS
