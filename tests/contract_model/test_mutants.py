"""The comparison with the model notices every rule that the contract lacks."""

import importlib.util
import re
import secrets
from functools import cache
from pathlib import Path

import pytest

from tests.contract_model.fuzz import run
from tests.contract_model.invariants import BrokenError
from tests.contract_model.mutants import Mutant, with_mutants
from tests.contract_model.pair import Build, DiffersError

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "contracts" / "src"
PATIENCE = 20_000
"""Calls within which a mutant has to show; most do within a hundred."""
SOAK_ROUNDS = 5

SAME = {
    # mutants that nothing can tell from the contract, and why
    "Assets.sol `to.code.length == 0` left out": "who asks receivers asks none without code either",
    "Assets.sol `gasleft() < needed` <= instead": "differs at one amount of gas out of all that a sender may give",
    "Classes.sol `royalty` always": "writes a zero over a zero",
    "Worlds.sol `lockers == 0` never": "counts locks from the first on, which takes more gas and comes to the same",
    "Worlds.sol `account.lockers = lockers - ONE_LOCKER;` left out": "goes on counting, likewise",
    "Holdings.sol `to.code.length != 0` always": "who asks receivers asks none without code either",
    "Intents.sol `signer.code.length != 0` left out": "an account without code answers nothing, which is not yes",
}


@cache
def mutants() -> tuple[bytes, list[Mutant]]:
    """The contract with all mutants in it, and which these are but for those of SAME."""
    spec = importlib.util.spec_from_file_location("build_contracts", ROOT / "scripts" / "build_contracts.py")
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    sources = {f"src/{path.name}": path.read_text(encoding="utf-8") for path in sorted(SOURCES.glob("*.sol"))}
    rewritten, made = with_mutants(sources)
    built = builder.compile_contract(rewritten)
    return bytes.fromhex(built["bytecode"][2:]), [mutant for mutant in made if _name(mutant) not in SAME]


def _name(mutant: Mutant) -> str:
    file, _, _ = mutant.place.removeprefix("src/").partition(":")
    return f"{file} {mutant.what}"


def shows(mutant: Mutant, seed: int) -> bool:
    """Whether a run notices that the contract is not what it should be."""
    try:
        run(Build(mutants()[0], mutant.number), seed, PATIENCE)
    except (DiffersError, BrokenError):
        return True
    return False


def test_every_refusal_has_its_mutant() -> None:
    """Some mutant lacks each `revert` of the source, and what is said to make no difference is still there."""
    sources = {f"src/{path.name}": path.read_text(encoding="utf-8") for path in SOURCES.glob("*.sol")}
    _, made = with_mutants(sources)
    off = {mutant.place for mutant in made if mutant.what.endswith(("never", "left out"))}
    refusals = 0
    for name, source in sources.items():
        for number, line in enumerate(source.splitlines(), start=1):
            if re.search(r"\brevert \w+\(", line):
                refusals += 1
                # the condition stands in the same line, or begins up to two lines before
                assert any(f"{name}:{number - above}" in off for above in range(3)), f"{name}:{number}"
    assert refusals > 30
    assert set(SAME) <= {_name(mutant) for mutant in made}


def test_without_a_mutant_it_is_the_contract() -> None:
    """The source with all mutants in it behaves as the contract in blocks of no mutant's number."""
    run(Build(mutants()[0]), 1, 5_000)


def test_every_mutant_shows() -> None:
    """Whatever rule or statement the contract lacks, a run notices."""
    assert [mutant for mutant in mutants()[1] if not shows(mutant, 1)] == []


@pytest.mark.soak
def test_every_mutant_shows_each_time() -> None:
    """The same with other runs."""
    seeds = [secrets.randbits(64) for _ in range(SOAK_ROUNDS)]
    assert [(mutant, seed) for mutant in mutants()[1] for seed in seeds if not shows(mutant, seed)] == []
