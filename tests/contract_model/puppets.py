"""Contracts that receive items and sign by ERC-1271, and do so as badly as they are told to.

A puppet obeys whoever isn't the ledger: it takes a programme, forwards a call to the ledger, or tells what hooks it
saw. To the ledger it is a wallet. The same code stands behind plain contract addresses and behind an address that has a
key (which is what an account looks like that delegates by EIP-7702).
"""

from enum import IntEnum
from types import SimpleNamespace

from eth_hash.auto import keccak

from tests.contract_model.abi import encode, selector, text, word, words
from tests.contract_model.assembly import assemble

SESAME = keccak(b"open sesame")
"""A puppet takes as its signature the digest XOR this."""

ON_RECEIVED = selector("onERC1155Received(address,address,uint256,uint256,bytes)")
ON_BATCH_RECEIVED = selector("onERC1155BatchReceived(address,address,uint256[],uint256[],bytes)")
_IS_VALID_SIGNATURE = selector("isValidSignature(bytes32,bytes)")
REFUSAL_BYTES = 1000
"""How much a puppet says when it refuses at length: more than the 256 bytes of it that a batch reports."""


class Hook(IntEnum):
    """What a puppet does when the ledger brings it items."""

    ACCEPT = 0
    WRONG_VALUE = 1
    """answers, but not with the word that means yes"""
    REFUSE = 2
    """reverts without a word"""
    REFUSE_AT_LENGTH = 3
    BURN = 4
    """uses up all gas it is given"""
    SILENT = 5
    """returns nothing"""
    REENTER = 6
    """calls the ledger as programmed, once, and accepts whatever came of it"""
    REENTER_OR_REFUSE = 7
    """calls the ledger as programmed, once, and reverts with the ledger's refusal if there was one"""


class Wallet(IntEnum):
    """What a puppet does when it is asked whether a signature is its own."""

    HONEST = 0
    WRONG_VALUE = 1
    REFUSE = 2
    BURN = 3
    SILENT = 4
    WORDLESS_YES = 5
    """says the magic word, but in 4 bytes where the ABI wants 32"""


_SOURCE = """
    ; storage: 0 behaviour (hook in the low byte, wallet above it), 1 chain of hooks seen, 2 programme's length, 16… it
    caller {ledger} eq @ledger jumpi
    0 calldataload 0 byte
    dup1 iszero @programme jumpi
    1 eq @forward jumpi
    1 sload 0 mstore 32 0 return

  programme:
    1 calldataload 0 sstore
    33 calldatasize sub 2 sstore
    0                                           ; i
  store:
    dup1 2 sload swap1 lt iszero @stored jumpi
    dup1 33 add calldataload
    dup2 5 shr 16 add sstore
    32 add @store jump
  stored:
    stop

  forward:
    1 calldatasize sub 1 0 calldatacopy
    0 0 1 calldatasize sub 0 0 {ledger} gas call
    returndatasize 0 0 returndatacopy
    @forwarded jumpi
    returndatasize 0 revert
  forwarded:
    returndatasize 0 return

  ledger:
    0 calldataload 224 shr {is_valid_signature} eq @wallet jumpi
    1 sload 0 mstore
    calldatasize 0 64 calldatacopy
    calldatasize 64 keccak256 32 mstore
    64 0 keccak256 1 sstore
    0 sload 255 and
    dup1 {hook.WRONG_VALUE} eq @nonsense jumpi
    dup1 {hook.REFUSE} eq @refuse jumpi
    dup1 {hook.REFUSE_AT_LENGTH} eq @refuse_at_length jumpi
    dup1 {hook.BURN} eq @burn jumpi
    dup1 {hook.SILENT} eq @silent jumpi
    dup1 @reenter jumpi                         ; what is left but to accept
  accept:
    0 calldataload 224 shr 224 shl 0 mstore 32 0 return
  nonsense:
    0xdeadbeef 224 shl 0 mstore 32 0 return
  refuse:
    0 0 revert
  refuse_at_length:
    255 not calldatasize 64 add mstore {refusal_bytes} calldatasize 64 add revert
  burn:
    invalid
  silent:
    stop

  reenter:                                      ; on the stack: the hook's behaviour
    255 not 0 sload and 0 sstore
    0                                           ; i
  load:
    dup1 2 sload swap1 lt iszero @loaded jumpi
    dup1 5 shr 16 add sload dup2 mstore
    32 add @load jump
  loaded:
    pop
    0 0 2 sload 0 0 {ledger} gas call
    @accept jumpi
    {hook.REENTER} eq @accept jumpi
    returndatasize 0 0 returndatacopy
    returndatasize 0 revert

  wallet:
    0 sload 8 shr 255 and
    dup1 {wallet.WRONG_VALUE} eq @nonsense jumpi
    dup1 {wallet.REFUSE} eq @refuse jumpi
    dup1 {wallet.BURN} eq @burn jumpi
    dup1 {wallet.SILENT} eq @silent jumpi
    {wallet.WORDLESS_YES} eq @wordless jumpi
    68 calldataload 32 eq iszero @nonsense jumpi
    4 calldataload {sesame} xor 100 calldataload eq @accept jumpi
    @nonsense jump
  wordless:
    0 calldataload 0 mstore 4 0 return
"""


def puppet_code(ledger: int) -> bytes:
    """The puppet's bytecode, obedient to all but the contract at this address."""
    return assemble(
        _SOURCE.format(
            ledger=hex(ledger),
            is_valid_signature=hex(int.from_bytes(_IS_VALID_SIGNATURE, "big")),
            sesame=hex(int.from_bytes(SESAME, "big")),
            refusal_bytes=REFUSAL_BYTES,
            hook=SimpleNamespace(**Hook.__members__),
            wallet=SimpleNamespace(**Wallet.__members__),
        )
    )


def programme(hook: Hook, wallet: Wallet, call: bytes) -> bytes:
    """Calldata that tells a puppet how to behave, and what to call when it re-enters."""
    return b"\x00" + word(hook | wallet << 8) + call


def forward(call: bytes) -> bytes:
    """Calldata that has a puppet call the ledger and answer with its answer."""
    return b"\x01" + call


PEEK = b"\x02"
"""Calldata that asks a puppet for its chain of hooks."""


def chained(before: bytes, hook_call: bytes) -> bytes:
    """The chain of hooks seen (32 bytes, zeros at first) after one more."""
    return keccak(before + keccak(hook_call))


def refusal() -> bytes:
    """What a puppet says that refuses at length."""
    return (word((1 << 256) - 256) + bytes(REFUSAL_BYTES))[:REFUSAL_BYTES]


def received(operator: int, sender: int, id_: int, amount: int, data: bytes) -> bytes:
    """The ledger's call of a receiver of one item."""
    return ON_RECEIVED + encode((operator, sender, id_, amount, text(data)))


def batch_received(operator: int, sender: int, ids: list[int], amounts: list[int], data: bytes) -> bytes:
    """The ledger's call of a receiver of several."""
    return ON_BATCH_RECEIVED + encode((operator, sender, words(ids), words(amounts), text(data)))


def puppet_signature(digest: bytes) -> bytes:
    """What an honest puppet takes for its own signature of this digest."""
    return bytes(a ^ b for a, b in zip(digest, SESAME, strict=True))
