import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.ledger import calldata, deeds
from p2pos.ledger.contracts import artifact
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.terms import Policy, Terms
from p2pos.ledger.typed_data import BatchTransfer, Domain, Item, Lock, Spend, Swap, Transfer, Unlock, digest
from p2pos.types import Wei
from tests.ledger.chains import ALICE, BOB, CAROL, FAR, person

DOMAIN = Domain(31337, person("contract").address)
NAMES = {ALICE.address: "alice", BOB.address: "bob", CAROL.address: "carol"}
DESCRIBED = "described by 0x" + "00" * 32
MADE = "alice makes a new class of items for good:"
LATER = "its descriptor is changed by the issuer after a delay of 60 s"
OWED = "owed 2.5 % of each sale"
ITEMS = {7: "Lantern", 8: "Coin"}


def told(data: bytes, *, to: str = DOMAIN.contract, value: int = 0, contract: str = DOMAIN.contract) -> deeds.Told:
    fields = {"to": to, "data": data, "value": value, "gas": 100_000, "maxFeePerGas": 15 * 10**9}
    return deeds.told(fields, ALICE.address, contract, NAMES, ITEMS)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (calldata.mint(BOB.address, 7, 3), "alice makes 3 × Lantern for bob"),
        (calldata.set_minter(7, BOB.address, 3), "alice lets bob make up to 3 × Lantern"),
        (calldata.set_minter(7, BOB.address, 0), "alice no longer lets bob make Lantern"),
        (calldata.burn(7, 3), "alice destroys 3 × Lantern for good"),
        (calldata.update_class(7, b"\x01" * 32), f"alice gives Lantern a new descriptor, 0x{'01' * 32}"),
        (calldata.apply_update(7), "alice puts the proposed descriptor of Lantern in force"),
        (calldata.withdraw_update(7), "alice withdraws the proposed descriptor of Lantern"),
        (calldata.cancel(5), "alice uses up nonce 5, so that nothing signed with it takes effect"),
        (calldata.unlock(BOB.address, CAROL.address, 7), "alice releases what world carol holds of bob's Lantern"),
        (calldata.spend(BOB.address, 8, 3, CAROL.address), "alice takes 3 × Coin from bob, as allowed, for carol"),
        (
            calldata.spend(BOB.address, 8, 3, "0x" + "00" * 20),
            "alice takes 3 × Coin from bob, as allowed, and destroys them",
        ),
        (calldata.revoke_spend(BOB.address, 8), "alice no longer lets bob take Coin"),
        (
            calldata.safe_transfer_from(ALICE.address, BOB.address, 9, 3, b""),
            "alice moves 3 × item 0x9 from alice to bob",
        ),
        (calldata.relay_calls([b"", b""], 100_000), "alice pays for 2 acts that others signed"),
        (
            calldata.create_class(bytes(32), Terms(0), bytes(32)),
            f"{MADE} no limit to how many; its descriptor is changed by nobody, ever; {DESCRIBED}",
        ),
        (
            calldata.create_class(bytes(32), Terms(5, True, Policy.DELAYED, 60, BOB.address, 250), bytes(32)),
            f"{MADE} at most 5 ever; it never changes hands; {LATER}; bob is {OWED}; {DESCRIBED}",
        ),
    ],
)
def test_every_function_in_words(data, sentence):
    """What a transaction does is read from its bytes and said in a sentence, without a warning."""
    assert told(data).sentence == sentence
    assert told(data).cautions == ()


@pytest.mark.parametrize(
    ("struct", "sentence"),
    [
        (Transfer(BOB.address, CAROL.address, 7, 1, 2, FAR), "bob gives carol 1 × Lantern; "),
        (BatchTransfer(BOB.address, CAROL.address, (7, 8), (1, 2), 3, FAR), "bob gives carol 1 × Lantern and 2 × Coin"),
        (Lock(BOB.address, CAROL.address, 7, 1, FAR, 2, FAR), "bob lets world carol hold 1 × Lantern"),
        (Unlock(BOB.address, CAROL.address, 7, 1, FAR), "world carol releases all of bob's Lantern"),
        (Spend(BOB.address, CAROL.address, 8, 5, FAR, 1, FAR), "bob lets world carol take up to 5 × Coin"),
        (Swap(BOB.address, CAROL.address, (Item(7, 1),), (Item(8, 9),), 1, 2, FAR), "bob gives carol 1 × Lantern, and"),
    ],
)
def test_what_others_signed_is_said_too(struct, sentence):
    """Who pays for another's intent is told what it does."""
    intent = SignedIntent(DOMAIN, struct, tuple(b"\x01" * 65 for _ in struct.signers), digest(DOMAIN, struct))
    assert told(calldata.submit(intent)).sentence.startswith(f"alice pays for what others signed: {sentence}")


def test_every_function_that_changes_the_chain_has_words():
    """No function of the contract is left to be shown by its name alone."""
    changing = {
        entry["name"]
        for entry in artifact().abi
        if entry["type"] == "function" and entry["stateMutability"] not in {"view", "pure"}
    }
    assert changing == set(deeds._SENTENCES) | set(deeds._SIGNED)


def test_the_fee_is_said_exactly():
    """The most that it can cost is gas limit × fee cap, in the chain's coin to the last digit."""
    assert str(told(calldata.cancel(5))).endswith("; the fee is at most 0.0015 of the chain's coin")
    assert deeds.coin(Wei(1)) == "0.000000000000000001"
    assert deeds.coin(Wei(10**19)) == "10"
    assert deeds.coin(Wei(0)) == "0"


def test_power_over_everything_is_warned_of():
    """Giving somebody power over every item is said, and that it is."""
    data = deeds._functions()
    selector = next(key for key, function in data.items() if function.name == "setApprovalForAll")
    words = bytes(12) + bytes.fromhex(BOB.address[2:])
    given, taken = told(selector + words + bytes(31) + b"\x01"), told(selector + words + bytes(32))
    assert given.sentence == "alice lets bob move every item"
    assert "bob could move every item of yours" in given.cautions[0]
    assert (taken.sentence, taken.cautions) == ("alice no longer lets bob move every item", ())
    assert given.addresses == (BOB.address,)


def test_elsewhere_and_with_coin():
    """Another contract than the settings', coin that goes along, and a contract that is put on the chain are said."""
    other = told(calldata.cancel(5), to=BOB.address, value=10**18)
    assert other.cautions == (
        "it also sends 1 of the chain's coin",
        f"{BOB.address} is not the asset contract of the settings",
    )
    assert told(artifact().bytecode, to="").sentence == "alice puts the asset contract on the chain"
    assert "that is not the asset contract" in told(b"\x00", to="").sentence


@given(st.sampled_from(sorted(deeds._functions())) | st.binary(max_size=4), st.binary(max_size=200))
def test_any_bytes_are_told_or_warned_of(selector, rest):
    """Bytes that mean nothing break nothing: there is a sentence, and where it can't say what, a warning."""
    found = told(selector + rest)
    assert found.sentence.startswith("alice ")
    if "can't be read" in found.sentence:
        assert "what it does can't be told from its data" in found.cautions
