"""Messages as msgpack and back. With `framing`, the only place that touches msgpack."""

from typing import Any, TypeVar

import msgspec

from p2pos.errors import PeerError
from p2pos.wire.messages import Announcement, WireMessage

_encoder = msgspec.msgpack.Encoder()
_message_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(WireMessage)
_announcement_decoder = msgspec.msgpack.Decoder(Announcement)

T = TypeVar("T")


def encode(value: WireMessage | Announcement) -> bytes:
    """The msgpack bytes of a message. The same value always gives the same bytes."""
    return _encoder.encode(value)


def decode(data: bytes | memoryview, *, peer: str = "") -> WireMessage:
    """Read one message. Raises PeerError where a byte, a type or a bound is wrong; `peer` is who sent it."""
    message: WireMessage = _checked(_message_decoder, data, peer)
    return message


def decode_announcement(data: bytes, *, peer: str = "") -> Announcement:
    """Read an announcement's signed bytes. Raises PeerError where anything in them is wrong."""
    return _checked(_announcement_decoder, data, peer)


def _checked(decoder: "msgspec.msgpack.Decoder[T]", data: bytes | memoryview, peer: str) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise PeerError(peer, f"sent a message that is not valid: {exc}") from exc
