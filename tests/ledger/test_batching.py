import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.ledger import calldata
from p2pos.ledger.batching import MAX_TX_GAS, call, cut, grant
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.queue_records import Waiting
from p2pos.ledger.typed_data import BatchTransfer, Domain, Item, Lock, Swap, Transfer, Unlock
from tests.ledger.structs import A, B

SIGNATURE = bytes(65)
TRANSFER = Transfer(A, B, 1, 2, 3, 4)
LOCK = Lock(A, B, 1, 2, 3, 4, 5)
UNLOCK = Unlock(A, B, 1, 2, 3)
GIFT = BatchTransfer(A, B, tuple(range(32)), (1,) * 32, 5, 6)
SWAP = Swap(A, B, (Item(1, 1),) * 32, (Item(2, 1),) * 32, 1, 2, 3)
KINDS = (TRANSFER, LOCK, UNLOCK, GIFT, SWAP)


def signed(struct) -> SignedIntent:
    return SignedIntent.of(Domain(1, A), struct, *[SIGNATURE] * len(struct.signers))


def waiting(*structs) -> list[Waiting]:
    return [Waiting(seq, signed(struct), 0) for seq, struct in enumerate(structs)]


def test_a_hundred_transfers_fit_one_transaction():
    """A full batch of transfers stays within EIP-7825's limit."""
    assert len(cut(waiting(*[TRANSFER] * 150), 100, 30_000_000)) == 100


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=120), st.integers(1, 100), st.integers(10**6, 4 * 10**7))
def test_what_is_cut_fits_and_no_more_would(structs, most, gas_limit):
    """The members are from the front, within count and gas; one more would pass one of them, or there is none."""
    limit = min(MAX_TX_GAS, gas_limit)
    members = cut(waiting(*structs), most, gas_limit)
    assert [one.seq for one in members] == list(range(len(members)))
    assert 1 <= len(members) <= most
    if len(members) > 1:
        assert call([one.intent for one in members])[1] <= limit
    if len(members) < min(most, len(structs)):
        more = [signed(struct) for struct in structs[: len(members) + 1]]
        assert call(more)[1] > limit * 0.9  # the size of one in a batch is rounded up


@pytest.mark.parametrize("struct", KINDS, ids=lambda struct: type(struct).__name__)
def test_one_alone_goes_by_its_own_function(struct):
    """An intent alone is submitted directly, with room for what its wallets do."""
    data, gas = call([signed(struct)])
    assert data == calldata.submit(signed(struct))
    assert gas > 21_000 + 40 * len(data) + grant(struct)


def test_transfers_share_the_cheap_way_and_mixed_kinds_the_other():
    """Only transfers go by `relay`; as soon as there is another kind, all go by `relayCalls`."""
    assert call([signed(TRANSFER)] * 2)[0][:4] == calldata.relay([signed(TRANSFER)] * 2)[:4]
    assert call([signed(TRANSFER), signed(LOCK)])[0][:4] == calldata.relay_calls([b""], 1)[:4]


def test_each_is_granted_what_the_dearest_needs():
    """A batch with a swap of many items in it grants all its members that much."""
    assert call([signed(TRANSFER), signed(SWAP)])[1] > 2 * grant(SWAP)
