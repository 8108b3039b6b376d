"""The contract's own tests notice every rule that it lacks. (So does the comparison with the model, by itself.)"""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract_model.mutants import Mutant, with_mutants
from tests.contract_model.test_mutants import SAME

ROOT = Path(__file__).parents[2]
CONTRACTS = ROOT / "contracts"
FUZZ_RUNS = 16
"""Of each fuzz test and mutant: most show at once."""
TIMEOUT_S = 600
"""For one run of forge's tests; the first compiles, which takes half a minute."""


class Forge:
    """forge's tests on a copy of the contract that holds every mutant."""

    def __init__(self, folder: Path) -> None:
        spec = importlib.util.spec_from_file_location("build_contracts", ROOT / "scripts" / "build_contracts.py")
        builder = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(builder)
        self._folder = folder
        (self._forge,) = CONTRACTS.glob("node_modules/@foundry-rs/forge-*/bin/forge")
        self._path = os.pathsep.join((str(builder.find_node().parent), os.environ["PATH"]))
        for name in ("test", "foundry.toml", "solcw"):
            copy = shutil.copytree if (CONTRACTS / name).is_dir() else shutil.copy2
            copy(CONTRACTS / name, folder / name)
        (folder / "node_modules").symlink_to(CONTRACTS / "node_modules")
        (folder / "test" / "Gas.t.sol").unlink()  # a mutant's place costs gas
        (folder / "src").mkdir()
        sources = {path.name: path.read_text(encoding="utf-8") for path in sorted((CONTRACTS / "src").glob("*.sol"))}
        rewritten, self.mutants = with_mutants(sources)
        for name, text in rewritten.items():
            (folder / "src" / name).write_text(text, encoding="utf-8")

    def passes(self, block: int) -> bool:
        """Whether all tests pass in blocks of this number, which chooses the mutant."""
        command = [self._forge, "test", "--fail-fast", "--fuzz-runs", str(FUZZ_RUNS), "--code-size-limit", "1000000"]
        done = subprocess.run(
            command,
            cwd=self._folder,
            env={**os.environ, "PATH": self._path, "FOUNDRY_BLOCK_NUMBER": str(block)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert "tests passed" in done.stdout, done.stdout + done.stderr
        return done.returncode == 0


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    return Forge(tmp_path_factory.mktemp("mutants"))


def name_of(mutant: Mutant) -> str:
    return f"{mutant.place.partition(':')[0]} {mutant.what}"


@pytest.mark.soak
def test_without_a_mutant_all_is_well(forge: Forge) -> None:
    """The tests pass on the copy as on the contract itself."""
    assert forge.passes(1)


@pytest.mark.soak
def test_every_mutant_fails_a_test(forge: Forge) -> None:
    """Whatever rule or statement the contract lacks, one of its own tests fails."""
    different = [mutant for mutant in forge.mutants if name_of(mutant) not in SAME]
    assert [mutant for mutant in different if forge.passes(mutant.number)] == []
