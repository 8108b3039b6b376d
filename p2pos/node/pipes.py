"""Bytes over one libp2p stream, for protocols that are not ours: who is at the other end, and libp2p's own messages."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio
from google.protobuf.message import DecodeError, Message
from libp2p.exceptions import BaseLibp2pError
from libp2p.stream_muxer.exceptions import MuxedStreamEOF

from p2pos import log
from p2pos.errors import PeerError, UnavailableError
from p2pos.node import libp2p_yamux
from p2pos.node.streams import StreamLost
from p2pos.types import PeerId

MAX_MESSAGE = 4 << 10
"""Bytes of one of libp2p's messages. An address has 150 at most, and no message that we take more than 16 of them."""
MAX_VARINT = 3
"""Bytes of a length: 21 bits, more than any limit."""
DEADLINE_S = 15.0
"""Seconds that the other end has for one message; what other implementations give as well."""

RawHandler = Callable[[PeerId, "Pipe"], Awaitable[None]]
MessageT = TypeVar("MessageT", bound=Message)

_log = log.get("host")


class Pipe:
    """One stream. A `streams.ByteStream` past the state machine that the library puts before yamux's own."""

    def __init__(self, net_stream: Any) -> None:
        self.peer = PeerId(str(net_stream.muxed_conn.peer_id))
        self._net_stream = net_stream
        self._muxed = net_stream.muxed_stream

    @property
    def relayed(self) -> bool:
        """Whether its connection leads through a relay."""
        return self.remote is None

    @property
    def remote(self) -> tuple[str, int] | None:
        """IP address and port at the other end of its connection; None behind a relay, or where it has ended."""
        try:
            found = self._muxed.conn.get_remote_address()
        except (BaseLibp2pError, OSError):
            return None
        return (str(found[0]).removeprefix("::ffff:"), int(found[1])) if found else None

    def bound(self, window: int) -> None:
        """Keep what the peer may send ahead of the reader under so many bytes."""
        setattr(self._muxed, libp2p_yamux.MAX_WINDOW, window)

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of it. Raises StreamLost where the stream is gone."""
        try:
            await self._muxed.write(data)
        except (BaseLibp2pError, OSError) as exc:
            raise StreamLost from exc

    async def read(self, size: int) -> bytes:
        """At least one byte and at most `size`; b"" at a clean end. Raises StreamLost where the stream is gone."""
        try:
            return bytes(await self._muxed.read(size))
        except MuxedStreamEOF:
            return b""
        except (BaseLibp2pError, OSError) as exc:
            raise StreamLost from exc

    async def close(self) -> None:
        """Say that no more will be sent. Never raises for a stream that is gone."""
        try:
            await self._net_stream.close()
        except (BaseLibp2pError, OSError) as exc:
            _log.debug("a stream was gone before it was closed", why=repr(exc))

    async def reset(self) -> None:
        """End both directions at once. Never raises for a stream that is gone."""
        try:
            await self._net_stream.reset()
        except (BaseLibp2pError, OSError) as exc:
            _log.debug("a stream was gone before it was reset", why=repr(exc))

    async def send(self, message: Message, *, deadline_s: float = DEADLINE_S) -> None:
        """Send one of libp2p's messages, its length before it. Raises UnavailableError."""
        body = message.SerializeToString()
        try:
            with trio.fail_after(deadline_s):
                await self.write(_varint(len(body)) + body)
        except trio.TooSlowError:
            raise UnavailableError(f"peer {self.peer} took nothing for {deadline_s:g} s", peer=self.peer) from None
        except StreamLost as exc:
            raise UnavailableError(f"the stream to peer {self.peer} is gone", peer=self.peer) from exc

    async def receive(
        self, kind: type[MessageT], *, limit: int = MAX_MESSAGE, deadline_s: float = DEADLINE_S
    ) -> MessageT:
        """Take one of libp2p's messages, and not a byte more.

        Args:
            kind: its class.
            limit: bytes that it may have.
            deadline_s: seconds for all of it.

        Raises PeerError where what comes is none, UnavailableError where none comes in time.

        """
        try:
            with trio.fail_after(deadline_s):
                length = await self._read_varint()
                if length > limit:
                    raise PeerError(self.peer, f"sent a {kind.__name__} of {length} bytes, more than {limit}")
                body = await self.read_exactly(length)
        except trio.TooSlowError:
            raise UnavailableError(f"peer {self.peer} did not answer in {deadline_s:g} s", peer=self.peer) from None
        except StreamLost as exc:
            raise UnavailableError(f"the stream from peer {self.peer} is gone", peer=self.peer) from exc
        try:
            return kind.FromString(body)
        except DecodeError as exc:
            raise PeerError(self.peer, f"sent what is no {kind.__name__}") from exc

    async def read_exactly(self, size: int) -> bytes:
        """So many bytes. Raises PeerError where the stream ends before, StreamLost where it is gone."""
        data = bytearray()
        while len(data) < size:
            part = await self.read(size - len(data))
            if not part:
                raise PeerError(self.peer, f"stopped {len(data)} bytes into a message")
            data += part
        return bytes(data)

    async def _read_varint(self) -> int:
        value = 0
        for place in range(MAX_VARINT):
            (byte,) = await self.read_exactly(1)
            value |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                return value
        raise PeerError(self.peer, "sent a message of more than a megabyte")


def _varint(value: int) -> bytes:
    """Unsigned LEB128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
