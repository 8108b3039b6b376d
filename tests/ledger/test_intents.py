import contextlib
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.ledger.intents import (
    MAX_BYTES,
    Offer,
    Refusal,
    RefusedError,
    SignedIntent,
    check,
    check_offer,
    parse_any,
)
from p2pos.ledger.signatures import recover
from p2pos.ledger.typed_data import Domain, Item, Swap, Transfer, address
from tests.ledger.chains import ALICE, BOB, CAROL
from tests.ledger.structs import SAMPLES, domains, structs

DOMAIN = Domain(31337, address("0x" + "22" * 20))
NOW_S = 1_000
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # secp256k1's n


SWAP = Swap(ALICE.address, BOB.address, (Item(7, 1),), (Item(8, 20),), 5, 6, 2_000)


def signed(struct=None, domain=DOMAIN, by=(ALICE,)) -> SignedIntent:
    struct = struct or Transfer(ALICE.address, BOB.address, 7, 1, 5, 2_000)
    return SignedIntent.of(domain, struct, *[one.sign_typed(domain, struct) for one in by])


def refusal(intent, **changes) -> Refusal:
    with pytest.raises(RefusedError) as caught:
        check(intent, **{"domain": DOMAIN, "now_s": NOW_S, **changes})
    return caught.value.refusal


def test_a_sound_intent_passes_and_reads_back():
    """What was signed comes back from its file the same, and is taken."""
    intent = signed()
    assert SignedIntent.parse(json.dumps(intent.as_json())) == intent
    check(intent, DOMAIN, now_s=NOW_S)


@given(st.sampled_from(["from", "to", "id", "amount", "nonce", "deadline"]), st.integers(0, 2**160 - 1))
def test_any_changed_field_is_noticed(field, value):
    """A file whose fields were changed after signing no longer gives the digest it states."""
    data = signed().as_json()
    new = address(f"0x{value:040x}") if field in {"from", "to"} else str(value)
    if new != data["message"][field]:
        data["message"][field] = new
        assert refusal(SignedIntent.from_json(data)) is Refusal.TAMPERED


def test_a_tamperer_who_mends_the_digest_lacks_the_signature():
    """With fields and digest changed alike, the signature is not the owner's any more."""
    intent = signed()
    richer = dataclasses.replace(intent.struct, amount=1000)
    assert refusal(SignedIntent.of(DOMAIN, richer, *intent.signatures)) is Refusal.WRONG_SIGNER


def test_another_chain_contract_or_hour():
    """Wrong chain, wrong contract and too late are each told apart."""
    assert refusal(signed(domain=Domain(1, DOMAIN.contract))) is Refusal.WRONG_CHAIN
    assert refusal(signed(domain=Domain(31337, BOB.address))) is Refusal.WRONG_CONTRACT
    assert refusal(signed(), now_s=2_001) is Refusal.EXPIRED
    check(signed(), DOMAIN, now_s=2_000)


def test_the_owner_alone_signs():
    """Bob can't sign for Alice; for a contract wallet the chain decides, not we."""
    intent = signed(by=(BOB,))
    assert refusal(intent) is Refusal.WRONG_SIGNER
    check(intent, DOMAIN, now_s=NOW_S, contract_wallets={ALICE.address})
    check(intent, DOMAIN, now_s=NOW_S, contract_wallets=None)


def test_a_mirrored_signature_is_none():
    """The other s that fits a signature (EIP-2) is refused here as the contract refuses it."""
    intent = signed()
    (signature,) = intent.signatures
    s = ORDER - int.from_bytes(signature[32:64], "big")
    mirrored = signature[:32] + s.to_bytes(32, "big") + bytes([55 - signature[64]])
    assert recover(intent.digest, signature) == ALICE.address
    assert recover(intent.digest, mirrored) is None


@given(st.binary(max_size=70))
def test_recover_takes_any_bytes(signature):
    """Bytes that are no signature give nobody, never an error."""
    assert recover(b"\x01" * 32, signature) != ALICE.address


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["format", "type", "domain", "message", "signatures", "digest"]


@settings(max_examples=200)
@given(st.sampled_from(SAMPLES), st.sampled_from(FIELDS), json_values)
def test_nonsense_in_a_field_is_refused(struct, field, value):
    """Whatever stands in a field, the file is read or refused in one printable line, never an error of ours."""
    refused_or_read(signed(struct, by=(ALICE, BOB)[: len(struct.signers)]).as_json() | {field: value})


@settings(max_examples=200)
@given(st.sampled_from(SAMPLES), st.data(), json_values)
def test_nonsense_deep_inside_is_refused(struct, data, value):
    """The same for whatever stands anywhere inside the message, the domain and the signatures."""
    whole = signed(struct, by=(ALICE, BOB)[: len(struct.signers)]).as_json()
    spot = whole[data.draw(st.sampled_from(["message", "domain", "signatures"]))]
    while True:
        key = data.draw(st.sampled_from(list(spot) if isinstance(spot, dict) else range(len(spot))))
        if not isinstance(spot[key], dict | list) or not spot[key] or data.draw(st.booleans()):
            break
        spot = spot[key]
    spot[key] = value
    refused_or_read(whole)


