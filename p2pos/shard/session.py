"""A session at one stage, which knows its neighbours; `owner` is the other half, who knows all tokens. Pure.

```
owner ── Open ──▶ every stage                 each answers Ack(0) or Fault
owner ── Tokens(0, prompt) ──▶ head ── Step ──▶ … ── Step ──▶ tail
tail  ── Tokens(position, [token]) ──▶ head and owner, until the tail says why it finished
owner ── Close ──▶ every stage
```

A machine takes messages and the time and returns effects; a shell performs them. Every rule about who may say what, and
when, is here. A peer that breaks one gets a PeerError, which ends its session and no other.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

from p2pos.errors import InternalError, PeerError
from p2pos.types import PeerId, SessionId
from p2pos.wire.messages import (
    Ack,
    Close,
    Fault,
    FaultCode,
    Logprobs,
    Open,
    StageMessage,
    Step,
    TensorHeader,
    Tokens,
)

CHUNK = 512
"""Tokens of a prompt that pass through a stage at once: beyond this a CPU's or GPU's arithmetic is busy anyway."""
WINDOW = 4
"""Chunks that may be with the next stage unacknowledged: enough to keep it busy over a wide-area round trip."""
MAX_QUEUED = 2 * WINDOW
"""Chunks that may wait here; an upstream neighbour that sends more has broken the window."""
MAX_SESSIONS = 64
"""Sessions that one stage holds at a time. Each has at most one run waiting, so this bounds the queue as well."""
MAX_WAITING = MAX_SESSIONS * (WINDOW + 4)
"""Messages that may wait for one peer: each session's chunks in flight, and an ack, a token, a fault and an end."""
IDLE_S = 330.0
"""A stage frees a session that nobody has spoken of for this long: longer than any wait of its owner."""


@dataclass(frozen=True, slots=True)
class Send:
    """Give this to a peer."""

    peer: PeerId
    addresses: tuple[str, ...]
    message: StageMessage
    payload: bytes | memoryview = b""


@dataclass(frozen=True, slots=True)
class Run:
    """Pass these through the span: token ids at the head, elsewhere a header and bytes."""

    position: int
    rows: int
    tokens: tuple[int, ...] = ()
    header: TensorHeader | None = None
    payload: bytes | memoryview = b""
    sample: bool = False
    """At the tail: choose a token after the last row."""


@dataclass(frozen=True, slots=True)
class Release:
    """The session is over here: free its cache."""


StageEffect: TypeAlias = Send | Run | Release


@dataclass(frozen=True, slots=True)
class Computed:
    """What came of a `Run`: hidden states to pass on, or at the tail a token where one was asked for."""

    position: int
    rows: int
    header: TensorHeader | None = None
    payload: bytes | memoryview = b""
    token: int | None = None
    logprobs: Logprobs | None = None


