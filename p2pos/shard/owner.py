"""A session as its owner sees it: who knows all tokens, opens and closes the stages, replaces those that fail. Pure.

The other half, and what passes between them, is in `session`; how it is noticed that a stage hangs, in `watch`.

| phase | waits for | then |
|---|---|---|
| opening | `Ack` of every new stage | the prompt, or `Replay`, leaves: running |
| running | tokens | done |
| routing | a route without those that were lost | `Repair` to those that stay: asking |
| asking | `Progress` of those that stay | `Open` to the new ones: opening |

Tokens are known here, so nothing that a stage had is needed for the text to go on: where the stage before a new one
has kept what it sent, that is sent again, and the caches of all others stay; where it hasn't, all stages begin anew
from the tokens.
"""

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from p2pos.errors import P2posError, PeerError, UnavailableError, UserError
from p2pos.shard.blocks import keys
from p2pos.shard.effects import Blame, Emit, Fail, Finish, Note, OwnerEffect, Reroute, Send
from p2pos.shard.repair import Accusations, Standing, apart
from p2pos.shard.request import Request, next_life
from p2pos.shard.trouble import STEADY_S, Trouble, error_of
from p2pos.shard.watch import ASLEEP_S, Ask, Silent, Stuck, Watch
from p2pos.types import PeerId, SessionId
from p2pos.wire.messages import (
    BLOCK_TOKENS,
    Ack,
    Close,
    Fault,
    Logprobs,
    Open,
    Probe,
    Progress,
    Repair,
    Replay,
    StageMessage,
    StageRef,
    Tokens,
)

OPEN_DEADLINE_S = 15.0
"""For every stage to answer `Open` at first: a dial (≤ 10 s), or a wait for room, and a message."""
REOPEN_DEADLINE_S, REOPEN_MOST_S = 2.5, 11.0
"""For a stage that is to take another's place: there may be a better one. At most what one waits for room."""
REPAIR_DEADLINE_S = 1.0
"""For a stage that stays to answer `Repair`: several round trips across the planet."""
RETRY_S = 0.5
"""Between two looks for a route, where there is none."""
MAX_AHEAD = 64
"""Tokens that a head may have had of a lost tail and the owner not: the ring turns some times while a link dies."""


class Phase(Enum):
    """Where an owner's session stands."""

    OPENING = "opening"
    RUNNING = "running"
    ROUTING = "routing"
    ASKING = "asking"
    DONE = "done"
    FAILED = "failed"