@settings(max_examples=200)
@given(st.sampled_from(SAMPLES), st.integers(0, 4000), st.binary(max_size=8))
def test_bytes_written_over_a_file_are_refused(struct, at, junk):
    """A file of which a piece was overwritten is read or refused."""
    raw = json.dumps(signed(struct, by=(ALICE, BOB)[: len(struct.signers)]).as_json()).encode()
    at %= len(raw)
    with contextlib.suppress(RefusedError):
        parse_any(raw[:at] + junk + raw[at + len(junk) :])


def refused_or_read(value) -> None:
    said = ""
    try:
        SignedIntent.parse(json.dumps(value))
    except RefusedError as exc:
        said = str(exc)
    assert len(said) < 400
    assert said.isprintable()


@pytest.mark.parametrize(
    ("text", "changed", "fault"),
    [
        ('"amount": "1"', '"amount": "1", "amount": "100"', "names “amount” twice"),
        ('"id": "7"', '"id": {"a": 1}', "id: a dict is not a whole number"),
        ('"id": "7"', '"id": 1e3', "id: 1000.0 is not a whole number"),
        ('"id": "7"', f'"id": {"9" * 4000}', "id: a number of more than 256 bits"),
        ('"id": "7"', '"id": "7", "memo": "x"', "message has unknown fields memo"),
        ('"type": "Transfer"', '"type": "Gift"', "type: want one of Transfer, "),
        ('"type": "Transfer"', '"type": "Transfer", "note": 1', "the intent has unknown fields note"),
        ('"version": "1"', '"version": "2"', "domain: the intent was not signed for p2pos version 1"),
        ('"signatures": ["0x', '"signatures": ["0x ', "signature: not hex"),
        ('"digest": "0x', '"digest": "0x00', "digest: 33 bytes, not 32"),
        (BOB.address, BOB.address.swapcase().replace("0X", "0x"), "to: .* has a wrong checksum"),
    ],
    ids=lambda one: one[:24],
)
def test_faults_are_named(text, changed, fault):
    """Each fault is said in one line that names the field."""
    whole = json.dumps(signed().as_json())
    assert text in whole
    with pytest.raises(RefusedError, match=fault) as caught:
        SignedIntent.parse(whole.replace(text, changed, 1))
    assert caught.value.refusal is Refusal.MALFORMED
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"[" * 5000, b"\xff", b" " * (MAX_BYTES + 1)])
def test_what_is_no_intent_is_refused(data):
    """Bytes that are no intent are refused as malformed."""
    with pytest.raises(RefusedError) as caught:
        SignedIntent.parse(data)
    assert caught.value.refusal is Refusal.MALFORMED


@given(domains, structs, st.lists(st.binary(min_size=1, max_size=100), min_size=2, max_size=2))
def test_every_kind_reads_back(domain, struct, signatures):
    """An intent of any kind comes back from its file the same."""
    intent = SignedIntent.of(domain, struct, *signatures[: len(struct.signers)])
    assert SignedIntent.parse(json.dumps(intent.as_json())) == intent


def test_both_sign_a_swap():
    """A swap needs both signatures, each by its own signer; the one at fault is named."""
    check(signed(SWAP, by=(ALICE, BOB)), DOMAIN, now_s=NOW_S)
    for by, fault in (((BOB, BOB), ALICE), ((ALICE, CAROL), BOB), ((BOB, ALICE), ALICE)):
        with pytest.raises(RefusedError, match=f"not by {fault.address}"):
            check(signed(SWAP, by=by), DOMAIN, now_s=NOW_S)
    lacking = signed(SWAP, by=(ALICE, BOB)).as_json() | {"signatures": ["0x12"]}
    with pytest.raises(RefusedError, match="signatures: want a list of 2"):
        SignedIntent.from_json(lacking)


def test_an_offer_becomes_an_intent():
    """What the first party signed is a file of its own; with the second's signature it is an intent."""
    offer = Offer.of(DOMAIN, SWAP, ALICE.sign_typed(DOMAIN, SWAP))
    read = parse_any(json.dumps(offer.as_json()))
    assert read == offer
    check_offer(read, DOMAIN, now_s=NOW_S)
    intent = read.countersign(BOB.sign_typed(DOMAIN, SWAP))
    check(intent, DOMAIN, now_s=NOW_S)
    assert parse_any(json.dumps(intent.as_json())) == intent
    with pytest.raises(RefusedError, match="not by"):
        check_offer(Offer.of(DOMAIN, SWAP, BOB.sign_typed(DOMAIN, SWAP)), DOMAIN, now_s=NOW_S)
    with pytest.raises(RefusedError, match="this is an offer, not a signed intent"):
        SignedIntent.parse(json.dumps(offer.as_json()))
    with pytest.raises(RefusedError, match="an offer is of a Swap"):
        Offer.from_json(offer.as_json() | {"type": "Transfer", "message": SAMPLES[0].message()})
