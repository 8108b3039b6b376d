import contextlib
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.ledger.intents import MAX_BYTES, Refusal, RefusedError, SignedIntent, check, recover, sentence, when
from p2pos.ledger.typed_data import Domain, Lock, Transfer, address, digest
from tests.ledger.chains import ALICE, BOB

DOMAIN = Domain(31337, address("0x" + "22" * 20))
NOW_S = 1_000
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141  # secp256k1's n


def signed(struct=None, domain=DOMAIN, by=ALICE) -> SignedIntent:
    struct = struct or Transfer(ALICE.address, BOB.address, 7, 1, 5, 2_000)
    return SignedIntent(domain, struct, by.sign_typed(domain, struct), digest(domain, struct))


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
    assert refusal(SignedIntent(DOMAIN, richer, intent.signature, digest(DOMAIN, richer))) is Refusal.WRONG_SIGNER


def test_another_chain_contract_or_hour():
    """Wrong chain, wrong contract and too late are each told apart."""
    assert refusal(signed(domain=Domain(1, DOMAIN.contract))) is Refusal.WRONG_CHAIN
    assert refusal(signed(domain=Domain(31337, BOB.address))) is Refusal.WRONG_CONTRACT
    assert refusal(signed(), now_s=2_001) is Refusal.EXPIRED
    check(signed(), DOMAIN, now_s=2_000)


def test_the_owner_alone_signs():
    """Bob can't sign for Alice; for a contract wallet the chain decides, not we."""
    intent = signed(by=BOB)
    assert refusal(intent) is Refusal.WRONG_SIGNER
    check(intent, DOMAIN, now_s=NOW_S, contract_wallet=True)


def test_a_mirrored_signature_is_none():
    """The other s that fits a signature (EIP-2) is refused here as the contract refuses it."""
    intent = signed()
    s = ORDER - int.from_bytes(intent.signature[32:64], "big")
    mirrored = intent.signature[:32] + s.to_bytes(32, "big") + bytes([55 - intent.signature[64]])
    assert recover(intent.digest, intent.signature) == ALICE.address
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
FIELDS = ["format", "type", "domain", "message", "signature", "digest"]


@settings(max_examples=200)
@given(st.sampled_from(FIELDS), json_values)
def test_nonsense_in_a_field_is_refused(field, value):
    """Whatever stands in a field, the file is read or refused, never an error of ours."""
    data = signed().as_json() | {field: value}
    with contextlib.suppress(RefusedError):
        SignedIntent.from_json(data)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"[" * 5000, b"\xff", b" " * (MAX_BYTES + 1)])
def test_what_is_no_intent_is_refused(data):
    """Bytes that are no intent are refused as malformed."""
    with pytest.raises(RefusedError) as caught:
        SignedIntent.parse(data)
    assert caught.value.refusal is Refusal.MALFORMED


def test_sentences():
    """What is signed reads as one plain sentence, with names where they are known and whole addresses elsewhere."""
    names = {ALICE.address: "alice", BOB.address: "bob"}
    items = {7: "Bronze Lantern"}
    late = "anyone may submit this until 1970-01-01 00:33:20 UTC"
    give = Transfer(ALICE.address, BOB.address, 7, 1, 5, 2_000)
    assert sentence(give, names=names, items=items) == f"alice gives bob 1 × Bronze Lantern; {late}"
    assert BOB.address in sentence(give, names={}, items={})
    hold = Lock(ALICE.address, BOB.address, 7, 2, 60, 5, 2_000)
    held = "alice lets world bob hold 2 × Bronze Lantern in place until 1970-01-01 00:01:00 UTC"
    assert sentence(hold, names=names, items=items) == f"{held}; {late}"
    nothing = Transfer(ALICE.address, ALICE.address, 0, 0, 5, 2_000)
    assert "alice uses up nonce 5" in sentence(nothing, names=names, items=items)


def test_a_date_beyond_dates():
    """A deadline past the year 9999 can still be shown."""
    assert when(2**256 - 1) == "the end of time"
