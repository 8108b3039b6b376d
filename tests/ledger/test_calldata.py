import pytest
from eth_abi.abi import decode
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from p2pos.ledger import calldata
from p2pos.ledger.contracts import artifact
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.typed_data import Domain, Lock, Transfer
from tests.ledger.chains import ALICE, BOB

DOMAIN = Domain(1, BOB.address)
TRANSFER = Transfer(ALICE.address, BOB.address, 1, 2, 3, 4)
LOCK = Lock(ALICE.address, BOB.address, 1, 2, 3, 4, 5)


def type_of(item) -> str:
    if not item["type"].startswith("tuple"):
        return item["type"]
    return f"({','.join(map(type_of, item['components']))})" + item["type"].removeprefix("tuple")


def abi_types(name: str) -> list[str]:
    (entry,) = [one for one in artifact().abi if one["type"] == "function" and one["name"] == name]
    return [type_of(item) for item in entry["inputs"]]


def intent(struct, signature=b"\x01" * 65) -> SignedIntent:
    return SignedIntent(DOMAIN, struct, signature, bytes(32))


CALLS = {
    "createClass": (
        calldata.create_class(b"\x01" * 32, 5, b"\x02" * 32),
        (b"\x01" * 32, (5, False, 0, 0, "0x" + 40 * "0", 0), b"\x02" * 32),
    ),
    "mint": (calldata.mint(ALICE.address, 1, 2), (ALICE.address.lower(), 1, 2)),
    "cancel": (calldata.cancel(7), (7,)),
    "unlock": (calldata.unlock(ALICE.address, BOB.address, 1), (ALICE.address.lower(), BOB.address.lower(), 1)),
    "balanceOf": (calldata.balance_of(ALICE.address, 1), (ALICE.address.lower(), 1)),
    "safeTransferFrom": (
        calldata.safe_transfer_from(ALICE.address, BOB.address, 1, 2, b""),
        (ALICE.address.lower(), BOB.address.lower(), 1, 2, b""),
    ),
    "transferWithSignature": (
        calldata.submit(intent(TRANSFER)),
        ((ALICE.address.lower(), BOB.address.lower(), 1, 2, 3, 4), b"\x01" * 65),
    ),
    "lockWithSignature": (
        calldata.submit(intent(LOCK)),
        ((ALICE.address.lower(), BOB.address.lower(), 1, 2, 3, 4, 5), b"\x01" * 65),
    ),
    "relay": (
        calldata.relay([intent(TRANSFER)]),
        (
            ((ALICE.address.lower(), BOB.address.lower(), 1, 2, 3, 4),),
            (b"\x01" * 65,),
            calldata.GAS_PER_INTENT,
        ),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_those_of_the_abi(name):
    """Each call's selector and arguments are what the compiled contract's ABI says."""
    data, arguments = CALLS[name]
    types = abi_types(name)
    assert data[:4] == keccak(f"{name}({','.join(types)})".encode())[:4]
    assert decode(types, data[4:]) == arguments


@given(st.integers(1, 100), st.integers(1, 4096))
def test_a_batch_of_any_form_has_gas_enough(count, length):
    """The gas limit covers the calldata's floor price and what each intent is granted by the contract."""
    data = calldata.relay([intent(TRANSFER, b"\x01" * length)] * count)
    limit = calldata.relay_gas(data, count)
    granted = calldata.GAS_PER_INTENT + calldata.GAS_PER_INTENT // 63 + 1000
    assert limit >= 21_000 + 16 * len(data) + count * granted
