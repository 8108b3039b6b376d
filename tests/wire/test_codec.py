"""Messages survive the wire as they were, always as the same bytes, and nothing else passes for one."""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import PeerError
from p2pos.wire import codec
from p2pos.wire.messages import (
    MAX_CONTEXT,
    Ack,
    Announcement,
    Block,
    Chunk,
    Close,
    Digests,
    Fault,
    Grammar,
    Have,
    Logprobs,
    Marks,
    News,
    Open,
    Probe,
    Progress,
    Repair,
    Replay,
    Sampling,
    Signed,
    StageRef,
    StatusAnswer,
    StatusRequest,
    Step,
    TensorHeader,
    Tokens,
    Want,
    WantChunk,
    WantDigests,
    WantHave,
    WireMessage,
    farewell,
)

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "messages.json").read_text())

sessions = st.binary(min_size=16, max_size=16)
positions = st.integers(0, MAX_CONTEXT)
tokens = st.integers(0, (1 << 31) - 1)
token_lists = st.lists(tokens, max_size=20)
some_tokens = st.lists(tokens, min_size=1, max_size=20)
text = st.text(max_size=20)
keys = st.lists(st.binary(min_size=16, max_size=16), max_size=3)
logprobs = st.floats(allow_nan=False)
peers = st.text(min_size=8, max_size=60)
addresses = st.lists(st.text(min_size=1, max_size=60), max_size=16)
layers = st.integers(0, 4096)
sizes = st.integers(0, (1 << 63) - 1)
cids = st.text(min_size=1, max_size=100)
fingerprints = st.binary(min_size=8, max_size=8)
samplings = st.builds(
    Sampling,
    st.floats(0.0, 100.0),
    st.floats(0.0, 1.0, exclude_min=True),
    st.integers(0, 1 << 20),
    st.floats(0.0, 100.0, exclude_min=True),
    sizes,
    st.floats(0.0, 1.0),
    st.floats(-2.0, 2.0),
    st.floats(-2.0, 2.0),
    st.lists(st.tuples(tokens, st.floats(-100.0, 100.0)), max_size=3),
    st.integers(0, 21),
    st.none() | st.builds(Grammar, st.sampled_from(["json_schema", "regex", "lark"]), text),
)
announcements = st.builds(
    Announcement,
    peers,
    addresses,
    sizes,
    sizes,
    cids,
    text,
    st.integers(1, 4096),
    layers,
    layers,
    st.sampled_from(["bf16", "f32", "f16"]),
    st.floats(0.0, allow_nan=False),
    sizes,
    sizes,
    sizes,
    sizes,
    st.booleans(),
    st.sampled_from(["none", "int8", "int4"]),
    st.floats(0.0, allow_nan=False),
    sizes,
    sizes,
    st.lists(st.tuples(peers, st.floats(0.0, allow_nan=False)), max_size=16),
    st.booleans(),
    st.booleans(),
)
signed = st.builds(Signed, st.binary(max_size=4096), st.binary(max_size=512), st.binary(max_size=512))
messages = st.one_of(
    st.builds(
        Open,
        sessions,
        cids,
        peers,
        st.lists(st.builds(StageRef, peers, addresses, layers, layers), min_size=1, max_size=4),
        st.integers(0, 255),
        st.integers(1, MAX_CONTEXT),
        st.integers(1, MAX_CONTEXT),
        st.lists(tokens, max_size=64),
        samplings,
        token_lists,
        keys,
        token_lists,
        positions,
        positions,
        sizes,
    ),
    st.builds(
        Tokens,
        sessions,
        positions,
        some_tokens,
        st.sampled_from(["", "stop", "length"]),
        st.lists(st.builds(Logprobs, logprobs, st.lists(st.tuples(tokens, logprobs), max_size=20)), max_size=1),
    ),
    st.builds(
        Step,
        sessions,
        positions,
        st.builds(
            TensorHeader,
            st.sampled_from(["bf16", "f32", "f16"]),
            st.lists(st.integers(1, 1 << 24), min_size=1, max_size=4),
        ),
        keys,
    ),
    st.builds(Ack, sessions, positions, st.none() | sizes),
    st.builds(Close, sessions, text),
    st.builds(Fault, sessions, st.sampled_from(["busy", "internal", "bad_peer"]), text, text),
    st.builds(
        Repair,
        sessions,
        sizes,
        st.lists(st.builds(StageRef, peers, addresses, layers, layers), min_size=1, max_size=4),
        st.integers(0, 255),
        positions,
        st.booleans(),
    ),
    st.builds(Probe, sessions, sizes),
    st.builds(Progress, sessions, sizes, positions, positions, positions, token_lists),
    st.builds(Replay, sessions, sizes, positions),
    st.builds(StatusRequest, st.none() | signed, st.just("") | cids),
    st.builds(StatusAnswer, st.lists(signed, max_size=3)),
    st.builds(
        News,
        st.lists(signed, max_size=2),
        st.lists(st.builds(Marks, cids, st.lists(st.tuples(fingerprints, sizes), max_size=3)), max_size=2),
        st.lists(fingerprints, max_size=3),
    ),
    st.builds(Want, cids),
    st.builds(Block, cids, st.booleans()),
    st.builds(WantDigests, cids),
    st.builds(Digests, cids, st.booleans()),
    st.builds(WantHave, cids),
    st.builds(Have, cids, st.booleans()),
    st.builds(WantChunk, cids, st.integers(0, (1 << 20) - 1)),
    st.builds(Chunk, cids, st.integers(0, (1 << 20) - 1), st.booleans()),
)


