"""All machines of a session together, while stages are lost and others take their place."""

from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pos.errors import UnavailableError
from p2pos.shard.effects import Computed, Emit, Fail, Finish, Note, Release, Reroute, Run, Send
from p2pos.shard.owner import OwnerSession
from p2pos.shard.request import Request
from p2pos.shard.session import StageSession
from p2pos.types import PeerId
from p2pos.wire.messages import Open, StageRef
from tests.shard.sessions import OWNER, SESSION, header

PROMPT = tuple(range(10, 50))


@dataclass
class Place:
    """A stage's process: what its cache holds says which rows it has computed, and of which tokens they come."""

    session: StageSession
    cache: list[int]
    spares: int = 0


class Network:
    """All machines of one session, and between each two of them a queue that keeps its order.

    A hidden state carries its position's token, so that what the tail sees shows whether anything was lost, doubled or
    mixed up: it samples a function of all that it has seen.
    """

    def __init__(self, count: int, max_tokens: int, *, spares: int = 1, keep: bool = True, exact: bool = False) -> None:
        self.count = count
        self.keep = keep
        self.exact = exact
        self.live = {f"stage-{index}-{number}" for index in range(count) for number in range(1 + spares)}
        self.stages: dict[tuple[str, bytes], Place] = {}
        self.queues: dict[tuple[str, str], deque[Any]] = defaultdict(deque)
        self.runs: list[tuple[str, StageSession, Run]] = []
        self.tokens: list[int] = []
        self.finish = ""
        self.error: Exception | None = None
        self.notes: list[Note] = []
        self.now_s = 0.0
        self.owner = OwnerSession(
            SESSION,
            me=OWNER,
            model="model",
            stages=[self.ref(f"stage-{index}-0") for index in range(count)],
            request=Request(PROMPT, max_tokens),
            now_s=0.0,
        )
        self.perform(OWNER, self.owner.start())

    def ref(self, name: str) -> StageRef:
        index = int(name.split("-")[1])
        return StageRef(name, [], index, index + 1)

    def perform(self, who: str, effects: list[Any], place: Place | None = None) -> None:
        for effect in effects:
            match effect:
                case Send(peer, _, message, payload):
                    if peer == OWNER or peer in self.live:
                        self.queues[who, peer].append((message, payload))
                    else:
                        self.queues[peer, who].append(("lost", b""))
                case Run() if place is not None:
                    self.runs.append((who, place.session, effect))
                case Release() if place is not None:
                    if self.stages.get((who, place.session.session)) is place:
                        del self.stages[who, place.session.session]
                case Emit(tokens):
                    self.tokens += tokens
                case Finish(reason):
                    self.finish = reason
                case Fail(error):
                    self.error = error
                case Reroute():
                    self.reroute()
                case Note():
                    self.notes.append(effect)

    def reroute(self) -> None:
        route = []
        for stage in self.owner.stages:
            names = [stage.peer, *sorted(self.live)]
            usable = [each for each in names if each in self.live and each not in self.owner.lost]
            fits = [each for each in usable if self.ref(each).start == stage.start]
            if not fits:
                error = UnavailableError(f"nobody serves {stage.start}")
                self.perform(OWNER, self.owner.on_no_route(error, self.now_s))
                return
            route.append(self.ref(fits[0]))
        self.perform(OWNER, self.owner.on_route(route, self.now_s))

    def kill(self, name: str) -> None:
        """A process ends: nothing of it arrives any more but what is under way, and its neighbours notice."""
        self.live.discard(name)
        self.stages = {key: place for key, place in self.stages.items() if key[0] != name}
        self.runs = [run for run in self.runs if run[0] != name]
        for key in list(self.queues):
            if key[1] == name:
                del self.queues[key]
        self.queues[name, OWNER].append(("lost", b""))
        for other, _ in self.stages:
            self.queues[name, other].append(("lost", b""))

    def choices(self) -> list[tuple[str, Any]]:
        return [("deliver", key) for key, queue in self.queues.items() if queue] + [("run", run) for run in self.runs]

    def step(self, choice: tuple[str, Any]) -> None:
        kind, what = choice
        if kind == "run":
            self.runs.remove(what)
            who, session, run = what
            place = self.stages.get((who, session.session))
            if place is None or place.session is not session:
                return
            self.perform(who, session.on_computed(self.compute(place, run), self.now_s), place)
            return
        sender, receiver = what
        message, payload = self.queues[what].popleft()
        if receiver == OWNER:
            effects = (
                self.owner.on_lost(PeerId(sender), self.now_s)
                if message == "lost"
                else self.owner.on_message(PeerId(sender), message, self.now_s)
            )
            self.perform(OWNER, effects)
            return
        if message == "lost":
            for (name, _), place in list(self.stages.items()):
                if name == receiver and PeerId(sender) in place.session.neighbours:
                    self.perform(receiver, place.session.lost(PeerId(sender)), place)
            return
        key = (receiver, message.session)
        if isinstance(message, Open):
            session = StageSession(
                message, me=PeerId(receiver), sender=PeerId(sender), now_s=0.0, chunk=lambda: 16, exact=self.exact
            )
            self.stages[key] = Place(session, [])
            self.perform(receiver, session.start(0), self.stages[key])
        elif (place := self.stages.get(key)) is None:
            return
        elif PeerId(sender) in place.session.neighbours or sender == OWNER:
            self.perform(receiver, place.session.on_message(PeerId(sender), message, payload, self.now_s), place)
        if not self.keep and key in self.stages:
            self.stages[key].session.forget()

    def compute(self, place: Place, run: Run) -> Computed:
        assert run.position == len(place.cache)
        rows = (
            list(run.tokens)
            if run.header is None
            else [int.from_bytes(bytes(run.payload)[16 * row : 16 * row + 16], "big") for row in range(run.rows)]
        )
        place.cache += rows
        if run.sample:
            return Computed(run.position, run.rows, token=sample(place.cache))
        data = b"".join(row.to_bytes(16, "big") for row in rows)
        return Computed(run.position, run.rows, header(run.rows), data)

    def play(self, data: st.DataObject) -> None:
        for _ in range(20_000):
            choices = self.choices()
            if not choices:
                return
            self.step(data.draw(st.sampled_from(choices)))
        raise AssertionError("it does not end")


def sample(cache: list[int]) -> int:
    return (sum(cache) * 31 + len(cache)) % 1009


def expected(max_tokens: int) -> list[int]:
    text = list(PROMPT)
    while len(text) < len(PROMPT) + max_tokens:
        text.append(sample(text))
    return text[len(PROMPT) :]


@settings(max_examples=300, deadline=None)
@given(
    count=st.integers(1, 4),
    max_tokens=st.integers(1, 8),
    victims=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), min_size=1, max_size=3),
    keep=st.booleans(),
    exact=st.booleans(),
    data=st.data(),
)
def test_the_text_is_the_same_whoever_dies_whenever(
    count: int, max_tokens: int, victims: list[tuple[int, int]], keep: bool, exact: bool, data: st.DataObject
) -> None:
    """With somebody to take their places, the loss of any stages at any time changes no token, and nobody is left."""
    network = Network(count, max_tokens, spares=3, keep=keep, exact=exact)
    for steps, index in victims:
        for _ in range(steps):
            choices = network.choices()
            if not choices:
                break
            network.step(data.draw(st.sampled_from(choices)))
        if not network.owner.over:
            network.kill(network.owner.stages[index % count].peer)
    network.play(data)
    assert network.error is None
    assert network.tokens == expected(max_tokens)
    assert network.finish == "length"
    assert network.stages == {}
