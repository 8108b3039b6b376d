import pytest
from eth_abi.abi import decode, encode
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import InternalError
from p2pos.ledger import calldata
from p2pos.ledger.contracts import artifact
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.terms import Policy, Terms
from p2pos.ledger.typed_data import Domain, Transfer
from tests.ledger.chains import ALICE, BOB
from tests.ledger.structs import SAMPLES, structs, transfers

DOMAIN = Domain(1, BOB.address)
TRANSFER = Transfer(ALICE.address, BOB.address, 1, 2, 3, 4)
TERMS = Terms(5, soulbound=True, policy=Policy.DELAYED, delay=60, royalty_receiver=BOB.address, royalty_bps=250)


def type_of(item) -> str:
    if not item["type"].startswith("tuple"):
        return item["type"]
    return f"({','.join(map(type_of, item['components']))})" + item["type"].removeprefix("tuple")


def abi_types(name: str) -> list[str]:
    (entry,) = [one for one in artifact().abi if one["type"] == "function" and one["name"] == name]
    return [type_of(item) for item in entry["inputs"]]


def intent(struct, signature=b"\x01" * 65) -> SignedIntent:
    return SignedIntent(DOMAIN, struct, (signature, signature + b"2")[: len(struct.signers)], bytes(32))


A, B = ALICE.address.lower(), BOB.address.lower()
CALLS = {
    "createClass": (
        calldata.create_class(b"\x01" * 32, TERMS, b"\x02" * 32),
        (b"\x01" * 32, (5, True, 2, 60, B, 250), b"\x02" * 32),
    ),
    "mint": (calldata.mint(ALICE.address, 1, 2), (A, 1, 2)),
    "setMinter": (calldata.set_minter(1, ALICE.address, 2), (1, A, 2)),
    "burn": (calldata.burn(1, 2), (1, 2)),
    "updateClass": (calldata.update_class(1, b"\x02" * 32), (1, b"\x02" * 32)),
    "applyUpdate": (calldata.apply_update(1), (1,)),
    "withdrawUpdate": (calldata.withdraw_update(1), (1,)),
    "cancel": (calldata.cancel(7), (7,)),
    "unlock": (calldata.unlock(ALICE.address, BOB.address, 1), (A, B, 1)),
    "spend": (calldata.spend(ALICE.address, 1, 2, BOB.address), (A, 1, 2, B)),
    "revokeSpend": (calldata.revoke_spend(BOB.address, 1), (B, 1)),
    "balanceOf": (calldata.balance_of(ALICE.address, 1), (A, 1)),
    "safeTransferFrom": (
        calldata.safe_transfer_from(ALICE.address, BOB.address, 1, 2, b""),
        (A, B, 1, 2, b""),
    ),
    "relay": (
        calldata.relay([intent(TRANSFER)]),
        (((A, B, 1, 2, 3, 4),), (b"\x01" * 65,), calldata.GAS_PER_INTENT),
    ),
    "relayCalls": (calldata.relay_calls([b"one", b"two" * 20], 8), ((b"one", b"two" * 20), 8)),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_those_of_the_abi(name):
    """Each call's selector and arguments are what the compiled contract's ABI says."""
    data, arguments = CALLS[name]
    types = abi_types(name)
    assert data[:4] == keccak(f"{name}({','.join(types)})".encode())[:4]
    assert decode(types, data[4:]) == arguments


FUNCTIONS = {
    "Transfer": "transferWithSignature",
    "BatchTransfer": "batchTransferWithSignature",
    "Lock": "lockWithSignature",
    "Unlock": "unlockWithSignature",
    "Spend": "allowSpendWithSignature",
    "Swap": "swapWithSignatures",
}


@pytest.mark.parametrize("struct", SAMPLES, ids=lambda one: type(one).__name__)
def test_submitting_is_as_the_abi_says(struct):
    """Each kind of intent goes to its function, with the struct and all its signatures."""
    one = intent(struct)
    name = FUNCTIONS[one.kind]
    types = abi_types(name)
    selector = keccak(f"{name}({','.join(types)})".encode())[:4]
    assert calldata.submit(one) == selector + encode(types, (struct.arguments(), *one.signatures))


@given(structs, st.binary(max_size=100))
def test_any_struct_is_encoded_as_by_eth_abi(struct, signature):
    """The hand-written encoding of every kind is that of an independent encoder."""
    one = intent(struct, signature)
    types = abi_types(FUNCTIONS[one.kind])
    assert calldata.submit(one)[4:] == encode(types, (struct.arguments(), *one.signatures))


@given(st.lists(st.tuples(transfers, st.binary(max_size=100)), max_size=5), st.integers(0, 2**256 - 1))
def test_a_relay_is_encoded_as_by_eth_abi(pairs, gas):
    """So is a batch of transfers with signatures of any length."""
    batch = [intent(struct, signature) for struct, signature in pairs]
    structs = [one.struct.arguments() for one in batch]
    expected = encode(abi_types("relay"), (structs, [one.signatures[0] for one in batch], gas))
    assert calldata.relay(batch, gas)[4:] == expected


def test_a_relay_is_of_transfers():
    """Another kind in `relay` would be signed for something else, so it is an error of ours."""
    with pytest.raises(InternalError, match="relay of a Lock"):
        calldata.relay([intent(SAMPLES[2])])


@given(st.integers(1, 100), st.integers(1, 4096))
def test_a_batch_of_any_form_has_gas_enough(count, length):
    """The gas limit covers the calldata's floor price and what each intent is granted by the contract."""
    data = calldata.relay([intent(TRANSFER, b"\x01" * length)] * count)
    limit = calldata.relay_gas(data, count)
    granted = calldata.GAS_PER_INTENT + calldata.GAS_PER_INTENT // 63 + 1000
    assert limit >= 21_000 + 16 * len(data) + count * granted