class StageSession:
    """One session at one stage.

    Args:
        order: the owner's `Open`.
        me: this stage's peer id.
        sender: who sent the `Open`.
        now_s: the time, in seconds of any steady clock.

    Raises:
        PeerError: the order contradicts itself, or isn't for this peer or from its owner.

    """

    def __init__(self, order: Open, *, me: PeerId, sender: PeerId, now_s: float) -> None:
        if order.owner != sender:
            raise PeerError(sender, f"opened a session for {order.owner}")
        if order.index >= len(order.stages) or order.stages[order.index].peer != me:
            raise PeerError(sender, "opened a session at a stage that is not this peer")
        if any(left.end != right.start for left, right in zip(order.stages, order.stages[1:], strict=False)):
            raise PeerError(sender, "opened a session over layers that do not join")
        if any(stage.start >= stage.end for stage in order.stages):
            raise PeerError(sender, "opened a session with a stage that has no layers")
        if len(order.history) > order.prompt_length:
            raise PeerError(sender, f"sent a history of {len(order.history)} tokens")
        self.order = order
        self.session = SessionId(order.session)
        self.owner = PeerId(order.owner)
        self._me = me
        self._head, self._tail = order.stages[0], order.stages[-1]
        self.is_head = order.index == 0
        self.is_tail = order.index == len(order.stages) - 1
        self._upstream = None if self.is_head else PeerId(order.stages[order.index - 1].peer)
        self._downstream = None if self.is_tail else order.stages[order.index + 1]
        self._received = 0  # positions that were given to us
        self._computed = 0  # positions that are in our cache
        self._acked = 0  # positions that the next stage has in its cache
        self._in_flight: deque[int] = deque()  # ends of chunks sent on and not acknowledged
        self._queue: deque[Run] = deque()
        self._running = False
        self.generated: list[int] = []
        """The tokens sampled here."""
        self._spoken_s = now_s
        self.over = False

    @property
    def neighbours(self) -> frozenset[PeerId]:
        """The peers without which this session can't go on here."""
        peers = {self._head.peer, self._tail.peer} if self.is_head or self.is_tail else set()
        peers |= {self._upstream} if self._upstream else set()
        peers |= {self._downstream.peer} if self._downstream else set()
        return frozenset(PeerId(peer) for peer in peers if peer != self._me)

    def expired(self, now_s: float) -> bool:
        """Whether nobody has spoken of it for `IDLE_S`."""
        return now_s - self._spoken_s >= IDLE_S

    def start(self) -> list[StageEffect]:
        """The answer to the owner's `Open`."""
        return [Send(self.owner, (), Ack(self.session, 0))]

    def on_message(
        self, sender: PeerId, message: StageMessage, payload: bytes | memoryview, now_s: float
    ) -> list[StageEffect]:
        """Take a message that names this session. Raises PeerError where the sender may not say it, or not now."""
        self._spoken_s = now_s
        if self.over:
            return []
        match message:
            case Tokens():
                return self._on_tokens(sender, message)
            case Step():
                return self._on_step(sender, message, payload)
            case Ack():
                return self._on_ack(sender, message)
            case Close():
                if sender != self.owner:
                    raise PeerError(sender, "closed a session that it does not own")
                return self._end()
            case _:
                raise PeerError(sender, f"sent {type(message).__name__} to a stage")

    def on_computed(self, result: Computed, now_s: float) -> list[StageEffect]:
        """Take what came of the last `Run`. Raises InternalError where it isn't the one that was asked for."""
        self._spoken_s = now_s
        self._running = False
        if self.over:
            return []
        if result.position != self._computed:
            raise InternalError(f"computed position {result.position} where {self._computed} was next")
        self._computed += result.rows
        effects: list[StageEffect] = []
        if self._upstream is not None:
            effects.append(Send(self._upstream, (), Ack(self.session, self._computed)))
        if self._downstream is not None:
            if result.header is None:
                raise InternalError("a stage that is not the tail must pass hidden states on")
            step = Step(self.session, result.position, result.header)
            self._in_flight.append(self._computed)
            effects.append(Send(PeerId(self._downstream.peer), tuple(self._downstream.addresses), step, result.payload))
        elif result.token is not None:
            effects += self._sampled(result.token, result.logprobs)
        return effects if self.over else effects + self._next()

    def fail(self, code: FaultCode, text: str) -> list[StageEffect]:
        """End the session here and tell the owner why."""
        if self.over:
            return []
        fault = Fault(self.session, code, text[:1000])
        return [Send(self.owner, (), fault), *self._end()]

    def drop(self) -> list[StageEffect]:
        """End the session without a word: its owner is gone."""
        return self._end()

    def _on_tokens(self, sender: PeerId, message: Tokens) -> list[StageEffect]:
        if not self.is_head:
            raise PeerError(sender, "sent tokens to a stage that is not the head")
        if message.position == 0:
            if sender != self.owner or self._received:
                raise PeerError(sender, "sent a prompt that was not due")
            if len(message.tokens) != self.order.prompt_length:
                raise PeerError(sender, f"sent {len(message.tokens)} tokens of a prompt of {self.order.prompt_length}")
        elif sender != self._tail.peer or len(message.tokens) != 1:
            raise PeerError(sender, "sent a token that is not its to send")
        return self._accept_tokens(sender, message)

    def _accept_tokens(self, sender: PeerId, message: Tokens) -> list[StageEffect]:
        if message.position != self._received:
            raise PeerError(sender, f"sent tokens for position {message.position} where {self._received} is next")
        tokens = tuple(message.tokens)
        self._reserve(sender, len(tokens))
        for start in range(0, len(tokens), CHUNK):
            piece = tokens[start : start + CHUNK]
            self._queue.append(self._run(message.position + start, len(piece), tokens=piece))
        self._received += len(tokens)
        return self._next()

    def _on_step(self, sender: PeerId, message: Step, payload: bytes | memoryview) -> list[StageEffect]:
        if sender != self._upstream:
            raise PeerError(sender, "sent hidden states and is not the stage before this one")
        if message.position != self._received:
            raise PeerError(sender, f"sent position {message.position} where {self._received} is next")
        if len(self._queue) >= MAX_QUEUED:
            raise PeerError(sender, f"sent more than {MAX_QUEUED} chunks unacknowledged")
        rows = message.tensor.shape[0]
        if rows > CHUNK:
            raise PeerError(sender, f"sent {rows} positions at once where {CHUNK} are allowed")
        self._reserve(sender, rows)
        self._received += rows
        self._queue.append(self._run(message.position, rows, header=message.tensor, payload=payload))
        return self._next()

    def _reserve(self, sender: PeerId, rows: int) -> None:
        """Raise PeerError where so many more positions are over what the session asked room for."""
        room = self.order.prompt_length + self.order.max_tokens
        if self._received + rows > room:
            raise PeerError(sender, f"sent more than the session's {room} positions")

    def _on_ack(self, sender: PeerId, message: Ack) -> list[StageEffect]:
        if self._downstream is None or sender != self._downstream.peer:
            raise PeerError(sender, "acknowledged and is not the stage after this one")
        if not self._acked <= message.position <= self._computed:
            raise PeerError(sender, f"acknowledged position {message.position}, which it was not sent")
        self._acked = message.position
        while self._in_flight and self._in_flight[0] <= self._acked:
            self._in_flight.popleft()
        return self._next()

    def _run(
        self,
        position: int,
        rows: int,
        *,
        tokens: tuple[int, ...] = (),
        header: TensorHeader | None = None,
        payload: bytes | memoryview = b"",
    ) -> Run:
        sample = self.is_tail and position + rows >= self.order.prompt_length
        return Run(position, rows, tokens, header, payload, sample)

    def _next(self) -> list[StageEffect]:
        """Run the next chunk, unless one runs already or the next stage has enough to do."""
        if self._running or not self._queue or len(self._in_flight) >= WINDOW:
            return []
        self._running = True
        return [self._queue.popleft()]

    def _sampled(self, token: int, logprobs: Logprobs | None) -> list[StageEffect]:
        self.generated.append(token)
        finish: Literal["", "stop", "length"] = ""
        if token in self.order.eos:
            finish = "stop"
        elif len(self.generated) >= self.order.max_tokens:
            finish = "length"
        told = [] if logprobs is None else [logprobs]
        effects: list[StageEffect] = [Send(self.owner, (), Tokens(self.session, self._computed, [token], finish, told))]
        if finish:
            return effects + self._end()
        message = Tokens(self.session, self._computed, [token])
        if self.is_head:
            return effects + self._accept_tokens(self._me, message)
        if self._head.peer == self.owner:
            return effects  # one message for both: that peer hands it to its stage as well
        return [Send(PeerId(self._head.peer), tuple(self._head.addresses), message), *effects]

    def _end(self) -> list[StageEffect]:
        if self.over:
            return []
        self.over = True
        self._queue.clear()
        return [Release()]
