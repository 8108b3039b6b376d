"""News spreads between neighbours, once to each, and what can't be believed stays where it is."""

import itertools
import random

import pytest

from p2pos.errors import PeerError
from p2pos.node.gossip import ASK_AGAIN_MS, Gossip, Link
from p2pos.node.identity import Identity, verify
from p2pos.node.table import OTHERS, Table, fingerprint
from p2pos.types import PeerId
from p2pos.wire import codec
from p2pos.wire.messages import Marks, News, Signed
from tests.node.test_table import ALICE, BOB, CAROL, NOW, announcement, said, sign


class Side:
    """One node, with its links by the other's name."""

    def __init__(self, name: str) -> None:
        self.name = PeerId(name)
        self.table = Table(verify, others=OTHERS)
        self.table.follow("m")
        self.counted: list[str] = []
        self.gossip = Gossip(self.table, count=self.counted.append)
        self.links: dict[str, Link] = {}

    def joins(self, other: "Side") -> None:
        self.links[other.name] = self.gossip.joined(other.name, lambda: None)
        other.links[self.name] = other.gossip.joined(self.name, lambda: None)

    def believes(self, signed: Signed) -> None:
        told = self.gossip.take(signed, NOW, teller=PeerId("elsewhere"))
        assert told is not None

    def peers(self) -> set[str]:
        return {each.peer for each in self.table.live(NOW)}


def turn(sides: dict[str, Side], now_ms: int = NOW, *, tick: bool = True) -> list[News]:
    """Let every node tell every neighbour what it has to tell, until nobody has; returns all that was told."""
    told: list[News] = []
    quiet = False
    while not quiet:
        quiet = True
        for side in sides.values():
            for other, link in list(side.links.items()):
                while (news := side.gossip.compose(link, now_ms, tick=tick)) is not None:
                    quiet = False
                    told.append(news)
                    sides[other].gossip.receive(sides[other].links[side.name], news, now_ms)
    return told


def line(*names: str) -> dict[str, Side]:
    sides = {name: Side(name) for name in names}
    for one, other in itertools.pairwise(names):
        sides[one].joins(sides[other])
    return sides


def test_news_goes_down_a_line() -> None:
    """What one node believes, the last in a row believes, and its announcement went over each link once."""
    sides = line("a", "b", "c", "d")
    sides["a"].believes(said(ALICE))
    told = turn(sides)
    assert sides["d"].peers() == {ALICE.peer}
    assert sum(len(news.known) for news in told) == 3


def test_a_renewal_comes_by_marks_once() -> None:
    """With three neighbours that all have a newer announcement, a node asks one of them for it."""
    sides = {name: Side(name) for name in "abcd"}
    for name in "bcd":
        sides["a"].joins(sides[name])
        sides[name].believes(said(ALICE))
    turn(sides)
    for name in "bcd":
        sides[name].believes(said(ALICE, NOW + 1))
    told = turn(sides)
    assert sum(len(news.want) for news in told) == 1
    assert sum(len(news.known) for news in told) == 1
    assert sides["a"].table.sequence_of(ALICE.peer) == NOW + 1


def test_what_can_t_wait_needs_no_tick() -> None:
    """A newcomer's first word and a goodbye go out at once; a mere renewal waits for the tick."""
    sides = line("a", "b", "c")
    sides["a"].believes(said(ALICE))
    turn(sides, tick=False)
    assert sides["c"].peers() == {ALICE.peer}
    sides["a"].believes(said(ALICE, NOW + 1))
    assert turn(sides, tick=False) == []
    sides["a"].believes(said(ALICE, NOW + 2, goodbye=True))
    turn(sides, tick=False)
    assert sides["c"].peers() == set()


