"""ethers and viem, which share no line with ours, sign what we sign, and each takes the other's signatures and keys."""

import json
from pathlib import Path
from typing import Any

import pytest

from p2pos.ledger import calldata, keystore
from p2pos.ledger.abi import MAX_UINT128, MAX_UINT256, address
from p2pos.ledger.contracts import artifact
from p2pos.ledger.intents import SignedIntent, check
from p2pos.ledger.signer import KeySigner
from p2pos.ledger.terms import Terms
from p2pos.ledger.typed_data import (
    BatchTransfer,
    Domain,
    Item,
    Lock,
    Signable,
    Spend,
    Swap,
    Transfer,
    Unlock,
    as_typed_data,
    digest,
)
from p2pos.ledger.wallet import Wallets
from tests.contract_model.machine import CHAIN_ID, CONTRACT, Machine, as_text
from tests.evm.scripts import run_script
from tests.ledger.chains import ALICE, BOB, CAROL, OPERATOR

NOW_S = 1_800_000_000
LATER_S = NOW_S + 3600
DOMAIN = Domain(CHAIN_ID, address(as_text(CONTRACT)))
PASSPHRASE = "Löwe ﬁn 1"  # with letters that Unicode writes in several ways
LIBRARIES = ("ethers", "viem")

SALTS = (bytes(32), b"\1" * 32)
LANTERN, COIN = (calldata.class_id(OPERATOR.address, salt) for salt in SALTS)
WORLD = CAROL
INTENTS: tuple[tuple[Signable, tuple[KeySigner, ...]], ...] = (
    (Transfer(ALICE.address, BOB.address, LANTERN, 2, 0, LATER_S), (ALICE,)),
    (BatchTransfer(ALICE.address, BOB.address, (LANTERN, COIN), (1, 5), MAX_UINT256, MAX_UINT256), (ALICE,)),
    (Lock(ALICE.address, WORLD.address, LANTERN, 1, LATER_S, 1, LATER_S), (ALICE,)),
    (Unlock(ALICE.address, WORLD.address, LANTERN, 1, LATER_S), (WORLD,)),
    (Spend(ALICE.address, WORLD.address, COIN, MAX_UINT128, (1 << 64) - 1, 2, LATER_S), (ALICE,)),
    (
        Swap(ALICE.address, BOB.address, (Item(LANTERN, 1), Item(COIN, 0)), (Item(COIN, 5),), 3, 1 << 255, LATER_S),
        (ALICE, BOB),
    ),
    (Swap(ALICE.address, BOB.address, (), (Item(LANTERN, 1),), 4, 4, LATER_S), (ALICE, BOB)),
)


def hexadecimal(data: bytes) -> str:
    return "0x" + data.hex()


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    """What the libraries say of our intents, signatures and keystore, and what they make themselves."""
    request = {
        "intents": [
            {
                "typed": as_typed_data(DOMAIN, struct),
                "keys": [hexadecimal(signer.private_key()) for signer in signers],
                "signatures": [hexadecimal(signer.sign_typed(DOMAIN, struct)) for signer in signers],
            }
            for struct, signers in INTENTS
        ],
        "keystore": json.dumps(keystore.encrypt(ALICE.private_key(), PASSPHRASE, light=True)),
        "passphrase": PASSPHRASE,
        "key": hexadecimal(BOB.private_key()),
    }
    answer = run_script("wallets.mjs", request)
    assert len(answer["intents"]) == len(INTENTS)
    return answer


def signed_by(theirs: dict[str, Any], library: str) -> list[SignedIntent]:
    """The intents with the signatures that a library made."""
    return [
        SignedIntent.of(DOMAIN, struct, *(bytes.fromhex(one[2:]) for one in seen[library]["signatures"]))
        for (struct, _), seen in zip(INTENTS, theirs["intents"], strict=True)
    ]


@pytest.mark.parametrize("library", LIBRARIES)
def test_digests_are_equal(theirs: dict[str, Any], library: str) -> None:
    """For all kinds of intents, they hash the typed data to the digest that we sign."""
    told = [seen[library]["digest"] for seen in theirs["intents"]]
    assert told == [hexadecimal(digest(DOMAIN, struct)) for struct, _ in INTENTS]


@pytest.mark.parametrize("library", LIBRARIES)
def test_they_take_our_signatures(theirs: dict[str, Any], library: str) -> None:
    """From our signatures they recover who signed."""
    told = [seen[library]["signers"] for seen in theirs["intents"]]
    assert told == [[signer.address for signer in signers] for _, signers in INTENTS]


@pytest.mark.parametrize("library", LIBRARIES)
def test_we_take_their_signatures(theirs: dict[str, Any], library: str) -> None:
    """What they sign passes our check, and is what we sign: all make the nonce of ECDSA by RFC 6979."""
    for intent, (struct, signers) in zip(signed_by(theirs, library), INTENTS, strict=True):
        check(intent, DOMAIN, now_s=NOW_S)
        assert intent.signatures == tuple(signer.sign_typed(DOMAIN, struct) for signer in signers)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_contract_takes_their_signatures(theirs: dict[str, Any], library: str) -> None:
    """What they sign takes effect at the contract, each kind once, and no second time."""
    machine = Machine(artifact().bytecode, {})
    machine.set_time(NOW_S)
    contract, operator = as_text(CONTRACT), OPERATOR.address
    for salt, id_ in zip(SALTS, (LANTERN, COIN), strict=True):
        for call in (
            calldata.create_class(salt, Terms(cap=0), bytes(32)),
            calldata.mint(ALICE.address, id_, 10),
            calldata.mint(BOB.address, id_, 10),
        ):
            assert machine.send(operator, contract, call).ok
    for intent in signed_by(theirs, library):
        assert machine.send(operator, contract, calldata.submit(intent)).ok, intent.kind
    for intent in signed_by(theirs, library):
        assert not machine.send(operator, contract, calldata.submit(intent)).ok, intent.kind


def test_ethers_opens_our_keystore(theirs: dict[str, Any]) -> None:
    """A V3 keystore of ours opens in ethers under the same passphrase, and gives the same key."""
    assert theirs["opened"] == {"address": ALICE.address, "key": hexadecimal(ALICE.private_key())}


def test_we_open_their_keystore(theirs: dict[str, Any], tmp_path: Path) -> None:
    """A keystore that ethers wrote is taken as a wallet, and signs as its owner."""
    wallets = Wallets(tmp_path)
    assert wallets.import_keystore("bob", theirs["keystore"], PASSPHRASE, light=True) == BOB.address
    struct, _ = INTENTS[0]
    assert wallets.unlock("bob", PASSPHRASE).sign_typed(DOMAIN, struct) == BOB.sign_typed(DOMAIN, struct)
