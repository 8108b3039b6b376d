"""Let Slither look for faults in the contract: exits 1 where it finds any of high or medium impact.

    python scripts/slither.py

Slither wants other versions of web3 and its kin than this project, so it gets a virtual environment of its own,
`.venv-slither`, on the first run.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
CONTRACTS = ROOT / "contracts"
HOME = ROOT / ".venv-slither"
VERSION = "0.11.6"
TIMEOUT_S = 900  # pip fetches 60 packages within 2 minutes, Slither takes 10 s; beyond this something hangs


def installed() -> Path:
    """Slither's own program, installed where it is missing. Raises CalledProcessError where pip can't."""
    program = HOME / "bin" / "slither"
    if not program.is_file():
        venv.create(HOME, with_pip=True, clear=True)
        pip = [str(HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, f"slither-analyzer=={VERSION}"], check=True, timeout=TIMEOUT_S)
    return program


def analyse(program: Path, forge: Path, node: Path) -> int:
    """Run it on a copy of the sources, for it builds by force and would leave its own in contracts/out."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(CONTRACTS / "src", copy / "src")
        for name in ("foundry.toml", "solcw"):
            shutil.copy2(CONTRACTS / name, copy / name)
        (copy / "node_modules").symlink_to((CONTRACTS / "node_modules").resolve())
        path = os.pathsep.join((str(program.parent), str(forge.parent), str(node.parent), os.environ["PATH"]))
        command = [str(program), ".", "--filter-paths", "node_modules", "--exclude-informational", "--fail-medium"]
        done = subprocess.run(command, cwd=copy, env={**os.environ, "PATH": path}, check=False, timeout=TIMEOUT_S)
        return 1 if done.returncode else 0


def main() -> int:
    """Install, analyse. Returns the exit status."""
    spec = importlib.util.spec_from_file_location("build_contracts", Path(__file__).parent / "build_contracts.py")
    assert spec is not None
    assert spec.loader is not None
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    forge = next(CONTRACTS.glob("node_modules/@foundry-rs/forge-*/bin/forge"), None)
    if forge is None:
        print("forge is missing from contracts/node_modules: run `make setup`", file=sys.stderr)
        return 1
    try:
        return analyse(installed(), forge, builder.find_node())
    except (builder.BuildError, subprocess.CalledProcessError) as problem:
        print(f"Slither can't run: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