def test_another_is_asked_where_one_does_not_deliver() -> None:
    """A neighbour that promises and sends nothing costs a second and a half, not the announcement."""
    side, liar, friend = Side("a"), Side("liar"), Side("friend")
    side.joins(liar)
    side.joins(friend)
    offer = News([], [Marks("m", [(fingerprint(ALICE.peer), NOW)])])
    for name in ("liar", "friend"):
        side.gossip.receive(side.links[name], offer, NOW)
    asked = side.gossip.compose(side.links["liar"], NOW, tick=True)
    assert asked is not None
    assert asked.want == [fingerprint(ALICE.peer)]
    assert side.gossip.compose(side.links["friend"], NOW, tick=True) is None
    again = side.gossip.compose(side.links["friend"], NOW + ASK_AGAIN_MS, tick=True)
    assert again is not None
    assert again.want == [fingerprint(ALICE.peer)]


def test_a_forgery_is_the_teller_s_fault() -> None:
    """Who passes on what no key signed is at fault; who passes on what is merely old isn't."""
    side, other = Side("a"), Side("b")
    side.joins(other)
    side.believes(said(ALICE, NOW + 5))
    assert side.gossip.receive(side.links["b"], News([said(ALICE, NOW)]), NOW) == []
    for forged in (sign(BOB, announcement(ALICE, NOW + 9)), Signed(b"noise", ALICE.public_key, bytes(64))):
        with pytest.raises(PeerError, match="forged") as caught:
            side.gossip.receive(side.links["b"], News([said(BOB), forged]), NOW)
        assert caught.value.peer == "b"
    assert side.peers() == {ALICE.peer, BOB.peer}
    assert side.counted == ["", "replayed", "", "forged", "forged"]  # Bob's counts once, however often it is told


def test_a_later_version_s_announcement_is_no_forgery() -> None:
    """What its peer signed but this version can't read is passed over without fault."""
    side, other = Side("a"), Side("b")
    side.joins(other)
    body = codec.encode(announcement(ALICE))[:-1] + b"\xa1x"
    later = Signed(body, ALICE.public_key, ALICE.sign(b"p2pos announcement 1\n" + body))
    assert side.gossip.receive(side.links["b"], News([later]), NOW) == []


def test_other_models_are_bounded() -> None:
    """Of a model that doesn't matter here some servers are known, and no more are asked for."""
    sides = line("a", "b")
    sides["b"].table.follow("other")
    for number in range(OTHERS + 20):
        sides["b"].believes(said(Identity(number.to_bytes(32, "big")), model="other"))
    turn(sides)
    assert len(sides["a"].peers()) == OTHERS
    sides["a"].table.follow("other")
    for number in range(OTHERS + 20):
        sides["b"].believes(said(Identity(number.to_bytes(32, "big")), NOW + 1, model="other"))
    turn(sides)
    assert len(sides["a"].peers()) == OTHERS + 20


def test_a_buried_peer_does_not_come_back_by_hearsay() -> None:
    """Who was seen dead stays so whatever neighbours pass on of before, until it says something new."""
    sides = line("a", "b")
    sides["a"].believes(said(ALICE))
    turn(sides)
    sides["a"].table.bury(ALICE.peer)
    turn(sides)
    assert sides["a"].peers() == set()
    assert sides["b"].peers() == {ALICE.peer}
    sides["b"].believes(said(ALICE, NOW + 1))
    turn(sides)
    assert sides["a"].peers() == {ALICE.peer}


def test_a_random_graph_of_two_hundred() -> None:
    """In a graph where each chose five others, all know all, and a goodbye reaches all."""
    dice = random.Random(7)
    sides = {str(number): Side(str(number)) for number in range(200)}
    for name, side in sides.items():
        for other in dice.sample([each for each in sides if each != name and each not in side.links], 5):
            side.joins(sides[other])
    for number, signed in enumerate([said(ALICE), said(BOB), said(CAROL)]):
        sides[str(number)].believes(signed)
    told = turn(sides)
    assert all(len(side.peers()) == 3 for side in sides.values())
    assert sum(len(news.known) for news in told) < 3 * 200 * 10
    sides["199"].believes(said(ALICE, NOW + 1, goodbye=True))
    turn(sides, tick=False)
    assert all(len(side.peers()) == 2 for side in sides.values())
