import json
import unicodedata

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from p2pos.assets.descriptor import MAX_ATTRIBUTES, MAX_BYTES, MAX_INT, Descriptor, FileRef
from p2pos.content import cid
from p2pos.errors import UserError

words = st.text(st.characters(categories=["L", "N"], codec="utf-8"), min_size=1, max_size=20).filter(
    lambda text: unicodedata.is_normalized("NFC", text)
)
values = st.booleans() | st.integers(-MAX_INT, MAX_INT) | words
keys = st.from_regex(r"\A[a-z][a-z0-9_]{0,31}\Z")
descriptors = st.builds(
    lambda name, kind, attributes: Descriptor.make(name=name, kind=kind, attributes=attributes),
    words,
    st.sampled_from(["item", "currency"]),
    st.dictionaries(keys, values, max_size=5),
)


@given(descriptors)
def test_a_descriptor_reads_back(descriptor):
    """The canonical bytes give the same descriptor, and their CID holds the digest that stands on chain."""
    data = descriptor.canonical()
    assert Descriptor.parse(data) == descriptor
    assert descriptor.cid() == cid.of(data)
    assert cid.from_digest(descriptor.digest()) == descriptor.cid()


@given(descriptors, st.data())
def test_one_flipped_bit_is_another_document(descriptor, data):
    """Any changed bit gives another address, or no descriptor at all."""
    raw = bytearray(descriptor.canonical())
    at = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[at // 8] ^= 1 << (at % 8)
    assert cid.of(bytes(raw)) != descriptor.cid()


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(data):
    """A stranger's bytes are a descriptor or a UserError."""
    with pytest.raises(UserError):
        Descriptor.parse(data)


def test_only_the_canonical_form_counts():
    """The same document with other spacing or order is refused, so that one descriptor has one hash."""
    data = Descriptor.make(name="Bronze Lantern", attributes={"light": 3, "lit": True}).canonical()
    value = json.loads(data)
    for other in (json.dumps(value).encode(), json.dumps(value, sort_keys=True, indent=1).encode()):
        with pytest.raises(UserError, match="not in canonical form"):
            Descriptor.parse(other)


def test_defaults_are_spelled_out():
    """A document that leaves out a field is not canonical: what is hashed says everything."""
    with pytest.raises(UserError, match="not in canonical form"):
        Descriptor.parse(rfc8785.dumps({"format": "p2pos-descriptor-1", "name": "x"}))


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"name": " x"}, "begins or ends with a blank"),
        ({"name": "a\u202eb"}, r"U\+202E, which doesn't show"),
        ({"name": "e\u0301"}, "NFC"),
        ({"name": "x", "kind": "Item"}, "kind"),
        ({"name": "x", "format": "other"}, "format"),
        ({"name": "x", "colour": "red"}, "colour"),
        ({"name": "x", "attributes": {"Light": 1}}, "write small letters"),
        ({"name": "x", "attributes": {"light": 1.5}}, "whole number"),
        ({"name": "x", "attributes": {"light": MAX_INT + 1}}, "whole number"),
        ({"name": "x", "attributes": {"light": None}}, "whole number"),
        ({"name": "x", "attributes": {f"a{n}": n for n in range(MAX_ATTRIBUTES + 1)}}, "attributes"),
        ({"name": "x", "attributes": {f"a{n}": "x" * 1000 for n in range(MAX_ATTRIBUTES)}}, f"limit of {MAX_BYTES}"),
        ({"name": "x", "files": [{"role": "image"}]}, "files"),
    ],
)
def test_what_a_descriptor_may_not_hold(fields, fault):
    """Each fault is one line that names the field."""
    with pytest.raises(UserError, match=fault) as caught:
        Descriptor.make(**fields)
    assert "\n" not in str(caught.value)


def test_files_are_named_by_cid():
    """A file is a role, a CID, a size and a type; a CID that isn't one of ours is refused."""
    fields = {"role": "model", "size": 3, "media_type": "model/gltf-binary", "licence": "CC0-1.0"}
    made = Descriptor.make(name="x", files=[{**fields, "cid": cid.of(b"abc")}])
    assert made.files == [FileRef(cid=cid.of(b"abc"), **fields)]
    assert Descriptor.parse(made.canonical()) == made
    with pytest.raises(UserError, match="files"):
        Descriptor.make(name="x", files=[{**fields, "cid": "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"}])
