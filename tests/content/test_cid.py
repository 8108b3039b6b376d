import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.content import cid
from p2pos.errors import PeerError, UserError

KNOWN = {
    # what `ipfs block put` and every CID inspector say of these bytes
    b"": "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    b"hello world": "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e",
}


@pytest.mark.parametrize("data", KNOWN)
def test_known_cids(data):
    """The CIDs are those that other implementations give."""
    assert cid.of(data) == KNOWN[data]


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32), st.sampled_from(["raw", "dag-pb"]))
def test_bytes_and_text_are_one(digest, codec):
    """The 36 bytes and the text give one another, the codec and the digest."""
    name = cid.from_digest(digest, codec)
    assert cid.decode(cid.encode(name)) == name
    assert cid.encode(name)[4:] == digest
    assert cid.codec(name) == codec


@settings(deadline=None)
@given(st.text(max_size=70) | st.from_regex(r"\Ab[a-z2-7]{58}\Z"))
def test_any_text_is_a_cid_in_its_one_form_or_refused(text):
    """Whatever is accepted is exactly what our own writing of it is."""
    try:
        data = cid.encode(text)
    except UserError:
        return
    assert cid.decode(data) == text


@pytest.mark.parametrize(
    "text",
    [
        "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",  # version 0
        "f01551220" + "00" * 32,  # base16
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvykv",  # the last letter's idle bits
        "BAFKREIHDWDCEFGH4DQKJV67UZCMW7OJEE6XEDZDETOJUZJEVTENXQUVYKU",
        "",
    ],
)
def test_other_forms_are_refused(text):
    """A CID in another form would be a second name of the same bytes."""
    with pytest.raises(UserError, match="CID"):
        cid.encode(text)


def test_a_node_is_not_raw_bytes():
    """Only raw bytes' digest stands on chain."""
    with pytest.raises(UserError, match="raw bytes"):
        cid.digest(cid.of(b"x", "dag-pb"))
    assert cid.digest(cid.of(b"x")) == hashlib.sha256(b"x").digest()


def test_other_bytes_are_the_peers_fault():
    """Bytes under another name's CID are refused at the fault of whoever sent them."""
    assert cid.check(b"x", cid.of(b"x"), peer="p") == b"x"
    with pytest.raises(PeerError, match="not what was asked for"):
        cid.check(b"y", cid.of(b"x"), peer="p")
