"""A session at one stage, which knows its neighbours; `owner` is the other half, who knows all tokens. Pure.

```
owner ── Open ──▶ every stage                 each answers Ack(cached) or Fault, once it has room
owner ── Tokens(start, prompt) ──▶ head ── Step ──▶ … ── Step ──▶ tail
tail  ── Tokens(position, [token]) ──▶ head and owner, until the tail says why it finished
owner ── Close ──▶ every stage
```

A stage may hold the keys and values of the prompt's beginning already. Its `Ack` says how many positions of them, the
owner begins where the stage that holds the fewest ends, and the first message that a stage gets says where that is.

A machine takes messages and the time and returns effects; a shell performs them. Every rule about who may say what, and
when, is here. A peer that breaks one gets a PeerError, which ends its session and no other.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from p2pos.errors import InternalError, PeerError
from p2pos.shard import blocks
from p2pos.types import PeerId, SessionId
from p2pos.wire.messages import (
    BLOCK_TOKENS,
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
"""The most tokens of a prompt that pass through a stage at once: beyond this even a GPU's arithmetic is busy anyway."""
WINDOW = 4
"""Chunks that may be with the next stage unacknowledged: enough to keep it busy over a wide-area round trip.

Decode steps don't count and aren't acknowledged: the token that comes round the ring says that they were computed.
"""
MAX_QUEUED = 2 * WINDOW
"""Chunks that may wait here; an upstream neighbour that sends more has broken the window."""
MAX_SESSIONS = 64
"""Sessions that one stage runs at a time. Each has at most one run waiting, so this bounds the queue as well."""
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
    keys: tuple[bytes, ...] = ()
    """Of the blocks that these rows fill."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """The session begins at this position: what lies before is cached, and what is cached beyond isn't wanted."""

    position: int


@dataclass(frozen=True, slots=True)
class Release:
    """The session is over here: free its cache."""


