"""What a node keeps for the DHT: under each model's key, announcements of some that serve it. Pure: time comes in.

libp2p's DHT has one value per key, and the newest replaces the others. Here many serve one model, so the value is a
list (`StatusAnswer`, in msgpack) to which each server adds itself, and nobody else: what another puts is refused even
where it's genuine, so that nothing old can be put back. A key holds a bounded choice of a large swarm, from which
whoever asks finds the rest (see `discovery`).
"""

import base64
import functools
import hashlib
import re
from collections.abc import Sequence

from p2pos.errors import PeerError
from p2pos.node.table import Table, Verify
from p2pos.types import PeerId
from p2pos.wire import codec
from p2pos.wire.messages import Signed, StatusAnswer

MAX_KEYS = 512
"""Models. Each node stands near few keys: with as many models as nodes it is some 8."""
PER_KEY = 128
"""Announcements under one key; servers see to it that it's half of that, see `discovery.SAMPLE`."""
MAX_ANNOUNCEMENTS = 4096
"""Under all keys: 2 MiB as they usually are, 20 MiB at the most that peers can say of themselves."""
MAX_VALUE = 8 << 10
"""Bytes of a value that is put: one announcement of at most 5 KiB."""

_MULTIHASH = b"\x12\x20"
"""Says that the 32 bytes after it are a sha2-256."""
_CID = b"\x01\x55" + _MULTIHASH
"""How a model's id begins: CIDv1, raw bytes, sha2-256. Read here by hand, since any text may come from a stranger."""


@functools.lru_cache(maxsize=MAX_KEYS)
def key_of(model: str) -> bytes:
    """The key of a model: the multihash of its id, which is a CID; of another name, the multihash of its text."""
    if re.fullmatch("b[a-z2-7]{58}", model):  # base32 of 36 bytes
        raw = base64.b32decode(model[1:].upper() + "======")
        if raw.startswith(_CID):
            return raw[len(_CID) - len(_MULTIHASH) :]
    return _MULTIHASH + hashlib.sha256(model.encode()).digest()


def encode(announcements: Sequence[Signed]) -> bytes:
    """A record's value."""
    return codec.encode(StatusAnswer(list(announcements)))


def decode(value: bytes, *, teller: PeerId) -> list[Signed]:
    """The announcements of a record's value, none of them verified. Raises PeerError where it holds anything else."""
    message = codec.decode(value, peer=teller)
    if not isinstance(message, StatusAnswer):
        raise PeerError(teller, "has a record that holds no announcements")
    return list(message.known)


class Records:
    """The announcements that a node keeps for others.

    Args:
        verify: checks a signature (`identity.verify`).

    """

    def __init__(self, verify: Verify) -> None:
        self._verify = verify
        self._tables: dict[bytes, Table] = {}

    def __len__(self) -> int:
        return sum(map(len, self._tables.values()))

    def put(self, key: bytes, value: bytes, now_ms: int, *, sender: PeerId) -> None:
        """Keep what a server says of itself.

        Args:
            key: of its model.
            value: one announcement.
            now_ms: milliseconds since the epoch.
            sender: who puts it, as its connection says.

        Raises PeerError, at the sender's fault, where it's not an announcement of the sender's own, of that model,
        newer than what is kept; and, at nobody's, with the field `full`, where there is no room.

        """
        if len(value) > MAX_VALUE:
            raise PeerError(sender, f"puts a record of {len(value)} bytes, and {MAX_VALUE} is the most")
        announcements = decode(value, teller=sender)
        if len(announcements) != 1:
            raise PeerError(sender, f"puts a record of {len(announcements)} announcements, not of one")
        told = codec.decode_announcement(announcements[0].body, peer=sender)
        if told.peer != sender or key_of(told.model) != key:
            raise PeerError(sender, "puts a record that is not its own, or of another model")
        self.expire(now_ms)
        table = self._tables.get(key)
        full = len(table) >= PER_KEY if table is not None else len(self._tables) >= MAX_KEYS
        newcomer = table is None or not table.sequence_of(sender)
        if newcomer and (full or len(self) >= MAX_ANNOUNCEMENTS):
            raise PeerError(sender, "is one too many for the records of this node", full=True)
        if table is None:
            table = Table(self._verify, capacity=PER_KEY)
        try:
            table.take(announcements[0], now_ms)
        except PeerError as exc:
            raise PeerError(sender, f"puts a record that is not to be believed: {exc.message}") from exc
        self._tables[key] = table

    def get(self, key: bytes, now_ms: int) -> list[Signed]:
        """What is kept under a key and has not expired; of those that left, their goodbyes."""
        table = self._tables.get(key)
        return [] if table is None else table.signed(now_ms)

    def expire(self, now_ms: int) -> None:
        """Forget what has expired."""
        for key, table in list(self._tables.items()):
            table.expire(now_ms)
            if not len(table):
                del self._tables[key]
