"""Fetches a model's weights, or an item's files, from several peers at once: pumps a pure `Exchange` over streams.

Chunks of weights and blocks of files are alike to it (`goods`), and are called chunks here. Each is hashed as it
arrives, and put in its place on the disk before the next one of that peer is read. So no more than a chunk or two of
each peer is in memory, besides what is under way.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from p2pos import log
from p2pos.content.bucket import Bucket
from p2pos.content.exchange import MAX_PEERS, PATIENCE_S, REQUESTS, Accept, Ask, Drop, Effect, Exchange, Fail, Finish
from p2pos.errors import P2posError, PeerError, UnavailableError
from p2pos.node.goods import Goods
from p2pos.node.streams import FrameStream
from p2pos.types import PeerId
from p2pos.wire.messages import CONTENT_PROTOCOL

LOOK_S = 1.0
"""Seconds between two looks at who is there."""
ATTEMPTS = 6
"""With one peer, without a chunk between them, whatever it says that it has."""
SILENCE = 3
"""Attempts that one counts for in which it was silent."""
BACKOFF_S = 1.0
"""After the first that gave nothing; it doubles with each more, so the last is half a minute after the first."""
INLINE = 64 << 10
"""Bytes up to which hashing takes less time than handing it to a thread."""

Sources = Callable[[], Mapping[PeerId, Sequence[str]]]
"""Tells who may have something of it now, and at which addresses."""

_log = log.get("weights")


class Dialler(Protocol):
    """What a fetch needs of a host."""

    async def connect(self, peer: PeerId, addresses: Sequence[str], *, deadline_s: float = ...) -> None:
        """Have a connection. Raises UnavailableError, PeerError."""

    async def open(self, peer: PeerId, protocol: str, *, deadline_s: float = ..., max_frame: int = ...) -> FrameStream:
        """Open a stream. Raises UnavailableError, PeerError."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch brought."""

    nbytes: Mapping[PeerId, int]
    """By peer."""
    lacking: tuple[int, ...]
    """Chunks that nobody had."""


class _Source:
    """A peer that is asked."""

    def __init__(self) -> None:
        self.failures = 0
        """Since its last chunk."""
        self.again_s = 0.0
        """When it may be tried again."""
        self.scope: trio.CancelScope | None = None
        """Of the task that speaks with it."""
        self.asks: trio.MemorySendChannel[int] | None = None

    def failed(self, now_s: float, *, silent: bool = False) -> None:
        """It is lost, or has nothing to give, for now; or was silent, which took long to find out."""
        self.again_s = now_s + BACKOFF_S * 2**self.failures
        self.failures += SILENCE if silent else 1


