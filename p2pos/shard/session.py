"""A session at one stage, which knows its neighbours; `owner` is the other half, who knows all tokens. Pure.

```
owner ── Open ──▶ every stage                 each answers Ack(cached) or Fault, once it has room
owner ── Tokens(start, prompt) ──▶ head ── Step ──▶ … ── Step ──▶ tail
tail  ── Tokens(position, [token]) ──▶ head and owner, until the tail says why it finished
owner ── Close ──▶ every stage
```

A stage may hold the keys and values of the prompt's beginning already. Its `Ack` says how many positions of them, the
owner begins where the stage that holds the fewest ends, and the first message that a stage gets says where that is.

Where a stage is lost, the others keep the session, and their caches, until the owner says who takes the lost one's
place (`owner`, `failover`):

```
owner ── Repair(route) ──▶ every stage that stays    each answers Progress; what follows a new one is held back
owner ── Open(given) ──▶ every new stage             each answers Ack
owner ── Replay ──▶ the stage before a new one       which sends it again all that it ever sent (`outgoing`)
```

A machine takes messages and the time and returns effects; a shell performs them. Every rule about who may say what, and
when, is here. A peer that breaks one gets a PeerError, which ends its session and no other.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from p2pos.errors import InternalError, PeerError
from p2pos.shard import blocks, orders
from p2pos.shard.effects import Adopt, Computed, Release, Run, Send, StageEffect
from p2pos.shard.incoming import Incoming, Piece
from p2pos.shard.outgoing import SMALL_ROWS, WINDOW, Outgoing, Rows
from p2pos.types import PeerId, SessionId
from p2pos.wire.messages import (
    BLOCK_TOKENS,
    Ack,
    Close,
    Fault,
    FaultCode,
    Logprobs,
    Open,
    Probe,
    Progress,
    Repair,
    Replay,
    StageMessage,
    Step,
    Tokens,
    rerouted,
)

CHUNK = 512
"""The most tokens of a prompt that pass through a stage at once: beyond this even a GPU's arithmetic is busy anyway."""
MAX_QUEUED = 2 * WINDOW
"""Chunks that may wait here; an upstream neighbour that sends more has broken the window."""
MAX_SESSIONS = 64
"""Sessions that one stage runs at a time. Each has at most one run waiting, so this bounds the queue as well."""
MAX_WAITING = MAX_SESSIONS * (SMALL_ROWS + WINDOW + 4)
"""Messages that may wait for one peer: each session's rows in flight, and an ack, a token, a fault and an end."""
JOINED_ROWS = 128
"""Rows that are sent again together, where it makes no difference to the numbers."""
FREE_REPLAYS, REPLAY_EVERY_S = 16, 5.0
"""How often a session may have what it sent sent again: a few words of its owner make us send megabytes."""
IDLE_S = 330.0
"""A stage frees a session that nobody has spoken of for this long: longer than any wait of its owner."""


