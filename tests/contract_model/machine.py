"""The compiled contract in an EVM (revm, by way of pyrevm), and what it answers. Nothing here knows the rules."""

import re
from typing import NamedTuple

from eth_hash.auto import keccak
from pyrevm import EVM, AccountInfo, BlockEnv, CfgEnv, Env

from tests.contract_model.signatures import Key

CHAIN_ID = 31337
DEPLOYER = Key("deployer")
CONTRACT = int.from_bytes(keccak(b"\xd6\x94" + DEPLOYER.address.to_bytes(20, "big") + b"\x80")[12:], "big")
"""Where the first contract of the deployer's lands: RLP of its address and of nonce 0."""

TRANSACTION_GAS = 1 << 33
"""So much that a receiver that burns 63/64 of what it gets, inside another that does, leaves enough to say so."""

_SPEC = "PRAGUE"  # what the contract is compiled for
_REVERT = re.compile(r"Revert \{ gas_used: \d+, output: 0x([0-9a-f]*) \}")


class Answer(NamedTuple):
    """What a call did. Without `ok`, `output` is its revert data, or None where it ran out of gas or worse."""

    ok: bool
    output: bytes | None
    logs: list[tuple[list[bytes], bytes]]
    """Topics and data of each; those of the contract alone emit any."""


def as_text(address: int) -> str:
    return f"0x{address:040x}"


class Machine:
    """One EVM with the contract in it. It keeps a journal that grows, so that it suits some thousands of calls."""

    def __init__(self, bytecode: bytes, code_at: dict[int, bytes], block: int = 1) -> None:
        """`bytecode` deploys the contract at CONTRACT; `code_at` is what else has code; `block`: of which number."""
        self._block = block
        self._evm = EVM(
            env=Env(cfg=CfgEnv(chain_id=CHAIN_ID, limit_contract_code_size=1 << 20)),  # mutants are larger
            gas_limit=TRANSACTION_GAS,
            spec_id=_SPEC,
        )
        for address, code in code_at.items():
            self._evm.insert_account_info(as_text(address), AccountInfo(code=code))
        made = self._evm.deploy(as_text(DEPLOYER.address), bytecode)
        if int(made, 16) != CONTRACT:
            raise ValueError(f"the contract landed at {made}")

    def set_time(self, now_s: int) -> None:
        self._evm.set_block_env(BlockEnv(number=self._block, timestamp=now_s))

    def send(self, sender: str, to: str, data: bytes, gas: int = TRANSACTION_GAS) -> Answer:
        """A transaction; both addresses in hexadecimal."""
        evm = self._evm
        try:
            output = evm.message_call(sender, to, calldata=data, gas=gas)
        except RuntimeError as problem:
            reverted = _REVERT.fullmatch(str(problem))
            return Answer(False, bytes.fromhex(reverted[1]) if reverted else None, [])
        return Answer(True, output, [log.data for log in evm.result.logs])

    def ask(self, data: bytes) -> bytes:
        """A view's answer. Raises RuntimeError where it reverts."""
        return self._evm.message_call(_ANYONE, _CONTRACT_TEXT, calldata=data, is_static=True)


_ANYONE = as_text(0xA11)
_CONTRACT_TEXT = as_text(CONTRACT)
