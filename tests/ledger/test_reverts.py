import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from p2pos.ledger.contracts import artifact
from p2pos.ledger.intents import Refusal
from p2pos.ledger.reverts import SENTENCES, Reverts
from tests.ledger.chains import ALICE

REVERTS = Reverts(artifact().abi)
ERRORS = [one for one in artifact().abi if one["type"] == "error"]
SAMPLES = {"address": ALICE.address, "string": "no", "bytes32": bytes(32), "bytes": b"", "bytes4": b"\x01\x02\x03\x04"}
PLUMBING = {
    # can't come from a call that we make: the constructor's, and approvals and arrays of the standard's batch calls
    "InvalidShortString",
    "StringTooLong",
    "ERC1155InvalidApprover",
    "ERC1155InvalidOperator",
    "ERC1155InvalidArrayLength",
    "StringsInsufficientHexLength",
}


def data_of(entry) -> bytes:
    types = [item["type"] for item in entry["inputs"]]
    selector = keccak(f"{entry['name']}({','.join(types)})".encode())[:4]
    return selector + encode(types, [SAMPLES.get(kind, 9) for kind in types])


@pytest.mark.parametrize("entry", ERRORS, ids=lambda entry: entry["name"])
def test_every_error_of_the_contract_has_its_sentence(entry):
    """Each custom error that can reach us is said in words of its own."""
    revert = REVERTS.read(data_of(entry))
    assert revert.name == entry["name"]
    assert entry["name"] in SENTENCES or entry["name"] in PLUMBING
    assert revert.text
    assert "\n" not in revert.text


@given(st.binary(max_size=300))
def test_any_bytes_can_be_read(data):
    """A contract may return anything; there is always a line to show."""
    assert REVERTS.read(data).text


@pytest.mark.parametrize("entry", ERRORS, ids=lambda entry: entry["name"])
def test_cut_data_still_names_the_error(entry):
    """Where a batch passes on only the head of the data, the error's name remains."""
    data = data_of(entry)
    assert REVERTS.read(data[: len(data) - 16] if len(data) > 4 else data).name == entry["name"]


def test_what_errors_mean_for_an_intent():
    """A used nonce is a replay, a missing balance is one, an unknown error is a plain refusal."""
    by_name = {one["name"]: REVERTS.read(data_of(one)).refusal for one in ERRORS}
    assert by_name["NonceAlreadyUsed"] is Refusal.REPLAYED
    assert by_name["IntentExpired"] is Refusal.EXPIRED
    assert by_name["BadSignature"] is Refusal.WRONG_SIGNER
    assert by_name["ERC1155InsufficientBalance"] is by_name["ItemLocked"] is Refusal.BALANCE
    assert REVERTS.read(b"\x01\x02\x03\x04").refusal is Refusal.REVERTED
