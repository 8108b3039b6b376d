"""A byte stream cut into frames, each at most `MAX_FRAME` bytes. Pure.

A frame is `u32 body length | u32 header length | header | payload`, big-endian; the header is one message in
msgpack and the payload, which may be empty, the raw bytes that it describes.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from p2pos.errors import InternalError, PeerError
from p2pos.wire import codec
from p2pos.wire.messages import WireMessage

MAX_FRAME = 64 << 20
"""Bytes. A prefill chunk of 512 rows × 16,384 in fp32 is 32 MiB; the largest tokenizer in use is 34 MB."""
MAX_HEADER = 8 << 20
"""Bytes. The longest message without a payload is a prompt of `MAX_CONTEXT` tokens, 5 bytes each."""

_LENGTHS = struct.Struct("!II")


class Frame(NamedTuple):
    """One message and its payload."""

    message: WireMessage
    payload: bytes | memoryview = b""


def encode(message: WireMessage, payload: bytes | memoryview = b"") -> bytes:
    """The bytes of one frame. Raises InternalError where it is larger than any reader would take."""
    return head(message, len(payload)) + payload


def head(message: WireMessage, payload_length: int) -> bytes:
    """The bytes of a frame that stand before its payload of so many bytes, which need not be copied to be sent.

    Raises InternalError where the frame is larger than any reader would take.
    """
    header = codec.encode(message)
    body = 4 + len(header) + payload_length
    if body > MAX_FRAME or len(header) > MAX_HEADER:
        raise InternalError(f"a frame of {body} bytes is over the limit of {MAX_FRAME}")
    return _LENGTHS.pack(body, len(header)) + header


class FrameReader:
    """Turns chunks of bytes, cut anywhere, into frames. Holds at most one frame's bytes beyond a chunk."""

    def __init__(self, *, peer: str = "", max_frame: int = MAX_FRAME) -> None:
        self._peer = peer
        self._max_frame = max_frame
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes and yield every frame that is now whole.

        Raises PeerError at the first length that is out of bounds, before anything of that frame is kept
        waiting for, and at the first message that does not decode. After that the reader is of no use.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTHS.size:
            body, header = _LENGTHS.unpack_from(self._buffer)
            if body > self._max_frame or header > MAX_HEADER or header + 4 > body:
                raise PeerError(self._peer, f"sent a frame of {body} bytes with a header of {header}")
            end = 4 + body
            if len(self._buffer) < end:
                return
            frame = bytes(memoryview(self._buffer)[_LENGTHS.size : end])
            del self._buffer[:end]
            message = codec.decode(memoryview(frame)[:header], peer=self._peer)
            yield Frame(message, memoryview(frame)[header:])

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame. A stream that ends while this is not 0 was cut off."""
        return len(self._buffer)
