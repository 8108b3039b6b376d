"""The messages of libp2p's Kademlia, as its specification (kad-dht) has them: protobuf behind a varint length.

The schema is the library's; what it says is checked here, and everything in it is bounded.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from libp2p.kad_dht.pb.kademlia_pb2 import Message
from libp2p.peer.id import ID
from multiaddr import Multiaddr
from multiaddr.exceptions import Error as MultiaddrError

from p2pos.errors import PeerError
from p2pos.node.kademlia import Contact, K, position
from p2pos.node.streams import READ_SIZE, ByteStream
from p2pos.types import PeerId

KAD_PROTOCOL = "/p2pos/kad/1.0.0"
"""Not libp2p's public DHT (`/ipfs/kad/1.0.0`): those who don't know of models would be of no use here."""

MAX_REQUEST = 16 << 10
"""Bytes of a question: a record of one announcement, and some."""
MAX_ANSWER = 1 << 20
"""Bytes of an answer: 128 announcements of at most 5 KiB, and the addresses of 20 peers."""
MAX_KEY = 128
"""Bytes; ours have 34, and go-libp2p takes no longer ones."""
MAX_PEER_ID = 64
"""Bytes: a sha2-256 multihash has 34, an ed25519 key that stands for itself 38."""
MAX_ADDRESSES = 16
"""Of one peer, as in announcements."""
MAX_ADDRESS = 512
"""Bytes, as the characters of one in announcements."""
MAX_VARINT = 3
"""Bytes of a length below 2²¹."""

Kind = Message.MessageType


class VarintStream:
    """Messages behind varint lengths, over one stream.

    Args:
        peer: who is at the other end.
        stream: its bytes.
        most: bytes of the longest message taken from it.

    """

    def __init__(self, peer: PeerId, stream: ByteStream, *, most: int) -> None:
        self._peer = peer
        self._stream = stream
        self._most = most
        self._buffer = bytearray()

    async def send(self, message: Any) -> None:
        """Send one message. Raises StreamLost where the stream is gone."""
        body = message.SerializeToString()
        await self._stream.write(_varint(len(body)) + body)

    async def receive(self) -> Any:
        """The next message, or None at a clean end.

        Raises PeerError for what is none or too long, StreamLost where the stream is gone.
        """
        while True:
            length, start = self._length()
            if start and len(self._buffer) >= start + length:
                body = bytes(self._buffer[start : start + length])
                del self._buffer[: start + length]
                return self._parsed(body)
            data = await self._stream.read(READ_SIZE if start else MAX_REQUEST)
            if not data:
                if self._buffer:
                    raise PeerError(self._peer, "stopped inside a message of the DHT")
                return None
            self._buffer += data

    def _length(self) -> tuple[int, int]:
        """How long the next message is, and where it starts; (0, 0) where that is not known yet."""
        length = 0
        for index, byte in enumerate(self._buffer[:MAX_VARINT]):
            length |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                if length > self._most:
                    raise PeerError(self._peer, f"sent a DHT message of {length} bytes, and {self._most} is the most")
                return length, index + 1
        if len(self._buffer) >= MAX_VARINT:
            raise PeerError(self._peer, "sent a DHT message whose length is out of all bounds")
        return 0, 0

    def _parsed(self, body: bytes) -> Any:
        message = Message()
        try:
            message.ParseFromString(body)
        except DecodeError as exc:
            raise PeerError(self._peer, "sent bytes that are no DHT message") from exc
        if len(message.key) > MAX_KEY:
            raise PeerError(self._peer, f"sent a DHT key of {len(message.key)} bytes")
        return message


def request(kind: Any, key: bytes) -> Any:
    """A question about a key; `kind` is one of `Kind`."""
    return Message(type=kind, key=key)


def put(key: bytes, value: bytes) -> Any:
    """The request to keep a record."""
    message = request(Kind.PUT_VALUE, key)
    message.record.key = key
    message.record.value = value
    return message


def add_peers(into: Any, contacts: Iterable[Contact], *, connected: Iterable[PeerId]) -> None:
    """Put contacts into a message's list of peers."""
    for each in contacts:
        entry = into.add(id=peer_bytes(each.peer), addrs=[b for text in each.addresses if (b := _address_bytes(text))])
        entry.connection = Message.ConnectionType.CONNECTED if each.peer in connected else 0


def contacts(peers: Sequence[Any], *, teller: PeerId) -> list[Contact]:
    """The peers that an answer names, K at most. Addresses of transports that are not known here are left out.

    Raises PeerError, at the teller's fault, for what is no peer id.
    """
    found = []
    for each in peers[:K]:
        if not 0 < len(each.id) <= MAX_PEER_ID:
            raise PeerError(teller, f"names a peer whose id has {len(each.id)} bytes")
        addresses = [text for raw in each.addrs[:MAX_ADDRESSES] if (text := _address_text(bytes(raw)))]
        found.append(contact(PeerId(str(ID(bytes(each.id)))), addresses))
    return found


def contact(peer: PeerId, addresses: Iterable[str]) -> Contact:
    """A peer and where it is. Raises PeerError where its id is none."""
    return Contact(peer, peer_position(peer), tuple(addresses)[:MAX_ADDRESSES])


@functools.lru_cache(maxsize=16384)
def peer_bytes(peer: PeerId) -> bytes:
    """A peer id's bytes. Raises PeerError where it is none."""
    try:
        return bytes(ID.from_string(peer).to_bytes())
    except ValueError as exc:
        raise PeerError(peer, "is not a peer id") from exc


def peer_of(key: bytes) -> PeerId | None:
    """The peer whose id a key is; None for other keys."""
    if not 0 < len(key) <= MAX_PEER_ID:
        return None
    return PeerId(str(ID(key)))


@functools.lru_cache(maxsize=16384)
def peer_position(peer: PeerId) -> int:
    """Where a peer lies. Raises PeerError where its id is none."""
    return position(peer_bytes(peer))


@functools.lru_cache(maxsize=16384)
def _address_bytes(text: str) -> bytes:
    try:
        return bytes(Multiaddr(text).to_bytes())
    except (MultiaddrError, ValueError):
        return b""


def _address_text(raw: bytes) -> str:
    if len(raw) > MAX_ADDRESS:
        return ""
    try:
        return str(Multiaddr(raw))
    except (MultiaddrError, ValueError, IndexError, KeyError):  # what it raises for bytes that are no address
        return ""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