@given(messages)
def test_round_trip(message: WireMessage) -> None:
    """What is decoded equals what was encoded, type for type."""
    back = codec.decode(codec.encode(message))
    assert back == message
    assert type(back) is type(message)


@given(messages)
def test_encoding_is_a_function(message: WireMessage) -> None:
    """A message that went over the wire encodes to the bytes that came."""
    data = codec.encode(message)
    assert codec.encode(codec.decode(data)) == data


@given(announcements)
def test_announcement_round_trip(announcement: Announcement) -> None:
    """An announcement's bytes, which are signed, give the announcement back."""
    assert codec.decode_announcement(codec.encode(announcement)) == announcement


@given(announcements, sizes, sizes)
def test_farewell(announcement: Announcement, sequence: int, expires: int) -> None:
    """A goodbye is the last announcement with a new time and the flag."""
    goodbye = farewell(announcement, sequence, expires)
    assert (goodbye.sequence, goodbye.expires, goodbye.goodbye) == (sequence, expires, True)
    assert (goodbye.peer, goodbye.start, goodbye.end) == (announcement.peer, announcement.start, announcement.end)


@given(st.binary(max_size=200))
def test_noise_is_refused_or_is_a_message(data: bytes) -> None:
    """Any bytes either are a message or raise PeerError; nothing else comes out."""
    with suppress(PeerError):
        assert isinstance(codec.decode(data), WireMessage)


@given(messages, st.data())
def test_flipped_bytes_are_refused_or_are_a_message(message: WireMessage, data: st.DataObject) -> None:
    """A message with one byte changed still raises nothing but PeerError."""
    raw = bytearray(codec.encode(message))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(PeerError):
        codec.decode(bytes(raw))


SESSION = b"0123456789abcdef"
PACK = msgspec.msgpack.encode
BAD = {
    "unknown tag": PACK(["Nonsense", SESSION, 1]),
    "no tag": PACK([SESSION, 1]),
    "a map": PACK({"type": "Ack"}),
    "empty": b"",
    "one field more": PACK(["Ack", SESSION, 1, 2, 3]),
    "one field less": PACK(["Ack", SESSION]),
    "short session": PACK(["Ack", SESSION[:15], 1]),
    "session as text": PACK(["Ack", "0123456789abcdef", 1]),
    "negative position": PACK(["Ack", SESSION, -1]),
    "position as float": PACK(["Ack", SESSION, 1.0]),
    "position as boolean": PACK(["Ack", SESSION, True]),
    "position beyond any context": PACK(["Ack", SESSION, MAX_CONTEXT + 1]),
    "no tokens": PACK(["Tokens", SESSION, 0, [], ""]),
    "token of 32 bits": PACK(["Tokens", SESSION, 0, [1 << 31], ""]),
    "unknown finish": PACK(["Tokens", SESSION, 0, [1], "tired"]),
    "tensor of five dimensions": PACK(["Step", SESSION, 0, ["f32", [1, 1, 1, 1, 1]]]),
    "tensor without dimensions": PACK(["Step", SESSION, 0, ["f32", []]]),
    "tensor of nothing": PACK(["Step", SESSION, 0, ["f32", [0, 4]]]),
    "tensor of objects": PACK(["Step", SESSION, 0, ["object", [1]]]),
    "text too long": PACK(["Close", SESSION, "x" * 1001]),
    "temperature is no number": PACK(
        ["Open", SESSION, "m", "p" * 8, [["p" * 8, [], 0, 1]], 0, 1, 1, [], [math.nan, 1.0, 0, 1.0, 0], []]
    ),
    "grammar of another kind": PACK(
        [
            "Open",
            SESSION,
            "m",
            "p" * 8,
            [["p" * 8, [], 0, 1]],
            0,
            1,
            1,
            [],
            [0.0, 1.0, 0, 1.0, 0, 0, 0, 0, [], 0, ["python", ""]],
            [],
        ]
    ),
    "key of 15 bytes": PACK(["Step", SESSION, 0, ["f32", [1, 1]], [b"x" * 15]]),
    "bytes after the end": PACK(["Ack", SESSION, 1]) + b"\x00",
    "text that is not UTF-8": b"\x92\xa5Close\xc4\x10" + SESSION + b"\xa2\xff\xfe",
    "ten thousand arrays": b"\x91" * 10_000,
    "array of 4 G elements": b"\xdd\xff\xff\xff\xff",
    "bytes of 4 G": b"\x93\xa3Ack\xc6\xff\xff\xff\xff",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_bad_messages_are_refused(data: bytes) -> None:
    """What breaks a type or a bound is refused at the sender's fault, before anything of ours sees it."""
    with pytest.raises(PeerError) as caught:
        codec.decode(data, peer="someone")
    assert caught.value.peer == "someone"


@pytest.mark.parametrize("name", VECTORS)
def test_frozen_vectors(name: str) -> None:
    """The bytes of version 1.0.0 stay what they are: each vector decodes, and encodes to itself."""
    raw = bytes.fromhex(VECTORS[name])
    if name == "Announcement":
        assert codec.encode(codec.decode_announcement(raw)) == raw
    else:
        message = codec.decode(raw)
        assert type(message).__name__ == name
        assert codec.encode(message) == raw


def test_every_message_has_a_vector() -> None:
    """No message type is left out of the frozen vectors."""
    assert {type_.__name__ for type_ in get_args(WireMessage)} | {"Announcement"} == set(VECTORS)