class OwnerSession:
    """One session as its owner sees it.

    Args:
        session: 12 random bytes, and `LIFE_BYTES` of zero.
        me: the owner's peer id.
        model: the model's id.
        stages: the route, head first.
        request: prompt and sampling.
        now_s: the time, in seconds of any steady clock.

    """

    def __init__(
        self,
        session: SessionId,
        *,
        me: PeerId,
        model: str,
        stages: Sequence[StageRef],
        request: Request,
        now_s: float,
    ) -> None:
        if not request.prompt:
            raise UserError("the prompt is empty", hint="give at least one token")
        self.session = session
        self.phase = Phase.OPENING
        self._me = me
        self._model = model
        self._stages = list(stages)
        self._request = request
        self._tokens = list(request.prompt)  # the prompt's, and those of the text
        self._epoch = 0
        self._prefix = keys(model, request.prompt)
        self._waiting = {PeerId(stage.peer) for stage in stages}  # whose answer is awaited
        self._new = set(self._waiting)  # stages that begin with nothing
        self._cached: dict[PeerId, int] = {}  # positions that each of these holds already
        self._progress: dict[PeerId, Progress] = {}  # of those that stay
        self._prompted = False  # whether anything but `Open` was sent
        self._start = 0  # where the head began, and every stage that has nothing yet will
        self._asked = 0  # positions whose tokens were known at the last `Repair`
        self._lost: set[PeerId] = set()
        self._torn = False  # some stage lacks rows that nobody has any more
        self._leaving = False  # the route is only to be changed because somebody leaves: it works as it is
        self._leavers: set[PeerId] = set()  # of those that are lost, who works on as long as it can
        self._refused: set[PeerId] = set()
        self._accusations = Accusations()
        self._busy: set[PeerId] = set()  # who had no room, since the last token
        self._trouble = Trouble()
        self._echo = False  # the next token goes to the head as well: it may have got lost on its way there
        self._token_s = self._running_s = now_s
        self._watch = Watch(self._order(), now_s)
        self._deadline_s = now_s + OPEN_DEADLINE_S

    @property
    def cached(self) -> int:
        """Positions of the prompt that every stage held already, once all are open."""
        return min(self._cached.values(), default=0)

    @property
    def stages(self) -> tuple[StageRef, ...]:
        """The route as it is now, head first."""
        return tuple(self._stages)

    @property
    def lost(self) -> frozenset[PeerId]:
        """Those that the next route is to do without."""
        return frozenset(self._lost)

    @property
    def known(self) -> int:
        """Positions whose tokens are known."""
        return len(self._tokens)

    @property
    def peers(self) -> frozenset[PeerId]:
        """The peers that hold a stage of it."""
        return frozenset(self._order())

    @property
    def head(self) -> PeerId:
        """The peer that holds the first layers."""
        return PeerId(self._stages[0].peer)

    @property
    def deadline_s(self) -> float:
        """When to call `on_time`, at the latest."""
        return self._watch.deadline_s if self.phase is Phase.RUNNING else self._deadline_s

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.phase in {Phase.DONE, Phase.FAILED}

    def awaits(self, peer: PeerId) -> bool:
        """Whether an `Ack` of this peer answers an `Open`."""
        return self.phase is Phase.OPENING and peer in self._waiting

    def start(self) -> list[OwnerEffect]:
        """Open the session at every stage."""
        return list(self._opens())

    def on_message(self, sender: PeerId, message: StageMessage, now_s: float) -> list[OwnerEffect]:
        """Take a message that names this session. A peer that may not say it is replaced by another."""
        if self.over or message.session != self.session:
            return []  # it crossed the end, or a new beginning
        if sender not in self.peers or self._is_given_up(sender):
            return []  # of a stage that was replaced, perhaps, or is about to be
        match message:
            case Tokens() | Fault(code="next_stage" | "bad_peer") if self._epoch and self.awaits(sender):
                return []  # of what it had of this session before
            case Ack() if self.awaits(sender) and message.epoch == self._epoch:
                return self._on_opened(sender, message, now_s)
            case Tokens() if sender == self._stages[-1].peer and self._prompted:
                return self._on_tokens(sender, message, now_s)
            case Progress():
                return self._on_progress(sender, message, now_s)
            case Fault():
                return self._on_fault(sender, message, now_s)
            case Ack() | Tokens() if self._epoch or self.phase is Phase.ROUTING:
                return []  # it crossed a repair, or another's failure
            case _:
                return self._nonsense(sender, f"sent {type(message).__name__} where none was due", now_s)

    def on_lost(self, peer: PeerId, now_s: float) -> list[OwnerEffect]:
        """The connection to a peer is gone."""
        self._accusations.seen(peer)
        if self.over or peer not in self.peers or self._is_given_up(peer):
            return []
        error = UnavailableError(f"lost the node {peer}, which held {self._span(peer)}", hint="try again", peer=peer)
        return self._broken({peer}, "lost", error, now_s)

    def on_time(self, now_s: float) -> list[OwnerEffect]:
        """Check the deadlines."""
        if self.over or now_s < self.deadline_s:
            return []
        match self.phase:
            case Phase.RUNNING:
                return self._on_late(now_s)
            case Phase.ROUTING:
                self._deadline_s = now_s + RETRY_S
                return [Reroute(self.lost)]
            case _ if now_s - self._deadline_s >= ASLEEP_S:
                self._deadline_s = now_s + REPAIR_DEADLINE_S  # the answers may be here, unread
                return []
            case _:
                return self._broken(self._waiting, "hung", self._no_answer(self._waiting), now_s)

    def on_route(self, stages: Sequence[StageRef], now_s: float) -> list[OwnerEffect]:
        """Here is the route that was asked for."""
        if self.phase is not Phase.ROUTING and not (self.phase is Phase.RUNNING and self._leaving):
            return []
        old = {(each.peer, each.start, each.end) for each in self._stages if each.peer not in self._lost}
        stay = {PeerId(each.peer) for each in stages if (each.peer, each.start, each.end) in old}
        if not self._prompted or self._torn:
            stay = set()
        gone = [each for each in self._stages if each.peer not in {stage.peer for stage in stages}]
        effects: list[OwnerEffect] = [self._to(each, Close(self.session, "another took its place")) for each in gone]
        stay -= self._new  # of those nothing came yet
        self._stages = list(stages)
        self._epoch += 1
        self._lost.clear()
        self._leavers.clear()
        self._trouble.began(now_s)
        self._leaving = False
        route = {each.peer: f"{each.start}:{each.end}" for each in stages}
        effects.append(self._note("rerouted", route=route, stay=len(stay), new=len(stages) - len(stay)))
        return effects + (self._ask(stay, now_s) if stay else self._begin_anew(now_s))

    def on_no_route(self, error: P2posError, now_s: float) -> list[OwnerEffect]:
        """There is no such route now."""
        if self.phase is Phase.RUNNING and self._leaving:
            self._leaving = False  # whoever leaves will serve it as long as it can
            self._lost.clear()
            self._leavers.clear()
            return []
        if self.phase is not Phase.ROUTING:
            return []
        if self._leavers:  # rather those than nobody
            self._lost -= self._leavers
            self._leavers.clear()
            return [Reroute(self.lost)]
        first = self._trouble.error or error
        if not self._prompted or self._refused & self._lost:
            return self._fail(first)  # waiting would change nothing
        if self._trouble.lasts(self._request.patience_s, now_s):
            waited = f"{first.message}, and in {self._request.patience_s:g} s nobody took its place"
            busy = bool(first.fields.get("busy"))
            return self._fail(UnavailableError(waited, hint="see `p2pos swarm status`", why=error.message, busy=busy))
        self._deadline_s = now_s + RETRY_S
        return []

    def stop(self, reason: str = "stop") -> list[OwnerEffect]:
        """End it from here: a stop string was seen, or the person has heard enough."""
        if self.over:
            return []
        self.phase = Phase.DONE
        return [*self._close(reason), Finish(reason)]

    # what comes in while all is well

    def _on_opened(self, sender: PeerId, message: Ack, now_s: float) -> list[OwnerEffect]:
        if message.position % BLOCK_TOKENS or message.position > len(self._prefix) * BLOCK_TOKENS:
            return self._nonsense(sender, f"says that it holds {message.position} positions of the prompt", now_s)
        self._cached[sender] = message.position
        self._waiting.discard(sender)
        return [] if self._waiting else self._go(now_s)

    def _on_tokens(self, sender: PeerId, message: Tokens, now_s: float) -> list[OwnerEffect]:
        position, (token, *more) = message.position, message.tokens
        if position < self.known and self._epoch:
            return []  # it was told already
        if position != self.known or more:
            return self._nonsense(sender, f"sent position {position} where {self.known} is next", now_s)
        if token >= self._request.vocabulary:
            return self._nonsense(sender, f"sent token {token} of a vocabulary of {self._request.vocabulary}", now_s)
        effects: list[OwnerEffect] = []
        if self._trouble.since_s is not None and self.phase is Phase.RUNNING:
            pause_ms = round((now_s - self._token_s) * 1e3)
            effects.append(self._note("resumed", position=position, pause_ms=pause_ms, cause=self._trouble.cause))
            self._trouble.over()
            self._busy.clear()
            self._refused.clear()
        if self._echo and self.phase is Phase.RUNNING and not message.finish:
            self._echo = False
            effects.append(self._to(self._stages[0], Tokens(self.session, position, [token])))
        self._token_s = now_s
        self._watch.token(now_s)
        return effects + self._take(token, message.logprobs[0] if message.logprobs else None, message.finish)

    def _take(self, token: int, logprobs: Logprobs | None = None, finish: str = "") -> list[OwnerEffect]:
        """One more token of the text."""
        self._tokens.append(token)
        if not finish and token in self._request.eos:
            finish = "stop"
        elif not finish and self.known >= len(self._request.prompt) + self._request.max_tokens:
            finish = "length"
        effects: list[OwnerEffect] = [Emit((token,), logprobs)]
        if finish:
            self.phase = Phase.DONE
            effects += [*self._close(finish), Finish(finish)]
        return effects

    # what goes wrong

    def _on_fault(self, sender: PeerId, fault: Fault, now_s: float) -> list[OwnerEffect]:
        blamed = PeerId(fault.peer)
        match fault.code:
            case "leaving" if not self.awaits(sender):
                return self._on_leaving(sender)
            case "next_stage" | "bad_peer" if blamed and (blamed not in self.peers or self._is_given_up(blamed)):
                return []  # it has been replaced meanwhile, or is about to be
            case "next_stage" | "bad_peer" if self._epoch and blamed and apart(self._order(), sender, blamed):
                return []  # they were neighbours before a repair
            case "next_stage" | "bad_peer" if blamed not in {"", sender} and not self._may_accuse(sender, blamed):
                return self._nonsense(sender, f"accuses {blamed}, after others or from afar: {fault.text}", now_s)
            case "next_stage" if blamed not in {"", sender}:
                error = UnavailableError(f"the node {sender} lost the node {blamed}", hint="try again", peer=blamed)
                return self._broken({blamed}, "lost", error, now_s)
            case "bad_peer" if blamed not in {"", sender}:
                return self._nonsense(blamed, fault.text, now_s)
            case "forgot":
                return self._on_forgotten(sender, now_s)
            case "busy" | "leaving":
                again = sender in self._busy
                effects = self._broken({sender}, "busy", error_of(sender, fault), now_s, blame=False)
                self._busy.add(sender)
                # who was asked again because there is no other would be as busy at once: `on_time` looks later
                return [each for each in effects if not (again and isinstance(each, Reroute))]
            case "bad_request":
                self._refused.add(sender)
                if len(self._refused) > 1:  # it is the request, then
                    return self._fail(error_of(sender, fault))
                return self._broken({sender}, "fault", error_of(sender, fault), now_s)
            case _:
                pass
        return self._broken({sender}, "fault", error_of(sender, fault), now_s)

    def _on_forgotten(self, sender: PeerId, now_s: float) -> list[OwnerEffect]:
        """What a stage was to send again is not there any more, so what follows it lacks rows."""
        error = PeerError(sender, "keeps nothing of what it was to send again")
        self._trouble.more("fault", error, now_s, steady=False)
        if self._trouble.hopeless:
            return self._fail(error)
        if self.phase is Phase.RUNNING:
            return self._begin_anew(now_s)
        self._torn = True
        return []

    def _may_accuse(self, sender: PeerId, blamed: PeerId) -> bool:
        """Whether a stage is to be believed: it speaks of a neighbour, and hasn't done so again and again."""
        return self._accusations.heard(sender, blamed) and not apart(self._order(), sender, blamed)

    def _is_given_up(self, peer: PeerId) -> bool:
        """Whether a peer of the route is to be replaced, whatever it says."""
        return peer in self._lost - self._leavers

    def _on_leaving(self, sender: PeerId) -> list[OwnerEffect]:
        """A stage is to leave: have another take its place while it still works."""
        if self.phase is not Phase.RUNNING:
            return []
        self._leaving = True
        self._lost.add(sender)
        self._leavers.add(sender)
        self._trouble.cause = "leaving"
        return [self._note("leaving", peer=sender, layers=self._span(sender)), Reroute(self.lost)]

    def _on_late(self, now_s: float) -> list[OwnerEffect]:
        match self._watch.due(now_s):
            case Ask(number):
                return [self._to(stage, Probe(self.session, number)) for stage in self._stages]
            case Silent(peers):
                return self._broken(set(peers), "hung", self._no_answer(peers), now_s)
            case Stuck(peer):
                error = UnavailableError(f"the node {peer} computes nothing any more", hint="try again", peer=peer)
                return self._broken({peer}, "stuck", error, now_s)
            case None:
                return []

    def _nonsense(self, peer: PeerId, text: str, now_s: float) -> list[OwnerEffect]:
        return self._broken({peer}, "nonsense", PeerError(peer, text), now_s)

    def _broken(
        self, peers: set[PeerId], cause: str, error: P2posError, now_s: float, *, blame: bool = True
    ) -> list[OwnerEffect]:
        """These can't go on: look for others."""
        self._lost |= peers
        self._leavers -= peers
        self._leaving = False
        steady = self.phase is Phase.RUNNING and now_s - self._running_s >= STEADY_S
        self._trouble.more(cause, error, now_s, steady=steady)
        late = self._prompted and self._trouble.lasts(self._request.patience_s, now_s) and self._trouble.attempts > 1
        if self._trouble.hopeless or late:
            return self._fail(error)
        self.phase = Phase.ROUTING
        self._deadline_s = now_s + RETRY_S
        effects: list[OwnerEffect] = [
            self._note("lost", peer=peer, layers=self._span(peer), cause=cause, why=error.message)
            for peer in sorted(peers)
        ]
        effects += [Blame(peer) for peer in sorted(peers) if blame]
        return [*effects, Reroute(self.lost)]

    # repair

    def _ask(self, stay: set[PeerId], now_s: float) -> list[OwnerEffect]:
        """Tell those that stay of the route, and hear how far each is."""
        self.phase = Phase.ASKING
        self._asked = self.known
        self._progress.clear()
        self._waiting = set(stay)
        self._new = set(self.peers - stay)
        self._deadline_s = now_s + REPAIR_DEADLINE_S * self._trouble.backoff
        return [
            self._to(stage, Repair(self.session, self._epoch, self._stages, index, self.known, after in self._new))
            for index, (stage, after) in enumerate(zip(self._stages, [*self._order()[1:], ""], strict=True))
            if stage.peer in stay
        ]

    def _on_progress(self, sender: PeerId, message: Progress, now_s: float) -> list[OwnerEffect]:
        if self.phase is Phase.RUNNING:
            self._watch.answer(sender, message, now_s)
        elif self.phase is Phase.ASKING and message.number == self._epoch and sender in self._waiting:
            if not message.kept_from <= message.computed <= message.received:
                return self._nonsense(sender, "contradicts itself on how far it is", now_s)
            self._waiting.discard(sender)
            self._progress[sender] = message
            if not self._waiting:
                return self._on_asked(now_s)
        return []

    def _on_asked(self, now_s: float) -> list[OwnerEffect]:
        """All that stay have said how far they are: open the new ones."""
        effects: list[OwnerEffect] = []
        if self._torn or max(each.received for each in self._progress.values()) > self.known + MAX_AHEAD:
            return self._begin_anew(now_s)
        head, tail = self._progress.get(self.head), self._stages[-1].peer
        if head is not None and tail in self._new:
            # what the lost tail told the head alone is the text all the same
            ahead = head.tokens[self.known - self._asked :]
            strange = len(ahead) > MAX_AHEAD or max(ahead, default=0) >= self._request.vocabulary
            if strange or (ahead and self._request.sampling.logprobs):
                return self._begin_anew(now_s)
            for token in ahead:
                effects += self._take(token)
                if self.over:
                    return effects
        if not self._new:
            return effects + self._go(now_s)
        return effects + self._open_new(now_s)

    def _open_new(self, now_s: float) -> list[OwnerEffect]:
        self.phase = Phase.OPENING
        self._waiting = set(self._new)
        self._cached.clear()
        self._prefix = keys(self._model, self._tokens)
        reopen_s = min(REOPEN_DEADLINE_S * self._trouble.backoff, REOPEN_MOST_S)
        self._deadline_s = now_s + (reopen_s if self._prompted else OPEN_DEADLINE_S)
        return list(self._opens())

    def _begin_anew(self, now_s: float) -> list[OwnerEffect]:
        """No stage keeps anything: all begin from the tokens."""
        effects: list[OwnerEffect] = []
        if self._prompted:
            effects += self._close("it begins anew")
            # under another name: what is under way of the old one would be taken for the new one's
            self.session = next_life(self.session)
            effects.append(self._note("beginning anew", position=self.known, cause=self._trouble.cause))
        self._progress.clear()
        self._torn = False
        self._new = set(self.peers)
        return effects + self._open_new(now_s)

    def _opens(self) -> Iterator[OwnerEffect]:
        """An `Open` for each stage that is new."""
        request = self._request
        prompt = len(request.prompt)
        standing = self._standing()
        for index, stage in enumerate(self._stages):
            if stage.peer not in self._new:
                continue
            last = index == len(self._stages) - 1
            yield self._to(
                stage,
                Open(
                    session=self.session,
                    model=self._model,
                    owner=self._me,
                    stages=self._stages,
                    index=index,
                    prompt_length=prompt,
                    max_tokens=request.max_tokens,
                    eos=list(request.eos),
                    sampling=request.sampling,
                    history=list(request.prompt) if last and request.sampling.repetition_penalty != 1.0 else [],
                    prefix=self._prefix,
                    given=self._tokens[prompt:] if last else [],
                    resume=self.known if self._epoch else 0,
                    forward_from=standing.forward_from(index),
                    epoch=self._epoch,
                ),
            )

    def _go(self, now_s: float) -> list[OwnerEffect]:
        """Every stage is open: have the new ones given what they lack, and the text go on."""
        if self._torn:
            return self._begin_anew(now_s)
        effects: list[OwnerEffect] = []
        for gap in self._standing().gaps(self._cached, self.known):
            if gap.begin is None:
                return self._begin_anew(now_s)
            if gap.before is None:
                self._start = self._start if self._progress else gap.begin
                effects.append(self._to(self._stages[0], Tokens(self.session, gap.begin, self._tokens[gap.begin :])))
                continue
            peer = gap.before.peer
            effects.append(self._note("replaying", peer=peer, to=gap.peers[0], begin=gap.begin, end=gap.end))
            effects.append(self._to(gap.before, Replay(self.session, self._epoch, gap.begin)))
        head = self._progress.get(self.head)
        if head is not None and head.received < self.known:
            rest = Tokens(self.session, head.received, self._tokens[head.received :])
            effects.append(self._to(self._stages[0], rest))
        self._prompted = True
        self._new = set()
        self._running_s = now_s
        self._echo = self._epoch > 0
        self.phase = Phase.RUNNING
        self._watch = Watch(self._order(), now_s, patience=self._trouble.backoff, number=(self._epoch + 1) << 32)
        return effects

    def _standing(self) -> Standing:
        return Standing(self._stages, self._new, self._progress, self._start)

    # the rest

    def _fail(self, error: P2posError) -> list[OwnerEffect]:
        effects: list[OwnerEffect] = []
        if self._prompted and self._trouble.since_s is not None:
            effects.append(self._note("gave up", why=error.message, cause=self._trouble.cause))
        self.phase = Phase.FAILED
        return [*effects, *self._close(error.message), Fail(error)]

    def _close(self, reason: str) -> list[OwnerEffect]:
        return [self._to(stage, Close(self.session, reason[:1000])) for stage in self._stages]

    def _to(self, stage: StageRef, message: StageMessage) -> Send:
        return Send(PeerId(stage.peer), tuple(stage.addresses), message)

    def _note(self, event: str, **fields: Any) -> Note:
        return Note(event, {"session": self.session.hex(), **fields})

    def _order(self) -> list[PeerId]:
        return [PeerId(stage.peer) for stage in self._stages]

    def _span(self, peer: PeerId) -> str:
        spans = [f"{stage.start}:{stage.end}" for stage in self._stages if stage.peer == peer]
        return f"layers {', '.join(spans)}"

    def _no_answer(self, silent: frozenset[PeerId] | set[PeerId]) -> UnavailableError:
        peers = sorted(silent)
        return UnavailableError(f"no answer in time from {', '.join(peers)}", hint="try again", peers=peers)
