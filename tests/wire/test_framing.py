"""Frames come out as they went in, however the bytes were cut, and a hostile length costs nothing."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pos.errors import InternalError, PeerError
from p2pos.wire import codec, framing
from p2pos.wire.framing import Frame, FrameReader
from p2pos.wire.messages import Ack, Close

SESSION = b"0123456789abcdef"
frames = st.tuples(st.builds(Ack, st.just(SESSION), st.integers(0, 1000)), st.binary(max_size=300))


@given(st.lists(frames, max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_any_cut_gives_the_same_frames(sent: list[tuple[Ack, bytes]], cuts: list[int]) -> None:
    """However the stream is cut into chunks, the same frames come out, in order, and nothing is left over."""
    data = b"".join(framing.encode(message, payload) for message, payload in sent)
    reader, received, at = FrameReader(), [], 0
    while at < len(data):
        size = cuts[at % len(cuts)]
        received += [(frame.message, bytes(frame.payload)) for frame in reader.feed(data[at : at + size])]
        at += size
    assert received == sent
    assert reader.pending == 0


@given(frames)
def test_head_and_payload_are_the_frame(sent: tuple[Ack, bytes]) -> None:
    """A head sent before its payload is the same frame as both in one."""
    message, payload = sent
    assert framing.head(message, len(payload)) + payload == framing.encode(message, payload)


def test_layout() -> None:
    """The frame of version 1.0.0: body length, header length, header, payload, big-endian."""
    header = codec.encode(Ack(SESSION, 5))
    expected = struct.pack("!II", 4 + len(header) + 2, len(header)) + header + b"hi"
    assert framing.encode(Ack(SESSION, 5), b"hi") == expected


@pytest.mark.parametrize(
    ("body", "header"),
    [
        (framing.MAX_FRAME + 1, 10),
        (0xFFFFFFFF, 10),
        (framing.MAX_FRAME, framing.MAX_HEADER + 1),
        (10, 7),
        (0, 0),
        (3, 0),
        (10, 0xFFFFFFFF),
    ],
)
def test_lengths_out_of_bounds(body: int, header: int) -> None:
    """Lengths that no frame can have are refused as soon as they are there, before a byte of the body."""
    with pytest.raises(PeerError) as caught:
        list(FrameReader(peer="someone").feed(struct.pack("!II", body, header)))
    assert caught.value.peer == "someone"


def test_frames_before_a_bad_one_come_out() -> None:
    """What came whole before a bad frame is delivered."""
    feed = FrameReader().feed(framing.encode(Ack(SESSION, 1)) + struct.pack("!II", 0xFFFFFFFF, 1))
    assert next(feed).message == Ack(SESSION, 1)
    with pytest.raises(PeerError):
        next(feed)


def test_cut_off() -> None:
    """A stream that ends inside a frame leaves bytes pending."""
    reader = FrameReader()
    whole = framing.encode(Close(SESSION, "bye"))
    assert list(reader.feed(whole[:-1])) == []
    assert reader.pending == len(whole) - 1
    assert list(reader.feed(whole[-1:])) == [Frame(Close(SESSION, "bye"), b"")]


@given(st.binary(max_size=400))
def test_noise_raises_only_peer_errors(data: bytes) -> None:
    """Any bytes are frames, the beginning of one, or a PeerError."""
    with suppress(PeerError):
        list(FrameReader().feed(data))


def test_too_large_to_send() -> None:
    """A frame that no reader would take is our own fault, found before it is sent."""
    with pytest.raises(InternalError):
        framing.head(Ack(SESSION, 1), framing.MAX_FRAME)
