"""Twenty thousand spoilt announcements, frames, records and questions: none is believed, none kills, nothing grows."""

import random
import tracemalloc
from collections.abc import Callable

import pytest
import trio

from p2pos.errors import PeerError
from p2pos.node import dht_wire, records
from p2pos.node.dht_wire import Kind, VarintStream
from p2pos.node.gossip import Gossip
from p2pos.node.identity import verify
from p2pos.node.records import Records
from p2pos.node.table import LIFETIME_MS, Table
from p2pos.types import PeerId
from p2pos.wire import codec, framing
from p2pos.wire.framing import FrameReader
from p2pos.wire.messages import GOSSIP_PROTOCOL, Marks, News, Signed
from tests.node.mutations import VECTORS, mutated, mutations
from tests.node.test_table import ALICE, BOB, NOW, said

EVE = PeerId("eve")
GROWTH = 1 << 20
"""Bytes that all cases together may leave behind: caches of the libraries, and what the tests keep."""


@pytest.fixture
def grew():
    """How many bytes of Python objects are alive that weren't at the start."""
    tracemalloc.start(1)
    before, _ = tracemalloc.get_traced_memory()
    yield lambda: tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()


def refused(step: Callable[[], object], *, by: set[str]) -> bool:
    """Whether a step raised PeerError, which names one of these peers at fault. Anything else it raises is a bug."""
    blamed = None
    try:
        step()
    except PeerError as exc:
        blamed = exc.peer
    assert blamed is None or blamed in by or not by, f"{blamed} is named, not one of {by}"
    return blamed is not None


def test_announcements(grew) -> None:
    """Of 6,000 spoilt announcements a table believes none, forged or not, and keeps what it had."""
    table = Table(verify)
    good = said(ALICE)
    table.accept(good, NOW)
    for spoilt in mutations(good.body, 4000, seed=1):
        if spoilt != good.body:
            signed = Signed(spoilt, good.public_key, good.signature)
            assert refused(lambda signed=signed: table.accept(signed, NOW), by=set())
    for spoilt in mutations(good.public_key + good.signature, 2000, seed=2):
        if spoilt != good.public_key + good.signature:
            signed = Signed(said(ALICE, NOW + 1).body, spoilt[:36], spoilt[36:])
            assert refused(lambda signed=signed: table.accept(signed, NOW), by=set())
    assert table.signed(NOW) == [good]
    assert grew() < GROWTH


def test_announcements_that_are_signed_all_the_same(grew) -> None:
    """What a peer signs of itself may be nonsense: 2,000 such words are refused, or are about itself and expire."""
    table = Table(verify, capacity=4)
    for spoilt in mutations(said(BOB).body, 2000, seed=3):
        signed = Signed(spoilt, BOB.public_key, BOB.sign(b"p2pos announcement 1\n" + spoilt))
        refused(lambda signed=signed: table.accept(signed, NOW), by=set())
    assert {each.peer for each in table.live(NOW)} <= {BOB.peer}
    assert table.live(NOW + LIFETIME_MS) == []
    assert len(table) == 0
    assert grew() < GROWTH


@pytest.mark.parametrize("name", [name for name in VECTORS if name != "Announcement"])
def test_frames(name: str) -> None:
    """Of 400 spoilt frames of each message, a reader takes what is still one and blames the sender for the rest."""
    header = VECTORS[name]
    body = 4 + len(header)
    frame = body.to_bytes(4, "big") + len(header).to_bytes(4, "big") + header
    for spoilt in mutations(frame, 400, seed=4):
        reader = FrameReader(peer=EVE, max_frame=1 << 16)
        if not refused(lambda reader=reader, spoilt=spoilt: list(reader.feed(spoilt)), by={EVE}):
            assert reader.pending <= len(spoilt)
    for spoilt in mutations(header, 100, seed=5):
        refused(lambda spoilt=spoilt: codec.decode(spoilt, peer=EVE), by={EVE})


