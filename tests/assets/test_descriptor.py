import json

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.assets.descriptor import MAX_ATTRIBUTES, MAX_BYTES, MAX_INT, Descriptor, FileRef
from p2pos.assets.plain_text import plain
from p2pos.content import cid
from p2pos.errors import UserError

NOT_SHOWN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def is_plain(text):
    try:
        plain(text)
    except ValueError:
        return False
    return True


texts = st.text(st.characters(exclude_categories=NOT_SHOWN, codec="utf-8"), max_size=40).filter(is_plain)
words = texts.filter(bool)
values = st.booleans() | st.integers(-MAX_INT, MAX_INT) | texts
keys = st.from_regex(r"\A[a-z][a-z0-9_]{0,31}\Z")
refs = st.builds(
    lambda data, codec, size, media_type, licence, role: FileRef(
        cid=cid.of(data, codec), size=size, media_type=media_type, licence=licence, role=role
    ),
    st.binary(max_size=4),
    st.sampled_from(["raw", "dag-pb"]),
    st.integers(0, 1 << 40),
    st.sampled_from(["model/gltf-binary", "image/png", "audio/ogg"]),
    st.sampled_from(["", "CC0-1.0"]),
    st.sampled_from(["model", "image", "audio", "lod-1"]),
)


@st.composite
def descriptors(draw):
    attributes = draw(st.dictionaries(keys, values, max_size=8))
    numbers = sorted(key for key, value in attributes.items() if type(value) is int)
    units = draw(st.dictionaries(st.sampled_from(numbers), st.sampled_from(["g", "mm"]))) if numbers else {}
    return Descriptor.make(
        name=draw(words),
        kind=draw(st.sampled_from(["item", "currency"])),
        description=draw(texts),
        attributes=attributes,
        units=units,
        files=draw(st.lists(refs, max_size=4)),
    )


@settings(deadline=None)
@given(descriptors())
def test_canonical_is_what_rfc8785_says(descriptor):
    """The serialiser that is fast gives the bytes of the one that follows the RFC to the letter."""
    assert descriptor.canonical() == rfc8785.dumps(descriptor.model_dump(mode="json"))


@settings(deadline=None)
@given(descriptors())
def test_a_descriptor_reads_back(descriptor):
    """The canonical bytes give the same descriptor, and their CID holds the digest that stands on chain."""
    data = descriptor.canonical()
    assert Descriptor.parse(data) == descriptor
    assert descriptor.cid() == cid.of(data)
    assert cid.from_digest(descriptor.digest()) == descriptor.cid()


@settings(deadline=None)
@given(descriptors(), st.data())
def test_one_flipped_bit_is_another_document(descriptor, data):
    """Any changed bit gives another address, or no descriptor at all."""
    raw = bytearray(descriptor.canonical())
    at = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[at // 8] ^= 1 << (at % 8)
    assert cid.of(bytes(raw)) != descriptor.cid()


def test_every_flipped_bit_is_refused():
    """Of a whole descriptor each bit by itself, over ten thousand: against the digest on chain none passes."""
    files = [
        {"role": role, "cid": cid.of(role.encode()), "size": 9, "media_type": "image/png"} for role in "abcdefghij"
    ]
    made = Descriptor.make(name="Bronze Lantern", attributes={"light": 3, "lit": True}, files=files)
    data, digest = made.canonical(), made.digest()
    assert 8 * len(data) >= 10_000
    for bit in range(8 * len(data)):
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << bit % 8
        with pytest.raises(UserError, match="digest is not the one on chain"):
            Descriptor.parse(bytes(spoilt), digest)


@settings(deadline=None)
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
        ({"name": "x", "files": "image"}, "files"),
        ({"name": "x", "image": "http://203.0.113.1/x.png"}, "image is not empty, as the files say"),
        ({"name": "x", "units": {"mass": "g"}}, "“mass” is no attribute that is a whole number"),
        ({"name": "x", "units": {"lit": "g"}, "attributes": {"lit": True}}, "“lit” is no attribute"),
        ({"name": "\ud800"}, "name"),
        ({"name": "x", "attributes": {"\ud800": 1}}, "half a character"),
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


def test_the_document_is_what_wallets_look_for():
    """Its image and its animation are those of the files with these roles, whoever writes them."""
    data = {"size": 3, "media_type": "image/png"}
    named = {role: cid.of(role.encode()) for role in ("image", "model", "lod-1")}
    made = Descriptor.make(name="x", files=[{**data, "role": role, "cid": named[role]} for role in named])
    assert made.image == f"ipfs://{named['image']}"
    assert made.animation_url == f"ipfs://{named['model']}"
    spoilt = made.canonical().replace(f'"image":"ipfs://{named["image"]}"'.encode(), b'"image":""')
    with pytest.raises(UserError, match="as the files say"):
        Descriptor.parse(spoilt)


def test_another_digest_is_refused_first():
    """Where the digest is known, bytes that don't have it are not even read."""
    made = Descriptor.make(name="x")
    assert Descriptor.parse(made.canonical(), made.digest()) == made
    with pytest.raises(UserError, match="digest is not the one on chain"):
        Descriptor.parse(b"[", made.digest())


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (b'{"name": "x", "name": "y"}', "names “name” twice"),
        (b'{"name": "x", "attributes": {"a": 1.0}}', "no whole number"),
        (b'{"name": "x", "attributes": {"a": ' + b"9" * 5000 + b"}}", "no whole number"),
        (b"[" * 100_000, "nests more than"),
        (b'\xef\xbb\xbf{"name": "x"}', "byte order mark"),
        (b'{"name": "\xff"}', "not UTF-8"),
        (b"[]", "not a JSON object"),
        (b'{"cls": 1, "self": 2, "name": "x"}', "cls|self"),
    ],
)
def test_an_authors_document_has_one_meaning(document, fault):
    """What another reader could take for something else is refused, in a line that says why."""
    with pytest.raises(UserError, match=fault) as caught:
        Descriptor.of_json(document)
    assert "\n" not in str(caught.value)


fields = st.sampled_from(["name", "kind", "attributes", "files", "units", "image", "format", "cls", "self", "fields"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | fields, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(fields, anything, max_size=6))
def test_any_document_is_read_or_refused(value):
    """Whatever an object holds, and wherever, it is a descriptor or a UserError of one line."""
    try:
        made = Descriptor.of_json(json.dumps(value).encode())
    except UserError as exc:
        said = str(exc)
    else:
        said = ""
        assert Descriptor.parse(made.canonical()) == made
    assert "\n" not in said