StageEffect: TypeAlias = Send | Run | Adopt | Release


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
        chunk: at the head, how many tokens of a prompt are to go through at once now; at most `CHUNK`.

    Raises:
        PeerError: the order contradicts itself, or isn't for this peer or from its owner.

    """

    def __init__(
        self, order: Open, *, me: PeerId, sender: PeerId, now_s: float, chunk: Callable[[], int] = lambda: CHUNK
    ) -> None:
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
        if len(order.prefix) > order.prompt_length // BLOCK_TOKENS:
            raise PeerError(sender, f"sent {len(order.prefix)} keys for a prompt of {order.prompt_length} tokens")
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
        self._uncut: tuple[int, ...] = ()  # at the head: tokens that are in no chunk yet
        self._running: Run | None = None
        self._chunk = chunk
        self._cached: int | None = None  # positions that were here when it was let in
        self._begun = False
        self._key: bytes | None = None  # at the head: of the last whole block, where this session's blocks have keys
        self._partial: list[int] = []  # and the tokens after it
        self.generated: list[int] = []
        """At the tail: the tokens that were sampled."""
        self._spoken_s = now_s
        self.over = False

    @property
    def neighbours(self) -> frozenset[PeerId]:
        """The peers without which this session can't go on here."""
        peers = {self._head.peer, self._tail.peer} if self.is_head or self.is_tail else set()
        peers |= {self._upstream} if self._upstream else set()
        peers |= {self._downstream.peer} if self._downstream else set()
        return frozenset(PeerId(peer) for peer in peers if peer != self._me)

    @property
    def decoding(self) -> bool:
        """Whether its prompt is through this stage."""
        return self._computed >= self.order.prompt_length

    def expired(self, now_s: float) -> bool:
        """Whether nobody has spoken of it for `IDLE_S`."""
        return now_s - self._spoken_s >= IDLE_S

    def start(self, cached: int = 0) -> list[StageEffect]:
        """The answer to the owner's `Open`, once there is room.

        Args:
            cached: positions of the prompt's beginning that this stage holds already, a whole number of blocks.

        """
        self._cached = cached
        return [Send(self.owner, (), Ack(self.session, cached))]

    def on_message(
        self, sender: PeerId, message: StageMessage, payload: bytes | memoryview, now_s: float
    ) -> list[StageEffect]:
        """Take a message that names this session. Raises PeerError where the sender may not say it, or not now."""
        if sender in {self.owner, self._me} | self.neighbours:  # a stranger doesn't keep a session alive
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
        run, self._running = self._running, None
        if self.over:
            return []
        if run is None or result.position != self._computed:
            raise InternalError(f"computed position {result.position} where {self._computed} was next")
        self._computed += result.rows
        counts = run.position < self.order.prompt_length
        effects: list[StageEffect] = []
        if self._downstream is not None:
            if result.header is None:
                raise InternalError("a stage that is not the tail must pass hidden states on")
            step = Step(self.session, result.position, result.header, list(run.keys))
            if counts:
                self._in_flight.append(self._computed)
            effects.append(Send(PeerId(self._downstream.peer), tuple(self._downstream.addresses), step, result.payload))
        elif result.token is not None:
            effects += self._sampled(result.token, result.logprobs)
        if counts and self._upstream is not None:  # last: the next stage waits for the rows, nobody yet for this
            effects.append(Send(self._upstream, (), Ack(self.session, self._computed)))
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
        if self._begun:
            if sender != self._tail.peer or len(message.tokens) != 1:
                raise PeerError(sender, "sent a token that is not its to send")
            return self._accept_tokens(sender, message)
        if sender != self.owner:
            raise PeerError(sender, "sent a token before there was a prompt")
        if message.position + len(message.tokens) != self.order.prompt_length:
            rest = self.order.prompt_length - message.position
            raise PeerError(sender, f"sent {len(message.tokens)} tokens where {rest} are left of the prompt")
        effects = self._begin(sender, message.position)
        if self.order.prefix or self.order.prompt_length < BLOCK_TOKENS:  # else its owner wants nothing shared
            whole = message.position // BLOCK_TOKENS
            self._key = self.order.prefix[whole - 1] if whole else blocks.root(self.order.model)
        return effects + self._accept_tokens(sender, message)

    def _begin(self, sender: PeerId, position: int) -> list[StageEffect]:
        """The first rows come, and with them where the session begins."""
        if self._cached is None:
            raise PeerError(sender, "sent rows to a session that has no room yet")
        if position % BLOCK_TOKENS or position > self._cached or position >= self.order.prompt_length:
            raise PeerError(sender, f"began at position {position} where {self._cached} are cached")
        self._begun = True
        self._received = self._computed = self._acked = position
        return [Adopt(position)]

    def _accept_tokens(self, sender: PeerId, message: Tokens) -> list[StageEffect]:
        if message.position != self._received:
            raise PeerError(sender, f"sent tokens for position {message.position} where {self._received} is next")
        tokens = tuple(message.tokens)
        self._reserve(sender, len(tokens))
        self._uncut += tokens
        self._received += len(tokens)
        return self._next()

    def _cut(self) -> None:
        """Queue the next piece of the tokens that are here."""
        piece = self._uncut[: self._chunk()]
        position = self._received - len(self._uncut)
        self._uncut = self._uncut[len(piece) :]
        self._queue.append(self._run(position, len(piece), tokens=piece, keys=self._file(piece)))

    def _file(self, tokens: tuple[int, ...]) -> tuple[bytes, ...]:
        """The keys of the blocks that these next tokens fill."""
        if self._key is None:
            return ()
        self._partial += tokens
        keys = []
        while len(self._partial) >= BLOCK_TOKENS:
            self._key = blocks.next_key(self._key, self._partial[:BLOCK_TOKENS])
            del self._partial[:BLOCK_TOKENS]
            keys.append(self._key)
        return tuple(keys)

    def _on_step(self, sender: PeerId, message: Step, payload: bytes | memoryview) -> list[StageEffect]:
        if sender != self._upstream:
            raise PeerError(sender, "sent hidden states and is not the stage before this one")
        effects = [] if self._begun else self._begin(sender, message.position)
        if message.position != self._received:
            raise PeerError(sender, f"sent position {message.position} where {self._received} is next")
        if len(self._queue) >= MAX_QUEUED:
            raise PeerError(sender, f"sent more than {MAX_QUEUED} chunks unacknowledged")
        rows = message.tensor.shape[0]
        if rows > CHUNK:
            raise PeerError(sender, f"sent {rows} positions at once where {CHUNK} are allowed")
        filled = (message.position + rows) // BLOCK_TOKENS - message.position // BLOCK_TOKENS
        if message.keys and len(message.keys) != filled:
            raise PeerError(sender, f"sent {len(message.keys)} keys for {filled} blocks")
        self._reserve(sender, rows)
        self._received += rows
        keys = tuple(message.keys)
        self._queue.append(self._run(message.position, rows, header=message.tensor, payload=payload, keys=keys))
        return effects + self._next()

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
        keys: tuple[bytes, ...] = (),
    ) -> Run:
        sample = self.is_tail and position + rows >= self.order.prompt_length
        return Run(position, rows, tokens, header, payload, sample, keys)

    def _next(self) -> list[StageEffect]:
        """Run the next chunk, unless one runs already or the next stage has enough to do."""
        if self._running or len(self._in_flight) >= WINDOW:
            return []
        if self._uncut and not self._queue:
            self._cut()
        if not self._queue:
            return []
        self._running = self._queue.popleft()
        return [self._running]

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
        self._uncut = ()
        return [Release()]