def test_news(grew) -> None:
    """Of 2,000 spoilt pieces of gossip none makes a node believe what isn't so, and none makes it grow."""
    table = Table(verify, capacity=16)
    gossip = Gossip(table)
    link = gossip.joined(EVE, lambda: None)
    piece = codec.encode(News([said(ALICE)], [Marks("m", [(b"12345678", NOW)])], [b"abcdefgh"]))
    for spoilt in mutations(piece, 2000, seed=6):
        try:
            message = codec.decode(spoilt, peer=EVE)
        except PeerError:
            continue
        if isinstance(message, News):
            refused(lambda message=message: gossip.receive(link, message, NOW), by={EVE})
            gossip.compose(link, NOW, tick=True)
    assert {each.peer for each in table.live(NOW)} <= {ALICE.peer}
    assert len(link.offers) + len(link.knows) + len(link.wanted) < 2000
    assert grew() < GROWTH


def test_marks_of_peers_that_are_not(grew) -> None:
    """A neighbour that offers 60,000 announcements which don't exist fills no more than its bound."""
    gossip = Gossip(Table(verify))
    link = gossip.joined(EVE, lambda: None)
    dice = random.Random(7)
    for turn in range(60):
        marks = [(dice.randbytes(8), NOW) for _ in range(1000)]
        gossip.receive(link, News([], [Marks("m", marks)], []), NOW + turn)
        gossip.compose(link, NOW + turn, tick=True)
    assert len(link.offers) <= 4096
    assert grew() < 2 * GROWTH


def test_records(grew) -> None:
    """Of 3,000 spoilt records the sender is blamed for each, and nothing is kept."""
    kept = Records(verify)
    value = records.encode([said(ALICE)])
    for spoilt in mutations(value, 3000, seed=8):
        if spoilt != value:
            put = lambda spoilt=spoilt: kept.put(records.key_of("m"), spoilt, NOW, sender=PeerId(ALICE.peer))  # noqa: E731 - a step
            refused(put, by={ALICE.peer})
    assert all(each == said(ALICE) for each in kept.get(records.key_of("m"), NOW))
    assert grew() < GROWTH


class Bytes:
    """A `ByteStream` that holds what came, in pieces of some size."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size

    async def read(self, size: int) -> bytes:
        await trio.lowlevel.checkpoint()
        piece, self._data = self._data[: min(size, self._size)], self._data[min(size, self._size) :]
        return piece

    async def write(self, data: bytes | memoryview) -> None: ...

    async def close(self) -> None: ...

    async def reset(self) -> None: ...


def test_questions_to_the_dht(grew) -> None:
    """Of 4,000 spoilt DHT messages each is read as one or blamed on its sender, whatever pieces it comes in."""
    valid = [
        dht_wire.put(records.key_of("m"), records.encode([said(ALICE)])),
        dht_wire.request(Kind.FIND_NODE, b"k" * 38),
    ]
    contact = dht_wire.contact(PeerId(ALICE.peer), ["/ip4/127.0.0.1/tcp/4001"])
    dht_wire.add_peers(valid[1].closerPeers, [contact], connected=())

    async def body() -> None:
        dice = random.Random(9)
        for number in range(4000):
            message = valid[number % 2].SerializeToString()
            data = mutated(framing_of(message), dice) if number % 4 else framing_of(mutated(message, dice))
            wire = VarintStream(EVE, Bytes(data, dice.randint(16, 512)), most=dht_wire.MAX_REQUEST)
            blamed = EVE
            try:
                while (got := await wire.receive()) is not None:
                    dht_wire.contacts(got.closerPeers, teller=EVE)
                    dht_wire.peer_of(bytes(got.key))
            except PeerError as exc:
                blamed = PeerId(exc.peer)
            assert blamed == EVE

    trio.run(body)
    assert grew() < GROWTH


def framing_of(message: bytes) -> bytes:
    return dht_wire._varint(len(message)) + message


def test_the_largest_frame_is_not_kept_waiting_for() -> None:
    """A frame that says it is larger than its protocol allows is refused at its first eight bytes."""
    reader = FrameReader(peer=EVE, max_frame=1 << 10)
    with pytest.raises(PeerError, match="eve|sent a frame"):
        list(reader.feed(((1 << 10) + 1).to_bytes(4, "big") + (8).to_bytes(4, "big")))
    assert framing.MAX_FRAME > 1 << 10
    assert GOSSIP_PROTOCOL.startswith("/p2pos/")