class StageSession:
    """One session at one stage.

    Args:
        order: the owner's `Open`.
        me: this stage's peer id.
        sender: who sent the `Open`.
        now_s: the time, in seconds of any steady clock.
        chunk: at the head, how many tokens of a prompt are to go through at once now; at most `CHUNK`.
        exact: a row alone and the same row among others may differ in their last bit (half precision), so a text that
            is computed again goes through in the pieces in which it went through first.

    Raises:
        PeerError: the order contradicts itself, or isn't for this peer or from its owner.

    """

    def __init__(
        self,
        order: Open,
        *,
        me: PeerId,
        sender: PeerId,
        now_s: float,
        chunk: Callable[[], int] = lambda: CHUNK,
        exact: bool = False,
    ) -> None:
        orders.check(order, me=me, sender=sender)
        self.order = order
        self.session = SessionId(order.session)
        self.owner = PeerId(order.owner)
        self._me = me
        self._known = orders.known(order)
        self._place()
        self._in = Incoming(order.prompt_length, chunk=chunk, exact=exact)
        self._computed = 0  # positions that are in our cache
        self._out = Outgoing(windowed=self._known, forward_from=order.forward_from)
        self._running: Run | None = None
        self._exact = exact
        self._cached: int | None = None  # positions that were here when it was let in
        self._begun = False
        self._deaf = False  # the stage before sent nonsense, and what it sends more is passed over until the repair
        self.generated: list[int] = list(order.given)
        """At the tail: the text so far."""
        self._shared = True  # whether blocks may have keys
        self._replays = 0
        self._replayed = True  # in this epoch
        self._spoken_s = self._opened_s = now_s
        self.over = False

    def _place(self) -> None:
        """Find our neighbours in the route."""
        stages, index = self.order.stages, self.order.index
        self._head, self._tail = stages[0], stages[-1]
        self.is_head, self.is_tail = index == 0, index == len(stages) - 1
        self._upstream = None if self.is_head else PeerId(stages[index - 1].peer)
        self._downstream = None if self.is_tail else stages[index + 1]

    @property
    def neighbours(self) -> frozenset[PeerId]:
        """The peers without which this session can't go on here."""
        peers = {self._head.peer, self._tail.peer} if self.is_head or self.is_tail else set()
        peers |= {self._upstream} if self._upstream else set()
        peers |= {self._downstream.peer} if self._downstream else set()
        return frozenset(PeerId(peer) for peer in peers if peer != self._me)

    @property
    def decoding(self) -> bool:
        """Whether what is known of its text is through this stage."""
        return self._computed >= self._known

    @property
    def kept_bytes(self) -> int:
        """Of hidden states that are kept for a stage that may take the next one's place."""
        return self._out.nbytes

    def forget(self) -> None:
        """Keep none any more: a repair will begin from the tokens."""
        self._out.forget()

    def expired(self, now_s: float) -> bool:
        """Whether nobody has spoken of it for `IDLE_S`."""
        return now_s - self._spoken_s >= IDLE_S

    def start(self, cached: int = 0) -> list[StageEffect]:
        """The answer to the owner's `Open`, once there is room.

        Args:
            cached: positions of the prompt's beginning that this stage holds already, a whole number of blocks.

        """
        self._cached = cached
        return [Send(self.owner, (), Ack(self.session, cached, self.order.epoch))]

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
            case Close() | Repair() | Probe() | Replay() if sender == self.owner:
                return self._on_order(message, now_s)
            case Close():
                raise PeerError(sender, "closed a session that it does not own")
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
        effects: list[StageEffect] = []
        if not self.is_tail:
            if result.header is None:
                raise InternalError("a stage that is not the tail must pass hidden states on")
            keys = run.keys if self._shared else ()
            self._out.add(Rows(result.position, result.header, result.payload, keys))
            effects += self._send_on()
        elif result.token is not None:
            effects += self._sampled(result.token, result.logprobs)
        if run.position < self._known and self._upstream is not None:
            # last: the next stage waits for the rows, nobody yet for this
            effects.append(Send(self._upstream, (), Ack(self.session, self._computed)))
        return effects if self.over else effects + self._next()

    def fail(self, code: FaultCode, text: str) -> list[StageEffect]:
        """End the session here and tell the owner why."""
        if self.over:
            return []
        return [self._fault(code, text), *self._end()]

    def drop(self) -> list[StageEffect]:
        """End the session without a word: its owner is gone."""
        return self._end()

    def lost(self, peer: PeerId) -> list[StageEffect]:
        """A neighbour is gone: the owner hears of it, and the session waits for the repair."""
        if self.over:
            return []
        if self._downstream is not None and peer == self._downstream.peer:
            self._out.pause()
        return [self._fault("next_stage", f"lost the connection to {peer}", peer)]

    def disbelieve(self, peer: PeerId, text: str, *, run: bool = False) -> list[StageEffect]:
        """A neighbour sent what can't be: the owner hears of it, and nothing of that peer counts until the repair.

        Args:
            peer: who.
            text: what.
            run: it was the run under way that showed it, so that nothing will come of that.

        """
        if self.over:
            return []
        if run:
            self._running = None
        if self._deaf:
            return []
        self._deaf = True
        if not self.is_head:
            self._in.forget(self._computed + (self._running.rows if self._running else 0))
        return [self._fault("bad_peer", text, peer)]

    def leave(self) -> list[StageEffect]:
        """The node is to leave: the owner may hand the session over to another; until then it goes on."""
        return [] if self.over else [self._fault("leaving", "this node is leaving")]

    def _fault(self, code: FaultCode, text: str, peer: str = "") -> Send:
        return Send(self.owner, (), Fault(self.session, code, text[:1000], peer))

    def _on_order(self, message: Close | Repair | Probe | Replay, now_s: float) -> list[StageEffect]:
        match message:
            case Close():
                return self._end()
            case Probe(number=number):
                return [self._progress(number)]
            case Repair():
                return self._on_repair(message)
            case Replay(epoch=epoch, position=position) if epoch == self.order.epoch and not self._replayed:
                self._replayed = True
                self._replays += 1
                if self._replays > FREE_REPLAYS + (now_s - self._opened_s) / REPLAY_EVERY_S:
                    return self.fail("bad_request", f"was repaired {self._replays} times")
                if not self.is_tail and self._out.replay(
                    position, windowed=self._known, join_rows=1 if self._exact else JOINED_ROWS
                ):
                    return [*self._send_on(), *self._next()]
                return [self._fault("forgot", f"what it sent from position {position} on is not here any more")]
            case _:
                return []  # of an earlier repair

    def _on_repair(self, message: Repair) -> list[StageEffect]:
        if message.epoch <= self.order.epoch:
            return []
        orders.check_repair(self.order, message, me=self._me)
        before, upstream = self._downstream, [each.peer for each in self.order.stages[: self.order.index]]
        ahead = [each.peer for each in message.stages[: message.index]]
        self.order = rerouted(self.order, message.stages, message.index, message.epoch)
        self._place()
        if upstream != ahead:
            # what comes of rows that others sent is not filed in the name of those who are there now
            self._shared = False
            self._out.unname()
            if upstream and upstream[-1:] != ahead[-1:]:  # and what waits of its comes again
                self._in.forget(self._computed + (self._running.rows if self._running else 0))
        self._deaf = self._replayed = False
        self._known = max(self._known, min(message.resume, orders.room(self.order)))
        if message.hold or self._downstream is None or before is None or before.peer != self._downstream.peer:
            self._out.pause()
        tokens = self._in.generated(message.resume) if self.is_head else []
        return [self._progress(message.epoch, tokens)]

    def _progress(self, number: int, tokens: Sequence[int] = ()) -> Send:
        kept_from = 0 if self.is_tail else self._out.kept_from
        message = Progress(self.session, number, self._in.received, self._computed, kept_from, list(tokens))
        return Send(self.owner, (), message)

    def _on_tokens(self, sender: PeerId, message: Tokens) -> list[StageEffect]:
        if not self.is_head:
            if sender in {self.owner, self._tail.peer}:
                return []  # this is to be the head, and the owner's word of it is still under way
            raise PeerError(sender, "sent tokens to a stage that is not the head")
        if self._begun:
            return self._on_more_tokens(sender, message)
        if self.order.epoch and sender == self._tail.peer and len(message.tokens) == 1:
            prompt = message.position < self._known and message.position <= (self._cached or 0)
            if sender != self.owner or not prompt:
                return []  # the ring was faster than the owner, who will tell it as well
        if sender != self.owner:
            raise PeerError(sender, "sent a token before there was a prompt")
        if message.position + len(message.tokens) < self._known:
            rest = self._known - message.position
            raise PeerError(sender, f"sent {len(message.tokens)} tokens where {rest} are left of the prompt")
        effects = self._begin(sender, message.position)
        if self.order.prefix or self._known < BLOCK_TOKENS:  # else its owner wants nothing shared
            whole = message.position // BLOCK_TOKENS
            self._in.begin(message.position, self.order.prefix[whole - 1] if whole else blocks.root(self.order.model))
        return effects + self._accept_tokens(sender, message)

    def _on_more_tokens(self, sender: PeerId, message: Tokens) -> list[StageEffect]:
        """The token that came round the ring; after a repair the owner may send what got lost on the way."""
        repaired = self.order.epoch > 0
        if repaired and sender == self.owner:
            known = self._in.received - message.position
            if known < 0 or known >= len(message.tokens):
                return []
            rest = Tokens(self.session, self._in.received, list(message.tokens[known:]))
            return self._accept_tokens(sender, rest)
        if sender != self._tail.peer or len(message.tokens) != 1:
            raise PeerError(sender, "sent a token that is not its to send")
        if repaired and message.position != self._in.received:
            return []  # the owner has told it already, or will
        return self._accept_tokens(sender, message)

    def _begin(self, sender: PeerId, position: int) -> list[StageEffect]:
        """The first rows come, and with them where the session begins."""
        if self._cached is None:
            raise PeerError(sender, "sent rows to a session that has no room yet")
        if position % BLOCK_TOKENS or position > self._cached or position >= self._known:
            raise PeerError(sender, f"began at position {position} where {self._cached} are cached")
        self._begun = True
        self._computed = position
        self._in.begin(position)
        self._out.begin(position)
        return [Adopt(position)]

    def _accept_tokens(self, sender: PeerId, message: Tokens) -> list[StageEffect]:
        if message.position != self._in.received:
            raise PeerError(sender, f"sent tokens for position {message.position} where {self._in.received} is next")
        self._reserve(sender, len(message.tokens))
        self._in.add_tokens(tuple(message.tokens))
        return self._next()

    def _on_step(self, sender: PeerId, message: Step, payload: bytes | memoryview) -> list[StageEffect]:
        if sender != self._upstream:
            if self.order.epoch:
                return []  # it was that before the repair
            raise PeerError(sender, "sent hidden states and is not the stage before this one")
        if self._deaf:
            return []
        if self.order.epoch:  # its sender may have had it under way when the route was repaired
            if not self._begun and self._cached is not None and message.position > self._cached:
                return []
            if self._begun and message.position < self._in.received:
                if message.position + message.tensor.shape[0] <= self._in.received:
                    return []
                sent = Rows(message.position, message.tensor, payload, tuple(message.keys)).since(self._in.received)
                payload = sent.payload
                message = Step(message.session, self._in.received, sent.header, list(sent.keys))
        effects = [] if self._begun else self._begin(sender, message.position)
        if message.position != self._in.received:
            raise PeerError(sender, f"sent position {message.position} where {self._in.received} is next")
        rows = message.tensor.shape[0]
        if rows > CHUNK:
            raise PeerError(sender, f"sent {rows} positions at once where {CHUNK} are allowed")
        if self._in.pieces >= MAX_QUEUED and self._in.rows + rows > 2 * SMALL_ROWS:
            raise PeerError(sender, f"sent more than {MAX_QUEUED} chunks unacknowledged")
        filled = (message.position + rows) // BLOCK_TOKENS - message.position // BLOCK_TOKENS
        if message.keys and len(message.keys) != filled:
            raise PeerError(sender, f"sent {len(message.keys)} keys for {filled} blocks")
        self._reserve(sender, rows)
        self._in.add(Piece(message.position, rows, (), message.tensor, payload, tuple(message.keys)))
        return effects + self._next()

    def _reserve(self, sender: PeerId, rows: int) -> None:
        """Raise PeerError where so many more positions are over what the session asked room for."""
        if self._in.received + rows > orders.room(self.order):
            raise PeerError(sender, f"sent more than the session's {orders.room(self.order)} positions")

    def _on_ack(self, sender: PeerId, message: Ack) -> list[StageEffect]:
        if self._downstream is None or sender != self._downstream.peer:
            if self.order.epoch:
                return []  # it was that before the repair
            raise PeerError(sender, "acknowledged and is not the stage after this one")
        if not self._out.acknowledge(message.position):
            if self.order.epoch:
                return []  # it was sent that by the stage whose place this one took, or was sent it before
            raise PeerError(sender, f"acknowledged position {message.position}, which it was not sent")
        return [*self._send_on(), *self._next()]

    def _next(self) -> list[StageEffect]:
        """Run the next chunk, unless one runs already or the next stage has enough to do."""
        if self._running or (not self.is_tail and self._out.full):
            return []
        piece = self._in.take()
        if piece is None:
            return []
        keys = piece.keys if self._shared else ()
        sample = self.is_tail and piece.position + piece.rows >= self._known
        self._running = Run(piece.position, piece.rows, piece.tokens, piece.header, piece.payload, sample, keys)
        return [self._running]

    def _send_on(self) -> list[StageEffect]:
        """What is to go to the next stage now."""
        if self._downstream is None:
            return []
        peer, addresses = PeerId(self._downstream.peer), tuple(self._downstream.addresses)
        return [
            Send(peer, addresses, Step(self.session, rows.position, rows.header, list(rows.keys)), rows.payload)
            for rows in self._out.take()
        ]

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
        self._in.forget(self._computed)
        self._out.forget()
        return [Release()]
