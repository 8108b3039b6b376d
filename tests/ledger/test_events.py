import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import ChainError
from p2pos.ledger import events
from p2pos.ledger.contracts import artifact
from p2pos.ledger.terms import Policy, Terms
from tests.ledger.chains import ALICE, BOB, CAROL

uint256 = st.integers(0, 2**256 - 1)


def topic(value) -> str:
    return f"0x{value:064x}" if isinstance(value, int) else "0x" + value[2:].lower().zfill(64)


def log(signature: str, indexed, types=(), data=()) -> dict:
    return {
        "topics": [signature, *map(topic, indexed)],
        "data": "0x" + encode(types, data).hex(),
        "blockNumber": "0x10",
        "blockHash": "0xb10c",
        "transactionHash": "0x7a",
        "logIndex": "0x2",
    }


FIVES = b"\x05" * 32
PLACE = events.Place(16, "0xb10c", "0x7a", 2)


def test_topics_are_those_of_the_abi():
    """Every event of the contract that concerns the ledger is known by its topic."""
    topics = {
        "0x" + keccak(f"{one['name']}({','.join(item['type'] for item in one['inputs'])})".encode()).hex()
        for one in artifact().abi
        if one["type"] == "event" and one["name"] not in {"ApprovalForAll", "URI", "EIP712DomainChanged"}
    }
    assert topics == set(events._READERS)


@given(uint256, uint256)
def test_a_single_transfer(id_, amount):
    """TransferSingle becomes one movement."""
    people = (CAROL.address, ALICE.address, BOB.address)
    raw = log(events.TRANSFER_SINGLE, people, ("uint256", "uint256"), (id_, amount))
    assert events.decode(raw) == [events.Moved(PLACE, 0, *people, id_, amount)]


@given(st.lists(st.tuples(uint256, uint256), max_size=5))
def test_a_batch_transfer(pairs):
    """TransferBatch becomes a movement per class, in order."""
    people = (CAROL.address, ALICE.address, BOB.address)
    ids, amounts = [list(column) for column in zip(*pairs, strict=True)] if pairs else ([], [])
    raw = log(events.TRANSFER_BATCH, people, ("uint256[]", "uint256[]"), (ids, amounts))
    assert events.decode(raw) == [events.Moved(PLACE, at, *people, *pair) for at, pair in enumerate(pairs)]


@given(st.binary(max_size=256))
def test_a_failed_intent_keeps_its_reason(reason):
    """IntentFailed carries the revert data, of any length."""
    raw = log(events.INTENT_FAILED, (ALICE.address, 5), ("bytes",), (reason,))
    assert events.decode(raw) == [events.IntentFailed(PLACE, ALICE.address, 5, reason)]


def test_the_other_events():
    """Classes, nonces and locks decode to what was emitted."""
    types = ("uint128", "bytes32", "bool", "uint8", "uint32", "address", "uint16")
    made = log(events.CLASS_CREATED, (7, ALICE.address), types, (3, FIVES, True, 2, 60, BOB.address, 250))
    terms = Terms(3, soulbound=True, policy=Policy.DELAYED, delay=60, royalty_receiver=BOB.address, royalty_bps=250)
    assert events.decode(made) == [events.ClassCreated(PLACE, 7, ALICE.address, FIVES, terms)]
    makes = log(events.MINTER_SET, (7, BOB.address), ("uint128",), (40,))
    assert events.decode(makes) == [events.MinterSet(PLACE, 7, BOB.address, 40)]
    announced = log(events.UPDATE_PROPOSED, (7, 2), ("bytes32", "uint64"), (FIVES, 99))
    assert events.decode(announced) == [events.UpdateProposed(PLACE, 7, 2, FIVES, 99)]
    assert events.decode(log(events.UPDATE_WITHDRAWN, (7, 2))) == [events.UpdateWithdrawn(PLACE, 7, 2)]
    updated = log(events.CLASS_UPDATED, (7, 2), ("bytes32", "bytes32"), (FIVES, bytes(32)))
    assert events.decode(updated) == [events.ClassUpdated(PLACE, 7, 2, FIVES, bytes(32))]
    spent = log(events.NONCE_CANCELLED, (ALICE.address, 9))
    assert events.decode(spent) == [events.NonceSpent(PLACE, ALICE.address, 9, cancelled=True)]
    held = log(events.LOCKED, (ALICE.address, BOB.address, 7), ("uint256", "uint64"), (2, 99))
    assert events.decode(held) == [events.LockChanged(PLACE, ALICE.address, BOB.address, 7, 2, 99)]
    used = log(events.NONCE_USED, (ALICE.address, 9))
    assert events.decode(used) == [events.NonceSpent(PLACE, ALICE.address, 9, cancelled=False)]
    failed = log(events.CALL_FAILED, (4,), ("bytes",), (b"why",))
    assert events.decode(failed) == [events.CallFailed(PLACE, 4, b"why")]
    may = log(events.SPEND_ALLOWED, (ALICE.address, BOB.address, 7), ("uint256", "uint64"), (2, 99))
    assert events.decode(may) == [events.SpendAllowed(PLACE, ALICE.address, BOB.address, 7, 2, 99)]
    took = log(events.SPENT, (ALICE.address, BOB.address, 7), ("uint256", "address"), (2, CAROL.address))
    assert events.decode(took) == [events.Spent(PLACE, ALICE.address, BOB.address, 7, 2, CAROL.address)]
    swapped = log(events.SWAPPED, (ALICE.address, BOB.address), ("uint256", "uint256"), (5, 6))
    assert events.decode(swapped) == [events.Swapped(PLACE, ALICE.address, BOB.address, 5, 6)]
    free = log(events.UNLOCKED, (ALICE.address, BOB.address, 7), ("uint256",), (2,))
    assert events.decode(free) == [events.LockChanged(PLACE, ALICE.address, BOB.address, 7, 2, 0)]


def test_foreign_events_are_passed_over():
    """An event of a kind that we don't follow is none."""
    assert events.decode(log("0x" + "ab" * 32, ())) == []
    assert events.decode(log("0x", ()) | {"topics": []}) == []


@pytest.mark.parametrize("data", ["0x", "0x" + "ff" * 64, "0x" + "00" * 31 + "40"])
def test_a_log_that_belies_its_topic_is_an_error(data):
    """A node that sends a log cut short or out of bounds is not believed."""
    people = (CAROL.address, ALICE.address, BOB.address)
    with pytest.raises(ChainError, match="not of the form"):
        events.decode(log(events.TRANSFER_BATCH, people) | {"data": data})
