import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import InternalError
from p2pos.ledger.intents import SignedIntent
from p2pos.ledger.packed import pack, unpack
from p2pos.ledger.typed_data import Domain
from tests.ledger.structs import SAMPLES, A, domains, structs

signatures = st.binary(min_size=1, max_size=200)


@given(domains, structs, st.tuples(signatures, signatures), st.binary(min_size=32, max_size=32))
def test_what_is_packed_comes_back(domain, struct, pair, digest):
    """An intent of any kind is the same after packing and unpacking."""
    intent = SignedIntent(domain, struct, pair[: len(struct.signers)], digest)
    assert unpack(pack(intent), digest) == intent


@pytest.mark.parametrize("struct", SAMPLES, ids=lambda struct: type(struct).__name__)
def test_a_damaged_file_is_said(struct):
    """Bytes that were cut short are refused, wherever the cut is inside the struct."""
    data = pack(SignedIntent(Domain(1, A), struct, (b"s",) * len(struct.signers), bytes(32)))
    for end in range(len(data) - 3 * len(struct.signers)):
        with pytest.raises(InternalError, match="damaged"):
            unpack(data[:end], bytes(32))
