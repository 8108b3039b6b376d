"""What a session's owner does: find the model's files, choose a route, send the prompt, receive tokens.

A client sends and receives tokens only. It needs no torch and holds no weights.
"""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import trio
from tokenizers import Tokenizer

from p2pos import log
from p2pos.content import strict_json
from p2pos.errors import PeerError, UnavailableError, UserError
from p2pos.node.content_service import fetch
from p2pos.node.host import Host
from p2pos.node.ports import Outbox
from p2pos.node.routes import Routes
from p2pos.node.vetting import vet
from p2pos.shard.effects import Blame, Emit, Fail, Finish, Note, OwnerEffect, Reroute, Send
from p2pos.shard.generation import MAX_VOCABULARY, Defaults
from p2pos.shard.generation import read as read_defaults
from p2pos.shard.manifest import Manifest
from p2pos.shard.owner import OwnerSession
from p2pos.shard.request import LIFE_BYTES, Request, root
from p2pos.shard.text import guarded
from p2pos.types import Cid, ModelId, PeerId, SessionId
from p2pos.wire.framing import Frame
from p2pos.wire.messages import MAX_CONTEXT, Open, StageMessage, StageRef

_log = log.get("failover")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a client needs to know of a model."""

    model: ModelId
    config: dict[str, Any]
    generation_config: dict[str, Any]
    tokenizer: Tokenizer | None
    """None where the checkpoint has no tokenizer.json: only token ids can then be sent."""
    tokenizer_config: dict[str, Any] = field(default_factory=dict)
    """tokenizer_config.json over special_tokens_map.json: the special tokens' texts, and perhaps a chat template."""
    chat_template: str | None = None
    """chat_template.jinja, which counts before what tokenizer_config.json says."""

    @property
    def max_positions(self) -> int:
        """Tokens that the context holds, as far as the wire counts."""
        return min(int(self._text_config().get("max_position_embeddings") or MAX_CONTEXT), MAX_CONTEXT)

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return int(self._text_config().get("vocab_size", MAX_VOCABULARY))

    @property
    def defaults(self) -> Defaults:
        """What ends a text, and how to sample where nobody says."""
        return read_defaults(self.generation_config, self.config, self.vocabulary)

    @property
    def eos(self) -> tuple[int, ...]:
        """The ids that end a text."""
        return self.defaults.eos

    def _text_config(self) -> dict[str, Any]:
        text: dict[str, Any] = self.config.get("text_config", self.config)
        return text


Fetch = Callable[[list[Cid]], Awaitable[dict[Cid, bytes]]]
"""Gets blocks, each checked against its CID."""

_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


async def fetch_model_files(host: Host, peer: PeerId, model: ModelId) -> ModelFiles:
    """Get a model's config and tokenizer from a node that serves it, checked against the model's id."""
    return await read_model_files(lambda wanted: fetch(host, peer, wanted), model, peer=peer, foreign=True)


async def read_model_files(get: Fetch, model: ModelId, *, peer: PeerId, foreign: bool) -> ModelFiles:
    """Read a model's config and tokenizer, which is tried elsewhere first where it's `foreign`.

    Raises PeerError, at the fault of `peer`, where they can't be read.
    """
    manifest = Manifest.from_bytes((await get([Cid(model)]))[Cid(model)], peer=peer)
    names = [name for name in _FILES if name in manifest.files]
    blocks = await get([manifest.files[name] for name in names])
    files = {name: blocks[manifest.files[name]] for name in names}
    if foreign and "tokenizer.json" in files:
        await vet(files["tokenizer.json"], peer=peer)
    try:
        # building a tokenizer of a hundred thousand tokens takes a second
        return await trio.to_thread.run_sync(_read, model, files)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as exc:
        raise PeerError(peer, f"serves a model whose files can't be read: {exc}") from exc


def _read(model: ModelId, files: dict[str, bytes]) -> ModelFiles:
    special = strict_json.loads(files.get("special_tokens_map.json", b"{}"))
    template = files.get("chat_template.jinja")
    found = ModelFiles(
        model,
        strict_json.loads(files["config.json"]),
        strict_json.loads(files.get("generation_config.json", b"{}")),
        guarded(lambda: Tokenizer.from_buffer(files["tokenizer.json"])) if "tokenizer.json" in files else None,
        {**special, **strict_json.loads(files.get("tokenizer_config.json", b"{}"))},
        None if template is None else template.decode(),
    )
    # whatever these can't be made of is refused here
    if found.max_positions < 1 or not 1 <= found.vocabulary <= MAX_VOCABULARY:
        raise ValueError("config.json names an impossible context or vocabulary")
    _ = found.defaults
    return found


def prepare(files: ModelFiles, prompt: Sequence[int], max_tokens: int) -> int:
    """How many tokens may be asked for after this prompt.

    Raises UserError where the prompt is empty, has ids outside the vocabulary, or fills the context.
    """
    if not prompt:
        raise UserError("the prompt is empty", hint="give at least one token")
    if bad := [token for token in prompt if not 0 <= token < files.vocabulary]:
        raise UserError(f"token {bad[0]} is not in the vocabulary", hint=f"ids are 0 to {files.vocabulary - 1}")
    room = files.max_positions - len(prompt)
    if room < 1:
        raise UserError(
            f"the prompt has {len(prompt)} tokens; the model's context holds {files.max_positions}",
            hint="shorten it",
        )
    return min(max_tokens, room)


@dataclass(frozen=True, slots=True)
class _Wake:
    """A route is wanted."""


