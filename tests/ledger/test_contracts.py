"""The packaged contract is what its source compiles to, what stands on a chain, and what its own tests passed."""

import importlib.util
import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.ledger.contracts import artifact

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "contract.md"
GAS = ROOT / "contracts" / "snapshots" / "Gas.json"

TRANSFER = "(address,address,uint256,uint256,uint256,uint256)"
BATCH = "(address,address,uint256[],uint256[],uint256,uint256)"
LOCK = "(address,address,uint256,uint256,uint64,uint256,uint256)"
UNLOCK = "(address,address,uint256,uint256,uint256)"
SPEND = LOCK
SWAP = "(address,address,(uint256,uint256)[],(uint256,uint256)[],uint256,uint256,uint256)"

FUNCTIONS = {
    # classes
    "createClass(bytes32,(uint128,bool,uint8,uint32,address,uint16),bytes32)",
    "mint(address,uint256,uint256)",
    "setMinter(uint256,address,uint128)",
    "burn(uint256,uint256)",
    "updateClass(uint256,bytes32)",
    "applyUpdate(uint256)",
    "withdrawUpdate(uint256)",
    "classOf(uint256)",
    "pendingUpdateOf(uint256)",
    "mintAllowance(uint256,address)",
    "totalSupply(uint256)",
    "royaltyInfo(uint256,uint256)",
    "uri(uint256)",
    # what is signed
    f"transferWithSignature({TRANSFER},bytes)",
    f"batchTransferWithSignature({BATCH},bytes)",
    f"lockWithSignature({LOCK},bytes)",
    f"unlockWithSignature({UNLOCK},bytes)",
    f"allowSpendWithSignature({SPEND},bytes)",
    f"swapWithSignatures({SWAP},bytes,bytes)",
    f"relay({TRANSFER}[],bytes[],uint256)",
    "relayCalls(bytes[],uint256)",
    "cancel(uint256)",
    "isNonceUsed(address,uint256)",
    f"hashTransfer({TRANSFER})",
    f"hashBatchTransfer({BATCH})",
    f"hashLock({LOCK})",
    f"hashUnlock({UNLOCK})",
    f"hashSpend({SPEND})",
    f"hashSwap({SWAP})",
    "TRANSFER_TYPEHASH()",
    "BATCH_TRANSFER_TYPEHASH()",
    "LOCK_TYPEHASH()",
    "UNLOCK_TYPEHASH()",
    "SPEND_TYPEHASH()",
    "ITEM_TYPEHASH()",
    "SWAP_TYPEHASH()",
    "eip712Domain()",
    "MIN_GAS_PER_INTENT()",
    "MAX_ITEMS()",
    # worlds
    "unlock(address,address,uint256)",
    "lockedOf(address,uint256)",
    "lockOf(address,uint256,address)",
    "spend(address,uint256,uint256,address)",
    "revokeSpend(address,uint256)",
    "spendAllowance(address,uint256,address)",
    "MAX_LOCK_SECONDS()",
    # and what the standard asks for
    "balanceOf(address,uint256)",
    "balanceOfBatch(address[],uint256[])",
    "isApprovedForAll(address,address)",
    "setApprovalForAll(address,bool)",
    "safeTransferFrom(address,address,uint256,uint256,bytes)",
    "safeBatchTransferFrom(address,address,uint256[],uint256[],bytes)",
    "supportsInterface(bytes4)",
}


def type_of(parameter: dict) -> str:
    if not parameter["type"].startswith("tuple"):
        return parameter["type"]
    inner = ",".join(type_of(part) for part in parameter["components"])
    return f"({inner}){parameter['type'].removeprefix('tuple')}"


def signature_of(entry: dict) -> str:
    return f"{entry['name']}({','.join(type_of(parameter) for parameter in entry['inputs'])})"


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_contracts", ROOT / "scripts" / "build_contracts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        module.find_node()
    except module.BuildError as error:
        pytest.skip(str(error))
    return module


