"""The asset contract as data: its ABI and bytecode, so that a user of this package needs no compiler.

`Assets.json` is made by `scripts/build_contracts.py` from `contracts/src/Assets.sol`; a test rebuilds and compares.
Start reading at `artifact`.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True)
class Span:
    """A run of bytes in deployed code.

    Args:
        start: offset of its first byte.
        length: how many bytes.

    """

    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """What the compiler made of one contract.

    Args:
        abi: its functions, events and errors, as web3 takes them. Shared: not to be changed.
        bytecode: what a deploying transaction carries; the constructor takes no arguments.
        deployed_bytecode: what then stands on the chain, with zeros where the constructor writes immutables.
        immutables: where those are, in ascending order.
        compiler: the compiler and its version.

    """

    abi: list[dict[str, Any]]
    bytecode: bytes
    deployed_bytecode: bytes
    immutables: tuple[Span, ...]
    compiler: str

    def masked(self, code: bytes) -> bytes:
        """Code of this contract with zeros in place of its immutables: the same on every chain and at every address.

        Args:
            code: what `eth_getCode` answered; code of another length comes back as it is.

        """
        if len(code) != len(self.deployed_bytecode):
            return code
        image = bytearray(code)
        for span in self.immutables:
            image[span.start : span.start + span.length] = bytes(span.length)
        return bytes(image)

    def matches(self, code: bytes) -> bool:
        """Whether this contract's code stands on the chain, immutables aside.

        The immutables are the EIP-712 domain, which a hostile deployer may set to another contract's: signatures made
        for this address then simply don't verify. Compare `eip712Domain()` too where that matters.

        Args:
            code: what `eth_getCode` answered.

        """
        return self.masked(code) == self.deployed_bytecode


@cache
def artifact() -> Artifact:
    """The contract `Assets` that this version of the package deploys and talks to; read once."""
    text = resources.files(__name__).joinpath("Assets.json").read_text(encoding="utf-8")
    data = json.loads(text)
    return Artifact(
        abi=data["abi"],
        bytecode=bytes.fromhex(data["bytecode"].removeprefix("0x")),
        deployed_bytecode=bytes.fromhex(data["deployedBytecode"].removeprefix("0x")),
        immutables=tuple(Span(place["start"], place["length"]) for place in data["immutableReferences"]),
        compiler=data["compiler"],
    )
