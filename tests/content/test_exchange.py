import hashlib
import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.content import chunks
from p2pos.content.bucket import Bucket
from p2pos.content.exchange import (
    MAX_PEERS,
    PATIENCE_S,
    REQUESTS,
    STALL_S,
    WINDOW,
    Accept,
    Ask,
    Drop,
    Effect,
    Exchange,
    Fail,
    Finish,
)


def true(chunk: int) -> bytes:
    """The sha256 that a chunk should have."""
    return hashlib.sha256(b"%d" % chunk).digest()


def exchange(total: int, wanted: set[int] | None = None, *, size: int = 1 << 20, rate: float = 0) -> Exchange:
    """An exchange that begins at 0."""
    return Exchange(
        wanted if wanted is not None else set(range(total)),
        total=total,
        size=lambda _: size,
        leaf=true,
        bucket=Bucket(rate),
        now_s=0.0,
    )


def asked(effects: list[Effect], peer: str) -> list[int]:
    return [each.chunk for each in effects if isinstance(each, Ask) and each.peer == peer]


class Swarm:
    """Peers of all kinds that answer an exchange in any order, over a clock that never waits."""

    def __init__(self, draw: random.Random, total: int, peers: dict[str, tuple[str, set[int]]]) -> None:
        self.draw = draw
        self.total = total
        self.peers = peers
        self.now_s = 0.0
        self.machine = exchange(total, rate=draw.choice([0, 5 << 20]))
        self.open: list[tuple[str, int]] = []
        self.here: set[str] = set()
        self.accepted: list[int] = []
        self.dropped: dict[str, str] = {}
        self.ends: list[Effect] = []

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Ask(peer, chunk):
                    assert peer in self.here, "a peer that isn't here was asked"
                    assert chunk in self.peers[peer][1], "a peer was asked for what it hasn't got"
                    self.open.append((peer, chunk))
                    mine = [number for who, number in self.open if who == peer]
                    assert len(mine) == len(set(mine)) <= REQUESTS
                    assert len(mine) <= WINDOW >> 20
                case Accept(_, chunk):
                    assert chunk not in self.accepted
                    self.accepted.append(chunk)
                case Drop(peer, _, fault):
                    self.gone(peer)
                    self.dropped[peer] = fault
                case end:
                    self.ends.append(end)

    def gone(self, peer: str) -> None:
        self.here.discard(peer)
        self.open = [each for each in self.open if each[0] != peer]

    def may_join(self, peer: str) -> bool:
        """Who lied may not, and who is silent not for ever: that is what the shell is for."""
        kind, _ = self.peers[peer]
        return self.dropped.get(peer) != "lied" and (kind != "silent" or peer not in self.dropped)

    def run(self) -> None:
        self.perform(self.machine.begin(self.now_s))
        for _ in range(5000):
            if self.machine.over:
                return
            self.step()
        raise AssertionError("it does not end")

    def step(self) -> None:
        absent = [each for each in self.peers if each not in self.here and self.may_join(each)]
        answering = [each for each in self.open if self.peers[each[0]][0] != "silent"]
        choice = self.draw.random()
        if absent and choice < 0.3 and self.machine.room:
            peer = self.draw.choice(absent)
            self.here.add(peer)
            have = chunks.pack(self.peers[peer][1], self.total)
            self.perform(self.machine.joined(peer, have, self.now_s))
        elif self.here and choice < 0.35:
            peer = self.draw.choice(sorted(self.here))
            self.gone(peer)
            self.perform(self.machine.left(peer, self.now_s))
        elif answering and choice < 0.95:
            peer, chunk = self.draw.choice(answering)
            self.open.remove((peer, chunk))
            kind = self.peers[peer][0]
            answer = true(chunk)
            if kind == "liar" and self.draw.random() < 0.5:
                answer = b"wrong".ljust(32)
            self.now_s += 0.01
            self.perform(self.machine.answered(peer, chunk, answer, self.now_s))
        else:
            self.now_s = max(self.now_s, min(self.machine.deadline_s(self.now_s), self.now_s + 100))
            self.perform(self.machine.on_time(self.now_s))


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 1 << 32), total=st.integers(1, 40), count=st.integers(0, MAX_PEERS + 2))
def test_any_interleaving_ends_with_all_chunks_or_a_clear_failure(seed: int, total: int, count: int) -> None:
    """Whatever peers do and in whatever order, it ends; with every chunk where an honest peer stays that has it.

    A chunk is accepted once, and never from one who sent other bytes.
    """
    draw = random.Random(seed)
    kinds = ["honest", "honest", "liar", "silent"]
    sizes = [draw.randint(0, total) for _ in range(count)]
    peers = {f"p{n}": (draw.choice(kinds), set(draw.sample(range(total), size))) for n, size in enumerate(sizes)}
    swarm = Swarm(draw, total, peers)
    swarm.run()
    assert len(swarm.ends) == 1
    assert swarm.machine.lacking == set(range(total)) - set(swarm.accepted)
    assert {peers[peer][0] for peer, fault in swarm.dropped.items() if fault == "lied"} <= {"liar"}
    if isinstance(swarm.ends[0], Finish):
        assert sorted(swarm.accepted) == list(range(total))
    else:
        assert swarm.ends == [Fail(total - len(swarm.accepted))]
        having = [peer for peer in swarm.here if peers[peer][1] & swarm.machine.lacking]
        assert having == []