class Generation:
    """One text in the making. An async context manager, so that leaving it frees every stage's cache.

    Iterate over it for the tokens; while nobody does, a stage that is lost is not replaced. `finish_reason` is set when
    it ends by itself. Iterating raises the PeerError or UnavailableError that ended it where something failed.
    """

    def __init__(self, client: "Client", model: ModelId, session: OwnerSession, max_tokens: int) -> None:
        self._client = client
        self._model = model
        self._session = session
        # every token of the session fits, so that a slow reader never holds the network's reader up
        self._send, self._receive = trio.open_memory_channel[Emit | Finish | Fail | _Wake](max_tokens + 3)
        self._route_wanted = False
        self.finish_reason = ""

    @property
    def stages(self) -> tuple[StageRef, ...]:
        """The route as it is now, head first."""
        return self._session.stages

    @property
    def broken(self) -> bool:
        """Whether a stage is lost that nobody has replaced yet."""
        return bool(self._session.lost)

    async def __aenter__(self) -> Self:
        self._client._join(self._session, self)
        self._perform(self._session.start())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._perform(self._session.stop("cancelled"))
        self._client._leave(self._session)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        emitted = await self.emitted()
        if emitted is None:
            raise StopAsyncIteration
        return emitted.tokens[0]

    async def emitted(self) -> Emit | None:
        """The next token and, where they were asked for, its log-probabilities; None at the end."""
        if self.finish_reason:
            return None
        match await self._next_event():
            case Emit() as emitted:
                return emitted
            case Finish(reason):
                self.finish_reason = reason
                return None
            case Fail(error):
                raise error

    async def _next_event(self) -> Emit | Finish | Fail:
        while True:
            if self._route_wanted:
                await self._reroute()
            await trio.lowlevel.checkpoint()
            try:
                event = self._receive.receive_nowait()  # what is here is read, however late whoever reads it comes
            except trio.WouldBlock:
                with trio.move_on_at(self._session.deadline_s) as waiting:
                    event = await self._receive.receive()
                if waiting.cancelled_caught:
                    self._perform(self._session.on_time(trio.current_time()))
                    continue
            if not isinstance(event, _Wake):
                return event

    async def _reroute(self) -> None:
        """Find the route that the session asked for."""
        while self._route_wanted:  # anew, where others were lost while it was looked for
            self._route_wanted = False
            try:
                stages = await self._client.routes.replace(self._model, self._session.stages, self._session.lost)
            except UnavailableError as exc:
                if not self._route_wanted:
                    self._perform(self._session.on_no_route(exc, trio.current_time()))
            else:
                if not self._route_wanted:
                    self._perform(self._session.on_route(stages, trio.current_time()))

    def on_message(self, sender: PeerId, message: StageMessage) -> None:
        """Take a message of this session."""
        self._perform(self._session.on_message(sender, message, trio.current_time()))

    def on_lost(self, peer: PeerId) -> None:
        """The connection to a peer is gone."""
        self._perform(self._session.on_lost(peer, trio.current_time()))

    def _perform(self, effects: Sequence[OwnerEffect]) -> None:
        for effect in effects:
            match effect:
                case Send(peer, addresses, message, payload):
                    if isinstance(message, Open) and not self._session.awaits(peer):
                        continue  # a message to an earlier stage found it lost, and that changed the route
                    try:
                        self._client.outbox.post(peer, addresses, message, payload)
                    except UnavailableError:
                        self._perform(self._session.on_lost(peer, trio.current_time()))
                case Reroute():
                    if not self._route_wanted:
                        self._route_wanted = True
                        self._send.send_nowait(_Wake())
                case Blame(peer):
                    self._client.routes.failed(peer)
                case Note(event, fields):
                    _log.info(event, **fields)
                    self._client.on_note(event, fields)
                case Emit() | Finish() | Fail():
                    self._send.send_nowait(effect)


class Client:
    """The sessions that this peer owns.

    Args:
        me: this peer's id.
        outbox: takes messages to stages.
        routes: finds routes.

    `on_note` is told of everything that happens to a session's route.

    """

    def __init__(self, me: PeerId, outbox: Outbox, routes: Routes | None = None) -> None:
        self._me = me
        self.outbox = outbox
        self.routes = routes or Routes()
        self.on_note: Callable[[str, dict[str, Any]], None] = lambda _event, _fields: None
        self._open: dict[bytes, Generation] = {}

    def generate(self, model: ModelId, stages: Sequence[StageRef], request: Request) -> Generation:
        """A new session over these stages; it starts when it is entered."""
        if not stages:
            raise UnavailableError("there is no route to generate over")
        session = OwnerSession(
            SessionId(secrets.token_bytes(16 - LIFE_BYTES) + bytes(LIFE_BYTES)),
            me=self._me,
            model=model,
            stages=stages,
            request=request,
            now_s=trio.current_time(),
        )
        return Generation(self, model, session, request.max_tokens)

    def on_frame(self, sender: PeerId, frame: Frame) -> None:
        """Take a message of the stage protocol; one of a session that is over is passed over."""
        message = frame.message
        if not isinstance(message, StageMessage):
            raise PeerError(sender, f"sent {type(message).__name__} on the stage protocol")
        generation = self._open.get(root(message.session))
        if generation is not None:
            generation.on_message(sender, message)

    @property
    def sessions(self) -> int:
        """How many are open."""
        return len(self._open)

    def session(self, session: bytes) -> OwnerSession | None:
        """The open session of this id."""
        generation = self._open.get(root(session))
        return None if generation is None else generation._session

    def on_lost(self, peer: PeerId) -> None:
        """The connection to a peer is gone."""
        for generation in list(self._open.values()):
            generation.on_lost(peer)

    def _join(self, session: OwnerSession, generation: Generation) -> None:
        self._open[root(session.session)] = generation

    def _leave(self, session: OwnerSession) -> None:
        self._open.pop(root(session.session), None)