class Fetcher:
    """One fetch.

    Args:
        host: a running host.
        goods: what the chunks are, and where they go.
        sources: tells who may have them.
        download: the cap on what is asked for.
        patience_s: seconds to wait for somebody who has what is lacking.
        on_bytes: told of the bytes of each chunk that is in its place, for progress.

    """

    def __init__(
        self,
        host: Dialler,
        goods: Goods,
        sources: Sources,
        *,
        download: Bucket | None = None,
        patience_s: float = PATIENCE_S,
        on_bytes: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._host = host
        self._goods = goods
        self._find = sources
        self._download = download
        self._patience_s = patience_s
        self._on_bytes = on_bytes
        self._sources: dict[str, _Source] = {}
        self._nbytes: Counter[PeerId] = Counter()

    async def run(self, wanted: Sequence[int]) -> Fetched:
        """Fetch these chunks, and say what came, and what nobody had.

        Raises UserError where the disk won't have them.
        """
        self._exchange = Exchange(
            wanted,
            total=self._goods.total,
            size=self._goods.size,
            leaf=self._goods.leaf,
            bucket=self._download,
            patience_s=self._patience_s,
            now_s=trio.current_time(),
        )
        self._over = trio.Event()
        self._changed = trio.Event()
        self._writing = 0
        self._failure: P2posError | None = None
        async with trio.open_nursery() as nursery:
            self._perform(self._exchange.begin(trio.current_time()))
            nursery.start_soon(self._look, nursery)
            nursery.start_soon(self._keep_time)
            await self._over.wait()
            nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        return Fetched(dict(self._nbytes), tuple(sorted(self._exchange.lacking)))

    async def _look(self, nursery: trio.Nursery) -> None:
        """Begin with whoever is there and isn't spoken with yet."""
        while True:
            here = list(self._find().items())
            random.shuffle(here)  # that many who join don't all begin with the same
            for peer, addresses in here:
                source = self._sources.setdefault(peer, _Source())
                spoken_with = sum(each.scope is not None for each in self._sources.values())
                may = source.scope is None and source.failures < ATTEMPTS and peer not in self._exchange.liars
                if may and source.again_s <= trio.current_time() and spoken_with < MAX_PEERS:
                    source.scope = trio.CancelScope()
                    nursery.start_soon(self._speak, nursery, peer, list(addresses), source)
            await trio.sleep(LOOK_S)

    async def _keep_time(self) -> None:
        while True:
            with trio.move_on_at(self._exchange.deadline_s(trio.current_time())):
                await self._changed.wait()
            self._changed = trio.Event()
            self._perform(self._exchange.on_time(trio.current_time()))

    async def _speak(self, nursery: trio.Nursery, peer: PeerId, addresses: list[str], source: _Source) -> None:
        """Speak with one peer until it is lost, dropped, or all is over."""
        effects: list[Effect] = []
        with source.scope or trio.CancelScope():
            try:
                await self._host.connect(peer, addresses)
                stream = await self._host.open(peer, CONTENT_PROTOCOL, max_frame=self._goods.max_answer)
                try:
                    have = await self._goods.have(stream)
                    # never full: no more than `REQUESTS` are under way
                    source.asks, asks = trio.open_memory_channel[int](REQUESTS)
                    nursery.start_soon(self._ask, stream, asks)
                    self._happened(self._exchange.joined(peer, have, trio.current_time()))
                    await self._take(stream, source)
                finally:
                    await stream.reset()
            except UnavailableError as exc:
                _log.debug("lost a peer", peer=peer, why=exc.message)
                source.failed(trio.current_time())
                effects = self._exchange.left(peer, trio.current_time())
            except PeerError as exc:
                effects = self._exchange.broke(peer, exc.message, trio.current_time())
        source.scope = None
        if source.asks is not None:
            source.asks.close()
            source.asks = None
        self._happened(effects)

    async def _ask(self, stream: FrameStream, asks: trio.MemoryReceiveChannel[int]) -> None:
        try:
            async for chunk in asks:
                await stream.send(self._goods.want(chunk))
        except UnavailableError:
            await stream.reset()  # whoever receives on it is told

    async def _take(self, stream: FrameStream, source: _Source) -> None:
        """Take what a peer answers. Raises UnavailableError where it is lost, PeerError for what is no answer."""
        while True:
            frame = await stream.receive()
            if frame is None:
                raise UnavailableError("it closed the stream", peer=stream.peer)
            answer = self._goods.answered(frame.message)
            if answer is None:
                raise PeerError(stream.peer, f"sent {type(frame.message).__name__} where a chunk was asked for")
            chunk, found = answer
            sha256 = await _sha256(frame.payload) if found else None
            effects = self._exchange.answered(stream.peer, chunk, sha256, trio.current_time())
            if any(isinstance(each, Accept) for each in effects):
                source.failures = 0
                await self._keep(stream.peer, chunk, frame.payload, effects)
            else:
                self._happened(effects)

    async def _keep(self, peer: PeerId, chunk: int, data: bytes | memoryview, effects: list[Effect]) -> None:
        """Put a chunk in its place; meanwhile the others go on."""
        self._writing += 1
        self._happened(effects)
        try:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._goods.keep, chunk, data)
        except P2posError as exc:
            self._failure = exc
            self._over.set()
        else:
            self._nbytes[peer] += len(data)
            self._on_bytes(len(data))
        self._writing -= 1
        if self._exchange.over and not self._writing:
            self._over.set()

    def _happened(self, effects: Iterable[Effect]) -> None:
        """Perform effects of something that came from outside; when to wake next may be another time now."""
        self._changed.set()
        self._perform(effects)

    def _perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Ask(peer, chunk):
                    asks = self._sources[peer].asks
                    if asks is not None:
                        asks.send_nowait(chunk)
                case Drop():
                    self._drop(effect)
                case Fail(lacking):
                    _log.info("nobody has the rest", chunks=lacking)
                case Accept() | Finish():
                    pass
        if self._exchange.over and not self._writing:
            self._over.set()

    def _drop(self, drop: Drop) -> None:
        if drop.fault:
            _log.warning("dropped a peer", peer=drop.peer, why=drop.why)
        else:
            _log.debug("let go of a peer", peer=drop.peer, why=drop.why)
        source = self._sources[drop.peer]
        source.failed(trio.current_time(), silent=drop.fault == "silent")
        if source.scope is not None:
            source.scope.cancel()


async def _sha256(data: bytes | memoryview) -> bytes:
    if len(data) <= INLINE:
        return hashlib.sha256(data).digest()
    return await trio.to_thread.run_sync(lambda: hashlib.sha256(data).digest())