def test_a_liars_bytes_are_never_accepted() -> None:
    """Wrong bytes: the peer is dropped for good, with what it sent named, and the chunk is asked of another."""
    machine = exchange(1)
    everything = chunks.everything(1)
    assert asked(machine.joined("liar", everything, 0.0), "liar") == [0]
    machine.joined("honest", b"\1", 0.0)
    drop = machine.answered("liar", 0, b"wrong", 1.0)
    assert drop == [Drop("liar", "sent wrong bytes for chunk 0", "lied")]
    assert machine.joined("liar", everything, 2.0) == []
    assert machine.answered("honest", 0, true(0), 3.0) == [Accept("honest", 0), Finish()]
    assert list(machine.liars) == ["liar"]


def test_what_was_not_asked_for_is_the_peers_fault() -> None:
    """A chunk that nobody asked of this peer, even a right one, and a bitmap of another size, end it."""
    machine = exchange(9)
    machine.joined("a", chunks.pack([0], 9), 0.0)
    assert [each.lied for each in machine.answered("a", 5, true(5), 0.0) if isinstance(each, Drop)] == [True]
    assert [each.lied for each in machine.joined("b", b"\xff", 0.0) if isinstance(each, Drop)] == [True]
    assert machine.lacking == set(range(9))


def test_what_is_rare_comes_first() -> None:
    """Of two peers, the one that has everything is asked first for what the other hasn't got."""
    machine = exchange(20, size=4 << 20)
    machine.joined("half", chunks.pack(range(10), 20), 0.0)
    effects = machine.joined("all", chunks.everything(20), 0.0)
    assert asked(effects, "all") == [10, 11]


def test_several_peers_share_the_work() -> None:
    """Peers that are equally fast are asked for equally much; one that answers more is asked for more."""
    machine = exchange(30, size=4 << 20)
    everything = chunks.everything(30)
    first = asked(machine.joined("a", everything, 0.0), "a")
    second = asked(machine.joined("b", everything, 0.0), "b")
    assert (len(first), len(second)) == (2, 2)
    assert not set(first) & set(second)
    assert len(asked(machine.answered("a", first[0], true(first[0]), 0.1), "a")) == 1


def test_a_slow_peer_does_not_decide_the_end() -> None:
    """A peer with nothing left to do is asked for what another is slow with; the second copy is passed over."""
    machine = exchange(2, size=8 << 20)
    everything = chunks.everything(2)
    machine.joined("slow", everything, 0.0)
    machine.joined("fast", everything, 0.0)
    effects = machine.answered("fast", 1, true(1), 0.1)
    assert effects == [Accept("fast", 1), Ask("fast", 0)]
    assert machine.answered("fast", 0, true(0), 0.2) == [Accept("fast", 0), Finish()]
    assert machine.answered("slow", 0, true(0), 0.3) == []


def test_a_silent_peer_is_given_up() -> None:
    """After `STALL_S` without an answer what it was asked for is asked of another; it may come back."""
    machine = exchange(1)
    machine.joined("silent", chunks.everything(1), 0.0)
    assert machine.deadline_s(0.0) == STALL_S
    assert machine.on_time(STALL_S - 0.1) == []
    assert [type(each) for each in machine.on_time(STALL_S)] == [Drop]
    assert machine.joined("silent", chunks.everything(1), STALL_S) == [Ask("silent", 0)]


def test_nobody_has_it() -> None:
    """A chunk that nobody has ends the exchange once patience is over, with how many lack."""
    machine = exchange(2)
    machine.joined("a", chunks.pack([0], 2), 0.0)
    machine.answered("a", 0, true(0), 1.0)
    assert machine.deadline_s(1.0) == 1.0 + PATIENCE_S
    assert machine.on_time(1.0 + PATIENCE_S) == [Fail(1)]


def test_a_peer_of_no_more_use_makes_room() -> None:
    """Peers with nothing that is lacking don't keep out the one that has it, however many they are."""
    machine = exchange(2)
    for number in range(2 * MAX_PEERS):
        machine.joined(f"p{number}", chunks.pack([0], 2), 0.0)
    effects = machine.answered("p0", 0, true(0), 0.1)
    assert {each.peer for each in effects if isinstance(each, Drop)} >= {"p0"}
    assert machine.room > 0
    assert asked(machine.joined("rare", chunks.everything(2), 0.2), "rare") == [1]


def test_nothing_wanted_is_the_end() -> None:
    """Where all is here already, it finishes before anybody is asked."""
    assert exchange(3, wanted=set()).begin(0.0) == [Finish()]


def test_a_cap_paces_what_is_asked_for() -> None:
    """Under a cap of 1 MiB/s a second passes between two chunks of 1 MiB, and the machine says when to come again."""
    machine, now_s, times = exchange(5, rate=1 << 20), 0.0, []
    effects = machine.joined("a", chunks.everything(5), 0.0)
    while len(times) < 5:
        times += [now_s for _ in asked(effects, "a")]
        now_s = machine.deadline_s(now_s)
        effects = machine.on_time(now_s)
    assert [round(later - before, 2) for before, later in itertools.pairwise(times)][1:] == [1.0, 1.0, 1.0]