@pytest.fixture(scope="module")
def chain() -> Iterator[str]:
    """The URL of an anvil of this module's own."""
    binaries = sorted(ROOT.glob("contracts/node_modules/@foundry-rs/anvil-*/bin/anvil"))
    assert binaries, "anvil is missing from contracts/node_modules: run `make setup`"
    with subprocess.Popen([binaries[0], "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            ready = (re.fullmatch(r"Listening on (127\.0\.0\.1:\d+)", line.strip()) for line in process.stdout)
            yield "http://" + next(match[1] for match in ready if match)
        finally:
            process.kill()


def rpc(url: str, method: str, *params: object) -> object:
    answer = httpx.post(url, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).json()
    assert "error" not in answer, answer
    return answer["result"]


def test_artifact_is_the_sources(builder: ModuleType) -> None:
    """The packaged ABI and bytecode, and the recorded storage layout, are what the source compiles to."""
    builder.check()


def test_a_stale_artifact_is_one_clear_line(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An artifact that differs from the source fails the check with one line that names what differs."""
    stale = {**json.loads(builder.ARTIFACT.read_text()), "bytecode": "0x00"}
    monkeypatch.setattr(builder, "ROOT", tmp_path)
    monkeypatch.setattr(builder, "ARTIFACT", tmp_path / "Assets.json")
    builder.ARTIFACT.write_text(json.dumps(stale))
    monkeypatch.setattr("sys.argv", ["build_contracts.py", "--check"])
    assert builder.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Assets.json differs from contracts/src/Assets.sol in bytecode: run ")


def test_a_changed_layout_is_one_clear_line(
    builder: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A storage slot that moved fails the check with one line that names the struct."""
    recorded = json.loads(builder.LAYOUT.read_text())
    moved = {**recorded, "Holdings.Account": recorded["Holdings.Account"][::-1]}
    monkeypatch.setattr(builder, "ROOT", tmp_path)
    monkeypatch.setattr(builder, "ARTIFACT", tmp_path / "Assets.json")
    monkeypatch.setattr(builder, "LAYOUT", tmp_path / "Layout.json")
    builder.ARTIFACT.write_bytes((ROOT / "p2pos" / "ledger" / "contracts" / "Assets.json").read_bytes())
    builder.LAYOUT.write_text(json.dumps(moved))
    monkeypatch.setattr("sys.argv", ["build_contracts.py", "--check"])
    assert builder.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Layout.json differs from contracts/src/Assets.sol in Holdings.Account: run ")


def test_it_fits_on_chains() -> None:
    """The code is within EIP-170's bound, and the deploying transaction within EIP-3860's."""
    assert len(artifact().deployed_bytecode) <= 24_576
    assert len(artifact().bytecode) <= 49_152


def test_foundry(builder: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Forge's tests of the contract pass, and its gas figures are those on record."""
    monkeypatch.setenv("FORGE_SNAPSHOT_CHECK", "true")
    status = builder.run_tests([])
    output = capfd.readouterr()
    assert status == 0, output.out + output.err
    assert re.search(r"\b0 failed, 0 skipped", output.out)


@pytest.mark.soak
def test_foundry_for_long(
    builder: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The same with many more cases, other ones each time."""
    monkeypatch.setenv("FOUNDRY_PROFILE", "soak")
    monkeypatch.setattr(builder, "TIMEOUT_S", 7200)
    status = builder.run_tests(["--fuzz-seed", hex(secrets.randbits(64)), "--no-match-contract", "GasTest"])
    output = capfd.readouterr()
    assert status == 0, output.out + output.err


def test_functions() -> None:
    """The contract has the functions that the Python side and the standard rely on, and no others."""
    assert {signature_of(entry) for entry in artifact().abi if entry["type"] == "function"} == FUNCTIONS


def test_nobody_owns_it() -> None:
    """Nothing of the contract's takes money, and nothing asks for an administrator."""
    payable = [entry for entry in artifact().abi if entry.get("stateMutability") == "payable"]
    assert payable == []
    assert not any("owner" in entry.get("name", "").lower() for entry in artifact().abi)


@given(st.data())
def test_immutables_are_ignored(data: st.DataObject) -> None:
    """Code differs from the artifact's in its immutables alone, or it isn't this contract's."""
    compiled = artifact()
    code = bytearray(compiled.deployed_bytecode)
    for span in compiled.immutables:
        code[span.start : span.start + span.length] = data.draw(st.binary(min_size=span.length, max_size=span.length))
    assert compiled.matches(bytes(code))
    inside = {place for span in compiled.immutables for place in range(span.start, span.start + span.length)}
    place = data.draw(st.integers(0, len(code) - 1).filter(lambda place: place not in inside))
    code[place] ^= data.draw(st.integers(1, 255))
    assert not compiled.matches(bytes(code))


@pytest.mark.parametrize("code", [b"", b"\x00", artifact().deployed_bytecode + b"\x00"])
def test_other_code_does_not_match(code: bytes) -> None:
    """No code, or code of another length, is not this contract's."""
    assert not artifact().matches(code)


def test_deployed_code_matches(chain: str) -> None:
    """What a deployment leaves on a real chain is the artifact's deployed code, its immutables filled in."""
    compiled = artifact()
    sender = rpc(chain, "eth_accounts")[0]
    sent = rpc(chain, "eth_sendTransaction", {"from": sender, "data": "0x" + compiled.bytecode.hex()})
    receipt = rpc(chain, "eth_getTransactionReceipt", sent)
    code = bytes.fromhex(rpc(chain, "eth_getCode", receipt["contractAddress"], "latest")[2:])
    assert code != compiled.deployed_bytecode
    assert compiled.matches(code)


def test_documentation_is_complete() -> None:
    """The contract's page tells of every function, event and error of its own, and of every gas figure on record."""
    text = DOC.read_text()
    names = {entry["name"] for entry in artifact().abi if "name" in entry and not entry["name"].startswith("ERC1155")}
    assert {name for name in names if f"`{name}" not in text} == set()
    figures = {f"{int(figure):,}" for figure in json.loads(GAS.read_text()).values()}
    assert {figure for figure in figures if figure not in text} == set()


def test_solcw_refuses_what_it_cannot(builder: ModuleType) -> None:
    """The compiler's wrapper names arguments that it doesn't know, instead of guessing."""
    command = [builder.find_node(), ROOT / "contracts" / "solcw", "--bin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "solcw: unsupported arguments: --bin\n"
