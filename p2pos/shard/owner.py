"""A session as its owner sees it: who knows the prompt and every token, opens the stages and closes them. Pure.

The other half, and what passes between them, is in `session`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from p2pos.errors import P2posError, PeerError, UnavailableError, UserError
from p2pos.shard.blocks import keys
from p2pos.shard.session import Send
from p2pos.types import PeerId, SessionId
from p2pos.wire.messages import (
    BLOCK_TOKENS,
    Ack,
    Close,
    Fault,
    Logprobs,
    Open,
    Sampling,
    StageMessage,
    StageRef,
    Tokens,
)

OPEN_DEADLINE_S = 15.0
"""For every stage to answer `Open`: a dial (≤ 10 s) and a message."""
FIRST_DEADLINE_S = 300.0
"""For the first token: the longest prompts take minutes on a CPU."""
NEXT_DEADLINE_S = 30.0
"""For each further token."""


class Phase(Enum):
    """Where an owner's session stands."""

    OPENING = "opening"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Emit:
    """These tokens are the next of the text."""

    tokens: tuple[int, ...]
    logprobs: Logprobs | None = None
    """Of the one token, where `Sampling.logprobs` asks."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The text is whole: `stop` (an end token or a stop string) or `length`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    """The text can't go on, and whose fault it is."""

    error: P2posError


OwnerEffect: TypeAlias = Send | Emit | Finish | Fail


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asks of the swarm."""

    prompt: tuple[int, ...]
    max_tokens: int
    eos: tuple[int, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)


class OwnerSession:
    """One session as its owner sees it.

    Args:
        session: 16 random bytes.
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
        self._waiting = {PeerId(stage.peer) for stage in stages}
        self._prefix = keys(model, request.prompt)
        self._cached = len(self._prefix) * BLOCK_TOKENS  # positions that every stage that answered holds already
        self._next = len(request.prompt)
        self._deadline_s = now_s + OPEN_DEADLINE_S

    @property
    def cached(self) -> int:
        """Positions of the prompt that every stage held already, once all are open."""
        return self._cached

    @property
    def peers(self) -> frozenset[PeerId]:
        """The peers that hold a stage of it."""
        return frozenset(PeerId(stage.peer) for stage in self._stages)

    @property
    def head(self) -> PeerId:
        """The peer that holds the first layers."""
        return PeerId(self._stages[0].peer)

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt; the tail samples for this position and later ones."""
        return len(self._request.prompt)

    @property
    def deadline_s(self) -> float:
        """When to call `on_time`, at the latest."""
        return self._deadline_s

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.phase in {Phase.DONE, Phase.FAILED}

    def start(self) -> list[OwnerEffect]:
        """Open the session at every stage."""
        request = self._request
        history = list(request.prompt) if request.sampling.repetition_penalty != 1.0 else []
        return [
            self._to(
                stage,
                Open(
                    session=self.session,
                    model=self._model,
                    owner=self._me,
                    stages=self._stages,
                    index=index,
                    prompt_length=len(request.prompt),
                    max_tokens=request.max_tokens,
                    eos=list(request.eos),
                    sampling=request.sampling,
                    history=history if index == len(self._stages) - 1 else [],
                    prefix=self._prefix,
                ),
            )
            for index, stage in enumerate(self._stages)
        ]

    def on_message(self, sender: PeerId, message: StageMessage, now_s: float) -> list[OwnerEffect]:
        """Take a message that names this session. A peer that may not say it fails the session."""
        if self.over:
            return []
        match message:
            case Ack() if self.phase is Phase.OPENING and sender in self._waiting:
                return self._on_opened(sender, message, now_s)
            case Tokens() if self.phase is Phase.RUNNING and sender == self._stages[-1].peer:
                return self._on_tokens(sender, message, now_s)
            case Fault() if sender in self.peers:
                return self._fail(_blame(sender, message))
            case _:
                return self._fail(PeerError(sender, f"sent {type(message).__name__} where none was due"))

    def on_lost(self, peer: PeerId) -> list[OwnerEffect]:
        """The connection to a peer is gone."""
        if self.over or peer not in self.peers:
            return []
        return self._fail(
            UnavailableError(f"lost the node {peer}, which held {self._span(peer)}", hint="try again", peer=peer)
        )

    def on_time(self, now_s: float) -> list[OwnerEffect]:
        """Check the deadline."""
        if self.over or now_s < self._deadline_s:
            return []
        silent = sorted(self._waiting) if self.phase is Phase.OPENING else sorted(self.peers)
        return self._fail(
            UnavailableError(f"no answer in time from {', '.join(silent)}", hint="try again", peers=silent)
        )

    def stop(self, reason: str = "stop") -> list[OwnerEffect]:
        """End it from here: a stop string was seen, or the person has heard enough."""
        if self.over:
            return []
        self.phase = Phase.DONE
        return [*self._close(reason), Finish(reason)]

    def _on_opened(self, sender: PeerId, message: Ack, now_s: float) -> list[OwnerEffect]:
        if message.position % BLOCK_TOKENS or message.position > len(self._prefix) * BLOCK_TOKENS:
            return self._fail(PeerError(sender, f"says that it holds {message.position} positions of the prompt"))
        self._cached = min(self._cached, message.position)
        self._waiting.discard(sender)
        if self._waiting:
            return []
        self.phase = Phase.RUNNING
        self._deadline_s = now_s + FIRST_DEADLINE_S
        prompt = self._request.prompt
        # the last token goes through in any case: what it gives is the text's first token
        start = min(self._cached, (len(prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS)
        return [self._to(self._stages[0], Tokens(self.session, start, list(prompt[start:])))]

    def _on_tokens(self, sender: PeerId, message: Tokens, now_s: float) -> list[OwnerEffect]:
        if message.position != self._next or len(message.tokens) != 1:
            return self._fail(PeerError(sender, f"sent position {message.position} where {self._next} is next"))
        if self._next >= len(self._request.prompt) + self._request.max_tokens:
            return self._fail(PeerError(sender, f"sent more than {self._request.max_tokens} tokens"))
        self._next += 1
        self._deadline_s = now_s + NEXT_DEADLINE_S
        effects: list[OwnerEffect] = [Emit(tuple(message.tokens), message.logprobs[0] if message.logprobs else None)]
        if message.finish:
            self.phase = Phase.DONE
            effects += [*self._close(message.finish), Finish(message.finish)]
        return effects

    def _fail(self, error: P2posError) -> list[OwnerEffect]:
        self.phase = Phase.FAILED
        return [*self._close(error.message), Fail(error)]

    def _close(self, reason: str) -> list[OwnerEffect]:
        return [self._to(stage, Close(self.session, reason[:1000])) for stage in self._stages]

    def _to(self, stage: StageRef, message: StageMessage) -> Send:
        return Send(PeerId(stage.peer), tuple(stage.addresses), message)

    def _span(self, peer: PeerId) -> str:
        spans = [f"{stage.start}:{stage.end}" for stage in self._stages if stage.peer == peer]
        return f"layers {', '.join(spans)}"


def _blame(sender: PeerId, fault: Fault) -> P2posError:
    """The error that a person sees for a stage's fault."""
    if fault.code == "busy":
        return UnavailableError(
            f"the node {sender} is busy: {fault.text}", hint="try again later", peer=sender, busy=True
        )
    if fault.code in {"next_stage", "deadline"}:
        return UnavailableError(f"the node {sender} reports: {fault.text}", hint="try again", peer=sender)
    return PeerError(sender, f"the node {sender} failed ({fault.code}): {fault.text}", code=fault.code)
